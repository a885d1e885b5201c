"""Has a pipeline tell its steps, in whichever of three ways its class knows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gpu_worker.pipeline.families import call_parameters

OnStepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""Called after each step as diffusers' callback_on_step_end is; the tensors may be none at all."""


@contextlib.contextmanager
def report_steps(pipe: Any, ended: OnStepEnd) -> Iterator[dict[str, Any]]:
    """Gives the arguments of a call whose steps shall be told."""
    known = call_parameters(pipe)
    if "callback_on_step_end" in known:
        yield {"callback_on_step_end": ended}
        return
    drawing = getattr(pipe, "decoder_pipe", pipe)
    has_callback = "callback" in known
    drawing.progress_bar = bar = _ProgressBarHook(drawing, ended, moves=not has_callback)
    try:
        yield {"callback": bar.called, "callback_steps": 1} if has_callback else {}
    finally:
        del drawing.progress_bar


def steps_of(pipe: Any) -> int:
    """How many steps the call that runs has."""
    return int(getattr(pipe, "num_timesteps", 0) or pipe.progress_bar.total)


class _ProgressBarHook:
    """In the place of `progress_bar`, which every pipeline opens for its steps.

    `moves`: a step has ended when the bar moves; else `called` is told by the pipeline.
    """

    def __init__(self, pipe: Any, ended: OnStepEnd, *, moves: bool) -> None:
        self._pipe = pipe
        self._ended = ended
        self._moves = moves
        self._done = 0
        self.total = 0

    def __call__(self, iterable: Any = None, total: int | None = None) -> Any:
        self._done = 0
        self.total = int(total or 0) if iterable is None else len(iterable)
        return contextlib.nullcontext(self) if iterable is None else self._each(iterable)

    def _each(self, iterable: Any) -> Iterator[Any]:
        for item in iterable:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        for _ in range(count if self._moves else 0):
            self._step(None, {})

    def called(self, _: int, timestep: Any, latents: Any) -> None:
        """As `callback`. Its first argument does not begin at 0 in image to image."""
        self._step(timestep, {"latents": latents})

    def _step(self, timestep: Any, tensors: dict[str, Any]) -> None:
        self._ended(self._pipe, self._done, timestep, tensors)
        self._done += 1
