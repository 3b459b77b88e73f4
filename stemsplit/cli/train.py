"""`stemsplit train`: weights from songs whose stems are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stemsplit.cli import console

EXAMPLE = "stemsplit train --data stems-of-songs --run runs/mine"


def command(
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Holds train/SONG/STEM.wav and valid/SONG/...")],
    run: Annotated[
        Path, typer.Option(metavar="DIR", help="Checkpoint, log and weights; the same again resumes.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="What the model will be called.")] = "trained",
    stems: Annotated[str, typer.Option(metavar="NAMES", help="A network each.")] = "vocals,drums,bass,other",
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Batches of examples to learn from.")] = 4000,
    examples: Annotated[int, typer.Option(min=1, metavar="N", help="Excerpts of songs in a batch.")] = 8,
    frames: Annotated[int, typer.Option(min=1, metavar="N", help="Frames of an excerpt.")] = 32,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Of AdamW, at its highest.")] = 1.5e-3,
    threshold: Annotated[
        float, typer.Option(min=0, metavar="T", help="T of the mask B = (S > T * M).")
    ] = 0.5,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed draws the same examples.")] = 0,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Fast in bfloat16 on recent processors.")
    ] = "float32",
    device: Annotated[str, typer.Option("--device", "-d", help="Where the networks learn.")] = "auto",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Of the weights; goes into their card.")] = "",
    source: Annotated[str, typer.Option(metavar="TEXT", help="What the data is; goes into the card.")] = "",
) -> None:
    """Train a binary-mask CNN for each stem on your own songs.

    Interrupt it whenever you like: the same command goes on from the last checkpoint, which is no more than
    a minute old, and a higher --steps goes on for longer. At the end `RUN/NAME.safetensors` can be given to
    --model, and to `stemsplit evaluate`.
    """
    from stemsplit.runtime import pick_device
    from stemsplit.training.loop import Recipe
    from stemsplit.training.run import Settings, train

    settings = Settings(
        data=data,
        run=run,
        name=name,
        stems=tuple(stem.strip() for stem in stems.split(",")),
        examples=examples,
        frames=frames,
        device=str(pick_device(device)),
        licence=licence or "the trainer's to choose, within what the data's licences allow",
        source=source or str(data),
    )
    recipe = Recipe(
        steps=steps, learning_rate=learning_rate, threshold=threshold, precision=precision, seed=seed
    )
    typer.echo(train(settings, recipe, say=console.say))
