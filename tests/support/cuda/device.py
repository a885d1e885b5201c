"""Turns this process into one with make-believe CUDA devices, for the rest of its life."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from tests.support.cuda import constructors, torch_cuda
from tests.support.cuda.dispatch import DeviceMode
from tests.support.cuda.memory import DEVICES, GIB, set_devices

_LATE = ("accelerate", "diffusers", "transformers")
"""Libraries that keep what torch.cuda says when they are imported."""

_CUDA, _META = 1, 14
"""c10::DeviceType (c10/core/DeviceType.h)."""


def enter(
    count: int = 2, memory_bytes: int = 24 * GIB, capability: tuple[int, int] = (9, 0)
) -> None:
    """Put the devices in place. A second call renews their number and memory, nothing else.

    Args:
        memory_bytes: the memory of each device; `memory.DEVICES` has them, with their limits.
        capability: the compute capability; below 8.0 there is no bfloat16 of their own.

    Raises:
        RuntimeError: a library is imported already that would go on without devices.
    """
    torch_cuda.ARCHITECTURE.capability = capability
    if DEVICES:
        set_devices(count, memory_bytes)
        return
    early = [name for name in _LATE if name in sys.modules]
    if early:
        raise RuntimeError(f"the devices must be there before these are: {', '.join(early)}")
    set_devices(count, memory_bytes)
    _guard_devices()
    torch_cuda.replace()
    constructors.replace()
    # Autograd would ask CUDA for streams.
    torch.set_grad_enabled(False)
    _enter_threads()
    DeviceMode().__enter__()


def _guard_devices() -> None:
    """Give CUDA the device guard of Meta tensors, which does nothing; C++ asks for one."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    name = "_ZN3c104impl26device_guard_impl_registryE"
    guards = (ctypes.c_void_p * (_META + 1)).in_dll(library, name)
    guards[_CUDA] = guards[_META]


def _enter_threads() -> None:
    """Let each new thread see the devices: torch keeps modes and gradients by thread."""
    bootstrap = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def bootstrap_with_devices(thread: Any) -> None:
        torch.set_grad_enabled(False)
        with DeviceMode():
            bootstrap(thread)

    threading.Thread._bootstrap_inner = bootstrap_with_devices  # type: ignore[attr-defined]
