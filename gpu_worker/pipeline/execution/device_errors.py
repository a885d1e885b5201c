"""Decides what an error of a job means for the process: it goes on, needs memory, or must end.

A CUDA error is often first reported by another library or in a later call, so its text alone does
not decide. The device itself is asked.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from enum import StrEnum

import torch

from gpu_worker.contract.validation_errors import Refusal
from gpu_worker.pipeline_api import DeviceLost

log = logging.getLogger(__name__)


class Fault(StrEnum):
    """What an error means. `JOB`: the fault is the job's own, and the device can continue."""

    JOB = "job"
    MEMORY = "memory"
    DEVICE = "device"


_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation and hipErrorOutOfMemory (driver_types.h, hip_runtime_api.h)."""

_STICKY = frozenset({214, 220, 226, 700, 702, 709, 710, *range(714, 720)})
"""Errors after which every call of the process fails (driver_types.h).

They are uncorrectable memory and NVLink errors, illegal addresses and instructions, time limits,
assertions and failed launches.
"""

_MEMORY_TEXTS = (
    "can't allocate memory",
    "out of memory",
    "std::bad_alloc",
    "STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "was unable to find an engine to execute this computation",
)
"""Texts of RuntimeErrors that usually mean that the memory is full.

They are of torch's CPU allocator (c10/core/impl/alloc_cpu.cpp), its MPS allocator and CUDA error 2,
C++, cuBLAS and cuDNN. cuBLAS fails to create its handle, and cuDNN finds no engine, where their
workspaces do not fit.
"""

_OF_LIBRARIES = (GeneratorExit, SystemExit, CancelledError)
"""Exits that libraries raise for themselves. They stop no job."""

_NO_PRIMITIVE = "could not create a primitive"
"""The error of oneDNN on a CPU, which cannot recover after a failed allocation.

Its assembler keeps the error in that thread, however much memory is free later.
"""


def classify(error: BaseException, device: torch.device) -> Fault:
    """Return what an error of a job means.

    On CUDA the device is asked after every error, except a refusal that no error caused. It waits
    for the device.
    """
    if isinstance(error, Refusal) and error.__cause__ is None and error.__context__ is None:
        return Fault.JOB
    fault = _fault_of_chain(error)
    if fault is Fault.DEVICE or device.type != "cuda":
        return fault
    return _fault_of_device(device) or fault


def _fault_of_device(device: torch.device) -> Fault | None:
    """Return what the device itself reports; None if it can compute. A lost one fails always.

    An earlier kernel's lack of memory may be reported only here, by its code.
    """
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        if _fault_of(error) is Fault.MEMORY:
            return Fault.MEMORY
        log.error("%s does not respond: %s", device, first_line(error))
        return Fault.DEVICE
    return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether the error, or one of its causes, is an out-of-memory error."""
    return error is not None and _fault_of_chain(error) is Fault.MEMORY


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; CUDA's further lines are advice for developers."""
    return (str(error).strip().splitlines() or ["the device gives no reason"])[0]


@contextlib.contextmanager
def loss_reported(device: torch.device) -> Iterator[None]:
    """Raise DeviceLost for an error inside this context after which the device does not respond.

    Raises:
        DeviceLost: the process must be replaced.
    """
    try:
        yield
    except Exception as error:
        if classify(error, device) is Fault.DEVICE:
            raise DeviceLost(first_line(error)) from error
        raise


@contextlib.contextmanager
def undo_at_end(device: torch.device, undo: Callable[[], None]) -> Iterator[None]:
    """Call `undo` when the context ends, also with an error; see `undo_after`."""
    try:
        yield
    except BaseException as error:
        undo_after(error, device, undo)
        raise
    undo()


def undo_after(error: BaseException, device: torch.device, undo: Callable[[], None]) -> None:
    """Call `undo` in the handler of an error, which it does not replace.

    A lost device fails in every call, so nothing is undone there. The engine lets go of a model
    that `undo` could not restore.
    """
    if classify(error, device) is Fault.DEVICE:
        return
    try:
        undo()
    except Exception as failure:
        log.warning("the model cannot be restored: %s", first_line(failure))


def stop_behind(error: BaseException) -> BaseException | None:
    """Return the stop of a job that an error replaced while it ended; else None."""
    no_stops = (Exception, *_OF_LIBRARIES)
    return next((each for each in _chain(error) if not isinstance(each, no_stops)), None)


def _fault_of_chain(error: BaseException) -> Fault:
    """Return what an error and its causes say; the first one that says anything counts."""
    faults = map(_fault_of, _chain(error))
    return next((fault for fault in faults if fault is not Fault.JOB), Fault.JOB)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, which may be a circle."""
    visited: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        visited.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _fault_of(error: BaseException) -> Fault:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Fault.MEMORY
    if isinstance(error, OSError):
        return Fault.MEMORY if error.errno == errno.ENOMEM else Fault.JOB
    if isinstance(error, torch.AcceleratorError):
        return _fault_of_code(error)
    if isinstance(error, RuntimeError):
        text = str(error)
        if _NO_PRIMITIVE in text:
            return Fault.DEVICE
        if any(sign in text for sign in _MEMORY_TEXTS):
            return Fault.MEMORY
    return Fault.JOB


def _fault_of_code(error: torch.AcceleratorError) -> Fault:
    """Return what the code says that torch's C++ sets. Without one the worst is assumed."""
    code = getattr(error, "error_code", None)
    if code == _OUT_OF_MEMORY:
        return Fault.MEMORY
    return Fault.DEVICE if code is None or code in _STICKY else Fault.JOB
