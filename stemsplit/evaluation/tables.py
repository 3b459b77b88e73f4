"""Score tables of an evaluation as CSV and JSON, and the paper's scores."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from stemsplit.evaluation.evaluate import SongScores, pooled, summarise
from stemsplit.evaluation.metrics import Scores
from stemsplit.files.claims import writing

PAPER = {
    "train": {
        "vocals": {"accuracy": 0.772, "mse": 0.153},
        "drums": {"accuracy": 0.766, "mse": 0.159},
        "bass": {"accuracy": 0.944, "mse": 0.044},
        "other": {"accuracy": 0.764, "mse": 0.158},
    },
    "valid": {
        "vocals": {"accuracy": 0.743, "mse": 0.174},
        "drums": {"accuracy": 0.685, "mse": 0.203},
        "bass": {"accuracy": 0.939, "mse": 0.051},
        "other": {"accuracy": 0.732, "mse": 0.179},
    },
}
"""Split -> stem -> measure: O. Tkachuk, Lviv Polytechnic, trained on MUSDB18."""


def by_split(songs: Iterable[SongScores]) -> dict[str, list[SongScores]]:
    """Return the songs of each split."""
    splits: dict[str, list[SongScores]] = {}
    for song in songs:
        splits.setdefault(song.split, []).append(song)
    return splits


def medians(songs: Sequence[SongScores]) -> dict[str, Scores]:
    """Return each system's medians over songs."""
    return {name: summarise([song.systems[name] for song in songs], np.median) for name in _systems(songs)}


def means(songs: Sequence[SongScores]) -> dict[str, Scores]:
    """Return each system's means over songs."""
    return {name: summarise([song.systems[name] for song in songs], np.mean) for name in _systems(songs)}


def _systems(songs: Sequence[SongScores]) -> list[str]:
    return list(songs[0].systems)


def for_card(songs: Sequence[SongScores]) -> dict[str, Any]:
    """Return the scores for a model's card: for each split the number of songs, and each system's medians."""
    return {split: {"songs": len(each), **medians(each)} for split, each in by_split(songs).items()}


def values(songs: Sequence[SongScores], measure: str) -> dict[str, dict[str, list[float]]]:
    """Return the values of a measure over the songs: system -> stem -> values."""
    found: dict[str, dict[str, list[float]]] = {}
    for song in songs:
        for system, scores in song.systems.items():
            for stem, measures in scores.items():
                if measure in measures:
                    found.setdefault(system, {}).setdefault(stem, []).append(measures[measure])
    return found


def facts(name: str, threshold: float, songs: Sequence[SongScores]) -> dict[str, Any]:
    """Return all scores by split, for JSON; non-finite values become None."""
    splits = {
        split: {
            "songs": len(each),
            "median": medians(each),
            "mean": means(each),
            "pooled_bins": pooled(each),
            "each": [{"song": song.song, "scores": song.systems} for song in each],
        }
        for split, each in by_split(songs).items()
    }
    return {"model": name, "threshold": threshold, "splits": _finite(splits)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Write an object with finite numbers only as JSON.

    Raises:
        EncodeError: the file cannot be written.
    """
    with _writing(path) as file:
        json.dump(found, file, indent=1, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, songs: Sequence[SongScores]) -> None:
    """Write a row for each song, system and stem; missing measures are empty.

    Raises:
        EncodeError: the file cannot be written.
    """
    rows = [
        {"song": song.song, "split": song.split, "system": system, "stem": stem, **measures}
        for song in songs
        for system, scores in song.systems.items()
        for stem, measures in scores.items()
    ]
    with _writing(path) as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if value != value else value for key, value in row.items()})  # not NaN


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    with writing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        yield file
