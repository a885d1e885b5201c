"""How much memory a job takes: of the GPU where there is one, else of this process. Frees none."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

_SELF = Path("/proc/self")


class PeakMemory:
    """The most bytes in use since it was made: torch's own on CUDA, else the resident memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # 5 makes the kernel forget the peak so far (proc_pid_clear_refs(5)).
            (_SELF / "clear_refs").write_text("5")
        except OSError:
            return

    def read(self) -> int:
        """In bytes. Where the kernel forgets nothing, the peak since the process began."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_use(device: torch.device) -> int | None:
    """Bytes at this moment; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _resident("VmRSS")


def _resident(name: str) -> int | None:
    """A field of /proc/self/status, which counts in KiB; Linux only."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None
