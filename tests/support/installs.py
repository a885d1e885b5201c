"""What tests install for themselves where a checkout has none: packages of npm, and a browser."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process of the test run at a time installs something."""
    with open(Path(tempfile.gettempdir()) / f"sde-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing(sentence: str) -> None:
    """Fail where CI runs, because a skipped test would go unnoticed there; else skip."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


def npm_packages(folder: Path, package: str, sentence: str) -> Path:
    """The folder of a package, installed as the package-lock.json of `folder` pins it.

    Without npm the test is skipped with the sentence.
    """
    path = folder / "node_modules" / package
    with alone(folder.name):
        if not path.exists() and shutil.which("npm"):
            command = ["npm", "ci", "--silent"]
            subprocess.run(command, cwd=folder, check=False, capture_output=True)
    if not path.exists():
        missing(sentence)
    return path
