"""What the server's JSON means: results, jobs and workers as typed values. Does no I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import NoneType
from typing import Any, TypeVar

from sde_client.errors import UnexpectedReply

ENDED = ("succeeded", "failed", "canceled")
"""The states a job never leaves."""

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Result:
    """One record of the server's log. `png` is None when there is no picture, or when it was asked
    for without; `state` tells: succeeded, failed or canceled, None from a server that says none.

    It is the `image_index`-th, from 0, of the `num_images` of its job.
    `errors` say why there is no picture.
    `extra` holds every further key as the server sent it: model, width, height (pixels),
    num_inference_steps, guidance_scale, negative_prompt, seconds ...
    """

    uuid: str
    prompt: str
    created_time: datetime
    errors: list[str]
    png: bytes | None = field(repr=False)
    seed: int | None = None
    state: str | None = None
    image_index: int = 0
    num_images: int = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """How far a generation is. `position` is its place in the queue, `eta_s` the seconds left.

    `cancel_requested`: it ends before its next step. A time that has not come is None.
    """

    uuid: str
    state: str
    position: int | None
    step: int
    steps: int
    eta_s: float | None
    attempts: int
    created_time: datetime
    errors: list[str]
    cancel_requested: bool = False
    started_time: datetime | None = None
    ended_time: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED


@dataclass(frozen=True)
class Worker:
    """One GPU process. `state` is loading, idle, busy or unreachable; what is not known is None.

    `trouble` says why it waits for its disk.
    """

    name: str
    state: str
    model: str | None
    device: str | None
    machine_size: str | None
    uuid: str | None
    step: int | None
    steps: int | None
    trouble: str | None = None


@dataclass(frozen=True)
class Storage:
    """The server's log of results and its disk. `trouble` says why no job is accepted.

    `damaged_lines` were found unreadable and are passed over; `free_bytes` is None where the disk
    does not say.
    """

    results: int
    size_bytes: int
    segments: int
    damaged_lines: int
    free_bytes: int | None
    trouble: str | None


def result(raw: object) -> Result:
    """Raises UnexpectedReply when `raw` is not a result record."""
    given = _object(raw, "a result")
    known = {"uuid", "prompt", "created_time", "errors", "data", "seed", "state"}
    known |= {"image_index", "num_images"}
    return Result(
        uuid=_get(given, "uuid", str),
        prompt=_get(given, "prompt", str),
        created_time=_time(given, "created_time"),
        errors=_texts(given),
        png=_png(given),
        seed=_get(given, "seed", int, NoneType),
        state=_get(given, "state", str, NoneType),
        image_index=_get(given, "image_index", int, NoneType) or 0,
        num_images=_get(given, "num_images", int, NoneType) or 1,
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
        created_time=_time(given, "created_time"),
        errors=_texts(given),
        cancel_requested=_truth(given, "cancel_requested"),
        started_time=_time_if_any(given, "started_time"),
        ended_time=_time_if_any(given, "ended_time"),
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
        trouble=_get(given, "trouble", str, NoneType),
    )


def storage(raw: object) -> Storage:
    """Raises UnexpectedReply when `raw` is not a storage's state."""
    given = _object(raw, "a storage")
    return Storage(
        results=_get(given, "results", int),
        size_bytes=_get(given, "size_bytes", int),
        segments=_get(given, "segments", int),
        damaged_lines=_get(given, "damaged_lines", int),
        free_bytes=_get(given, "free_bytes", int, NoneType),
        trouble=_get(given, "trouble", str, NoneType),
    )


def _object(raw: object, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise UnexpectedReply(f"the server sent {type(raw).__name__} where {what} was expected")
    return raw


def _get(given: Mapping[str, Any], key: str, *kinds: type[Kind]) -> Kind:
    value = given.get(key)
    # bool is an int in Python; none of the fields read here is a truth value.
    if isinstance(value, bool) or not isinstance(value, kinds):
        names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise UnexpectedReply(f"the server sent {key!r} as {type(value).__name__}, not {names}")
    return value


def _truth(given: Mapping[str, Any], key: str) -> bool:
    """False where an older server does not say."""
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise UnexpectedReply(f"the server sent {key!r} as {type(value).__name__}, not bool")
    return value


def _time_if_any(given: Mapping[str, Any], key: str) -> datetime | None:
    return None if given.get(key) is None else _time(given, key)


def _time(given: Mapping[str, Any], key: str) -> datetime:
    text = _get(given, key, str)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UnexpectedReply(f"the server sent {key!r} as {text[:40]!r}") from None
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
