"""Docstring sections that the Google style does not have, and the list of errors."""

from __future__ import annotations

import re
from typing import Any

import griffe

from docs._generate.cli import with_code
from stemsplit import errors

SHAPES = re.compile(r"\bShapes: ")


class Shapes(griffe.Extension):
    """Start a paragraph at each `Shapes:` in a docstring, and make it bold."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = SHAPES.sub("\n\n**Shapes**: ", obj.docstring.value)


def list_of_errors() -> str:
    """Return all errors as a definition list, with their codes and exit statuses."""
    items = [
        f"<dt><code>{error.__name__}</code> <em>code {error.code}; exit status {error.exit_status}</em></dt>"
        f"<dd>{with_code((error.__doc__ or '').partition(chr(10))[0])}</dd>"
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.StemsplitError)
    ]
    return "\n".join(['<dl class="options">', *items, "</dl>"])
