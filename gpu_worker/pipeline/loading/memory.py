"""Measures a job's memory, on the GPU or else of this process, and recognises memory errors."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import torch

from gpu_worker.pipeline.loading import machine_size

_SELF = Path("/proc/self")

_OUT_OF_MEMORY_MESSAGES = (
    "can't allocate memory",
    "out of memory",
    "std::bad_alloc",
    "STATUS_ALLOC_FAILED",
)
"""Texts of RuntimeErrors after which the process can continue.

They are of torch's CPU allocator (c10/core/impl/alloc_cpu.cpp), its MPS allocator and CUDA error 2,
C++, cuBLAS and cuDNN.
"""

_NO_PRIMITIVE = "could not create a primitive"
"""The error of oneDNN on a CPU, which cannot recover after a failed allocation.

Its assembler keeps the error in that thread, however much memory is free later.
"""


def out_of_memory_message(size: machine_size.Size | None, device: str) -> str:
    """Return the error text for a job; `size` is None where MACHINE_SIZE has no effect."""
    if size is None:
        return f"out of memory on {device}: try a smaller image"
    smaller = machine_size.next_smaller(size)
    advice = f"MACHINE_SIZE={smaller} or a smaller image" if smaller else "a smaller image"
    return f"out of memory with MACHINE_SIZE={size} on {device}: try {advice}"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether the error, or one of its causes, is an out-of-memory error."""
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(
            text in str(error) for text in _OUT_OF_MEMORY_MESSAGES
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_fatal_device_error(error: Exception) -> bool:
    """Return whether the process can no longer compute and must be replaced."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.AcceleratorError):
            return True
        if isinstance(cause, RuntimeError) and _NO_PRIMITIVE in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


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


def _resident(name: str) -> int | None:
    """Return a field of /proc/self/status, which is in KiB, in bytes. Linux only."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 if values else None
