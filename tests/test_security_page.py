"""docs/security.md names a test for each failure of the list, and the test exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.service import ROOT

ROW = re.compile(r"(?m)^\| (\d+) \| .* \| `(tests/[\w/]+\.py)::(\w+)` \|$")
ROWS = [match.groups() for match in ROW.finditer((ROOT / "docs/security.md").read_text())]


def test_each_number_has_its_row() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 62))


@pytest.mark.parametrize(("number", "file", "name"), ROWS)
def test_its_test_exists(number: str, file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in names, f"row {number}: {file} has no {name}"
