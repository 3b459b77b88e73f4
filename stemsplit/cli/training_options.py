"""Options of `stemsplit train` for the augmentation of training songs, and for the schedule."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import typer

_varied = partial(typer.Option, rich_help_panel="Augmentation")
_stop = partial(typer.Option, rich_help_panel="Schedule")

Across = Annotated[
    float,
    _varied(min=0, max=1, metavar="SHARE", help="Probability of an example with stems from different songs."),
]
Gain = Annotated[
    float,
    _varied(min=0, metavar="DB", help="Standard deviation of the stems' gains, in dB, in such examples."),
]
Swap = Annotated[
    float, _varied(min=0, max=1, metavar="SHARE", help="Probability of swapping left and right.")
]
Width = Annotated[
    float,
    _varied(
        min=0,
        max=1,
        metavar="SHARE",
        help="Probability of changing the stereo width: mono, narrower, wider or one-sided.",
    ),
]
Polarity = Annotated[
    float, _varied(min=0, max=1, metavar="SHARE", help="Probability of inverting a stem's polarity.")
]
Drop = Annotated[float, _varied(min=0, max=1, metavar="SHARE", help="Probability of leaving out a stem.")]
Equalise = Annotated[
    float, _varied(min=0, metavar="DB", help="Standard deviation of a random equaliser curve, in dB.")
]
Pitch = Annotated[
    float, _varied(min=0, max=12, metavar="SEMITONES", help="Maximum pitch shift, in semitones.")
]
Stretch = Annotated[
    float, _varied(min=0, max=1, metavar="SHARE", help="Maximum change of tempo: 0.1 is 10 %.")
]
Voiced = Annotated[
    float,
    _varied(
        min=0,
        max=1,
        metavar="SHARE",
        help="Probability of an example in which the first stem is not silent.",
    ),
]
Noise = Annotated[
    float | None,
    _varied(
        metavar="DB",
        help="Maximum level of added white noise, in dB relative to the mixture. Default: no noise.",
    ),
]
Steps = Annotated[int, _stop(min=1, metavar="N", help="Number of training steps (batches).")]
Minutes = Annotated[
    float,
    _stop(min=0, metavar="M", help="Training time in minutes, instead of --steps. 0: use --steps."),
]
Warmup = Annotated[int, _stop(min=0, metavar="N", help="Steps over which the learning rate rises.")]
Schedule = Annotated[
    Literal["linear", "cosine", "plateau"],
    _stop(
        help="Learning rate decay: linear over the last steps, cosine over all steps, or plateau: "
        "when validation stops improving."
    ),
]
ValidateEvery = Annotated[int, _stop(min=1, metavar="N", help="Steps between validations.")]
Patience = Annotated[
    int,
    _stop(min=0, metavar="N", help="Stop a network after N validations without improvement. 0: never."),
]
