"""The architecture diagram, from imports, and the table of packages, from docstrings."""

from __future__ import annotations

import ast
import html
from functools import cache

import stemsplit
from docs._generate.layers import Graph, Picture, arranged, reduced
from tests.test_architecture import LAYERS, PACKAGE, TREES, home, imported

HIDDEN = {"__main__", "_compat"}
API = "__init__"


@cache
def imports() -> Graph:
    """Return the other packages that each package, or top-level module, imports."""
    found: dict[str, set[str]] = {name: set() for layer in LAYERS for name in layer - HIDDEN}
    for module, tree in TREES.items():
        if (name := home(module)) in found:
            found[name] |= imported(tree) - {name} - HIDDEN
    return found


def title(name: str) -> str:
    """Return the name of a package as the diagram shows it."""
    return stemsplit.__name__ if name == API else name


def summary(name: str) -> str:
    """Return the first sentence of a package's docstring."""
    folder = PACKAGE if name == API else PACKAGE / name
    path = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def picture() -> str:
    """Return the packages as an SVG: layers from top to bottom, arrows from packages to their imports."""
    graph = imports()
    rows = [sorted(layer & graph.keys()) for layer in reversed(LAYERS)]
    return drawn(arranged(reduced(graph), [row for row in rows if row]))


def drawn(plan: Picture) -> str:
    """Return a layout as an SVG that uses the colors of the page."""
    parts = [
        f'<div class="architecture"><svg viewBox="0 0 {plan.width:.0f} {plan.height:.0f}" role="img" '
        f'aria-label="The packages in layers, with arrows to what each imports">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for name, (x, y) in plan.boxes.items():
        width, height = plan.box
        lines = "".join(f'<path class="edge" d="{path}"/>' for path in plan.edges[name])
        parts.append(
            f"<g>{lines}"
            f'<rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5"/>'
            f'<text x="{x:.0f}" y="{y + height / 2:.0f}">{html.escape(title(name))}</text>'
            f"<title>{html.escape(summary(name))}</title></g>"
        )
    return "\n".join([*parts, "</svg></div>"])


def packages() -> str:
    """Return a table of the packages from top to bottom, each with the first sentence of its docstring."""
    rows = ["| package | what it holds |", "| --- | --- |"]
    for layer in reversed(LAYERS):
        rows += [f"| `{title(name)}` | {summary(name)} |" for name in sorted(layer - HIDDEN)]
    return "\n".join(rows)
