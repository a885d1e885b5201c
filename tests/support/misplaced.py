"""Tensors at addresses that torch's own allocations never have."""

from __future__ import annotations

import torch

from gpu_worker.pipeline.execution import alignment


def misplaced(values: torch.Tensor, by: int = 1) -> torch.Tensor:
    """The same numbers, `by` elements after an aligned address."""
    memory = torch.empty(values.numel() + by, dtype=values.dtype)
    placed = memory[by:].view_as(values)
    placed.copy_(values)
    assert placed.data_ptr() % alignment.BYTES
    return placed
