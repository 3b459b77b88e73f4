"""`stemsplit train`: train a network on songs with known stems."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stemsplit.cli import console, models, training_options

EXAMPLES = {
    "stemsplit train --data songs --run runs/mine --minutes 60": (
        "Train on songs/train/SONG/STEM.wav for an hour"
    ),
    "stemsplit train --data songs --run runs/tuned --init band-transformer --network band-transformer": (
        "Fine-tune the default model"
    ),
    "stemsplit song.mp3 --model runs/mine/trained.safetensors": "Use the trained model",
}

DEFAULTS = {"examples": 8, "frames": 32, "loss": "weighted-bce", "learning_rate": 1.5e-3}
"""For settings that the network's preset does not have."""


def networks(incomplete: str) -> list[str]:
    """Return the networks whose names start with `incomplete`, for shell completion."""
    from stemsplit.networks import registry

    return [name for name in registry.REGISTRY if name.startswith(incomplete)]


_what = partial(typer.Option, rich_help_panel="Training data")
_how = partial(typer.Option, rich_help_panel="Loss and optimiser")
_model = partial(_how, metavar="NAME|FILE", autocompletion=models.complete)
_where = partial(typer.Option, rich_help_panel="Device and speed")
_result = partial(typer.Option, rich_help_panel="Output")


def command(
    *,
    data: Annotated[
        list[str] | None,
        _what(
            metavar="DIR",
            help="Folder with train/SONG/STEM.wav and valid/SONG/STEM.wav, or musdb18:DIR for MUSDB18. "
            "Repeatable.",
        ),
    ] = None,
    share: Annotated[
        list[float] | None,
        _what(
            metavar="SHARE",
            help="Share of the examples to draw from each --data, in the same order, e.g. 0.6 and 0.4. "
            "Default: songs are drawn by the square root of their lengths. Repeatable.",
        ),
    ] = None,
    stems: Annotated[
        str, _what(metavar="NAMES", help="Stems that the model separates, in this order.")
    ] = "vocals,drums,bass,other",
    network: Annotated[
        str,
        _what(
            autocompletion=networks,
            metavar="NAME",
            help="Network to train: see `stemsplit models --networks`.",
        ),
    ] = "binary-mask-cnn",
    examples: Annotated[
        int | None,
        _what(
            min=1,
            metavar="N",
            help="Batch size: excerpts per training step. Default: depends on the network.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        _what(
            min=1,
            metavar="N",
            help="Length of an excerpt in STFT frames, or in samples for waveform networks. Default: "
            "depends on the network.",
        ),
    ] = None,
    validation: Annotated[int, _what(min=1, metavar="N", help="Number of excerpts for validation.")] = 48,
    seed: Annotated[int, _what(metavar="N", help="Random seed: the same seed gives the same examples.")] = 0,
    across: training_options.Across = 0.6,
    gain: training_options.Gain = 6.0,
    swap: training_options.Swap = 0.5,
    width: training_options.Width = 0.5,
    polarity: training_options.Polarity = 0.0,
    drop: training_options.Drop = 0.0,
    equalise: training_options.Equalise = 0.0,
    pitch: training_options.Pitch = 0.0,
    stretch: training_options.Stretch = 0.0,
    voiced: training_options.Voiced = 0.0,
    noise: training_options.Noise = None,
    loss: Annotated[
        Literal[
            "mse",
            "bce",
            "weighted-bce",
            "ratio",
            "phase-sensitive",
            "magnitude-l1",
            "si-snr",
            "l1",
            "l2",
            "snr",
            "snr-l1",
            "l1-dissimilar",
        ]
        | None,
        _how(help="Training loss. Default: depends on the network."),
    ] = None,
    weighting: Annotated[
        float,
        _how(
            min=0,
            metavar="POWER",
            help="Exponent of the magnitude, as the weight of a bin in weighted losses.",
        ),
    ] = 1.0,
    threshold: Annotated[
        float, _how(min=0, max=1, metavar="T", help="T of the binary target mask B = (S > T * M).")
    ] = 0.5,
    learning_rate: Annotated[
        float | None,
        _how(min=0, metavar="RATE", help="Peak learning rate of AdamW. Default: depends on the network."),
    ] = None,
    dropout: Annotated[
        float, _how(min=0, max=0.9, metavar="SHARE", help="Dropout after each pooling layer.")
    ] = 0.0,
    dropout_dense: Annotated[
        float, _how(min=0, max=0.9, metavar="SHARE", help="Dropout before the last layer.")
    ] = 0.0,
    init: Annotated[
        str, _model(help="Fine-tune: start from this model's weights instead of random ones.")
    ] = "",
    teacher: Annotated[
        str, _model(help="Train on this model's masks instead of the stems'. Its STFT must be the same.")
    ] = "",
    steps: training_options.Steps = 4000,
    minutes: training_options.Minutes = 0,
    warmup: training_options.Warmup = 100,
    schedule: training_options.Schedule = "linear",
    validate_every: training_options.ValidateEvery = 250,
    patience: training_options.Patience = 0,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        _where("--device", "-d", help="Device to train on. auto: a GPU if there is one, otherwise the CPU."),
    ] = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        _where(help="Compute precision; bfloat16 is fast on recent CPUs and GPUs."),
    ] = "float32",
    compiled: Annotated[
        bool,
        _where(
            "--compile",
            metavar="",
            help="Use torch.compile: adds minutes at the start, pays off in runs of an hour or more.",
        ),
    ] = False,
    devices: Annotated[int, _where(min=1, metavar="N", help="Number of devices on this machine.")] = 1,
    nodes: Annotated[
        int,
        _where(
            min=1, metavar="N", help="Number of machines; start the command on each with torchrun or SLURM."
        ),
    ] = 1,
    workers: Annotated[int, _where(min=1, metavar="N", help="Number of threads that make examples.")] = 1,
    run: Annotated[
        Path,
        _result(
            metavar="DIR",
            help="Folder for checkpoint, log, learning curves and weights. Run the same command again to "
            "resume.",
        ),
    ],
    name: Annotated[str, _result(metavar="NAME", help="Name of the model, and of its file.")] = "trained",
    licence: Annotated[str, _result(metavar="TEXT", help="Licence of the weights, for the card.")] = "",
    source: Annotated[
        str, _result(metavar="TEXT", help="Description of the training data, for the card.")
    ] = "",
    join: Annotated[
        list[str] | None,
        _result(
            metavar="NAME|FILE",
            help="Do not train: join models of different stems into one; with --data, calibrate their "
            "masks. Repeatable.",
        ),
    ] = None,
    quiet: Annotated[
        bool, _result("--quiet", "-q", metavar="", help="Print only the path and errors.")
    ] = False,
) -> None:
    """Train a model on your own songs.

    You can interrupt it at any time: the same command resumes from the last checkpoint, which is at most a
    minute old. With more --steps or --minutes, a finished run continues.

    The result is `RUN/NAME.safetensors`, with the weights of the best validation. Use it with --model, and
    score it with `stemsplit evaluate`.
    """
    if not data and not join:
        raise typer.BadParameter("give --data, or --join, or both")
    if share and (len(share) != len(data or ()) or min(share) <= 0):
        raise typer.BadParameter("give one share above 0 for each --data", param_hint="--share")
    if join:
        from stemsplit.training import merge

        typer.echo(merge.join(join, run, name, data=data or (), device=device))
        return
    from stemsplit.training import progress
    from stemsplit.training.augment import Augmentation
    from stemsplit.training.config import TrainConfig
    from stemsplit.training.presets import preset
    from stemsplit.training.run import Settings, train

    names = tuple(stem.strip() for stem in stems.split(","))
    if len(set(names)) < len(names) or not all(names):
        raise typer.BadParameter("name each stem once", param_hint="--stems")
    suits = preset(network)
    chosen: dict[str, Any] = {
        "examples": examples,
        "frames": frames,
        "loss": loss,
        "learning_rate": learning_rate,
    }
    chosen = {key: suits.get(key, DEFAULTS[key]) if given is None else given for key, given in chosen.items()}
    settings = Settings(
        data=tuple(data or ()),
        run=run,
        name=name,
        stems=names,
        shares=tuple(share or ()),
        examples=chosen["examples"],
        frames=chosen["frames"],
        validation=validation,
        augmentation=Augmentation(
            across=across,
            gain_db=gain,
            swap=swap,
            width=width,
            polarity=polarity,
            drop=drop,
            equalise_db=equalise,
            pitch=pitch,
            stretch=stretch,
            voiced=voiced,
            noise_db=noise,
        ),
        device=device,
        devices=devices,
        nodes=nodes,
        workers=workers,
        licence=licence,
        source=source,
    )
    recipe = TrainConfig(
        network=network,
        steps=steps,
        minutes=minutes,
        learning_rate=chosen["learning_rate"],
        warmup=warmup,
        schedule=schedule,
        loss=chosen["loss"],
        threshold=threshold,
        weighting=weighting,
        dropout=dropout,
        dropout_dense=dropout_dense,
        validate_steps=validate_every,
        patience=patience,
        init=init,
        teacher=teacher,
        precision=precision,
        compiled=compiled,
        seed=seed,
    )

    def say(text: str) -> None:
        if not quiet:
            console.say(text)

    display: progress.LiveTable | progress.Lines = progress.Lines(say)
    with contextlib.ExitStack() as stack:
        if not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            display = stack.enter_context(progress.LiveTable())
        path = train(settings, recipe, say=say, display=display)
    if path is not None:  # None in all processes except the first
        typer.echo(path)
