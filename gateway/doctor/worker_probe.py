"""Has the worker's side check torch, the GPU and the models, in a process of its own.

torch may crash at its import, and a driver may hang. Neither ends the doctor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.doctor.finding import Finding, ok, problem

TIMEOUT_S = 300.0
"""A cold disk gives torch and diffusers slowly, and the probe itself waits 120 s for a driver."""

MODULE = "gpu_worker.pipeline.probe"

MAX_CHARS = 300


def check(environ: Mapping[str, str], gpus: int) -> Iterator[Finding]:
    """Yield findings on torch, each GPU and the models. `environ` has valid settings only."""
    for gpu in range(gpus):
        arguments = [] if gpu == 0 else ["--device-only"]
        yield from _run(arguments, {**environ, "SDE_GPU": str(gpu)})


def _run(arguments: list[str], environ: dict[str, str]) -> Iterator[Finding]:
    command = [sys.executable, "-m", MODULE, *arguments]
    try:
        probe = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        text = f"the check of torch and the GPU has not ended in {TIMEOUT_S:g} s"
        yield problem("torch", f"{text}: a driver may hang; start the machine again")
        return
    except OSError as error:
        yield problem("torch", f"the check cannot be started: {error.strerror or error}")
        return
    for line in probe.stdout.splitlines():
        finding = _finding(line)
        if finding is not None:
            yield finding
    if probe.returncode != os.EX_OK:
        yield problem("torch", f"the check of torch and the GPU failed: {_reason(probe)}")


def _finding(line: str) -> Finding | None:
    try:
        return Finding(**json.loads(line))
    except (ValueError, TypeError):  # a library has printed something
        return None


def _reason(probe: subprocess.CompletedProcess[Any]) -> str:
    lines = [line.strip() for line in str(probe.stderr).splitlines() if line.strip()]
    last = lines[-1][:MAX_CHARS] if lines else "it printed nothing"
    if probe.returncode < 0:
        return f"it was ended by signal {-probe.returncode} ({last}); install torch again"
    return f"{last}; install the package that it names again (pip install -c constraints.txt)"


def not_checked() -> Finding:
    """Return the finding for a pipeline that is not ours."""
    return ok("torch", "SDE_PIPELINE is not the service's own, so torch is not checked")
