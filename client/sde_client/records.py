"""Converts the server's JSON to typed results, jobs and workers. It does no I/O."""

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
"""The final states of a job."""

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Result:
    """A record of the server's result log.

    `png` is None if the job has no image, or if the request left the images out. `state` is
    succeeded, failed or canceled; an older server may send none. `image_index` counts from 0 to
    `num_images - 1`. `errors` explain why there is no image. `extra` holds all other keys as the
    server sent them: model, width and height (pixels), num_inference_steps and more.
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
    """The state and progress of a job.

    `position` is its position in the queue. `eta_s` is the estimate of the seconds until its end.
    With `cancel_requested` the job ends before its next step. Times are None until they are known.
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
        """Return whether the state is final."""
        return self.state in ENDED


@dataclass(frozen=True)
class Worker:
    """A worker process.

    `state` is loading, idle, busy, unreachable, or failed if it cannot be started. `trouble` is the
    error of its disk while the worker waits for it. `load_error` says why a model could not be
    loaded. `last_error` says that, or how its process last ended, until it has finished a job.
    `step_age_s` is the seconds since its present step began. Unknown values are None.
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
    load_error: str | None = None
    last_error: str | None = None
    last_error_time: datetime | None = None
    restarts: int = 0
    step_age_s: float | None = None


@dataclass(frozen=True)
class Storage:
    """The server's result log and its disk.

    `trouble` is the error of the disk while no job is accepted. `damaged_lines` is the number of
    lines that cannot be read. `free_bytes` is None if the file system does not tell.
    """

    results: int
    size_bytes: int
    segments: int
    damaged_lines: int
    free_bytes: int | None
    trouble: str | None


def result(raw: object) -> Result:
    """Return a Result. Raises UnexpectedReply if `raw` is not a result record."""
    fields = _object(raw, "a result")
    typed = {"uuid", "prompt", "created_time", "errors", "data", "seed", "state"}
    typed |= {"image_index", "num_images"}
    return Result(
        uuid=_get(fields, "uuid", str),
        prompt=_get(fields, "prompt", str),
        created_time=_time(fields, "created_time"),
        errors=_texts(fields),
        png=_png(fields),
        seed=_get(fields, "seed", int, NoneType),
        state=_get(fields, "state", str, NoneType),
        image_index=_get(fields, "image_index", int, NoneType) or 0,
        num_images=_get(fields, "num_images", int, NoneType) or 1,
        extra={key: value for key, value in fields.items() if key not in typed},
    )


def job(raw: object) -> Job:
    """Return a Job. Raises UnexpectedReply if `raw` is not a job."""
    fields = _object(raw, "a job")
    return Job(
        uuid=_get(fields, "uuid", str),
        state=_get(fields, "state", str),
        position=_get(fields, "position", int, NoneType),
        step=_get(fields, "step", int, NoneType) or 0,
        steps=_get(fields, "steps", int, NoneType) or 0,
        eta_s=_get(fields, "eta_s", float, int, NoneType),
        attempts=_get(fields, "attempts", int, NoneType) or 0,
        created_time=_time(fields, "created_time"),
        errors=_texts(fields),
        cancel_requested=_flag(fields, "cancel_requested"),
        started_time=_optional_time(fields, "started_time"),
        ended_time=_optional_time(fields, "ended_time"),
    )


def worker(raw: object) -> Worker:
    """Return a Worker. Raises UnexpectedReply if `raw` is not a worker."""
    fields = _object(raw, "a worker")
    return Worker(
        name=_get(fields, "name", str),
        state=_get(fields, "state", str),
        model=_get(fields, "model", str, NoneType),
        device=_get(fields, "device", str, NoneType),
        machine_size=_get(fields, "machine_size", str, NoneType),
        uuid=_get(fields, "uuid", str, NoneType),
        step=_get(fields, "step", int, NoneType),
        steps=_get(fields, "steps", int, NoneType),
        trouble=_get(fields, "trouble", str, NoneType),
        load_error=_get(fields, "load_error", str, NoneType),
        last_error=_get(fields, "last_error", str, NoneType),
        last_error_time=_optional_time(fields, "last_error_time"),
        restarts=_get(fields, "restarts", int, NoneType) or 0,
        step_age_s=_get(fields, "step_age_s", float, int, NoneType),
    )


def storage(raw: object) -> Storage:
    """Return a Storage. Raises UnexpectedReply if `raw` is not the state of a storage."""
    fields = _object(raw, "a storage")
    return Storage(
        results=_get(fields, "results", int),
        size_bytes=_get(fields, "size_bytes", int),
        segments=_get(fields, "segments", int),
        damaged_lines=_get(fields, "damaged_lines", int),
        free_bytes=_get(fields, "free_bytes", int, NoneType),
        trouble=_get(fields, "trouble", str, NoneType),
    )


def _object(raw: object, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise UnexpectedReply(f"the server sent {type(raw).__name__} where {what} was expected")
    return raw


def _get(fields: Mapping[str, Any], key: str, *kinds: type[Kind]) -> Kind:
    value = fields.get(key)
    # A bool is an int in Python, and no field that is read here is a bool.
    if isinstance(value, bool) or not isinstance(value, kinds):
        names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise UnexpectedReply(f"the server sent {key!r} as {type(value).__name__}, not {names}")
    return value


def _flag(fields: Mapping[str, Any], key: str) -> bool:
    """Return the value, or False if an older server does not send it."""
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise UnexpectedReply(f"the server sent {key!r} as {type(value).__name__}, not bool")
    return value


def _optional_time(fields: Mapping[str, Any], key: str) -> datetime | None:
    return None if fields.get(key) is None else _time(fields, key)


def _time(fields: Mapping[str, Any], key: str) -> datetime:
    text = _get(fields, key, str)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UnexpectedReply(f"the server sent {key!r} as {text[:40]!r}") from None
    # A time without a zone cannot be compared with the others.
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _texts(fields: Mapping[str, Any]) -> list[str]:
    values = _get(fields, "errors", list)
    if not all(isinstance(value, str) for value in values):
        raise UnexpectedReply("the server sent 'errors' that are not strings")
    return list(values)


def _png(fields: Mapping[str, Any]) -> bytes | None:
    text = _get(fields, "data", str, NoneType)
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise UnexpectedReply("the server sent 'data' that is not base64") from None
