"""The tensor of a make-believe device: it reports `cuda:N` and holds a tensor in host memory.

What an operation on it does is said by the dispatch rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

from tests.support.cuda.counters import COUNTERS
from tests.support.cuda.memory import DEVICES


def _in_place(name: str) -> Callable[..., torch.Tensor]:
    """Return the method that reshapes in place, which changes what the device's tensor reports."""

    def reshape(tensor: torch.Tensor, *dimensions: int) -> torch.Tensor:
        exchange_data(tensor, getattr(tensor, name)(*dimensions))
        return tensor

    return reshape


class DeviceTensor(torch.Tensor):
    """A tensor on `cuda:N`. `host` has its values.

    Called as a class, it makes a parameter, because accelerate moves weights by calling the class
    of the weight before.
    """

    host: torch.Tensor
    dispatch: ClassVar[Callable[..., Any]]
    """The dispatch rules; their module sets them, and needs this one."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    squeeze_, unsqueeze_ = _in_place("squeeze"), _in_place("unsqueeze")
    t_, transpose_ = _in_place("t"), _in_place("transpose")

    @staticmethod
    def __new__(
        cls: type[DeviceTensor], data: torch.Tensor, requires_grad: bool = False
    ) -> torch.Tensor:
        if not isinstance(data, DeviceTensor):
            return torch.nn.Parameter(data, requires_grad=False)
        return as_parameter(cls.wrap(data.host, data.device))

    @staticmethod
    def wrap(host: torch.Tensor, device: torch.device) -> DeviceTensor:
        """Return the tensor on a device whose values are those of `host`, without a copy.

        Raises:
            torch.OutOfMemoryError: the device's memory has no room for it.
        """
        DEVICES[device.index].allocate(host)
        tensor: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            DeviceTensor,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=device,
        )
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return DeviceTensor.dispatch(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"DeviceTensor({self.device}, {self.host!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) not in memo:
            copy = DeviceTensor.wrap(self.host.clone(), self.device)
            memo[id(self)] = as_parameter(copy) if is_parameter(self) else copy
        return memo[id(self)]

    def __getitem__(self, index: Any) -> torch.Tensor:
        return super().__getitem__(self._index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._index(index), value)

    def _index(self, index: Any) -> Any:
        """Return an index with its lists on this device, which C++ would put there by itself."""
        if isinstance(index, tuple):
            return tuple(map(self._index, index))
        is_list = isinstance(index, list | np.ndarray)
        return torch.as_tensor(index).to(self.device) if is_list else index

    def tolist(self) -> Any:
        """Return the values, for which the host waits."""
        COUNTERS.wait()
        return self.host.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as a tensor on a CUDA device does."""
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        """Return a new tensor on this device, which C++ would make past the dispatch rules."""
        defaults = {"dtype": self.dtype, "device": self.device}
        return torch.tensor(data, **(defaults | options))

    def record_stream(self, stream: Any) -> None:
        """Do nothing: memory here is never reused while a tensor holds it."""


def is_parameter(tensor: torch.Tensor) -> bool:
    """Return whether a tensor counts as torch.nn.Parameter."""
    return bool(getattr(tensor, "_is_param", False))


def as_parameter(tensor: DeviceTensor) -> DeviceTensor:
    """Return the same tensor, which counts as a parameter from now on."""
    tensor._is_param = True
    return tensor


def exchange_data(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Set `tensor.data`, also from host to device and back; `tensor` stays the same object."""
    new: torch.Tensor
    if isinstance(value, DeviceTensor):
        new = DeviceTensor.wrap(value.host.detach(), value.device)
    elif isinstance(tensor, torch.nn.Parameter):
        new = torch.nn.Parameter(value.detach(), requires_grad=False)
    else:
        new = value.detach()
    attributes = {name: each for name, each in vars(tensor).items() if name != "host"}
    attributes.pop("_is_param", None)
    if isinstance(new, DeviceTensor) and isinstance(tensor, torch.nn.Parameter):
        as_parameter(new)
    # torch.utils.swap_tensors does the same, but refuses tensors that have views.
    tensor.__class__, new.__class__ = type(new), type(tensor)
    tensor.__dict__, new.__dict__ = vars(new) | attributes, {}
    torch._C._swap_tensor_impl(tensor, new)
