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
    {"exclusions"},
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
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""The code of each module."""
MOST_PARAMETERS, MOST_LINES = 6, 300
MANY_PARAMETERS = {
    **dict.fromkeys(
        ["cli/evaluate.py", "cli/live.py", "cli/practice.py", "cli/remix.py", "cli/split.py"], "command"
    ),
    **dict.fromkeys(["cli/inspect.py", "cli/train.py", "cli/unpack.py"], "command"),
}
"""Typer commands, with one parameter per option."""


def home(module: str) -> str:
    """Return the package, or the top-level module, that a file belongs to."""
    return module.partition("/")[0].removesuffix(".py")


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


def test_every_package_has_a_layer():
    assert {home(module) for module in TREES} == set(LEVELS)


@pytest.mark.slow
def test_imports_point_one_way():
    imports = [(module, name) for module, tree in TREES.items() for name in imported(tree) - {home(module)}]
    assert len(imports) > 300
    assert [(module, name) for module, name in imports if LEVELS[name] >= LEVELS[home(module)]] == []


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


@pytest.mark.slow
def test_only_the_zoo_interprets_the_name_of_a_model():
    """Others ask `ModelRef.parse`, once, and then the object that it returns."""
    found = {module: names_interpreted(tree) for module, tree in TREES.items()}
    assert {
        module for module, uses in found.items() if uses and home(module) not in ("zoo", "spatial")
    } == set()


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


@pytest.mark.slow
def test_functions_take_few_parameters():
    found = [
        (module, name) for module, tree in TREES.items() for name in functions_with_many_parameters(tree)
    ]
    assert [(module, name) for module, name in found if name != MANY_PARAMETERS.get(module)] == []


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


def test_modules_are_short():
    lines = {module: len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) for module in TREES}
    assert {module for module, count in lines.items() if count > MOST_LINES} == set()


@pytest.mark.slow
def test_librosa_is_imported_after_its_caches_are_prepared():
    """Without them it does not load where the home folder is missing or read-only."""
    found = {module: unprepared(tree) for module, tree in TREES.items()}
    assert {module: names for module, names in found.items() if names} == {}


def unprepared(tree: ast.AST) -> list[str]:
    """Return the functions that import librosa without `librosa_caches()` above it."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and "import librosa" in ast.unparse(node)
        and "librosa_caches()" not in ast.unparse(node).partition("import librosa")[0]
    ]


def test_a_missing_preparation_is_seen():
    code = "def f():\n    import librosa.display\ndef g():\n    librosa_caches()\n    import librosa"
    assert unprepared(ast.parse(code)) == ["f"]
