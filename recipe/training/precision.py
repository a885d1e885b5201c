"""Chooses the dtype that the training computes in: bfloat16 where the processor multiplies it."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 on a GPU and on a CPU with AVX512-BF16 or AMX, else float32.

    Another CPU emulates bfloat16. On one with AVX2 alone a step of the judge took 2.7 s in bfloat16
    and 0.2 s in float32.
    """
    is_native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if device.type != "cpu" or is_native else torch.float32


def mixed(device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which networks compute in compute_dtype()."""
    dtype = compute_dtype(device)
    autocast: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=dtype is torch.bfloat16
    )
    return autocast
