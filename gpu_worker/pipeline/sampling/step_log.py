"""Logs each step of an image with a digest of its latents, to find where two runs diverge.

It does not change the result, only the time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import torch

from gpu_worker.pipeline.execution import memory


class StepLog:
    """The step log of one image; docs/results-format.md defines `rows` as `steps_log`."""

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._device = device
        self._clock = clock
        self._start = clock()

    def note(self, pipe: Any, timestep: Any, tensors: dict[str, Any]) -> None:
        """Log a step, with the arguments of diffusers' `callback_on_step_end`."""
        # The copy waits for the device, so the time is taken after it.
        latents = tensors.get("latents")
        digest = None if latents is None else _digest(latents)
        end = self._clock()
        self.rows.append(
            {
                "step": len(self.rows) + 1,
                "timestep": None if timestep is None else _plain(timestep),
                "sigma": _sigma(pipe.scheduler, len(self.rows)),
                "seconds": round(end - self._start, 4),
                "latents_sha256": digest,
                "memory_bytes": memory.bytes_in_use(self._device),
            }
        )
        self._start = self._clock()


def _digest(latents: torch.Tensor) -> str:
    content = latents.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _sigma(scheduler: Any, index: int) -> float | None:
    """Return the noise level at the step's start; None for schedulers without sigmas."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        return None
    # The scheduler has already counted this step; image to image does not start at 0.
    step_index = getattr(scheduler, "step_index", None)
    position = index if step_index is None else step_index - 1
    return float(sigmas[position]) if 0 <= position < len(sigmas) else None


def _plain(timestep: Any) -> float | int:
    value = float(timestep)
    return int(value) if value.is_integer() else value
