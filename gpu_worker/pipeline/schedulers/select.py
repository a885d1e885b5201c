"""Chooses a scheduler by its diffusers class name for one job, and puts the old one back."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext
from gpu_worker.pipeline.schedulers import dry_run
from gpu_worker.pipeline.schedulers.dry_run import Pass

TRIAL_STEPS = 10

FEW_STEPS = 4
"""With fewer, some classes cannot be set at all: PNDM's begin takes more."""


@contextlib.contextmanager
def use_scheduler(pipe: Any, context: GenerationContext) -> Iterator[dict[str, Any]]:
    """The pipeline has the request's scheduler within; gives what the record says of it.

    A job has a scheduler of its own in any case: what its steps leave behind goes with it.

    Raises:
        Unsupported: this pipeline cannot work with it, or it does not know an option.
    """
    own = context.loaded.pipe.scheduler
    before = pipe.scheduler
    # Families with a prior draw with a pipeline within the pipeline.
    drawing = [each for each in (pipe, getattr(pipe, "decoder_pipe", None)) if each is not None]
    made = _build(context.loaded, own, context.request)
    for each in drawing:
        each.scheduler = made
    try:
        yield {
            "scheduler": type(pipe.scheduler).__name__,
            "scheduler_config": _plain_config(pipe.scheduler),
        }
    finally:
        for each in drawing:
            each.scheduler = before


def _build(loaded: LoadedModel, own: Any, request: GenerationRequest) -> Any:
    defaults, steps = loaded.defaults, _steps(loaded, request)
    name = request.scheduler or defaults.scheduler or type(own).__name__
    given: dict[str, Any] = dict(request.scheduler_options)
    if name == (defaults.scheduler or type(own).__name__):
        given = defaults.scheduler_options | given  # they belong to the description's scheduler
    if name == type(own).__name__ and not given and steps >= FEW_STEPS:
        return copy.deepcopy(own)
    kind = type(loaded.pipe).__name__
    try:
        return dry_run.build(own, kind, name, given, _passes(request, steps))
    except Unsupported as error:
        raise unsupported(error.field, error.value, loaded.pipe, error.reason) from error


def _passes(request: GenerationRequest, steps: int) -> list[Pass]:
    passes = [Pass(steps)]
    if request.strength is not None:
        passes.append(Pass(steps, request.strength))
    if request.hires is not None:
        passes.append(Pass(request.hires.num_inference_steps or steps, request.hires.strength))
    return passes


def _steps(loaded: LoadedModel, request: GenerationRequest) -> int:
    return request.num_inference_steps or loaded.defaults.num_inference_steps or TRIAL_STEPS


def _plain_config(scheduler: Any) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name, value in sorted(scheduler.config.items())
        if not name.startswith("_")
    }


def _plain(value: Any) -> Any:
    """What JSON can say; an infinite number as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)
