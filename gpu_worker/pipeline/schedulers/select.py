"""Sets the scheduler of one job by its diffusers class name, and restores it afterwards."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported
from gpu_worker.pipeline.schedulers import dry_run
from gpu_worker.pipeline.schedulers.dry_run import Pass

TRIAL_STEPS = 10

DEFAULT_STRENGTH = 0.8
"""The strength of most of diffusers' image-to-image pipelines."""

FEW_STEPS = 4
"""With fewer steps some classes cannot be set: PNDM's start needs more."""


@contextlib.contextmanager
def use_scheduler(pipe: Any, context: GenerationContext) -> Iterator[dict[str, Any]]:
    """Set the request's scheduler for the duration of the context, and yield its metadata.

    Every job has a new scheduler, so that no state of its steps stays.

    Raises:
        Unsupported: the pipeline does not support the scheduler or an option.
    """
    own = context.loaded.pipe.scheduler
    before = pipe.scheduler
    # Families with a prior generate images with an inner pipeline.
    pipelines = [part for part in (pipe, getattr(pipe, "decoder_pipe", None)) if part is not None]
    scheduler = _build(context.loaded, own, context.request)
    for part in pipelines:
        part.scheduler = scheduler
    try:
        yield {
            "scheduler": type(pipe.scheduler).__name__,
            "scheduler_config": _plain_config(pipe.scheduler),
        }
    finally:
        for part in pipelines:
            part.scheduler = before


def _build(loaded: LoadedModel, own: Any, request: GenerationRequest) -> Any:
    defaults, steps = loaded.defaults, _steps(loaded, request)
    name = request.scheduler or defaults.scheduler or type(own).__name__
    options: dict[str, Any] = dict(request.scheduler_options)
    if name == (defaults.scheduler or type(own).__name__):
        options = (
            defaults.scheduler_options | options
        )  # these options belong to the default scheduler of models.toml
    if name == type(own).__name__ and not options and steps >= FEW_STEPS:
        return copy.deepcopy(own)
    pipeline = type(loaded.pipe).__name__
    try:
        return dry_run.build(own, pipeline, name, options, _passes(request, steps))
    except Unsupported as error:
        raise unsupported(error.field, error.value, loaded.pipe, error.reason) from error


def _passes(request: GenerationRequest, steps: int) -> list[Pass]:
    passes = [Pass(steps)]
    if request.image is not None:
        passes.append(
            Pass(steps, DEFAULT_STRENGTH if request.strength is None else request.strength)
        )
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
    """Return the value as JSON types; an infinite number becomes text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)
