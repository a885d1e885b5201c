"""Chooses the device of SDE_DEVICE and starts it: one tiny kernel, under a deadline.

`gpu_worker.gpu_environment` has hidden the other GPUs already, so a GPU's index is always 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from gpu_worker import gpu_environment
from gpu_worker.gpu_environment import Platform
from gpu_worker.settings import SettingsError

ANSWER_S = 120.0
"""The deadline of the first kernel. A host with eight GPUs needs half a minute to start them."""

_NO_SUCH_GPU = ("No CUDA GPUs are available", "No HIP GPUs are available")
"""torch's words for a driver that works and shows no GPU (torch/csrc/cuda)."""

_NO_CODE = ("no kernel image", "invalid device function")
"""CUDA's and HIP's words for a kernel that was not compiled for the GPU."""

Kind = Literal["cuda", "mps", "cpu"]
Value = TypeVar("Value")

log = logging.getLogger(__name__)


class DeviceUnavailable(RuntimeError):
    """The machine has a GPU that cannot be used. The text is a sentence for the operator."""


@dataclass(frozen=True)
class Machine:
    """The devices of this machine.

    `platform` is what torch is compiled for, and None if that is the CPU. `drivers` are the
    platforms whose driver is on the machine. `gpu_error` is torch's reason for not using a GPU, and
    None if there is a GPU to use.
    """

    platform: Platform | None
    drivers: frozenset[Platform]
    gpu_error: str | None
    has_mps: bool

    @classmethod
    def current(cls) -> Machine:
        """Return what torch and the driver report."""
        platform: Platform | None = "CUDA" if torch.version.cuda else None
        return cls(
            "ROCm" if torch.version.hip else platform,
            gpu_environment.drivers(),
            _gpu_error(),
            torch.backends.mps.is_available(),
        )


def choose(setting: str, gpu: int, machine: Machine) -> Kind:
    """Return the kind of device for SDE_DEVICE; `auto` prefers a GPU, then MPS, then the CPU.

    `auto` takes the CPU only if the machine has no driver of the platform that torch is built for.
    A processor of AMD with graphics, beside a torch for CUDA, is no GPU for torch.

    Raises:
        SettingsError: the machine has no such device, or SDE_GPU names none of its GPUs.
        DeviceUnavailable: the machine has a GPU that torch cannot use.
    """
    if setting == "cpu":
        return "cpu"
    if setting == "mps":
        if machine.has_mps:
            return "mps"
        raise SettingsError("SDE_DEVICE=mps: this machine has no such device")
    if machine.gpu_error is None:
        return "cuda"
    if setting == "auto" and machine.platform not in machine.drivers:
        if machine.drivers:
            log.warning(
                "the driver on this machine is for %s and torch is built for %s: no GPU is used",
                " and ".join(sorted(machine.drivers)),
                machine.platform or "the CPU",
            )
        return "mps" if machine.has_mps else "cpu"
    raise _fault(setting, gpu, machine)


def _fault(setting: str, gpu: int, machine: Machine) -> Exception:
    reason = (machine.gpu_error or "").rstrip(". ")
    if machine.platform is None:
        return SettingsError(
            f"SDE_DEVICE={setting}: the installed torch {torch.__version__} is built for the CPU"
        )
    if machine.platform not in machine.drivers:
        return SettingsError(
            f"SDE_DEVICE={setting}: this machine has no GPU driver for {machine.platform}, which "
            f"the installed torch is built for: {reason}"
        )
    advice = "SDE_DEVICE=cpu runs on the CPU"
    if reason.startswith(_NO_SUCH_GPU):
        return SettingsError(
            f"SDE_GPU={gpu}: the driver shows no such GPU, or CUDA_VISIBLE_DEVICES hides it: "
            f"{reason}; {advice}"
        )
    return DeviceUnavailable(f"the GPU cannot be used: {reason}; {advice}")


def choose_device(setting: str, gpu: int) -> torch.device:
    """Return the device for SDE_DEVICE. Raises SettingsError and DeviceUnavailable."""
    if setting == "cpu":
        return torch.device("cpu")
    kind = choose(setting, gpu, Machine.current())
    return torch.device(kind, 0) if kind == "cuda" else torch.device(kind)


def start_device(setting: str, gpu: int) -> torch.device:
    """Return the device for SDE_DEVICE after it has run a kernel.

    Raises:
        SettingsError: the machine has no such device.
        DeviceUnavailable: the device does not compute, or its driver does not answer.
    """

    def start() -> torch.device:
        _initialize_driver()
        device = choose_device(setting, gpu)
        if device.type == "cuda":
            run_kernel(device)
        return device

    return torch.device("cpu") if setting == "cpu" else within(ANSWER_S, start)


def within(timeout_s: float, start: Callable[[], Value]) -> Value:
    """Return the result of a function that may hang in a driver.

    Raises:
        DeviceUnavailable: it has not returned after `timeout_s`. Its thread stays.
    """
    executor = futures.ThreadPoolExecutor(1, thread_name_prefix="device")
    future = executor.submit(start)
    executor.shutdown(wait=False)
    futures.wait([future], timeout_s)
    if not future.done():
        raise DeviceUnavailable(f"the driver of the GPU has not answered for {timeout_s:g} s")
    return future.result()


def run_kernel(device: torch.device) -> None:
    """Compute a sum on the device and wait for it. Raises DeviceUnavailable."""
    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:
        message = kernel_error(str(error), torch.cuda.get_device_name(device), _architectures())
        raise DeviceUnavailable(message) from error


def kernel_error(error: str, gpu: str, architectures: str) -> str:
    """Return the sentence for a GPU that cannot run a kernel of this torch.

    Args:
        error: the message of torch, of which the first line has the reason.
        architectures: those that torch has code for.
    """
    reason = error.partition("\n")[0].rstrip(". ")
    if any(words in reason for words in _NO_CODE):
        return (
            f"torch {torch.__version__} has no code for the GPU {gpu}; it has code for: "
            f"{architectures}; install a torch for this GPU"
        )
    return f"the GPU {gpu} cannot compute: {reason}"


def _architectures() -> str:
    return ", ".join(torch.cuda.get_arch_list()) or "none"


def _gpu_error() -> str | None:
    """Return torch's reason for not using a GPU; None if there is one to use."""
    if torch.cuda.is_available() and torch.cuda.device_count() > 0:
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch has no GPU support
        return str(error).partition("\n")[0]
    return _NO_SUCH_GPU[0]


def _initialize_driver() -> None:
    """Initialize NVIDIA's driver. ctypes releases the GIL for the call, and torch does not.

    So a driver that hangs stops neither the deadline nor the status of the worker.
    """
    if torch.version.cuda is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuInit(0)
