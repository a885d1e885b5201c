"""The guard against connections that leave this machine: in this process and in all children."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.support.network_guard import sitecustomize

FOLDER = Path(sitecustomize.__file__).parent

_log = Path(tempfile.mkdtemp(prefix="sde-network-")) / "connections"


def guarded(*paths: Path | str) -> dict[str, str]:
    """The variables that guard a child, with further entries of its PYTHONPATH."""
    before = os.environ.get("PYTHONPATH", "")
    entries = dict.fromkeys(
        [str(FOLDER), *map(str, paths), *filter(None, before.split(os.pathsep))]
    )
    return {"PYTHONPATH": os.pathsep.join(entries), sitecustomize.LOG: str(_log)}


def guard_all() -> None:
    """Guard every child of this process. The process itself is guarded by the import."""
    os.environ.update(guarded())


def refused_connections() -> list[str]:
    """What was refused since the last call, one sentence for each."""
    lines = _log.read_text().splitlines() if _log.exists() else []
    _log.unlink(missing_ok=True)
    return lines
