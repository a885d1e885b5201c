"""Chooses the dtype of a model's parts by family, device and setting. It loads no model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch

from gpu_worker.contract.field_types import Dtype
from gpu_worker.pipeline import families
from gpu_worker.pipeline.families import Family

log = logging.getLogger(__name__)

_WITHOUT_HALF = ("GTX 16", "T500", "T550", "T600", "CMP 30HX", "MX450", "MX550")
"""Turing cards without tensor cores. Their float16 gives NaN, and thus black images."""


@dataclass(frozen=True)
class Dtypes:
    """The dtype of a pipeline, and those of parts that differ."""

    default: torch.dtype
    parts: dict[str, torch.dtype] = field(default_factory=dict)

    @property
    def argument(self) -> torch.dtype | dict[str, torch.dtype]:
        """Return the `dtype` argument of diffusers' from_pretrained."""
        return {"default": self.default, **self.parts} if self.parts else self.default


def choose(
    family: Family, device: torch.device, model: Dtype | None = None, setting: str = "auto"
) -> Dtypes:
    """Return the dtypes of a model.

    Args:
        model: the entry's `dtype` in models.toml, which precedes the setting.
        setting: SDE_DTYPE. `auto` is the family's dtype on a GPU, and float32 on a CPU.
    """
    explicit = model or (None if setting == "auto" else setting)
    if explicit is not None:
        return _of_operator(getattr(torch, explicit), family, device)
    if device.type == "cpu":
        return Dtypes(torch.float32)
    default = getattr(torch, family.dtype)
    reason = _unsupported_reason(default, device)
    if reason is not None:
        log.warning("%s; the model runs in float32", reason)
        return Dtypes(torch.float32)
    return Dtypes(default, _parts(family, device))


def _of_operator(dtype: torch.dtype, family: Family, device: torch.device) -> Dtypes:
    """Return an operator's dtype for all parts, but not float16 for what overflows in it."""
    is_narrow = dtype == torch.float16
    return Dtypes(dtype, _parts(family, device) if is_narrow else {})


def _parts(family: Family, device: torch.device) -> dict[str, torch.dtype]:
    """Return the dtypes of the family's parts, or float32 where the device lacks one."""
    parts: dict[str, torch.dtype] = {}
    for name, dtype in family.part_dtypes.items():
        parts[name] = getattr(torch, dtype)
        reason = _unsupported_reason(parts[name], device)
        if reason is not None:
            log.warning("%s; the %s runs in float32", reason, name)
            parts[name] = torch.float32
    return parts


def _unsupported_reason(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why the device does not compute well in a dtype; None if it does."""
    if device.type == "cpu":
        return None
    if device.type == "mps":
        is_new = torch.backends.mps.is_macos_or_newer(14, 0)
        return None if dtype != torch.bfloat16 or is_new else "macOS before 14 has no bfloat16"
    name = torch.cuda.get_device_name(device)
    if dtype == torch.float16 and any(each in name for each in _WITHOUT_HALF):
        return f"{name} gives wrong values in float16"
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"{name} has no bfloat16"
    return None


def settle(pipe: Any, dtypes: Dtypes) -> None:
    """Give each loaded part its dtype, where the library could not do so while it loaded.

    A VAE that does not need float32 goes back to the pipeline's dtype (`force_upcast`).
    """
    for name, dtype in dtypes.parts.items():
        part = getattr(pipe, name, None)
        if not isinstance(part, torch.nn.Module) or getattr(part, "hf_quantizer", None):
            continue
        config = getattr(part, "config", {})
        is_needless = name == "vae" and getattr(config, "force_upcast", True) is False
        part.to(dtypes.default if is_needless else dtype)


def of_parts(pipe: Any) -> dict[str, torch.dtype]:
    """Return the dtype of each network of a pipeline."""
    return {
        name: part.dtype
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
    }


def of_denoiser(pipe: Any) -> torch.dtype:
    """Return the dtype of a pipeline's denoiser.

    `pipe.dtype` is that of the part that comes first in the alphabet.
    """
    denoiser = families.denoiser_of(pipe)
    dtype: torch.dtype = pipe.dtype if denoiser is None else denoiser.dtype
    return dtype
