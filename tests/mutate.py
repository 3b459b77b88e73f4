"""Damage to files, the same for the same seed: what bad disks, broken downloads and bad minds make of them.

`sounds` and `small_weights` make the files to begin with, `mutated` and `mutated_weights` damage them, and
`outcome` and `weights_outcome` see to it that nothing worse than a StemsplitError comes of it.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile

from stemsplit import arrays, pipeline
from stemsplit.audio import ffmpeg
from stemsplit.audio.reader import Block, Reader, Signal
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.errors import StemsplitError
from stemsplit.networks import factory
from stemsplit.separation.separator import Spec
from stemsplit.zoo import loading, page, store
from stemsplit.zoo.card import ModelCard

RATE = 44_100
FRAMES = 13_001
SHORTEST_MP3 = 47
"""Samples: a first frame of 1,152 without the encoder's delay; what is shorter, silence fills up."""

# What the structures of the formats begin with.
LANDMARKS = re.compile(
    rb"RIFF|RF64|WAVE|ds64|fmt |fact|PEAK|data|LIST|INFO|fLaC|OggS|\x01vorbis|\x03vorbis|\x05vorbis|ID3|APIC"
    rb"|Xing|Info|LAME|\xff[\xfa\xfb]|\xff[\xf8\xf9]|ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|hdlr|stbl|stsd"
    rb"|mp4a|esds|stts|stsc|stsz|stco|udta|meta|ilst|free|mdat|covr|\xff\xd8|\x89PNG"
)
EXTREMES = (0, 1, 2, 3, 7, 255, 256, 999, 65_535, 1_000_000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
FIELDS = ("<H", ">H", "<I", ">I", "<Q", ">Q", "B")


class Hang(BaseException):
    """It took too long; no `except Exception` swallows this, and no `except OSError`."""


class LeftOver(AssertionError):
    """Files are there that should not be."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Hang in whatever takes longer."""

    def stop(*_: object) -> None:
        raise Hang(f"still running after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Sounds


def noise(channels: int = 2, frames: int = FRAMES) -> Block:
    return np.random.default_rng(440).uniform(-0.5, 0.5, (channels, frames)).astype(np.float32)


def sounds(folder: Path) -> dict[str, bytes]:
    """Return a small valid file of each kind: name to content."""
    for name, depth in (("16.wav", "16"), ("24.wav", "24"), ("float.wav", "32f"), ("a.flac", "24")):
        write(folder / name, depth=depth)
    for name in ("a.mp3", "a.ogg", "a.m4a"):
        write(folder / name)
    write(folder / "mono.wav", noise(1))
    soundfile.write(folder / "rf64.wav", noise().T, RATE, format="RF64", subtype="PCM_16")
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", folder / "cover.jpg")
    attach: list[str | Path] = ["-i", folder / "cover.jpg", "-map", "0", "-map", "1", "-c:v", "copy"]
    tags = ["-metadata", "title=A song", "-metadata", "artist=Ünï", "-metadata", "track=3/9"]
    for name in ("tagged.mp3", "tagged.flac", "tagged.m4a", "tagged.wav"):
        cover = [] if name.endswith(".wav") else [*attach, "-disposition:v", "attached_pic"]
        run_ffmpeg("-i", folder / "16.wav", *cover, *tags, folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".jpg"}


def write(path: Path, samples: Block | None = None, **options: Any) -> Path:
    samples = noise() if samples is None else samples
    with Writer(path, Signal(RATE, len(samples)), Encoding(**options)) as writer:
        writer.write(samples)
    return path


def run_ffmpeg(*arguments: str | Path) -> None:
    program = ffmpeg.executable()
    assert program
    command = [program, "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


# Damage


def mutated(data: bytes, others: Mapping[str, bytes], random: Random) -> bytes:
    """Return damaged content; `others` are what parts of it may come from."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        if data:
            data = random.choice(DAMAGES)(data, others[random.choice(sorted(others))], random)
    return _with_checksums(data) if random.random() < 0.7 else data


def _places(data: bytes) -> list[int]:
    """Where structures begin, near the start and near the end: in between sound looks like them by chance."""
    tail = max(4_000, len(data) - 8_000)
    found = [match.start() for match in LANDMARKS.finditer(data[:4_000])]
    return found + [tail + match.start() for match in LANDMARKS.finditer(data[tail:])]


def _place(data: bytes, random: Random) -> int:
    """A place in the file: mostly where its structure is."""
    places = _places(data)
    if places and random.random() < 0.8:
        return min(len(data) - 1, random.choice(places) + random.randrange(-8, 44)) % len(data)
    return random.randrange(len(data))


def _piece(data: bytes, random: Random) -> tuple[int, int]:
    """The start and the end of a piece, often that between two landmarks."""
    places = _places(data)
    if len(places) > 1 and random.random() < 0.6:
        first = random.randrange(len(places) - 1)
        return places[first], places[first + 1]
    start = _place(data, random)
    return start, start + int(2 ** random.uniform(0, 14))


def truncate(data: bytes, _: bytes, random: Random) -> bytes:
    return data[: random.choice((random.randrange(len(data)), _place(data, random)))]


def behead(data: bytes, _: bytes, random: Random) -> bytes:
    return data[_place(data, random) :]


def flip_bits(data: bytes, _: bytes, random: Random) -> bytes:
    damaged = bytearray(data)
    near = _place(data, random)
    for _time in range(int(2 ** random.uniform(0, 10))):
        place = random.choice((random.randrange(len(data)), (near + random.randrange(100)) % len(data)))
        damaged[place] ^= 1 << random.randrange(8)
    return bytes(damaged)


def overwrite_field(data: bytes, _: bytes, random: Random) -> bytes:
    field = random.choice(FIELDS)
    size = struct.calcsize(field)
    value = random.choice(EXTREMES) if random.random() < 0.8 else (1 << 64) - 1 - random.choice(EXTREMES)
    start = _place(data, random)
    return data[:start] + struct.pack(field, value & ((1 << 8 * size) - 1)) + data[start + size :]


def overwrite_with_another_part(data: bytes, other: bytes, random: Random) -> bytes:
    start, end = _piece(data, random)
    part = other[slice(*_piece(other, random))]
    return data[:start] + part + data[end:]


def insert(data: bytes, other: bytes, random: Random) -> bytes:
    start = _place(data, random)
    return data[:start] + other[slice(*_piece(other, random))] + data[start:]


def insert_chunk(data: bytes, _: bytes, random: Random) -> bytes:
    start = random.choice(_places(data)[:40] or [0])
    kind = random.choice((b"LIST", b"data", b"fmt ", b"id3 ", b"cue ", b"smpl", b"moov", b"free", b"junk"))
    size = struct.pack(random.choice("<>") + "I", random.choice(EXTREMES))
    return data[:start] + kind + size + random.randbytes(random.randrange(64)) + data[start:]


def delete(data: bytes, _: bytes, random: Random) -> bytes:
    start, end = _piece(data, random)
    return data[:start] + data[end:]


def duplicate(data: bytes, _: bytes, random: Random) -> bytes:
    start, end = _piece(data, random)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 50)) + data[end:]


def swap(data: bytes, _: bytes, random: Random) -> bytes:
    a, b, c = sorted(_place(data, random) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def zero(data: bytes, _: bytes, random: Random) -> bytes:
    start, end = _piece(data, random)
    end = min(end, len(data))
    return data[:start] + random.choice((b"\0", b"\xff")) * (end - start) + data[end:]


def append_garbage(data: bytes, _: bytes, random: Random) -> bytes:
    return data + random.choice((random.randbytes(5000), bytes(100_000), b"TAG" + bytes(125)))


def concatenate(data: bytes, other: bytes, _: Random) -> bytes:
    return data + other


DAMAGES: tuple[Callable[[bytes, bytes, Random], bytes], ...] = (
    *(truncate, behead, flip_bits, overwrite_field, overwrite_field, overwrite_field),
    *(overwrite_with_another_part, insert, insert_chunk, delete, duplicate, swap, zero),
    *(append_garbage, concatenate),
)


def _with_checksums(data: bytes) -> bytes:
    """Make the checksums of Ogg pages right, without which their damage would go no further."""
    damaged = bytearray(data)
    for match in re.finditer(rb"OggS\0", data):
        start = match.start()
        lacing = damaged[start + 27 :][: damaged[start + 26]] if start + 26 < len(data) else b""
        end = start + 27 + len(lacing) + sum(lacing)
        if lacing and end <= len(data):
            damaged[start + 22 : start + 26] = bytes(4)
            damaged[start + 22 : start + 26] = struct.pack("<I", _ogg_checksum(bytes(damaged[start:end])))
    return bytes(damaged)


def _crc_entry(index: int) -> int:
    value = index << 24
    for _ in range(8):
        value = (value << 1) ^ (0x04C1_1DB7 if value & 0x8000_0000 else 0)
    return value & 0xFFFF_FFFF


_CRC = [_crc_entry(index) for index in range(256)]


def _ogg_checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value = ((value << 8) & 0xFFFF_FFFF) ^ _CRC[(value >> 24) ^ byte]
    return value


# What comes of splitting


class Halves:
    """A separator without a network: each of two stems is half of the mixture."""

    spec = Spec(("one", "two"), RATE, context=512, stride=512)

    def separate(self, window: Block) -> Block:
        return np.stack([window[:, 512:-512] / 2] * 2)


def _check_message(error: StemsplitError) -> None:
    assert len(error.message) < 2_000
    assert error.message[-1] not in " :"


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


def split(path: Path, out: Path, **options: Any) -> pipeline.SplitResult:
    return pipeline.split_file(path, out, separator=Halves(), **options)


def outcome(path: Path, out: Path, *, seconds: float = 60, **options: Any) -> str:
    """Split a file and return `error`, `warning` or `clean`.

    Raises:
        AssertionError: what came of it is not what was promised.
        Hang: it took too long.
    """
    with within(seconds):
        try:
            result = split(path, out, **options)
        except StemsplitError as error:
            _check_message(error)
            if files(out):
                raise LeftOver(f"{files(out)} after {error!r}") from error
            return "error"
        frames = sum(block.shape[1] for block in Reader(path))
        assert result.frames == frames > 0
        if files(out) != set(result.outputs.values()):
            raise LeftOver(f"{files(out)}")
        for stem in result.outputs.values():
            reader = Reader(stem)
            assert (reader.sample_rate, reader.channels) == (result.sample_rate, result.channels)
            found = sum(block.shape[1] for block in reader)  # and sees to it that they are finite
            least = SHORTEST_MP3 if stem.suffix == ".mp3" else 0
            assert found == max(frames, least), f"{stem.name} has {found} of {frames} samples"
            assert not reader.warnings, reader.warnings
    return "warning" if result.warnings else "clean"


# Weights


DEEP, LONG_INTEGER = '"@deep@"', '"@long@"'
NASTY: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 0.5, -0.0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**300, 10**400),
    *(float("nan"), float("inf"), float("-inf"), 1e-300, 1e300, "", "x", "../x", "\0", "\ud800", "é" * 300),
    *("NaN", "1", [], {}, [[]], [None], [0, 0], [-1, 5], [5, 1], [0, 2**63], ["a", "a"], [1.5], {"": {}}),
    *("@deep@", "@long@"),
)
FLOATS = (b"\0\0", b"\0\x7c", b"\xff\x7f", b"\xff\x7b", b"\1\0")
"""Zero, infinity, no number, the largest and the smallest number, in float16."""
DTYPES = (
    *("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "I16", "U16", "F16"),
    *("BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64", "X", "f16"),
)


def small_weights(path: Path) -> bytes:
    """Return weights of two stems that no one trained."""
    import torch

    from stemsplit.networks.binary_mask_cnn import PARAMETERS, BinaryMaskCNN

    torch.manual_seed(440)
    card = ModelCard(
        name="made-up",
        title="Random weights",
        network="binary-mask-cnn",
        stems=("vocals", "other"),
        sample_rate=RATE,
        n_fft=2048,
        hop_length=512,
        parameters=2 * PARAMETERS,
        mask="soft",
        mask_power=1.0,
        threshold=0.5,
        data="none",
        licence="MIT",
        commit="none",
        seed=0,
        combination=((1.0, 0.0, 0.1), (0.0, 1.0, 0.1)),
        recipe={"loss": "none", "epochs": 3},
        scores={"test": {"songs": 2, "soft": {"vocals": {"sdr_db": 1.5}, "other": {"sdr_db": 2.5}}}},
    )
    store.save(path, card, {stem: BinaryMaskCNN().state_dict() for stem in card.stems})
    return path.read_bytes()


def packed(header: bytes, tensors: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + tensors


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def mutated_weights(data: bytes, random: Random) -> bytes:
    """Return weights with a damaged card, header or tensors."""
    header, tensors = unpacked(data)
    kind = random.choice(("bytes", "card", "card", "header", "tensors", "text", "numbers"))
    if kind == "bytes":
        return mutated(data, {"": data[: 1 << 14]}, random)
    if kind == "card":
        card = json.loads(header["__metadata__"]["stemsplit"])
        for _ in range(random.choice((1, 1, 2, 5))):
            card = _spoiled(card, random)
        header["__metadata__"]["stemsplit"] = _text(card)
    elif kind == "header":
        header = _spoiled(header, random)
    elif kind == "tensors":
        header = _with_other_tensors(header, random)
    elif kind == "numbers":
        damaged = bytearray(tensors)
        for _ in range(random.choice((1, 10, 1000))):
            start = 2 * random.randrange(len(tensors) // 2)
            damaged[start : start + 2] = random.choice(
                (b"\0\0", b"\0\x7c", b"\xff\x7f", b"\xff\x7b", b"\1\0")
            )
        tensors = bytes(damaged)
    text = _text(header).encode("utf-8", "surrogatepass")
    if kind == "text":
        text = _with_other_text(text, random)
    return packed(text, tensors)


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text.replace(DEEP, "[" * 100_000 + "]" * 100_000).replace(LONG_INTEGER, "9" * 5_000)


def _with_other_tensors(header: dict[str, Any], random: Random) -> dict[str, Any]:
    names = [name for name in header if name != "__metadata__"]
    one, other = random.choice(names), random.choice(names)
    entry = header[one]
    change = random.choice(("dtype", "offsets", "overlap", "shape", "empty", "rename"))
    if change == "dtype":
        entry["dtype"] = random.choice(DTYPES)
    elif change == "offsets":
        entry["data_offsets"] = [random.choice((*EXTREMES, -1, 2**63, 2**64 - 1)) for _ in range(2)]
    elif change == "overlap":
        entry.update({key: header[other][key] for key in ("data_offsets", "shape")})
    elif change == "shape":
        entry["shape"] = random.choice((entry["shape"][::-1], [*entry["shape"], 1], [2**32, 2**32], [-1], []))
    elif change == "empty":
        start = entry["data_offsets"][0]
        entry.update(shape=random.choice(([0], [0, 2**63], [2**40, 0])), data_offsets=[start, start])
    else:
        header[random.choice(("", ".", "vocals", "vocals.", "vocals.x.y", "é.\0"))] = header.pop(one)
    return header


def _with_other_text(text: bytes, random: Random) -> bytes:
    change = random.choice(("duplicate", "nest", "metadata", "bytes", "encoding", "endless", "blank"))
    if change == "duplicate":
        return b'{"__metadata__":{"stemsplit":"{}"},' + text[1:]
    if change == "nest":
        return b'{"a":' * 30_000 + text + b"}" * 30_000
    if change == "metadata":
        return text.replace(b'"stemsplit": "', b'"stemsplit": "' + b"[" * 50_000, 1)
    if change == "encoding":
        return text.decode().encode(random.choice(("utf-16", "utf-32", "utf-8-sig")))
    if change == "endless":
        return b"[" * (1 << 19)
    if change == "blank":
        return text + b" " * (1 << 20)
    damaged = bytearray(text)
    for _ in range(random.choice((1, 3, 30))):
        damaged[random.randrange(len(text))] = random.randrange(256)
    return bytes(damaged)


def _spoiled(tree: Any, random: Random) -> Any:
    """Return a JSON value with a nasty value in some place of it, or without what was there."""
    if not (isinstance(tree, (dict, list)) and tree) or random.random() < 0.02:
        return random.choice(NASTY)
    key = random.choice(list(tree)) if isinstance(tree, dict) else random.randrange(len(tree))
    action = random.random()
    if action < 0.1:
        del tree[key]
    elif action < 0.2 and isinstance(tree, dict):
        tree[random.choice(("", "new", "__class__", "stems", "\ud800"))] = tree[key]
    elif action < 0.5:
        tree[key] = random.choice(NASTY)
    else:
        tree[key] = _spoiled(tree[key], random)
    return tree


def weights_outcome(path: Path, *, seconds: float = 60) -> str:
    """Load weights, and separate with them if that works; return `error` or `clean`.

    Raises:
        AssertionError: what came of it is not what was promised.
        Hang: it took too long.
    """
    with within(seconds):
        try:
            card = store.read_card(path)
            assert page.page(card)
            factory.build(card.network, store.load(path, card.stems))
            separator = loading.load_separator(path, runtime="torch", device="cpu", threads=1)
        except StemsplitError as error:
            _check_message(error)
            return "error"
        stems = arrays.split(noise(), RATE, separator=separator)
        assert list(stems) == list(card.stems)
        assert all(stem.shape == (2, FRAMES) and np.isfinite(stem).all() for stem in stems.values())
    return "clean"
