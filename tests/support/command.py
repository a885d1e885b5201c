"""Runs the `sde` command as a person or a script does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.network import guarded
from tests.support.service import DEADLINE_S, ROOT, environment

NEVER = "00000000-0000-4000-8000-000000000000"

COMMAND = [sys.executable, "-m", "sde_client"]


def options(url: str) -> dict[str, str]:
    return {
        **environment(Path("unused"), 1),
        "SDE_URL": url,
        **guarded(ROOT, ROOT / "client"),
    }


def sde(
    url: str, *arguments: str, cwd: Path | None = None, text: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, with `text` on its standard input and further environment variables."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd or ROOT,
        env=options(url) | variables,
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done
