"""What an error means for the process, from its code, its text and its causes."""

from __future__ import annotations

import errno

import pytest
import torch

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.execution.device_errors import (
    Fault,
    classify,
    first_line,
    stop_behind,
)
from tests.support.cuda.faults import accelerator_error

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (2, Fault.MEMORY),
        (700, Fault.DEVICE),  # illegal address
        (710, Fault.DEVICE),  # assertion in a kernel
        (719, Fault.DEVICE),  # launch failure
        (214, Fault.DEVICE),  # uncorrectable memory
        (702, Fault.DEVICE),  # time limit of the display driver
        (9, Fault.JOB),  # invalid configuration argument
        (98, Fault.JOB),  # invalid device function
        (209, Fault.JOB),  # no kernel image
        (701, Fault.JOB),  # too many resources requested
    ],
)
def test_a_code_says_whether_the_device_can_go_on(code: int, fault: Fault) -> None:
    assert classify(accelerator_error(code, "of this kind"), CPU) is fault
    wrapped = ModelsError("xl: cannot be loaded")
    wrapped.__cause__ = accelerator_error(code, "of this kind")
    assert classify(wrapped, CPU) is fault


def test_without_a_code_the_worst_is_assumed() -> None:
    assert classify(torch.AcceleratorError("CUDA error: unknown error"), CPU) is Fault.DEVICE


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_a_library_without_memory_says_so_in_its_own_words(text: str) -> None:
    assert classify(RuntimeError(text), CPU) is Fault.MEMORY
    assert classify(Unsupported("prompt", text, "is unknown"), CPU) is Fault.JOB
    assert classify(ValueError(text), CPU) is Fault.JOB


def test_other_errors_are_of_the_job() -> None:
    assert classify(RuntimeError("shapes cannot be multiplied"), CPU) is Fault.JOB
    assert classify(OSError(errno.ENOSPC, "No space left on device"), CPU) is Fault.JOB
    circle = RuntimeError("first")
    circle.__context__ = RuntimeError("second")
    circle.__context__.__context__ = circle
    assert classify(circle, CPU) is Fault.JOB


def test_the_first_line_is_for_people() -> None:
    error = accelerator_error(700, "an illegal memory access was encountered\nFor debugging ...")
    assert first_line(error) == "CUDA error: an illegal memory access was encountered"
    assert first_line(RuntimeError()) == "the device gives no reason"


def test_a_stop_is_behind_the_error_that_replaced_it() -> None:
    class Stop(BaseException):
        pass

    stop, failure = Stop(), accelerator_error(700, "an illegal memory access was encountered")
    failure.__context__ = RuntimeError("while it was put away")
    assert stop_behind(failure) is None
    failure.__context__.__context__ = SystemExit(1)
    assert stop_behind(failure) is None, "a library's own"
    failure.__context__.__context__ = stop
    assert stop_behind(failure) is stop and stop_behind(stop) is stop
