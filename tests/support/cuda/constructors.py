"""Replaces what torch makes or changes in C++ past the dispatch rules: `torch.tensor`, `.data`.

Each of them does on the CPU what it did before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _device as device_context

from tests.support.cuda import current, streams
from tests.support.cuda.tensor import DeviceTensor, exchange_data


def replace() -> None:
    """Replace the constructors and attributes for the rest of the process."""
    # This set is made once, at its first use, and must hold the constructors of before.
    device_context._device_constructors()
    torch.tensor = _values_moved(torch.tensor)
    torch.as_tensor = _values_moved(torch.as_tensor)
    torch.asarray = _values_moved(torch.asarray)
    torch.Tensor.to = _with_index(torch.Tensor.to)
    torch.Tensor.cuda = _to_cuda
    torch._has_compatible_shallow_copy_type = _keeps_object(torch._has_compatible_shallow_copy_type)
    torch.Tensor.data = property(_data, exchange_or_set)
    torch.Tensor.pin_memory = lambda tensor, device=None: streams.pin(tensor.clone())
    torch.Tensor.is_pinned = _is_pinned


def _values_moved(construct: Callable[..., Any]) -> Callable[..., Any]:
    """Return a constructor that builds on the CPU, and then moves to a CUDA device."""

    def constructor(data: Any, *args: Any, device: Any = None, **options: Any) -> Any:
        if isinstance(data, DeviceTensor):
            return _again(data, device, options)
        host = construct(_numbers(data), *args, device=_host_device(device), **options)
        return host.to(current.device_of(device)) if _is_cuda(device) else host

    return constructor


def _again(data: DeviceTensor, device: Any, options: dict[str, Any]) -> torch.Tensor:
    """Return a tensor from one on a device: a copy if it must move."""
    options = {name: value for name, value in options.items() if name == "dtype"}
    return data.to(data.device if device is None else device, **options)


def _numbers(data: Any) -> Any:
    """Replace single tensors of a list by numbers, for each of which the host waits."""
    if not isinstance(data, list | tuple) or not any(isinstance(x, DeviceTensor) for x in data):
        return data
    return [each.item() if isinstance(each, DeviceTensor) else each for each in data]


def _is_cuda(device: Any) -> bool:
    return device is not None and (isinstance(device, int) or torch.device(device).type == "cuda")


def _host_device(device: Any) -> Any:
    return None if _is_cuda(device) else device


def _with_index(move: Callable[..., Any]) -> Callable[..., Any]:
    """Return `Tensor.to`, which in C++ asks the device guard for the index of plain `cuda`."""

    def index(value: Any) -> Any:
        is_device = isinstance(value, str | torch.device) and str(value) == "cuda"
        return current.device_of(value) if is_device else value

    def to(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        named = {name: index(value) for name, value in options.items()}
        moved: torch.Tensor = move(tensor, *map(index, args), **named)
        return moved

    return to


def _to_cuda(tensor: torch.Tensor, device: Any = None, **options: Any) -> torch.Tensor:
    return tensor.to(current.device_of("cuda" if device is None else device), **options)


def _keeps_object(answer: Callable[..., bool]) -> Callable[..., bool]:
    """Return what `Module.to` asks before it sets the data of a parameter, or replaces it."""

    def host(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.host if isinstance(tensor, DeviceTensor) else tensor

    # torch's compiler compares these names with those of a function of its own.
    def is_compatible(input: torch.Tensor, from_: torch.Tensor) -> bool:
        return answer(host(input), host(from_))

    return is_compatible


_PLAIN_DATA = torch._C.TensorBase.data


def _data(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, DeviceTensor):
        return DeviceTensor.wrap(tensor.host.detach(), tensor.device)
    return _PLAIN_DATA.__get__(tensor)


def exchange_or_set(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Set `tensor.data`, across devices too."""
    if isinstance(tensor, DeviceTensor) or isinstance(value, DeviceTensor):
        exchange_data(tensor, value)
    else:
        _PLAIN_DATA.__set__(tensor, value)


def _is_pinned(tensor: torch.Tensor, device: Any = None) -> bool:
    return not isinstance(tensor, DeviceTensor) and streams.is_pinned(tensor)
