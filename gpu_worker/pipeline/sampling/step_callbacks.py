"""Makes a pipeline report its steps, in one of the three ways that its class may have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gpu_worker.pipeline.families import call_parameters

OnStepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""A callback after each step, like diffusers' callback_on_step_end; tensors may be empty."""


@contextlib.contextmanager
def report_steps(pipe: Any, on_step_end: OnStepEnd) -> Iterator[dict[str, Any]]:
    """Yield the call arguments that make the pipeline report its steps."""
    parameters = call_parameters(pipe)
    if "callback_on_step_end" in parameters:
        yield {"callback_on_step_end": on_step_end}
        return
    inner = getattr(pipe, "decoder_pipe", pipe)
    has_callback = "callback" in parameters
    inner.progress_bar = bar = _ProgressBarHook(inner, on_step_end, counts_updates=not has_callback)
    try:
        yield {"callback": bar.callback, "callback_steps": 1} if has_callback else {}
    finally:
        del inner.progress_bar


def steps_of(pipe: Any) -> int:
    """Return the number of steps of the running call."""
    return int(getattr(pipe, "num_timesteps", 0) or pipe.progress_bar.total)


class _ProgressBarHook:
    """A replacement for `progress_bar`, which every pipeline opens for its steps.

    With `counts_updates` each update of the bar is a step. Else the pipeline calls `callback`.
    """

    def __init__(self, pipe: Any, on_step_end: OnStepEnd, *, counts_updates: bool) -> None:
        self._pipe = pipe
        self._on_step_end = on_step_end
        self._counts_updates = counts_updates
        self._steps = 0
        self.total = 0

    def __call__(self, iterable: Any = None, total: int | None = None) -> Any:
        self._steps = 0
        self.total = int(total or 0) if iterable is None else len(iterable)
        return contextlib.nullcontext(self) if iterable is None else self._each(iterable)

    def _each(self, iterable: Any) -> Iterator[Any]:
        for item in iterable:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        for _ in range(count if self._counts_updates else 0):
            self._step(None, {})

    def callback(self, _: int, timestep: Any, latents: Any) -> None:
        """Take a step from diffusers' `callback`, whose step number may not start at 0."""
        self._step(timestep, {"latents": latents})

    def _step(self, timestep: Any, tensors: dict[str, Any]) -> None:
        self._on_step_end(self._pipe, self._steps, timestep, tensors)
        self._steps += 1
