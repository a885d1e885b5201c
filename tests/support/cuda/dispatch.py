"""The rules of each operation: on which device it runs, what it costs, and what CUDA refuses.

The values are computed on the CPU by torch itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.cuda import current, streams
from tests.support.cuda.counters import COUNTERS
from tests.support.cuda.faults import FAULTS
from tests.support.cuda.nesting import leaves, mapped
from tests.support.cuda.tensor import DeviceTensor

_INDEXING = frozenset(
    {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
)
_COPYING = frozenset({"aten::copy_", "aten::_to_copy"})
_WAITING = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::equal",
        "aten::is_nonzero",
        "aten::masked_select",
        "aten::nonzero",
        "aten::unique_consecutive",
        "aten::unique_dim",
        "aten::_unique2",
    }
)
"""Operations whose result, or its size, the host must read."""

_WIDENING = frozenset({"aten::_softmax", "aten::_log_softmax"})
"""Operations that CUDA also does from half to float in one; their third argument says so."""

_CPU = torch.device("cpu")
_MATH_ATTENTION = 0
"""sdp::SDPBackend::math (aten/src/ATen/native/transformers/sdp_utils_cpp.h)."""


class DeviceMode(TorchDispatchMode):
    """Routes what concerns a device to the rules, also what makes a tensor there or moves it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Answer no: nothing is compiled here, and torch would import its compiler to skip it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors(args, kwargs)
        if _is_cuda(kwargs.get("device")) or any(isinstance(t, DeviceTensor) for t in tensors):
            return _run(func, args, kwargs, tensors)
        is_pinned = kwargs.pop("pin_memory", None)
        result = func(*args, **kwargs)
        return streams.pin(result) if is_pinned else result


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what the operation returns on a CUDA device.

    Raises:
        RuntimeError: the operation mixes devices, or takes a generator of another device.
        NotImplementedError: it copies a tensor without data.
        torch.OutOfMemoryError: its result does not fit.
    """
    return _run(func, args, kwargs, _tensors(args, kwargs))


DeviceTensor.dispatch = staticmethod(run)


def _tensors(args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]


def _run(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> Any:
    name = func._schema.name
    COUNTERS.operations += 1
    FAULTS.check(name)
    target = _target(name, args, kwargs, tensors)
    _check_generator(kwargs, target)
    if name in _INDEXING:
        _index(args[0], args[1])
    elif name not in _COPYING and kwargs.get("device") is None:
        _check_one_device(tensors)
    if name in _WAITING:
        streams.wait()
    if name == "aten::_fused_sdp_choice":
        return _MATH_ATTENTION
    if name in _WIDENING and args[2]:
        args = (args[0].to(torch.float32), args[1], False)
    if name in _COPYING:
        return _copy(func, args, kwargs, tensors, target)
    return _computed(func, args, kwargs, tensors, target)


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _host(value: Any) -> Any:
    """Return what stands for a value in the computation on the CPU."""
    if isinstance(value, DeviceTensor):
        return value.host
    return _CPU if isinstance(value, torch.device) and value.type == "cuda" else value


def _target(
    name: str, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> torch.device | None:
    """Return the device of the result; None for the CPU and others that are real."""
    if kwargs.get("device") is not None:
        device = current.device_of(kwargs["device"])
        return device if device.type == "cuda" else None
    if name in _INDEXING or name in _COPYING:
        return args[0].device if isinstance(args[0], DeviceTensor) else None
    return next((t.device for t in tensors if isinstance(t, DeviceTensor)), None)


def _check_generator(kwargs: dict[str, Any], target: torch.device | None) -> None:
    generator = kwargs.get("generator")
    if target is not None and generator is not None and generator.device.type != "cuda":
        raise RuntimeError(
            f"Expected a 'cuda' device type for generator but found '{generator.device.type}'"
        )


def _check_one_device(tensors: list[torch.Tensor]) -> None:
    """Check that all are on one device, but for CPU tensors without dimensions."""
    devices = {
        str(each.device)
        for each in tensors
        if isinstance(each, DeviceTensor) or (each.device.type == "cpu" and each.dim() > 0)
    }
    if len(devices) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(devices))}!"
        )


def _index(base: torch.Tensor, indices: Any) -> None:
    """Count what indices cost: a mask is a wait, an index on the CPU is a copy.

    Raises:
        RuntimeError: a CPU tensor is indexed by a tensor on a device.
    """
    for index in (each for each in indices if each is not None):
        if not isinstance(base, DeviceTensor):
            if isinstance(index, DeviceTensor):
                raise RuntimeError(
                    "indices should be either on cpu or on the same device as the indexed tensor "
                    "(cpu)"
                )
            continue
        if not isinstance(index, DeviceTensor):
            COUNTERS.to_device.note(index)
        elif index.dtype == torch.bool:
            streams.wait()


def _copy(
    func: Any,
    args: Any,
    kwargs: dict[str, Any],
    tensors: list[torch.Tensor],
    target: torch.device | None,
) -> Any:
    """Copy between host and device; only where the host does not wait may the values come late."""
    source = tensors[-1]
    destination = tensors[0] if len(tensors) == 2 else None
    if source.device.type == "meta":
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")
    if target is None and destination is None and kwargs.get("device") is None:
        target = source.device
    result = _computed(func, args, kwargs, tensors, target)
    if target is not None and not isinstance(source, DeviceTensor):
        COUNTERS.to_device.note(source)
    elif target is None and result.device.type == "cpu":
        COUNTERS.from_device.note(source)
        does_not_wait = kwargs.get("non_blocking") or True in args[2:]
        if does_not_wait and (destination is None or streams.is_pinned(result)):
            streams.copy_later(streams.pin(result))
        else:
            streams.wait()
    return result


def _computed(
    func: Any,
    args: Any,
    kwargs: dict[str, Any],
    tensors: list[torch.Tensor],
    target: torch.device | None,
) -> Any:
    """Run the operation on the CPU and return its result on the target."""
    host_kwargs = mapped(_host, kwargs)
    is_pinned = host_kwargs.pop("pin_memory", None)
    result = func(*mapped(_host, args), **host_kwargs)
    if target is None:
        return streams.pin(result) if is_pinned else result
    return mapped(lambda each: _placed(each, tensors, target), result)


def _placed(value: Any, tensors: list[torch.Tensor], target: torch.device) -> Any:
    """Return a result on its device: the argument itself where the operation wrote into it."""
    if not isinstance(value, torch.Tensor) or isinstance(value, DeviceTensor):
        return value
    for tensor in tensors:
        if isinstance(tensor, DeviceTensor) and tensor.host is value:
            if tensor.shape != value.shape:
                raise NotImplementedError("the make-believe device cannot reshape in place")
            return tensor
    return DeviceTensor.wrap(value, target)
