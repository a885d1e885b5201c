"""Measures a job's memory, on the GPU or else of this process, and words its exhaustion."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from gpu_worker.pipeline.execution import machine_size

_SELF = Path("/proc/self")


def out_of_memory_message(size: machine_size.Size | None, device: str) -> str:
    """Return the error text for a job; `size` is None where MACHINE_SIZE has no effect."""
    with_size = "" if size is None else f" with MACHINE_SIZE={size}"
    return f"out of memory{with_size} on {device}: try a smaller image"


class PeakMemory:
    """The peak memory since its creation: torch's allocations on CUDA, else resident memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # 5 resets the peak (proc_pid_clear_refs(5)).
            (_SELF / "clear_refs").write_text("5")
        except OSError:
            return

    def read(self) -> int:
        """Return the peak in bytes, since the process start where the kernel cannot reset it."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bytes_in_use(device: torch.device) -> int | None:
    """Return the bytes in use now; None where they are unknown."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _resident("VmRSS")


def gpu_memory(device: torch.device) -> tuple[int, int] | None:
    """Return the used bytes of the GPU's memory, by any process, and its size; None without one."""
    try:
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            return int(total - free), int(total)
        if device.type == "mps":
            return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    except RuntimeError:
        # A lost device is the business of the job that runs into it.
        return None
    return None


def _resident(name: str) -> int | None:
    """Return a field of /proc/self/status, which is in KiB, in bytes. Linux only."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
        values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
        return int(values[0]) * 1024 if values else None
    except (OSError, ValueError, IndexError):
        return None
