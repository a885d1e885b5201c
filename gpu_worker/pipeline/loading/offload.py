"""Keeps offload hooks right while a job's pipeline has other parts than the loaded one.

Hooks sit on the modules that both share. They come off before a part is added, go on for the job's
pipeline, and are as before afterwards. Without offload: new parts are moved to the device.
On a CPU their weights are aligned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch

from gpu_worker.pipeline.loading import alignment

Offload = Literal["none", "model", "sequential"]


def current_offload(pipe: Any) -> Offload:
    """How the pipeline's modules wait outside the device, as its hooks say."""
    if getattr(pipe, "_all_hooks", None):
        return "model"
    modules = (part for part in pipe.components.values() if isinstance(part, torch.nn.Module))
    return "sequential" if any(hasattr(module, "_hf_hook") for module in modules) else "none"


@contextlib.contextmanager
def restored_on_error(pipe: Any) -> Iterator[None]:
    """A job that is stopped between two steps leaves modules on the device; they go back."""
    try:
        yield
    except BaseException:
        pipe.maybe_free_model_hooks()
        raise


@contextlib.contextmanager
def suspended(pipe: Any) -> Iterator[Offload]:
    """Within, the loaded pipeline has no hooks and waits on the CPU; then they are back."""
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
    """Within, the job's pipeline is on its device or has the hooks that bring it there."""
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
