"""Creates a scheduler and runs it on a tiny tensor, so that errors show before a job starts."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import torch

from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.schedulers import catalog
from gpu_worker.pipeline.schedulers.catalog import DISTILLED, FLOW

STEPS = 4
"""Multistep solvers reach their full order within these steps."""

_PREDICTS_VARIANCE = ("learned", "learned_range")


_ERRORS = (
    *(ValueError, TypeError, NotImplementedError, ImportError, ArithmeticError),
    *(RuntimeError, IndexError, KeyError, AttributeError),
)


def build(own: Any, pipeline: str, name: str, options: dict[str, Any], steps: int) -> Any:
    """Return a scheduler that replaces a model's own, after a dry run.

    Args:
        own: the model's scheduler, whose configuration applies where the class has the option.
        pipeline: the name of the pipeline's class.
        name: the name of the requested class.
        options: the requested options.
        steps: the number of steps of the dry run.

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
        run(scheduler, own, steps)
    except torch.OutOfMemoryError:
        raise
    except _ERRORS as error:
        raise _blame(name, options, steps, error) from error
    return scheduler


def _blame(name: str, options: dict[str, Any], steps: int, error: Exception) -> Unsupported:
    message = " ".join(str(error).split())
    terms = {option: {option, str(value)} for option, value in options.items()}
    mentioned = set(re.findall(r"[\w+-]+", message))
    blamed = [option for option in options if terms[option] & mentioned] or list(options)
    if not blamed:
        return Unsupported("scheduler", name, f"cannot create it for {steps} steps: {message}")
    field = ", ".join(f"scheduler_options.{option}" for option in blamed)
    value = options[blamed[0]] if len(blamed) == 1 else {key: options[key] for key in blamed}
    return Unsupported(field, value, f"cannot create {name} with it: {message}")


def run(scheduler: Any, own: Any, steps: int) -> None:
    """Run the scheduler's first steps on random latents, where it is a sampler of latents.

    Args:
        own: the model's scheduler, whose configuration names what the model predicts.
        steps: the number of steps to set.

    Raises:
        ValueError: its values leave their range.
        Exception: any error of the scheduler.
    """
    tested = copy.deepcopy(scheduler)
    is_flow = type(tested).__name__.startswith(FLOW)
    if not (is_flow or tested._compatibles or type(tested).__name__ in DISTILLED):
        tested.set_timesteps(steps)
        return
    shift = {"mu": 1.0} if tested.config.get("use_dynamic_shifting") else {}
    if not set(shift) <= set(inspect.signature(tested.set_timesteps).parameters):
        raise ValueError("it does not support use_dynamic_shifting, which this model uses")
    tested.set_timesteps(steps, **shift)
    _check_tables(tested)
    _step(tested, own)


def _check_tables(scheduler: Any) -> None:
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        return
    if not (torch.isfinite(alphas).all() and alphas.min() >= 0 and alphas.max() <= 1):
        raise ValueError("its betas leave a share of the image outside 0 to 1")
    trained = scheduler.config.num_train_timesteps
    if scheduler.timesteps.min() < 0 or scheduler.timesteps.max() > trained:
        raise ValueError(f"its timesteps are outside 0 to {trained}")


def _step(scheduler: Any, own: Any) -> None:
    learned = own.config.get("variance_type") in _PREDICTS_VARIANCE
    channels = 3 if learned else 4  # of pixels, as the models have them that predict it
    both = learned and scheduler.config.get("variance_type") in _PREDICTS_VARIANCE
    generator = torch.Generator().manual_seed(0)
    parameters = inspect.signature(scheduler.step).parameters
    kwargs = {"generator": generator} if "generator" in parameters else {}
    sample = torch.randn((1, channels, 8, 8), generator=generator)
    for timestep in scheduler.timesteps[:STEPS]:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, timestep)
        predicted = torch.randn((1, channels * (2 if both else 1), 8, 8), generator=generator)
        sample = scheduler.step(predicted, timestep, sample, **kwargs).prev_sample
        if not torch.isfinite(sample).all():
            raise ValueError("its steps do not return finite numbers")
