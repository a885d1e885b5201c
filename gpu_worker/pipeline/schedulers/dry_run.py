"""Makes a scheduler and tries it on a tiny tensor: what it cannot do shows before a picture."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.schedulers import catalog
from gpu_worker.pipeline.schedulers.catalog import FLOW, MORE

_PREDICTS_VARIANCE = ("learned", "learned_range")

_SENTENCES = (ValueError, TypeError, NotImplementedError, ImportError)
"""Errors whose text a scheduler wrote for its caller."""

_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError),
)
"""Errors whose text is Python's or torch's own and explains nothing."""


class Pass(NamedTuple):
    """A pass of an image: the steps it is set to, and the share of them that it makes."""

    steps: int
    strength: float = 1.0


def build(own: Any, pipeline: str, name: str, given: dict[str, Any], passes: Sequence[Pass]) -> Any:
    """A scheduler in the place of a model's own.

    Args:
        own: the model's; its configuration is taken over as far as the class knows it.
        pipeline: the name of the pipeline's class.
        name: of the wanted class.
        given: its options.
        passes: what it is tried with, all steps of each; the first is never missing.

    Raises:
        Unsupported: this model does not work with it, or not with an option.
    """
    classes = catalog.names_for(type(own), pipeline)
    if name not in classes:
        raise Unsupported("scheduler", name, f"works with these: {', '.join(classes)}")
    cls = classes[name]
    known = catalog.options(cls)
    for option, value in given.items():
        why = catalog.option_error(cls, option, value)
        if option not in known:
            why = f"has the scheduler {name}, which takes {', '.join(known)}"
        if why is not None:
            raise Unsupported(f"scheduler_options.{option}", value, why)
    try:
        scheduler = cls.from_config(own.config, **given)
        for each in passes:
            run(scheduler, own, each)
    except torch.OutOfMemoryError:
        raise
    except (*_SENTENCES, *_FAULTS) as error:
        raise _blame(name, given, passes[0].steps, error) from error
    return scheduler


def _blame(name: str, given: dict[str, Any], steps: int, error: Exception) -> Unsupported:
    said = " ".join(str(error).split())
    is_fault = isinstance(error, _FAULTS) and not isinstance(error, NotImplementedError)
    reason = "it cannot be set up so" if is_fault else said
    words = {option: {option, str(value)} for option, value in given.items()}
    told = set(re.findall(r"[\w+-]+", said))
    blamed = [option for option in given if words[option] & told] or list(given)
    if not blamed:
        return Unsupported("scheduler", name, f"could not make it for {steps} steps: {reason}")
    field = ", ".join(f"scheduler_options.{option}" for option in blamed)
    value = given[blamed[0]] if len(blamed) == 1 else {key: given[key] for key in blamed}
    return Unsupported(field, value, f"could not make {name} with it: {reason}")


def run(scheduler: Any, own: Any, each: Pass) -> None:
    """Run all its steps of a pass, where it steps as samplers of latents do.

    Args:
        own: the model's scheduler, whose configuration says what the model predicts.
        each: the pass.

    Raises:
        ValueError: its numbers leave what they must be within.
        Exception: whatever it says itself.
    """
    tested = copy.deepcopy(scheduler)
    is_flow = type(tested).__name__.startswith(FLOW)
    if not (is_flow or tested._compatibles or type(tested).__name__ in MORE):
        tested.set_timesteps(each.steps)
        return
    shift = {"mu": 1.0} if tested.config.get("use_dynamic_shifting") else {}
    if not set(shift) <= set(inspect.signature(tested.set_timesteps).parameters):
        raise ValueError("it knows no use_dynamic_shifting, which this model has")
    tested.set_timesteps(each.steps, **shift)
    _check_tables(tested)
    _step(tested, own, _begin(tested, each))


def _begin(scheduler: Any, each: Pass) -> int:
    """The index of the first timestep, as diffusers' get_timesteps counts it."""
    begin = max(each.steps - min(int(each.steps * each.strength), each.steps), 0)
    index = begin * int(getattr(scheduler, "order", 1))
    if index and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    return index


def _check_tables(scheduler: Any) -> None:
    kept = getattr(scheduler, "alphas_cumprod", None)
    if kept is None:
        return
    if not (torch.isfinite(kept).all() and kept.min() >= 0 and kept.max() <= 1):
        raise ValueError("its betas do not leave a share of the picture from 0 to 1")
    trained = scheduler.config.num_train_timesteps
    if scheduler.timesteps.min() < 0 or scheduler.timesteps.max() > trained:
        raise ValueError(f"its timesteps leave 0 to {trained}")


def _step(scheduler: Any, own: Any, begin: int) -> None:
    learned = own.config.get("variance_type") in _PREDICTS_VARIANCE
    channels = 3 if learned else 4  # of pixels, as the models have them that predict it
    both = learned and scheduler.config.get("variance_type") in _PREDICTS_VARIANCE
    generator = torch.Generator().manual_seed(0)
    known = inspect.signature(scheduler.step).parameters
    given = {"generator": generator} if "generator" in known else {}
    sample = torch.randn((1, channels, 8, 8), generator=generator)
    timesteps = scheduler.timesteps[begin:]
    for number, timestep in enumerate(timesteps, start=1):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, timestep)
        predicted = torch.randn((1, channels * (2 if both else 1), 8, 8), generator=generator)
        try:
            sample = scheduler.step(predicted, timestep, sample, **given).prev_sample
        except (*_SENTENCES, *_FAULTS) as error:
            if isinstance(error, _SENTENCES):
                raise
            raise ValueError(f"it fails at step {number} of {len(timesteps)}") from error
        if not torch.isfinite(sample).all():
            raise ValueError(f"its step {number} of {len(timesteps)} gives no numbers")
