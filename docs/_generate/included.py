"""Repository files that are also pages of the site, and links that work in both."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath

from stemsplit.defaults import PUBLIC_ADDRESS

LOG = logging.getLogger("mkdocs.hooks.included")  # with --strict, its warnings fail the build
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SCHEMA = ROOT / "stemsplit" / "cli" / "events.schema.json"
CODE = r"^ *(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
LINK = r"(?P<image>!?)\[(?P<label>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)"
CODE_OR_LINK = re.compile(rf"{CODE}|{LINK}", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, Path]:
    """Return the pages outside docs/ by their path on the site, such as `models/binary-mask-cnn.md`."""
    found = {name.lower(): ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
    found |= {f"research/{path.stem.lower()}.md": path for path in sorted(ROOT.glob("bench/*.md"))}
    found |= {"models/index.md": ROOT / "models/README.md", "models/more.md": ROOT / "models/more/README.md"}
    return found | cards()


def cards() -> dict[str, Path]:
    """Return the pages of the shipped models by their path on the site."""
    weights = sorted(ROOT.glob("models/**/*.safetensors"))
    return {f"models/{path.stem}.md": path.with_suffix(".md") for path in weights}


def files() -> dict[str, Path]:
    """Return the files that pages display or link to, by their path on the site."""
    pictures = {f"research/{path.name}": path for path in sorted(ROOT.glob("bench/*.png"))}
    return pictures | {f"reference/{SCHEMA.name}": SCHEMA}


def with_links(text: str, source: Path, uri: str) -> str:
    """Return markdown with links to files replaced by links to the site's pages.

    `source` is the file with the text, `uri` its path on the site. Links to files that are not on the site,
    such as code, point to the public repository; while it has no address, only their labels are kept.
    """
    homes = {path: home for home, path in (pages() | files()).items()}

    def translated(link: re.Match[str]) -> str:
        if link["target"] is None:  # code
            return link[0]
        target, _, anchor = link["target"].partition("#")
        if not target or re.match(r"[a-z][a-z0-9+.-]*:", target):
            return link[0]
        path = Path(os.path.normpath(source.parent / target))
        if not path.exists():
            LOG.warning("%s links to `%s`, which is not in the repository", source.relative_to(ROOT), target)
            return link[0]
        home = homes.get(path) or (path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else None)
        label = CODE_OR_LINK.sub(translated, link["label"])
        if home:
            relative = os.path.relpath(home, PurePosixPath(uri).parent).replace(os.sep, "/")
            return f"{link['image']}[{label}]({relative}{anchor and '#' + anchor})"
        if PUBLIC_ADDRESS:
            return f"[{label}]({PUBLIC_ADDRESS}/blob/main/{path.relative_to(ROOT).as_posix()})"
        return label

    return CODE_OR_LINK.sub(translated, text)
