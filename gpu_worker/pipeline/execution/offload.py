"""Puts a pipeline's parts where MACHINE_SIZE says: on the device, or on the CPU until they compute.

The hooks are removed before a part is added, set for the job's pipeline, and restored afterwards.
On a CPU the weights are aligned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.hooks.group_offloading import (
    _GROUP_OFFLOADING,
    _LAYER_EXECUTION_TRACKER,
    _LAZY_PREFETCH_GROUP_OFFLOADING,
    _get_group_onload_device,
    _is_group_offload_enabled,
)

from gpu_worker import host_memory
from gpu_worker.pipeline.execution import alignment, device_errors

Offload = Literal["none", "model", "layers"]
"""`model` moves one part at a time to the device, and `layers` one layer at a time."""

_HOOKS = (_GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING)


def modules(pipe: Any) -> list[torch.nn.Module]:
    """Return the networks of a pipeline."""
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def weight_bytes(module: torch.nn.Module) -> int:
    """Return the size of a network's parameters and buffers in bytes."""
    return sum(map(_stored_bytes, (*module.parameters(), *module.buffers())))


def resident_bytes(pipe: Any, device: torch.device) -> int:
    """Return the size of a pipeline's weights that are on a device already, in bytes.

    bitsandbytes loads its weights there.
    """
    tensors = (each for part in modules(pipe) for each in (*part.parameters(), *part.buffers()))
    return sum(_stored_bytes(each) for each in tensors if each.device == device)


def _stored_bytes(tensor: torch.Tensor) -> int:
    """Return the size of a tensor's data in bytes.

    A quantized tensor reports the dtype it computes in; its data are in the tensors that it wraps.
    """
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_stored_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()


def current(pipe: Any) -> Offload:
    """Return the pipeline's offload, according to its hooks."""
    if getattr(pipe, "_all_hooks", None):
        return "model"
    return "layers" if any(map(has_layer_hooks, modules(pipe))) else "none"


def has_layer_hooks(module: torch.nn.Module) -> bool:
    """Return whether the layers of a network wait on the CPU until they compute."""
    return _is_group_offload_enabled(module)


def is_offloaded(module: torch.nn.Module) -> bool:
    """Return whether hooks of accelerate or diffusers move a network to the device and back."""
    return hasattr(module, "_hf_hook") or has_layer_hooks(module)


def is_in_place(pipe: Any, offload: Offload) -> bool:
    """Return whether each network of a pipeline has the hooks of an offload."""
    excluded = pipe._exclude_from_cpu_offload if offload == "model" else ()
    parts = {name: part for name, part in pipe.components.items() if name not in excluded}
    networks = [part for part in parts.values() if isinstance(part, torch.nn.Module)]
    return current(pipe) == offload and (offload == "none" or all(map(is_offloaded, networks)))


def enable(pipe: Any, offload: Offload, device: torch.device) -> None:
    """Move a pipeline without hooks to the device, or set the hooks that move its parts there."""
    if offload == "none":
        pipe.to(device)
        alignment.align(pipe, device)
    elif offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        keeps_pinned = 2 * sum(map(weight_bytes, modules(pipe))) < host_memory.available_bytes()
        # record_stream stays off: the host would run ahead of the layers, whose weights would
        # fill the device's memory. So it waits for each layer.
        for module in modules(pipe):
            apply_group_offloading(
                module,
                onload_device=device,
                offload_type="leaf_level",
                use_stream=device.type == "cuda",
                low_cpu_mem_usage=not keeps_pinned,
            )


def _device(pipe: Any) -> torch.device:
    """Return the device that an offloaded pipeline computes on."""
    if current(pipe) == "model":
        device: torch.device = pipe._offload_device
        return device
    hooked = next(module for module in modules(pipe) if has_layer_hooks(module))
    return _get_group_onload_device(hooked)


def disable(pipe: Any) -> None:
    """Remove all hooks and move the whole pipeline to the CPU."""
    pipe.remove_all_hooks()
    for module in modules(pipe):
        if has_layer_hooks(module):
            registry = HookRegistry.check_if_exists_or_initialize(module)
            for name in _HOOKS:
                registry.remove_hook(name, recurse=True)
    pipe.to("cpu", silence_dtype_warnings=True)


def share(pipe: Any, other: Any) -> None:
    """Give the hooks of a pipeline to another one that is made of its modules.

    diffusers offloads a pipeline's modules after a call only if the pipeline has hooks.
    """
    if current(pipe) == "model":
        other._all_hooks, other._offload_device = list(pipe._all_hooks), pipe._offload_device


@contextlib.contextmanager
def restored_on_error(pipe: Any) -> Iterator[None]:
    """Offload the modules that a job leaves on the device when it ends between two steps."""
    try:
        yield
    except BaseException as error:
        offload = current(pipe)
        if offload != "none":
            device = _device(pipe)
            device_errors.undo_after(error, device, lambda: _reset(pipe, offload, device))
        raise


def _reset(pipe: Any, offload: Offload, device: torch.device) -> None:
    """Let each part of a pipeline with hooks rest on the CPU again."""
    if offload == "layers":  # a layer that was interrupted stays on the device
        disable(pipe)
        enable(pipe, offload, device)
    else:
        finish(pipe)


def finish(pipe: Any) -> None:
    """Move the part that computed last back to the CPU, as the end of a call of diffusers does."""
    if current(pipe) == "model":
        pipe.maybe_free_model_hooks()


@contextlib.contextmanager
def suspended(pipe: Any) -> Iterator[Offload]:
    """Remove the loaded pipeline's hooks for the duration of the context, and restore them."""
    offload = current(pipe)
    if offload == "none":
        yield offload
        return
    device = _device(pipe)
    with device_errors.undo_at_end(device, lambda: _restore(pipe, offload, device)):
        disable(pipe)
        yield offload


def _restore(pipe: Any, offload: Offload, device: torch.device) -> None:
    if current(pipe) != "none":  # only some hooks were removed
        disable(pipe)
    enable(pipe, offload, device)


@contextlib.contextmanager
def applied(pipe: Any, offload: Offload, device: torch.device) -> Iterator[None]:
    """Put the job's pipeline on its device, or set the hooks that move it there."""
    if offload == "none":
        enable(pipe, offload, device)
        yield
        return
    with device_errors.undo_at_end(device, lambda: disable(pipe)):
        enable(pipe, offload, device)
        yield
