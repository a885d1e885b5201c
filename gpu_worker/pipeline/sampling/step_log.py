"""What each step of a picture was, down to a digest of its latents: for finding where two runs
part. Changes nothing of the run but its time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import torch

from gpu_worker.pipeline.loading import memory


class StepLog:
    """`rows` as docs/results-format.md has `steps_log`."""

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._device = device
        self._clock = clock
        self._began = clock()

    def note(self, pipe: Any, timestep: Any, tensors: dict[str, Any]) -> None:
        """After a step, as `callback_on_step_end` is called."""
        # The copy waits for the device: only then has the step ended.
        latents = tensors.get("latents")
        digest = None if latents is None else _digest(latents)
        ended = self._clock()
        self.rows.append(
            {
                "step": len(self.rows) + 1,
                "timestep": None if timestep is None else _plain(timestep),
                "sigma": _sigma(pipe.scheduler, len(self.rows)),
                "seconds": round(ended - self._began, 4),
                "latents_sha256": digest,
                "memory_bytes": memory.bytes_in_use(self._device),
            }
        )
        self._began = self._clock()


def _digest(latents: torch.Tensor) -> str:
    content = latents.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _sigma(scheduler: Any, index: int) -> float | None:
    """The noise level that the step began with; None for schedulers that know no sigmas."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        return None
    # It has been counted up in the step; image to image does not begin at the first.
    counted = getattr(scheduler, "step_index", None)
    at = index if counted is None else counted - 1
    return float(sigmas[at]) if 0 <= at < len(sigmas) else None


def _plain(timestep: Any) -> float | int:
    value = float(timestep)
    return int(value) if value.is_integer() else value
