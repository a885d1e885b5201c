"""Creates a scheduler and runs it on a tiny tensor, so that errors show before a job starts."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gpu_worker.contract.checks import FLOW
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.schedulers import catalog
from gpu_worker.pipeline.schedulers.catalog import DISTILLED

_PREDICTS_VARIANCE = ("learned", "learned_range")

_SENTENCES = (ValueError, TypeError, NotImplementedError, ImportError)
"""Errors with a message of the scheduler for its caller."""

_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
)
"""Errors with a message of Python or torch, which explains nothing."""


class Pass(NamedTuple):
    """A pass of an image: the number of steps that are set, and the share of them that runs."""

    steps: int
    strength: float = 1.0


def build(
    own: Any, pipeline: str, name: str, options: dict[str, Any], passes: Sequence[Pass]
) -> Any:
    """Return a scheduler that replaces a model's own, after a dry run.

    Args:
        own: the model's scheduler, whose configuration applies where the class has the option.
        pipeline: the name of the pipeline's class.
        name: the name of the requested class.
        options: the requested options.
        passes: the passes of the dry run, at least one; all steps of each are run.

    Raises:
        Unsupported: the model does not work with this class, or with an option.
    """
    classes = catalog.names_for(type(own), pipeline)
    if name not in classes:
        raise Unsupported("scheduler", name, f"supports these: {', '.join(classes)}")
    cls = classes[name]
    accepted = catalog.options(cls)
    for option, value in options.items():
        reason = catalog.option_error(cls, option, value)
        if option not in accepted:
            reason = f"has the scheduler {name}, which supports {', '.join(accepted)}"
        if reason is not None:
            raise Unsupported(f"scheduler_options.{option}", value, reason)
    try:
        scheduler = cls.from_config(own.config, **options)
        for each in passes:
            run(scheduler, own, each)
    except torch.OutOfMemoryError:
        raise
    except (*_SENTENCES, *_FAULTS) as error:
        raise _blame(name, options, passes[0].steps, error) from error
    return scheduler


def _blame(name: str, options: dict[str, Any], steps: int, error: Exception) -> Unsupported:
    message = " ".join(str(error).split())
    reason = message if isinstance(error, _SENTENCES) else "the combination does not work"
    terms = {option: {option, str(value)} for option, value in options.items()}
    mentioned = set(re.findall(r"[\w+-]+", message))
    blamed = [option for option in options if terms[option] & mentioned] or list(options)
    if not blamed:
        return Unsupported("scheduler", name, f"cannot create it for {steps} steps: {reason}")
    field = ", ".join(f"scheduler_options.{option}" for option in blamed)
    value = options[blamed[0]] if len(blamed) == 1 else {key: options[key] for key in blamed}
    return Unsupported(field, value, f"cannot create {name} with it: {reason}")


def run(scheduler: Any, own: Any, each: Pass) -> None:
    """Run all steps of a pass on random latents, where it is a sampler of latents.

    Args:
        own: the model's scheduler, whose configuration names what the model predicts.
        each: the pass.

    Raises:
        ValueError: its values leave their range.
        Exception: any error of the scheduler.
    """
    tested = copy.deepcopy(scheduler)
    is_flow = type(tested).__name__.startswith(FLOW)
    if not (is_flow or tested._compatibles or type(tested).__name__ in DISTILLED):
        tested.set_timesteps(each.steps)
        return
    shift = {"mu": 1.0} if tested.config.get("use_dynamic_shifting") else {}
    if not set(shift) <= set(inspect.signature(tested.set_timesteps).parameters):
        raise ValueError("it does not support use_dynamic_shifting, which this model uses")
    tested.set_timesteps(each.steps, **shift)
    _check_tables(tested)
    _step(tested, own, _begin(tested, each))


def _begin(scheduler: Any, each: Pass) -> int:
    """Return the index of the first timestep, as diffusers' get_timesteps counts it."""
    begin = max(each.steps - min(int(each.steps * each.strength), each.steps), 0)
    index = begin * int(getattr(scheduler, "order", 1))
    if index and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    return index


def _check_tables(scheduler: Any) -> None:
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        return
    if not (torch.isfinite(alphas).all() and alphas.min() >= 0 and alphas.max() <= 1):
        raise ValueError("its betas leave a share of the image outside 0 to 1")
    trained = scheduler.config.num_train_timesteps
    if scheduler.timesteps.min() < 0 or scheduler.timesteps.max() > trained:
        raise ValueError(f"its timesteps are outside 0 to {trained}")


def _step(scheduler: Any, own: Any, begin: int) -> None:
    learned = own.config.get("variance_type") in _PREDICTS_VARIANCE
    channels = 3 if learned else 4  # of pixels, as the models have them that predict it
    both = learned and scheduler.config.get("variance_type") in _PREDICTS_VARIANCE
    generator = torch.Generator().manual_seed(0)
    parameters = inspect.signature(scheduler.step).parameters
    kwargs = {"generator": generator} if "generator" in parameters else {}
    sample = torch.randn((1, channels, 8, 8), generator=generator)
    timesteps = scheduler.timesteps[begin:]
    for number, timestep in enumerate(timesteps, start=1):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, timestep)
        predicted = torch.randn((1, channels * (2 if both else 1), 8, 8), generator=generator)
        try:
            sample = scheduler.step(predicted, timestep, sample, **kwargs).prev_sample
        except _SENTENCES:
            raise
        except _FAULTS as error:
            raise ValueError(f"it fails at step {number} of {len(timesteps)}") from error
        if not torch.isfinite(sample).all():
            raise ValueError(
                f"its step {number} of {len(timesteps)} returns values that are not finite"
            )
