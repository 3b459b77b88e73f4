"""What of the project's docstrings the Google style does not know; and the table of errors."""

from __future__ import annotations

import re
from typing import Any

import griffe

from stemsplit import errors

SHAPES = re.compile(r"\bShapes: ")


class Shapes(griffe.Extension):
    """Begin `Shapes:` on a line of its own, in bold, wherever it is in a docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = SHAPES.sub("\n\n**Shapes**: ", obj.docstring.value)


def table_of_errors() -> str:
    """Return a table of all errors with their codes and exit statuses."""
    rows = ["| error | `code` | `exit_status` | |", "| --- | --- | --: | --- |"]
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.StemsplitError):
            summary = (error.__doc__ or "").partition("\n")[0]
            rows.append(f"| `{error.__name__}` | `{error.code}` | {error.exit_status} | {summary} |")
    return "\n".join(rows)
