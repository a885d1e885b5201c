"""How much memory a job takes: of the GPU where there is one, else of this process. Frees none.

And whether an error says that it did not suffice.
"""

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
"""Of RuntimeErrors: torch's CPU allocator (c10/core/impl/alloc_cpu.cpp), its MPS allocator and
CUDA's own error 2, C++, cuBLAS and cuDNN. The process can go on after each."""

_NO_PRIMITIVE = "could not create a primitive"
"""oneDNN's, on a CPU. Once it found no room for the code that it makes, it makes none any more in
that thread, however much room there is: its assembler keeps the error."""


def out_of_memory_message(size: machine_size.Size | None, device: str) -> str:
    """What a job that found too little is told; `size` None: MACHINE_SIZE has no part in it."""
    if size is None:
        return f"out of memory on {device}: try a smaller picture"
    smaller = machine_size.next_smaller(size)
    advice = f"MACHINE_SIZE={smaller} or a smaller picture" if smaller else "a smaller picture"
    return f"out of memory with MACHINE_SIZE={size} on {device}: try {advice}"


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that it was made of, says that the memory did not suffice."""
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(
            each in str(error) for each in _OUT_OF_MEMORY_MESSAGES
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_fatal_device_error(error: Exception) -> bool:
    """Whether this process can compute nothing more: it has to be replaced."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, torch.AcceleratorError):
            return True
        if isinstance(at, RuntimeError) and _NO_PRIMITIVE in str(at):
            return True
        at = at.__cause__ or at.__context__
    return False


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


def bytes_in_use(device: torch.device) -> int | None:
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
