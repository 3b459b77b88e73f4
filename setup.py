"""What pyproject.toml cannot say: all packages, the README with absolute links, the project's addresses.

On the package index a link relative to the repository leads nowhere. Until the repository has a public
address, `stemsplit.defaults.PUBLIC_ADDRESS` is empty, and the README stays as it is.
"""

import ast
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)")


def public_address() -> str:
    """Return the address from defaults.py, without importing the package."""
    tree = ast.parse((ROOT / "stemsplit" / "defaults.py").read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    return str(ast.literal_eval(constants["PUBLIC_ADDRESS"]))


def with_absolute_links(text: str, address: str) -> str:
    """Return markdown in which links to the repository's files begin with its address, if it has one."""
    if not address:
        return text

    def absolute(link: re.Match[str]) -> str:
        image, label, path = link.groups()
        return f"{image}{label}({address}/{'raw' if image else 'blob'}/main/{path})"

    return LINK.sub(absolute, text)


if __name__ == "__main__":
    address = public_address()
    setup(
        packages=[*find_packages(str(ROOT), include=["stemsplit", "stemsplit.*"]), "stemsplit.models"],
        long_description=with_absolute_links((ROOT / "README.md").read_text(encoding="utf-8"), address),
        long_description_content_type="text/markdown",
        project_urls={"Source": address, "Changelog": f"{address}/blob/main/CHANGELOG.md"} if address else {},
    )
