"""Hooks of MkDocs: add pages from outside docs/, and fill in generated parts.

In a page, the text of `GENERATED[NAME]` replaces the line `<!-- generated: NAME -->`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs._generate import architecture, cli, docstrings, events, included, models

LOG = logging.getLogger("mkdocs.hooks.generate")
GENERATED: dict[str, Callable[[], str]] = {
    "architecture": architecture.picture,
    "cli": cli.reference,
    "errors": docstrings.list_of_errors,
    "events": events.reference,
    "models": models.table,
    "packages": architecture.packages,
}
CARDS = ("models/index.md", "models/more.md")
"""The pages before and after the models' cards."""
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Add the models' cards to the navigation."""
    (scores,) = [entry["Models and scores"] for entry in config.nav if "Models and scores" in entry]
    first, last = CARDS
    scores.append({"Cards": [first, *included.cards(), last]})
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Add files from outside docs/: pages, and files that pages display or link to."""
    from mkdocs.structure.files import File

    for uri, path in {**included.pages(), **included.files()}.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Fill in generated parts, and translate links."""
    source, uri = Path(page.file.abs_src_path), page.file.src_uri
    markdown = MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)
    return included.with_links(markdown, source, uri)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Warn if a page loads anything from another host, because the site must work offline."""
    for element in ELSEWHERE.findall(output):
        LOG.warning("%s loads from another host: %s", page.file.src_uri, element)
    return output
