"""The current device and the current stream of each device, of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_state: dict[str, int] = {"index": 0}
_streams: dict[int, Any] = {}


def index() -> int:
    """Return the index of the current device."""
    return _state["index"]


def set_index(new: int) -> int:
    """Set the current device and return the one before; a negative index changes nothing."""
    before = _state["index"]
    if new >= 0:
        _state["index"] = new
    return before


def device_of(device: Any) -> torch.device:
    """Return a device with its index: `cuda` alone is the current one, a number is of CUDA."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", index())
    return device


def stream(make: Callable[[torch.device], Any], device: Any = None) -> Any:
    """Return a device's current stream; the first one is made by `make`."""
    where = device_of("cuda" if device is None else device)
    if where.index not in _streams:
        _streams[where.index] = make(where)
    return _streams[where.index]


def set_stream(new: Any) -> None:
    """Set the current stream of the stream's device."""
    _streams[new.device.index] = new
