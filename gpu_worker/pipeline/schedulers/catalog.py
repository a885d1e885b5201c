"""Which schedulers can take a model's own one's place, and what each is made with.

The one list: what is described and what a job may name come from here.
"""

from __future__ import annotations

import inspect
import typing
from typing import Any

import diffusers
from pydantic import ConfigDict, TypeAdapter, ValidationError

from gpu_worker.contract.field_types import MAX_OPTION
from gpu_worker.pipeline.families import family_of

MORE = ("LCMScheduler", "TCDScheduler")
"""Distilled models' and their LoRAs': every scheduler with a list can be one, none lists them."""

FLOW = "FlowMatch"

LEAVES_SIGMAS = "FlowMatchHeunDiscreteScheduler"
"""It makes its own sigmas; most flow-matching pipelines hand theirs over, and fail with it."""

ORDERS = ("solver_order",)
MAX_ORDER = 3
"""The highest order that diffusers' multistep solvers have formulas for; it takes any number."""


def by_name(name: str) -> Any | None:
    """diffusers' class; None where there is none, or where the libraries that it needs are not."""
    found = getattr(diffusers, name, None)
    is_one = isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)
    return found if is_one and not hasattr(found, "_backends") else None


def names_for(own: Any, pipeline: str) -> dict[str, Any]:
    """The classes that can take the place of a scheduler of this class, by name, itself first.

    Those whose libraries are missing here are left out. A flow-matching family has no list of its
    own in diffusers: it takes the flow-matching classes that its pipeline can set the steps of.

    Args:
        pipeline: the name of the pipeline's class.
    """
    names = set(own._compatibles)
    if names or own.__name__ in MORE:
        names |= set(MORE)
    if own.__name__.startswith(FLOW):
        names = {name for name in dir(diffusers) if name.startswith(FLOW)}
        family = family_of(pipeline)
        names -= {LEAVES_SIGMAS} if not family.makes_own_sigmas else set()
        names -= set(family.lacks_schedulers)
    found = {name: by_name(name) for name in sorted(names)}
    return {own.__name__: own} | {name: cls for name, cls in found.items() if cls}


def options(cls: Any) -> list[str]:
    """What the class can be made with."""
    return [name for name in _parameters(cls.__init__) if name != "self"]


def knows_eta(cls: Any) -> bool:
    """Whether its steps take DDIM's noise; diffusers leaves it out without a word elsewhere."""
    return "eta" in _parameters(cls.step)


def option_error(cls: Any, option: str, value: object) -> str | None:
    """Why the class's own annotation has no such value; None: it has, or does not say."""
    if isinstance(value, int | float) and abs(value) > MAX_OPTION:
        return f"takes numbers up to {MAX_OPTION}"
    if option in ORDERS and not (isinstance(value, int) and 1 <= value <= MAX_ORDER):
        return f"has the scheduler {cls.__name__}, which knows the orders 1 to {MAX_ORDER}"
    hint = typing.get_type_hints(cls.__init__).get(option)
    if hint is None:
        return None
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        TypeAdapter(hint, config=strict).validate_python(value)
    except ValidationError as error:
        said = " or ".join(dict.fromkeys(each["msg"] for each in error.errors()))
        return f"could not make {cls.__name__} with it: {said}"
    return None


def _parameters(call: Any) -> list[str]:
    return list(inspect.signature(call).parameters)
