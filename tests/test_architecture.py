"""Imports point one way: a module knows only what stands above it in this list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stemsplit

PACKAGE = Path(stemsplit.__file__).parent
ORDER = [
    "defaults",
    "errors",
    "formats",
    "languages",
    "missing",
    "config",
    "scratch",
    "remote",
    "tracklist",
    "parts",
    "claims",
    "ffmpeg",
    "tag_fields",
    "tags",
    "headers",
    "flac",
    "ogg",
    "tracks",
    "decoder",
    "sndfile",
    "relay",
    "sources",
    "audio",
    "levels",
    "analysis",
    "stemset",
    "mixing",
    "output_formats",
    "rates",
    "writer",
    "naming",
    "stem_mp4",
    "pipes",
    "stft",
    "masks",
    "separator",
    "stream",
    "spatial",
    "nets",
    "weights",
    "cards",
    "runtime",
    "pipeline",
    "arrays",
    "remix",
    "live",
    "records",
    "discovery",
    "batch",
    "cluster",
    "songs",
    "metrics",
    "bsseval",
    "oracles",
    "evaluation",
    "comparison",
    "results",
    "charts",
    "export",
    "training",
    "cli",
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem[0] != "_")


def home(parts: tuple[str, ...]) -> str:
    return Path(parts[0]).stem


def imported(path: Path) -> set[str]:
    """The package's modules that a module imports, at its top and inside its functions."""
    within = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["stemsplit", *within][: len(within) + 2 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "stemsplit" else [module]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("stemsplit.")}
    return found & set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    place = home(path.relative_to(PACKAGE).parts)
    assert place in ORDER, f"where does {place} stand?"
    below = {name for name in imported(path) if ORDER.index(name) > ORDER.index(place)}
    assert below == set()


def test_the_walk_sees_imports():
    assert imported(PACKAGE / "pipeline.py") >= {"audio", "stream", "weights"}
