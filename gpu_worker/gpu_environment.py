"""Computes the environment variables that give a worker its own GPU, before torch is imported.

It calls no driver, and its caller sets the variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gpu_worker.settings import SettingsError, WorkerSettings

Platform = Literal["CUDA", "ROCm"]

_NVIDIA, _AMD = "dev/nvidia*", "dev/kfd"

_DRIVER_FILES: dict[Platform, tuple[str, ...]] = {
    "CUDA": (_NVIDIA, "usr/lib/wsl/lib/libcuda.so*", "usr/lib/wsl/drivers/*/libcuda.so*"),
    "ROCm": (_AMD, "dev/dxg"),
}
"""The files that show a driver for each platform of torch.

Under WSL `/dev/dxg` is there for a GPU of any maker, so the library of NVIDIA's Windows driver
counts for CUDA. ROCm has no such library there.
"""

_HIDES_ALL = ("", "-1")
"""Lists of GPUs that hide every GPU (CUDA Programming Guide, CUDA_VISIBLE_DEVICES)."""

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""The names of the allocator's settings (c10/core/AllocatorConfig.h); the first is the newest."""


def drivers(root: Path = Path("/")) -> frozenset[Platform]:
    """Return the platforms whose driver is on this machine, whether or not it works."""
    return frozenset(
        platform
        for platform, patterns in _DRIVER_FILES.items()
        if any(_has(root, pattern) for pattern in patterns)
    )


def variables(
    settings: WorkerSettings, environ: Mapping[str, str], root: Path = Path("/")
) -> dict[str, str]:
    """Return the variables to set, so that the worker's GPU is the only one that it sees.

    CUDA_VISIBLE_DEVICES of the operator is a list of indices, UUIDs or MIG instances, from which
    SDE_GPU picks one. On an AMD GPU HIP_VISIBLE_DEVICES comes first. A list that hides every GPU
    stays as it is.

    Raises:
        SettingsError: the list is shorter than the number of workers.
    """
    if settings.device in ("cpu", "mps"):
        return {}
    is_nvidia = _has(root, _NVIDIA)
    is_amd = _has(root, _AMD) and not is_nvidia
    name = "HIP_VISIBLE_DEVICES" if is_amd else "CUDA_VISIBLE_DEVICES"
    source = name if name in environ else "CUDA_VISIBLE_DEVICES"
    own: dict[str, str] = {}
    if "CUDA_DEVICE_ORDER" not in environ:
        # nvidia-smi counts in this order; CUDA's own default puts the fastest GPU first.
        own["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if is_nvidia and not any(each in environ for each in _ALLOCATOR):
        # Jobs of changing sizes fragment the memory less.
        own[_ALLOCATOR[0]] = "expandable_segments:True"
    if environ.get(source, "0").strip() in _HIDES_ALL:
        return own
    return own | {name: _entry(settings, source, environ.get(source))}


def _entry(settings: WorkerSettings, name: str, listed: str | None) -> str:
    """Return the worker's entry of the operator's list, or its index without a list."""
    if listed is None:
        return str(settings.gpu)
    entries = [entry.strip() for entry in listed.split(",")]
    count = max(settings.gpus, settings.gpu + 1)
    if len(entries) < count:
        setting = "SDE_GPUS" if settings.gpus == count else "SDE_GPU"
        value = settings.gpus if settings.gpus == count else settings.gpu
        raise SettingsError(f"{setting}={value}: {name}={listed!r} lists too few GPUs for it")
    return entries[settings.gpu]


def _has(root: Path, pattern: str) -> bool:
    return any(root.glob(pattern))
