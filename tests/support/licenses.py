"""Writes docs/dependencies.md: name, version and licence of each package in requirements.lock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LOCK, PAGE = ROOT / "requirements.lock", ROOT / "docs" / "dependencies.md"
HEAD = """# Dependencies and their licences

`make lock` writes `requirements.lock` and this page. The page names what gateway, worker and
client install. PyTorch (BSD-3-Clause) comes beside it, because its build depends on the machine.

| package | version | licence |
|---|---|---|
"""


def pins() -> Iterator[tuple[str, str]]:
    """Name and version of each package of the lock."""
    for match in re.finditer(r"(?m)^([A-Za-z0-9_.-]+)==([^ \\;\n]+)", LOCK.read_text()):
        yield match[1], match[2]


def licence(name: str) -> str:
    """The licence that a package declares: its expression, its classifier, or its short text."""
    fields = metadata.metadata(name)
    expression = fields.get("License-Expression")
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in fields.get_all("Classifier") or []
        if each.startswith("License :: ") and each != "License :: OSI Approved"
    ]
    text = (fields.get("License") or "").strip()
    return expression or ", ".join(classifiers) or text.partition("\n")[0] or "not declared"


def page() -> str:
    """The whole page."""
    rows = (f"| {name} | {version} | {licence(name)} |\n" for name, version in sorted(pins()))
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
