"""The packages' modules, by their dotted names."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.support.service import ROOT

PACKAGES = {
    "gateway": ROOT,
    "gpu_worker": ROOT,
    "recipe": ROOT,
    "sde_client": ROOT / "client",
}
"""Each package, and the folder that its modules' dotted names begin in."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is its __init__."""
    found = {}
    for package, root in PACKAGES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found
