"""The packages' modules, by their dotted names."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.support.service import ROOT

PACKAGES = ("client", "gateway", "gpu_worker")


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is its __init__."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found
