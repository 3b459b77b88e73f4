"""`stemsplit train`: weights from songs whose stems are known."""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stemsplit.cli import console, models

EXAMPLE = "stemsplit train --data stems-of-songs --run runs/mine"

DEFAULTS = {"examples": 8, "frames": 32, "loss": "weighted-bce", "learning_rate": 1.5e-3}
"""For networks without a preset."""


def networks(incomplete: str) -> list[str]:
    """Give the networks whose names begin like this, to the shell."""
    from stemsplit.networks import registry

    return [name for name in registry.REGISTRY if name.startswith(incomplete)]


_what = partial(typer.Option, rich_help_panel="Training data")
_varied = partial(typer.Option, rich_help_panel="How examples are varied")
_how = partial(typer.Option, rich_help_panel="How to train")
_stop = partial(typer.Option, rich_help_panel="When to slow down and stop")
_where = partial(typer.Option, rich_help_panel="Where to train")
_result = partial(typer.Option, rich_help_panel="What to write")


def command(
    *,
    data: Annotated[
        list[str] | None,
        _what(
            metavar="DIR",
            help="Holds train/SONG/STEM.wav and valid/SONG/...; `musdb18:DIR` for that layout. Repeatable.",
        ),
    ] = None,
    stems: Annotated[
        str, _what(metavar="NAMES", help="What to give, in this order.")
    ] = "vocals,drums,bass,other",
    network: Annotated[
        str,
        _what(
            autocompletion=networks,
            metavar="NAME",
            help="The network, see `stemsplit models --networks`.",
        ),
    ] = "binary-mask-cnn",
    examples: Annotated[
        int | None, _what(min=1, metavar="N", help="Excerpts of songs in a batch. [as suits the network]")
    ] = None,
    frames: Annotated[
        int | None,
        _what(min=1, metavar="N", help="Frames, or samples, of an excerpt. [as suits the network]"),
    ] = None,
    validation: Annotated[int, _what(min=1, metavar="N", help="Excerpts in a validation.")] = 48,
    seed: Annotated[int, _what(metavar="N", help="The same seed draws the same examples.")] = 0,
    across: Annotated[
        float, _varied(min=0, max=1, metavar="SHARE", help="Examples whose stems are of different songs.")
    ] = 0.6,
    gain: Annotated[
        float, _varied(min=0, metavar="DB", help="Deviation of the stems' gains in such examples.")
    ] = 6.0,
    swap: Annotated[
        float, _varied(min=0, max=1, metavar="SHARE", help="Songs with left and right swapped.")
    ] = 0.5,
    width: Annotated[
        float,
        _varied(min=0, max=1, metavar="SHARE", help="Songs made mono, narrower, wider or one-sided."),
    ] = 0.5,
    polarity: Annotated[
        float, _varied(min=0, max=1, metavar="SHARE", help="Share of stems with inverted polarity.")
    ] = 0.0,
    drop: Annotated[float, _varied(min=0, max=1, metavar="SHARE", help="Stems left out.")] = 0.0,
    equalise: Annotated[
        float, _varied(min=0, metavar="DB", help="Deviation of a random curve over frequency.")
    ] = 0.0,
    pitch: Annotated[
        float, _varied(min=0, max=12, metavar="SEMITONES", help="Greatest change of pitch.")
    ] = 0.0,
    stretch: Annotated[
        float, _varied(min=0, max=1, metavar="SHARE", help="Greatest change of tempo: 0.1 is a tenth.")
    ] = 0.0,
    voiced: Annotated[
        float, _varied(min=0, max=1, metavar="SHARE", help="Examples in which the first stem must sound.")
    ] = 0.0,
    noise: Annotated[
        float | None, _varied(metavar="DB", help="Greatest level of white noise, over the mixture's.")
    ] = None,
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
        _how(help="What is made small. [as suits the network]"),
    ] = None,
    weighting: Annotated[
        float, _how(min=0, metavar="POWER", help="Weights of bins in the weighted losses: magnitude to this.")
    ] = 1.0,
    threshold: Annotated[float, _how(min=0, max=1, metavar="T", help="T of the mask B = (S > T * M).")] = 0.5,
    learning_rate: Annotated[
        float | None,
        _how(min=0, metavar="RATE", help="Of AdamW, at its highest. [as suits the network]"),
    ] = None,
    dropout: Annotated[float, _how(min=0, max=0.9, metavar="SHARE", help="After each pooling.")] = 0.0,
    dropout_dense: Annotated[
        float, _how(min=0, max=0.9, metavar="SHARE", help="Before the last layer.")
    ] = 0.0,
    init: Annotated[
        str,
        _how(
            metavar="NAME|FILE",
            autocompletion=models.complete,
            help="Begin with a model's weights, not random ones: fine-tune it.",
        ),
    ] = "",
    steps: Annotated[int, _stop(min=1, metavar="N", help="Training steps (batches).")] = 4000,
    minutes: Annotated[
        float,
        _stop(min=0, metavar="M", help="Training time, instead of --steps. [0: use --steps]"),
    ] = 0,
    warmup: Annotated[int, _stop(min=0, metavar="N", help="Steps over which the rate rises.")] = 100,
    schedule: Annotated[
        Literal["linear", "cosine", "plateau"],
        _stop(help="The rate falls over the last steps, or all along, or when validations get no better."),
    ] = "linear",
    validate_every: Annotated[int, _stop(min=1, metavar="N", help="Steps between validations.")] = 250,
    patience: Annotated[
        int, _stop(min=0, metavar="N", help="Stop a network after N validations no better; 0: never.")
    ] = 0,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], _where("--device", "-d", help="Where the networks train.")
    ] = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        _where(help="bfloat16 is fast on recent CPUs and GPUs."),
    ] = "float32",
    compiled: Annotated[
        bool,
        _where(
            "--compile", metavar="", help="Translate each step first, for minutes: pays in runs of an hour."
        ),
    ] = False,
    devices: Annotated[int, _where(min=1, metavar="N", help="Number of devices on this machine.")] = 1,
    nodes: Annotated[
        int, _where(min=1, metavar="N", help="Number of machines, started by torchrun or SLURM.")
    ] = 1,
    workers: Annotated[int, _where(min=1, metavar="N", help="Threads that make examples.")] = 1,
    run: Annotated[
        Path, _result(metavar="DIR", help="Checkpoint, log, curves, weights; the same again resumes.")
    ],
    name: Annotated[str, _result(metavar="NAME", help="What the model will be called.")] = "trained",
    licence: Annotated[str, _result(metavar="TEXT", help="Of the weights, for their card.")] = "",
    source: Annotated[str, _result(metavar="TEXT", help="What the data is, for the card.")] = "",
    join: Annotated[
        list[str] | None,
        _result(
            metavar="NAME|FILE",
            help="No training: join models of different stems; with --data, fit their masks. Repeatable.",
        ),
    ] = None,
    quiet: Annotated[bool, _result("--quiet", "-q", metavar="", help="Only the path and errors.")] = False,
) -> None:
    """Train a network on your own songs: a binary-mask CNN for each stem, or another one.

    Interrupt it whenever you like: the same command goes on from the last
    checkpoint, no more than a minute old, and more --steps or --minutes go on for longer.

    At the end `RUN/NAME.safetensors`, with each network as it was at its best
    validation, can be given to --model, and to `stemsplit evaluate`.
    """
    if not data and not join:
        raise typer.BadParameter("give --data, or --join, or both")
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
    if path is not None:  # in the first of several processes
        typer.echo(path)
