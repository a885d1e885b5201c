"""Describes what the rounding of a GPU depends on, for records. It changes no setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import _cur_sdpa_kernel_backends

_MODULES = Path("/sys/module")


def describe(device: torch.device) -> dict[str, Any]:
    """Return the platform's versions, the GPU's generation and the settings of its kernels."""
    return {
        **versions(torch.version.cuda, torch.version.hip, torch.backends.cudnn.version()),
        **driver_version("amdgpu" if torch.version.hip else "nvidia"),
        "compute_capability": _compute_capability(device),
        "tf32": {
            "convolution": torch.backends.cudnn.allow_tf32,
            "matmul": torch.backends.cuda.matmul.allow_tf32,
        },
        "sdpa_backends": sdpa_backends(),
    }


def versions(cuda: str | None, hip: str | None, library: int | None) -> dict[str, Any]:
    """Return the versions of CUDA and cuDNN, or of HIP and MIOpen.

    Args:
        library: what torch reports as cuDNN's version, which is MIOpen's on an AMD GPU.
    """
    return {"hip": hip, "miopen": library} if hip else {"cuda": cuda, "cudnn": library}


def driver_version(module: str, modules: Path = _MODULES) -> dict[str, str]:
    """Return the version of a driver's kernel module (sysfs(5)), where it has one."""
    try:
        return {"driver": (modules / module / "version").read_text().strip()}
    except OSError:
        return {}


def sdpa_backends() -> list[str]:
    """Return the enabled backends of torch's attention (SDPA), in the order of their preference.

    torch takes the first one that supports the operands.
    """
    return [backend.name.lower() for backend in _cur_sdpa_kernel_backends(with_priority=True)]


def _compute_capability(device: torch.device) -> str:
    """Return the GPU's generation: `9.0` of NVIDIA, `gfx1100` of AMD."""
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    return ".".join(map(str, torch.cuda.get_device_capability(device)))
