"""Has a pipeline tell its steps, in whichever of three ways its class knows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gpu_worker.pipeline import derived

Ended = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
"""Called after each step as diffusers' callback_on_step_end is; the tensors may be none at all."""


@contextlib.contextmanager
def told(pipe: Any, ended: Ended) -> Iterator[dict[str, Any]]:
    """Gives the arguments of a call whose steps shall be told."""
    known = derived.parameters(pipe)
    if "callback_on_step_end" in known:
        yield {"callback_on_step_end": ended}
    elif "callback" in known:

        def called(index: int, timestep: Any, latents: Any) -> None:
            ended(pipe, index, timestep, {"latents": latents})

        yield {"callback": called, "callback_steps": 1}
    else:
        pipe.progress_bar = _Bar(pipe, ended)
        try:
            yield {}
        finally:
            del pipe.progress_bar


def steps_of(pipe: Any) -> int:
    """How many steps the call that runs has."""
    return int(getattr(pipe, "num_timesteps", 0) or len(pipe.scheduler.timesteps))


class _Bar:
    """In the place of `pipe.progress_bar`, which every pipeline moves once a step."""

    def __init__(self, pipe: Any, ended: Ended) -> None:
        self._pipe = pipe
        self._ended = ended
        self._done = 0

    def __call__(self, iterable: Any = None, total: int | None = None) -> Any:
        self._done = 0
        return contextlib.nullcontext(self) if iterable is None else self._each(iterable)

    def _each(self, iterable: Any) -> Iterator[Any]:
        for item in iterable:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        for _ in range(count):
            self._ended(self._pipe, self._done, None, {})
            self._done += 1
