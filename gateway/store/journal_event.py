"""Encodes and decodes the events of the gateway's journal and of its tombstones. It does no I/O.

docs/results-format.md defines the format.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gpu_worker.contract.job import SUBMISSION, UUID
from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine, NewerLine

VERSION = 1

Event = dict[str, Any]

_Uuid = Annotated[str, StringConstraints(pattern=UUID)]
_Submission = Annotated[str, StringConstraints(pattern=SUBMISSION)]


class _Event(BaseModel):
    """What every event has. Members that this version does not know are left alone."""

    model_config = ConfigDict(strict=True)


class _Accepted(_Event):
    job: dict[str, Any]


class _Dispatched(_Event):
    uuid: _Uuid
    worker: str


class _Canceled(_Event):
    uuid: _Uuid


class _Deleted(_Event):
    uuid: _Uuid
    submission: _Submission | None = None


class _Sequence(_Event):
    sequence: Annotated[int, Field(ge=0, lt=10**18)]


_EVENTS: dict[str, type[_Event]] = {
    "accepted": _Accepted,
    "dispatched": _Dispatched,
    "cancel": _Canceled,
    "deleted": _Deleted,
    "sequence": _Sequence,
}


def encode(event: Event) -> bytes:
    """Return one line with its newline."""
    return durable.with_checksum(orjson.dumps({"v": VERSION, **event})[:-1])


def decode(line: bytes) -> Event:
    """Return the event of a line.

    Raises:
        NewerLine: the line is of a newer version, or has an event that this one does not know.
        DamagedLine: the line is not an event.
    """
    durable.verify_checksum(line)
    try:
        event: Event = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise DamagedLine("is not JSON") from None
    version, name = event.get("v"), event.get("event")
    if type(version) is not int or version < 1 or not isinstance(name, str):
        raise DamagedLine(f"is not an event of version {VERSION}")
    if version > VERSION:
        raise NewerLine(f"has the version {version}, and this version reads version {VERSION}")
    model = _EVENTS.get(name)
    if model is None:
        raise NewerLine(f"has the event {name[:40]!r}, which this version does not know")
    try:
        model.model_validate(event)
    except ValidationError:
        raise DamagedLine(f"lacks a member of the event {name}") from None
    return event
