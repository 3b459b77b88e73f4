"""Imports point one way: a package imports only from the layers below its own. Code comes in small pieces."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stemsplit

PACKAGE = Path(stemsplit.__file__).parent
LAYERS = [
    {"defaults", "errors", "_compat"},
    {"missing"},
    {"files"},
    {"audio", "dsp"},
    {"options", "analysis"},
    {"separation"},
    {"networks", "spatial"},
    {"runtime"},
    {"zoo"},
    {"output"},
    {"pipeline"},
    {"arrays", "plots"},
    {"batch", "live", "remix", "datasets"},
    {"evaluation", "export", "practice"},
    {"training"},
    {"cli"},
    {"__main__", "__init__"},
]
"""From below. The package's root is for its users alone: nothing within may import it."""
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_PARAMETERS, MOST_LINES = 6, 300
MANY_PARAMETERS = {
    **dict.fromkeys(
        ["cli/evaluate.py", "cli/live.py", "cli/practice.py", "cli/remix.py", "cli/split.py"], "command"
    ),
    **dict.fromkeys(["cli/train.py", "cli/unpack.py"], "command"),
}
"""Typer commands, with one parameter per option."""
LONG = {"options.py"}
"""One table and three classes of options."""


def home(path: Path) -> str:
    """Return the package, or the top-level module, that a file belongs to."""
    return Path(path.relative_to(PACKAGE).parts[0]).stem


def imported(tree: ast.AST) -> set[str]:
    """Return the packages, or top-level modules, that code imports, at its top and inside its functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        ours = [name.split(".")[1:] for name in names if name.split(".")[0] == "stemsplit"]
        found |= {name[0] if name and name[0] in LEVELS else "__init__" for name in ours}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    package = home(path)
    assert package in LEVELS, f"{package} has no layer yet"
    known = imported(ast.parse(path.read_text(encoding="utf-8"))) - {package}
    assert {name for name in known if LEVELS[name] >= LEVELS[package]} == set()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from stemsplit.audio.reader import Reader", {"audio"}),
        ("def f():\n    from stemsplit import pipeline, DEFAULT_MODEL", {"pipeline", "__init__"}),
        ("import stemsplit.zoo.store", {"zoo"}),
        ("import stemsplit", {"__init__"}),
        ("import numpy", set()),
    ],
)
def test_every_kind_of_import_is_seen(code, names):
    assert imported(ast.parse(code)) == names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_zoo_interprets_the_name_of_a_model(path):
    """Others ask `ModelRef.parse`, once, and then the object that it returns."""
    if home(path) in ("zoo", "spatial"):
        return
    assert names_interpreted(ast.parse(path.read_text(encoding="utf-8"))) == []


def names_interpreted(tree: ast.AST) -> list[str]:
    """Return the uses of the table of spatial methods, and of `+` to take names apart."""
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "METHODS"]
    imports = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and "METHODS" in {alias.name for alias in node.names}
    ]
    splits = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("split", "partition")
        and [arg.value for arg in node.args if isinstance(arg, ast.Constant)] == ["+"]
    ]
    return [ast.unparse(node) for node in (*methods, *imports, *splits)]


@pytest.mark.parametrize(
    "code", ["spatial.METHODS", "from stemsplit.spatial import METHODS", "name.split('+')"]
)
def test_every_kind_of_interpretation_is_seen(code):
    assert names_interpreted(ast.parse(code)) == [code]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_take_few_parameters(path):
    many = functions_with_many_parameters(ast.parse(path.read_text(encoding="utf-8")))
    known = MANY_PARAMETERS.get(path.relative_to(PACKAGE).as_posix())
    assert [name for name in many if name != known] == []


def functions_with_many_parameters(tree: ast.AST) -> list[str]:
    """Return the functions with more than `MOST_PARAMETERS`, besides `self` and `cls`."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if len(parameters(node.args)) > MOST_PARAMETERS]


def parameters(arguments: ast.arguments) -> set[str]:
    """Return the names of a function's parameters, besides `self` and `cls`."""
    each = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return {argument.arg for argument in each} - {"self", "cls"}


@pytest.mark.parametrize(
    ("parameters", "too_many"),
    [
        ("a, b, c, d, e, f", False),
        ("self, a, b, c, d, e, f", False),
        ("cls, a, /, b, c, *, d, e, f", False),
        ("a, b, c, d, e, f, g=1", True),
        ("self, a, /, b, c, *, d, e, f, g", True),
    ],
)
@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_every_kind_of_parameter_counts(keyword, parameters, too_many):
    tree = ast.parse(f"class A:\n    {keyword} function({parameters}): ...")
    assert functions_with_many_parameters(tree) == (["function"] if too_many else [])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short(path):
    if path.relative_to(PACKAGE).as_posix() in LONG:
        return
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
