"""`stemsplit evaluate`: scores on songs with reference stems."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from stemsplit.cli import console, models, runtime_options
from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import EncodeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stemsplit.evaluation.comparison import Comparison
    from stemsplit.evaluation.evaluate import EvaluationPlan, SongScores

    Plan: TypeAlias = EvaluationPlan | Comparison

EXAMPLES = {
    "stemsplit evaluate --data songs --split test": "Score the default model on songs/test/SONG/STEM.wav",
    "stemsplit evaluate --data musdb18:MUSDB18 --museval --json scores.json": "BSSEval v4 on MUSDB18",
    "stemsplit evaluate --data songs --model band-transformer --model binary-mask-cnn": "Compare two models",
}
RATIOS = {
    "sdr_db": "SDR, dB",
    "si_sdr_db": "SI-SDR, dB",
    "si_snr_db": "SI-SNR, dB",
    "bleedless": "bleedless",
    "fullness": "fullness",
    "museval_sdr_db": "SDR, BSSEval v4",
    "museval_isr_db": "ISR, BSSEval v4",
    "museval_sir_db": "SIR, BSSEval v4",
    "museval_sar_db": "SAR, BSSEval v4",
}
PAPER_COLUMNS = ("", "accuracy", "paper", "MSE", "paper", "base rate", "balanced accuracy")


class OracleName(str, Enum):
    """Names of the oracles, as an Enum because Typer does not support lists of literals."""

    IBM = "ibm"
    IRM = "irm"
    MWF = "mwf"
    NONE = "none"


ORACLES = {OracleName.IBM: "ideal binary", OracleName.IRM: "ideal ratio", OracleName.MWF: "ideal wiener"}


def command(
    *,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="DIR", help="Folder with SPLIT/SONG/STEM.wav, or musdb18:DIR for MUSDB18. Repeatable."
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Split of the data. Repeatable. Default: test.")
    ] = None,
    model: Annotated[
        list[str] | None,
        models.option(help=f"Model to score. Repeat it to compare models. Default: {DEFAULT_MODEL}."),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Masking method: soft, binary, wiener, clean or full. Repeatable. Default: the model's.",
        ),
    ] = None,
    width: Annotated[
        float,
        typer.Option(min=0, metavar="W", help="Factor for the side signal of the songs: 0 makes them mono."),
    ] = 1.0,
    baseline: Annotated[
        Literal["mixture", "none"], typer.Option(help="Also score the unprocessed mixture, or not.")
    ] = "mixture",
    oracle: Annotated[
        list[OracleName] | None,
        typer.Option(
            metavar="<ibm|irm|mwf|none>",
            help="Also score the ideal binary mask (ibm), ratio mask (irm) or Wiener filter (mwf). "
            "Repeatable. Default: all.",
        ),
    ] = None,
    museval: Annotated[
        bool,
        typer.Option("--museval", metavar="", help="Also compute BSSEval v4: SDR, ISR, SIR, SAR (slow)."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Parallel processes for --museval. Default: one per core."),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            metavar="",
            help="Compare the accuracy of the masks with the paper of binary-mask-cnn, on train and valid.",
        ),
    ] = False,
    fast: runtime_options.Fast = False,
    runtime: runtime_options.Runtime = "auto",
    device: runtime_options.Device = "auto",
    precision: runtime_options.Precision = "float32",
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table with one row per song and stem.")
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all figures, per song. `-`: to stdout, instead of the tables."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Plot the SDR over the songs as box plots.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", metavar="", help="Store the medians in the card of the weights file.")
    ] = False,
) -> None:
    """Score a model or method on songs with reference stems.

    Computes SDR, SI-SDR and SI-SNR in dB over each whole song, bleedless and fullness (0 to 100), and the
    accuracy of the masks over all bins; for the model, the unprocessed mixture, and ideal masks and filters
    made from the references. Prints medians over the songs, with means in brackets.

    Sources of spatial methods have no names: each stem is compared with the nearest source. The default
    precision is float32, so that all machines give the same scores.
    """
    from stemsplit import plots
    from stemsplit.datasets.songs import stems_in
    from stemsplit.evaluation import tables
    from stemsplit.evaluation.comparison import Comparison
    from stemsplit.evaluation.evaluate import EvaluationPlan
    from stemsplit.options import RuntimeOptions
    from stemsplit.runtime import cores
    from stemsplit.zoo import installed, page
    from stemsplit.zoo.ref import ModelRef
    from stemsplit.zoo.variants import Trained

    _refuse(*(path for path in (csv, json, plot) if path))
    if plot:
        plots.check()
    first, *others = map(ModelRef.parse, dict.fromkeys(model or [DEFAULT_MODEL]))
    if others and (keep or paper):
        raise UsageError("--keep and --paper are for one --model")
    if keep and not isinstance(first, Trained):
        raise EncodeError(f"{first.text} has no weights file", "leave out --keep")
    if keep and installed.is_installed(first.text):
        raise UsageError(f"{first.text} is installed, and its file must not change", "name the original file")
    splits = split or (["train", "valid"] if paper else ["test"])
    running = RuntimeOptions(runtime, device, precision, fast=fast)
    wanted: dict[str, Any] = {
        "masks": mask or (),
        "oracles": [ORACLES[name] for name in oracle or ORACLES if name in ORACLES],
        "mixture": baseline == "mixture",
        "held": stems_in(data, splits),
    }
    plan: Plan
    if others:
        plan = Comparison.of([first, *others], running, **wanted)
    else:
        plan = EvaluationPlan.of(first, running, **wanted)
    songs = _measure(plan, data, splits, width, (jobs or cores()) if museval else 0)
    if keep and isinstance(first, Trained):
        page.rewrite(first.path, scores={**first.card.scores, **tables.for_card(songs)})
    if csv:
        tables.write_csv(csv, songs)
    if plot:
        _plot(plot, plan, songs)
    facts = tables.facts(plan.name, plan.threshold, songs)
    if json == Path("-"):
        console.event(**facts)
        return
    if json:
        tables.write_json(json, facts)
    _print(plan, songs, paper=paper)


def _refuse(*paths: Path) -> None:
    """Raise EncodeError at once for a folder that does not exist, rather than after an hour of work."""
    for path in paths:
        if not path.parent.is_dir():
            raise EncodeError(f"No folder `{path.parent}` for `{path}`", "make it first")


def _measure(
    plan: Plan, data: Sequence[str], splits: Sequence[str], width: float, jobs: int
) -> list[SongScores]:
    """Score one song after another, with BSSEval in separate processes."""
    from contextlib import nullcontext

    from stemsplit.datasets.songs import find_songs
    from stemsplit.evaluation.bsseval import Pool
    from stemsplit.evaluation.evaluate import SAMPLE_RATE

    sources = [(split, source) for split in splits for source in find_songs(data, split, plan.stems)]
    version = "" if width == 1 else ", mono" if width == 0 else f", width {width:g}"
    songs = []
    with Pool(jobs, SAMPLE_RATE) if jobs else nullcontext() as pool:
        for number, (split, source) in enumerate(sources, 1):
            console.say(f"[{number}/{len(sources)}] {source.name}")
            song = source.load(SAMPLE_RATE).with_width(width)
            songs.append(plan.measure(split + version, song, pool))
    return songs


def _plot(path: Path, plan: Plan, songs: Sequence[SongScores]) -> None:
    from stemsplit import plots
    from stemsplit.evaluation import tables

    values = tables.values(songs, "sdr_db")
    splits = " and ".join(tables.by_split(songs))
    plots.box_plot(
        path, values, groups=plan.stems, title=f"{plan.name}: {len(songs)} songs of {splits}", label="SDR, dB"
    )


def _print(plan: Plan, songs: Sequence[SongScores], *, paper: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from stemsplit.evaluation import tables

    def show(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        screen.print(table)

    screen = Console(width=None if sys.stdout.isatty() else 200)
    for split, each in tables.by_split(songs).items():
        screen.print(f"{plan.name}: median (mean) over {len(each)} songs of {split}", markup=False)
        for heading, rows in _tables(plan, each).items():
            show([heading, *plan.stems], rows)
    if paper:
        screen.print(
            f"All bins of a split together, T = {plan.threshold:g}. Paper: O. Tkachuk, trained on MUSDB18"
        )
        show(PAPER_COLUMNS, _paper(plan, songs))


def _tables(plan: Plan, songs: Sequence[SongScores]) -> dict[str, list[list[str]]]:
    """Return the rows of each table of a split, by heading."""
    from stemsplit.evaluation import tables
    from stemsplit.zoo import page

    both = tables.medians(songs), tables.means(songs)

    def row(name: str, system: str, measure: str, digits: int) -> list[str]:
        median, mean = (page.cells(each[system], plan.stems, measure, digits) for each in both)
        return [name, *(f"{a} ({b})" if a != "-" else a for a, b in zip(median, mean, strict=True))]

    systems = [name for name in both[0] if name != "bins"]
    measured = {measure for name in systems for scores in both[0][name].values() for measure in scores}
    found = {
        heading: [row(name, name, measure, 2) for name in systems]
        for measure, heading in RATIOS.items()
        if measure in measured
    }
    if "bins" not in both[0]:
        return found
    return found | {"all bins": [row(text, "bins", name, 3) for name, text in page.BINS.items()]}


def _paper(plan: Plan, songs: Sequence[SongScores]) -> Iterator[list[str]]:
    """Yield the rows of the table that compares the scores with the paper's."""
    from stemsplit.evaluation import evaluate, tables
    from stemsplit.zoo import page

    for split, each in tables.by_split(songs).items():
        ours, theirs = evaluate.pooled(each), tables.PAPER.get(split, {})
        columns = [
            page.cells(scores, plan.stems, measure, 3)
            for scores, measure in (
                (ours, "accuracy"),
                (theirs, "accuracy"),
                (ours, "mse"),
                (theirs, "mse"),
                (ours, "base_rate"),
                (ours, "balanced_accuracy"),
            )
        ]
        for stem, *cells in zip(plan.stems, *columns, strict=True):
            yield [f"{split}: {stem}", *cells]
