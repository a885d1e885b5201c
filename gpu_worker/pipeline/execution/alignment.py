"""Aligns the weights that a CPU computes with as torch aligns its own allocations.

MKL chooses its code by the alignment of its operands, so the same weights at another address are
summed in another order. In a mapped file the tensors start wherever the header ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

BYTES = 64
"""The alignment of torch's allocations on a CPU (c10/core/alignment.h, gAlignment)."""


def align(pipe: Any, device: torch.device) -> int:
    """Copy the weights of a pipeline's modules that are not aligned, on a CPU only.

    Parameters and buffers stay the same objects, and shared weights stay shared.

    Args:
        pipe: a diffusers pipeline, or a single torch module.
        device: the device that computes. A GPU copies them into its own memory.

    Returns:
        The number of bytes copied.
    """
    if device.type != "cpu":
        return 0
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    for module in _modules(pipe):
        for tensor in (*module.parameters(), *module.buffers()):
            for plain in _plain(tensor):
                _move(plain, copies)
    return sum(copy.numel() * copy.element_size() for copy in copies.values())


def _modules(pipe: Any) -> list[torch.nn.Module]:
    if isinstance(pipe, torch.nn.Module):
        return [pipe]
    parts = pipe.components.values()
    return [part for part in parts if isinstance(part, torch.nn.Module)]


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors that own memory; of quantized weights, their inner tensors."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _plain(getattr(tensor, name))


def _move(tensor: torch.Tensor, copies: dict[tuple[Any, ...], torch.Tensor]) -> None:
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return
    if tensor.data_ptr() % BYTES == 0:
        return
    view = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
    if view not in copies:
        copies[view] = tensor.data.clone()
    tensor.data = copies[view]
