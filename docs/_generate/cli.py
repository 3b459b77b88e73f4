"""The command-line reference, generated from the text of `--help`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

import typer.main

from stemsplit.cli import app

PROGRAM = "stemsplit"
EXTRA = re.compile(r"^(?P<text>.*?)(?:  \[(?P<extra>[^\]]*)\])?$", re.DOTALL)


def reference() -> str:
    """Return the page in markdown: all commands, then the arguments, options and examples of each."""
    program: Any = typer.main.get_command(app)
    context = program.make_context(PROGRAM, [], resilient_parsing=True)
    rows = ["| command | |", "| --- | --- |"]
    parts = []
    for name, command in program.commands.items():
        summary = paragraphs(command.help)[0]
        rows.append(f"| [`{PROGRAM} {name}`](#{anchor(name)}) | {summary} |")
        inner = command.context_class(command, info_name=name, parent=context)
        parts.append(section(f"{PROGRAM} {name}", anchor(name), command, inner))
    general = section("Options of the program", "program", program, context)
    return "\n\n".join(["\n".join(rows), *parts, general])


def section(title: str, name: str, command: Any, context: Any) -> str:
    """Return the help of a command, with an anchor for each argument and option."""
    usage = command.get_usage(context).removeprefix("Usage:").strip()
    parts = [f"## {title} {{#{name}}}", f"```text\n{' '.join(usage.split())}\n```", *paragraphs(command.help)]
    panels: dict[str, list[Any]] = {}
    for parameter in command.get_params(context):
        if not getattr(parameter, "hidden", False) and parameter.name != "help":
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(parameter)
    for panel in sorted(panels, key=lambda panel: panel != "Arguments"):
        items = "\n".join(item(parameter, name, context) for parameter in panels[panel])
        parts += [f"**{panel}**", f'<dl class="options">\n{items}\n</dl>']
    return "\n\n".join([*parts, *examples(command.epilog)])


def item(parameter: Any, command: str, context: Any) -> str:
    """Return an entry of a definition list: an option with its value, help, default and range."""
    name, text = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        name = name.partition(" <")[0]  # without the Python type
    found = EXTRA.match(text)
    assert found is not None
    notes = f" <em>{html.escape(found['extra'])}</em>" if found["extra"] else ""
    return (
        f'<dt id="{anchor(command)}-{anchor(parameter.name)}"><code>{html.escape(name)}</code></dt>'
        f"<dd>{with_code(found['text'])}{notes}</dd>"
    )


def examples(epilog: str | None) -> Iterable[str]:
    """Yield the examples at the end of a command's help: command lines, each below its description."""
    lines = [line.strip() for line in re.sub(r"Examples?:", "", epilog or "").splitlines()]
    if shown := "\n".join(line for line in lines if line):
        yield "**Examples**"
        yield "```bash\n" + shown.replace("\n#", "\n\n#") + "\n```"


def paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a command's help, each on one line, except preformatted ones."""
    return [
        "```text\n" + part.strip("\b\n") + "\n```" if part.startswith("\b") else " ".join(part.split())
        for part in (text or "").split("\n\n")
    ]


def with_code(text: str) -> str:
    """Return text as HTML, with text in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(" ".join(text.split()), quote=False))


def anchor(name: str) -> str:
    """Return the anchor of a command or an option, such as `models-add`."""
    return re.sub(r"\W|_", "-", name.strip("_"))
