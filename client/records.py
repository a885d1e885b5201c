"""What the server's JSON means: results, jobs and workers as typed values. Does no I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import NoneType
from typing import Any, TypeVar

from client.errors import UnexpectedReply

ENDED = ("succeeded", "failed", "canceled")
"""The states a job never leaves."""

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Result:
    """One record of the server's log. `png` is None when there is no picture; `errors` say why.

    `extra` holds every further key as the server sent it: model, width, height (pixels),
    num_inference_steps, guidance_scale, negative_prompt, seconds ...
    """

    uuid: str
    prompt: str
    created_time: datetime
    errors: list[str]
    png: bytes | None = field(repr=False)
    seed: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """How far a generation is. `position` is its place in the queue, `eta_s` the seconds left."""

    uuid: str
    state: str
    position: int | None
    step: int
    steps: int
    eta_s: float | None
    attempts: int
    created_time: datetime
    errors: list[str]

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED


@dataclass(frozen=True)
class Worker:
    """One GPU process. `state` is loading, idle, busy or unreachable; what is not known is None."""

    name: str
    state: str
    model: str | None
    device: str | None
    machine_size: str | None
    uuid: str | None
    step: int | None
    steps: int | None


def result(raw: object) -> Result:
    """Raises UnexpectedReply when `raw` is not a result record."""
    given = _object(raw, "a result")
    known = {"uuid", "prompt", "created_time", "errors", "data", "seed"}
    return Result(
        uuid=_get(given, "uuid", str),
        prompt=_get(given, "prompt", str),
        created_time=_time(given),
        errors=_texts(given),
        png=_png(given),
        seed=_get(given, "seed", int, NoneType),
        extra={key: value for key, value in given.items() if key not in known},
    )


def job(raw: object) -> Job:
    """Raises UnexpectedReply when `raw` is not a job."""
    given = _object(raw, "a job")
    return Job(
        uuid=_get(given, "uuid", str),
        state=_get(given, "state", str),
        position=_get(given, "position", int, NoneType),
        step=_get(given, "step", int, NoneType) or 0,
        steps=_get(given, "steps", int, NoneType) or 0,
        eta_s=_get(given, "eta_s", float, int, NoneType),
        attempts=_get(given, "attempts", int, NoneType) or 0,
        created_time=_time(given),
        errors=_texts(given),
    )


def worker(raw: object) -> Worker:
    """Raises UnexpectedReply when `raw` is not a worker."""
    given = _object(raw, "a worker")
    return Worker(
        name=_get(given, "name", str),
        state=_get(given, "state", str),
        model=_get(given, "model", str, NoneType),
        device=_get(given, "device", str, NoneType),
        machine_size=_get(given, "machine_size", str, NoneType),
        uuid=_get(given, "uuid", str, NoneType),
        step=_get(given, "step", int, NoneType),
        steps=_get(given, "steps", int, NoneType),
    )


def _object(raw: object, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise UnexpectedReply(f"the server sent {type(raw).__name__} where {what} was expected")
    return raw


def _get(given: Mapping[str, Any], key: str, *kinds: type[Kind]) -> Kind:
    value = given.get(key)
    # bool is an int in Python; none of these fields is a truth value.
    if isinstance(value, bool) or not isinstance(value, kinds):
        names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise UnexpectedReply(f"the server sent {key!r} as {type(value).__name__}, not {names}")
    return value


def _time(given: Mapping[str, Any]) -> datetime:
    text = _get(given, "created_time", str)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UnexpectedReply(f"the server sent 'created_time' as {text[:40]!r}") from None
    # Without a zone it could not be compared with those that have one.
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _texts(given: Mapping[str, Any]) -> list[str]:
    values = _get(given, "errors", list)
    if not all(isinstance(value, str) for value in values):
        raise UnexpectedReply("the server sent 'errors' that are not strings")
    return list(values)


def _png(given: Mapping[str, Any]) -> bytes | None:
    text = _get(given, "data", str, NoneType)
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise UnexpectedReply("the server sent 'data' that is not base64") from None
