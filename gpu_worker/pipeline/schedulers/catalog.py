"""Lists the schedulers that can replace a model's own, with their options.

Both the descriptions and the checks of a job use this list.
"""

from __future__ import annotations

import functools
import inspect
import typing
from typing import Any

import diffusers
from pydantic import ConfigDict, TypeAdapter, ValidationError

from gpu_worker.contract.checks import FLOW
from gpu_worker.contract.field_types import MAX_OPTION
from gpu_worker.contract.validation_errors import type_errors
from gpu_worker.pipeline.families import family_of

DISTILLED = ("LCMScheduler", "TCDScheduler")
"""Schedulers of distilled models and LoRAs.

They fit every scheduler that has a list of compatible ones, but no list names them.
"""

OWN_SIGMAS = "FlowMatchHeunDiscreteScheduler"
"""It computes its own sigmas, so it fails with pipelines that pass theirs, as most do."""

ORDER_OPTIONS = ("solver_order",)
MAX_ORDER = 3
"""The highest order of diffusers' multistep solvers, which accept any number."""


def by_name(name: str) -> Any | None:
    """Return diffusers' class; None where it is unknown or a library that it needs is missing."""
    cls = getattr(diffusers, name, None)
    is_one = isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)
    return cls if is_one and not hasattr(cls, "_backends") else None


def names_for(own: Any, pipeline: str) -> dict[str, Any]:
    """Return the classes that can replace a scheduler of class `own`, by name, with `own` first.

    Classes whose libraries are missing are left out. diffusers has no list for a flow-matching
    family, so this returns the flow-matching classes that its pipeline supports.

    Args:
        pipeline: the name of the pipeline's class.
    """
    names = set(own._compatibles)
    if names or own.__name__ in DISTILLED:
        names |= set(DISTILLED)
    if own.__name__.startswith(FLOW):
        names = {name for name in dir(diffusers) if name.startswith(FLOW)}
        family = family_of(pipeline)
        names -= {OWN_SIGMAS} if not family.makes_own_sigmas else set()
        names -= set(family.lacks_schedulers)
    classes = {name: by_name(name) for name in sorted(names)}
    return {own.__name__: own} | {name: cls for name, cls in classes.items() if cls}


@functools.cache
def options(cls: Any) -> list[str]:
    """Return the names of the class's options, without those that need a missing library."""
    parameters = inspect.signature(cls.__init__).parameters
    return [
        name
        for name, parameter in parameters.items()
        if name != "self" and not (parameter.default is False and _lacks_library(cls, name))
    ]


def _lacks_library(cls: Any, option: str) -> bool:
    """Return whether a class cannot have an option without a library that is not installed."""
    try:
        cls(**{option: True})
    except ImportError:
        return True
    except Exception:  # the option needs others beside it
        return False
    return False


def knows_eta(cls: Any) -> bool:
    """Return whether the class's steps take DDIM's eta; elsewhere diffusers silently ignores it."""
    return "eta" in _parameters(cls.step)


def option_error(cls: Any, option: str, value: object) -> str | None:
    """Return why the class does not accept this value of an option; None if it may accept it."""
    if isinstance(value, int | float) and abs(value) > MAX_OPTION:
        return f"supports numbers up to {MAX_OPTION}"
    if option in ORDER_OPTIONS and not (isinstance(value, int) and 1 <= value <= MAX_ORDER):
        return f"has the scheduler {cls.__name__}, which supports the orders 1 to {MAX_ORDER}"
    hint = typing.get_type_hints(cls.__init__).get(option)
    if hint is None:
        return None
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        TypeAdapter(hint, config=strict).validate_python(value)
    except ValidationError as error:
        return f"cannot create {cls.__name__} with it: it {type_errors(error)}"
    return None


def _parameters(call: Any) -> list[str]:
    return list(inspect.signature(call).parameters)
