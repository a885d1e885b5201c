"""Replaces the functions of torch.cuda and torch.accelerator that a CPU build cannot answer.

Those that talk to the driver count themselves and can fail; those that only read what torch keeps
cannot, as on a real device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tests.support.cuda import current, streams
from tests.support.cuda.counters import COUNTERS
from tests.support.cuda.faults import FAULTS
from tests.support.cuda.memory import DEVICES, DeviceMemory

NAME = "Make-believe GPU"
_CUDA_VERSION = "13.0"


@dataclass(frozen=True)
class DeviceProperties:
    """What torch.cuda.get_device_properties returns, as far as our libraries read it."""

    name: str
    total_memory: int
    major: int
    minor: int
    uuid: str
    multi_processor_count: int = 100


@dataclass
class Architecture:
    """The compute capability that all devices report. bfloat16 came with 8.0 (CUDA C++ guide)."""

    capability: tuple[int, int] = (9, 0)


ARCHITECTURE = Architecture()


def replace() -> None:
    """Replace the functions for the rest of the process."""
    for names in (_answers(), _memory(), _calls(), _STREAMS):
        for name, function in names.items():
            setattr(torch.cuda, name, function)
    torch.cuda.memory.empty_cache = torch.cuda.empty_cache
    torch.accelerator.is_available = lambda: True
    torch.accelerator.device_count = lambda: len(DEVICES)
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    torch.accelerator.synchronize = torch.cuda.synchronize
    torch.backends.cuda.is_built = lambda: True
    torch.version.cuda = _CUDA_VERSION


def _device(device: Any = None) -> DeviceMemory:
    """Return the memory of a device.

    Raises:
        RuntimeError: there is no such device.
    """
    index = current.device_of("cuda" if device is None else device).index
    if index is None or index >= len(DEVICES):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return DEVICES[index]


def _properties(device: Any = None) -> DeviceProperties:
    memory = _device(device)
    uuid = f"00000000-0000-0000-0000-{memory.index:012d}"
    return DeviceProperties(NAME, memory.total_bytes, *ARCHITECTURE.capability, uuid)


def _set_device(device: Any) -> None:
    current.set_index(_device(device).index)


def _is_bf16_supported(including_emulation: bool = True) -> bool:
    """Answer as torch.cuda does: older devices emulate bfloat16, which is slow."""
    return including_emulation or ARCHITECTURE.capability >= (8, 0)


@contextlib.contextmanager
def _stream(stream: Any) -> Iterator[None]:
    if stream is None:
        yield
        return
    with stream:
        yield


def _answers() -> dict[str, Callable[..., Any]]:
    """Return the functions that read what is known without the driver, or do nothing."""
    unneeded = ("_lazy_init", "init", "manual_seed", "manual_seed_all", "set_sync_debug_mode")
    # torch's compiler wants a function object of its own for each name.
    return {
        **{name: lambda *_, **__: None for name in unneeded},
        **_ANSWERS,
        "_exchange_device": lambda index: current.set_index(index),
        "_maybe_exchange_device": lambda index: current.set_index(index),
    }


_ANSWERS: dict[str, Callable[..., Any]] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: len(DEVICES),
    "current_device": current.index,
    "set_device": _set_device,
    "get_device_properties": _properties,
    "get_device_name": lambda device=None: _properties(device).name,
    "get_device_capability": lambda device=None: ARCHITECTURE.capability,
    "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90"],
    "is_bf16_supported": _is_bf16_supported,
    "is_current_stream_capturing": lambda: False,
}

_STREAMS: dict[str, Any] = {
    "Stream": streams.Stream,
    "Event": streams.Event,
    "stream": _stream,
    "current_stream": lambda device=None: current.stream(streams.Stream, device),
    "default_stream": lambda device=None: current.stream(streams.Stream, device),
    "set_stream": current.set_stream,
}


def _memory() -> dict[str, Callable[..., Any]]:
    """Return the functions that read what torch's allocator keeps; none of them can fail."""

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        FAULTS.check("cuda::mem_get_info")
        return _device(device).free_bytes(), _device(device).total_bytes

    def set_fraction(fraction: float, device: Any = None) -> None:
        _device(device).limit_bytes = int(fraction * _device(device).total_bytes)

    return {
        "mem_get_info": mem_get_info,
        "memory_allocated": lambda device=None: _device(device).allocated_bytes,
        "memory_reserved": lambda device=None: _device(device).allocated_bytes,
        "max_memory_allocated": lambda device=None: _device(device).peak_bytes,
        "max_memory_reserved": lambda device=None: _device(device).peak_bytes,
        "reset_peak_memory_stats": lambda device=None: _device(device).reset_peak(),
        "set_per_process_memory_fraction": set_fraction,
    }


def _calls() -> dict[str, Callable[..., Any]]:
    """Return the functions that a lost device lets fail."""

    def synchronize(device: Any = None) -> None:
        streams.synchronize("synchronize")

    def empty_cache() -> None:
        COUNTERS.calls["empty_cache"] += 1
        FAULTS.check("cuda::empty_cache")

    def ipc_collect() -> None:
        COUNTERS.calls["ipc_collect"] += 1
        FAULTS.check("cuda::ipc_collect")

    return {"synchronize": synchronize, "empty_cache": empty_cache, "ipc_collect": ipc_collect}
