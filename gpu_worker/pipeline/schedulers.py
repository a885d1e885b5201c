"""Chooses a scheduler by its diffusers class name for one job, and puts the old one back."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import re
from collections.abc import Iterator
from typing import Any

import diffusers

from gpu_worker.pipeline.loaded import Loaded, NotSupported
from gpu_worker.request import GenerationRequest

MORE = ("LCMScheduler", "TCDScheduler")
"""Distilled models' and their LoRAs': every scheduler with a list can be one, none lists them."""

MAX_OPTION = 1_000_000
"""Bounds whole numbers as well: num_train_timesteps is the length of several arrays."""

TRIAL_STEPS = 10


def allowed(scheduler: Any) -> dict[str, Any]:
    """The classes that can take the scheduler's place, by name, itself first.

    Those whose libraries are missing here are left out. A flow-matching family has no list of its
    own in diffusers: it takes every flow-matching class.
    """
    own = type(scheduler)
    names = [cls.__name__ for cls in scheduler.compatibles]
    if own.__name__.startswith("FlowMatch"):
        names += [name for name in dir(diffusers) if name.startswith("FlowMatch")]
    elif names:
        names += MORE
    found = {name: getattr(diffusers, name, None) for name in sorted(set(names))}
    usable = {name: cls for name, cls in found.items() if cls and not hasattr(cls, "_backends")}
    return {own.__name__: own} | usable


def options(cls: Any) -> list[str]:
    """What the class can be made with."""
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


@contextlib.contextmanager
def chosen(loaded: Loaded, pipe: Any, request: GenerationRequest) -> Iterator[dict[str, Any]]:
    """The pipeline has the request's scheduler within; gives what the record says of it.

    A job has a scheduler of its own in any case: what its steps leave behind goes with it.

    Raises:
        NotSupported: this pipeline cannot work with it, or it does not know an option.
    """
    own = loaded.pipe.scheduler
    before = pipe.scheduler
    # Families with a prior draw with a pipeline within the pipeline.
    drawing = [each for each in (pipe, getattr(pipe, "decoder_pipe", None)) if each is not None]
    made = _made(loaded, own, request)
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


def _made(loaded: Loaded, own: Any, request: GenerationRequest) -> Any:
    defaults = loaded.defaults
    name = request.scheduler or defaults.scheduler or type(own).__name__
    given: dict[str, Any] = dict(request.scheduler_options)
    if name == (defaults.scheduler or type(own).__name__):
        given = defaults.scheduler_options | given  # they belong to the description's scheduler
    if name == type(own).__name__ and not given:
        return copy.deepcopy(own)
    classes = allowed(own)
    if name not in classes:
        listed = ", ".join(classes)
        raise NotSupported("scheduler", name, loaded.pipe, f"works with these: {listed}")
    cls = classes[name]
    known = options(cls)
    for option, value in given.items():
        if option not in known:
            why = f"has the scheduler {name}, which takes {', '.join(known)}"
            raise NotSupported(f"scheduler_options.{option}", value, loaded.pipe, why)
        if isinstance(value, int | float) and abs(value) > MAX_OPTION:
            why = f"takes numbers up to {MAX_OPTION}"
            raise NotSupported(f"scheduler_options.{option}", value, loaded.pipe, why)
    try:
        if given and "FlowMatch" not in name:  # those need to know the picture's size
            cls.from_config(own.config, **given).set_timesteps(_steps(loaded, request))
        return cls.from_config(own.config, **given)
    except (ValueError, TypeError, NotImplementedError, ImportError, ArithmeticError) as error:
        raise _refusal(loaded, name, given, error) from error
    except (RuntimeError, IndexError, KeyError, AttributeError) as error:
        if not given:
            raise
        raise _refusal(loaded, name, given, error) from error


def _steps(loaded: Loaded, request: GenerationRequest) -> int:
    return request.num_inference_steps or loaded.defaults.num_inference_steps or TRIAL_STEPS


def _refusal(loaded: Loaded, name: str, given: dict[str, Any], error: Exception) -> NotSupported:
    said = " ".join(str(error).split())
    words = {option: {option, str(value)} for option, value in given.items()}
    blamed = [option for option in given if words[option] & set(_words(said))] or list(given)
    if not blamed:
        return NotSupported("scheduler", name, loaded.pipe, f"could not make it: {said}")
    field = ", ".join(f"scheduler_options.{option}" for option in blamed)
    values = given[blamed[0]] if len(blamed) == 1 else {key: given[key] for key in blamed}
    return NotSupported(field, values, loaded.pipe, f"could not make {name} with it: {said}")


def _words(text: str) -> list[str]:
    return re.findall(r"[\w+-]+", text)


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
