"""Moves offload hooks between the loaded pipeline and a job's pipeline, which share modules.

The hooks are removed before a part is added, set for the job's pipeline, and restored afterwards.
Without offload, new parts are moved to the device. On a CPU their weights are aligned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from gpu_worker.pipeline.loading import alignment
from gpu_worker.pipeline.loading.machine_size import Offload


def current_offload(pipe: Any) -> Offload:
    """Return the pipeline's offload, according to its hooks."""
    if getattr(pipe, "_all_hooks", None):
        return "model"
    modules = (part for part in pipe.components.values() if isinstance(part, torch.nn.Module))
    return "sequential" if any(hasattr(module, "_hf_hook") for module in modules) else "none"


@contextlib.contextmanager
def restored_on_error(pipe: Any) -> Iterator[None]:
    """Offload the modules that a job leaves on the device when it ends between two steps."""
    try:
        yield
    except BaseException:
        pipe.maybe_free_model_hooks()
        raise


@contextlib.contextmanager
def suspended(pipe: Any) -> Iterator[Offload]:
    """Remove the loaded pipeline's hooks for the duration of the context, and restore them."""
    offload = current_offload(pipe)
    if offload != "none":
        pipe.remove_all_hooks()
        pipe.to("cpu", silence_dtype_warnings=True)
    try:
        yield offload
    finally:
        _hook(pipe, offload, getattr(pipe, "_offload_device", None))


@contextlib.contextmanager
def applied(pipe: Any, offload: Offload, device: torch.device) -> Iterator[None]:
    """Put the job's pipeline on its device, or set the hooks that move it there."""
    if offload == "none":
        pipe.to(device)
        alignment.align(pipe, device)
        yield
        return
    _hook(pipe, offload, device)
    alignment.align(pipe, device)
    try:
        yield
    finally:
        pipe.remove_all_hooks()
        pipe.to("cpu", silence_dtype_warnings=True)


def _hook(pipe: Any, offload: Offload, device: torch.device | None) -> None:
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
