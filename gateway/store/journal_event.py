"""Encodes and decodes the events of the gateway's journal and of its tombstones. It does no I/O.

docs/results-format.md defines the format.
"""

from __future__ import annotations

from typing import Any

import orjson

from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine

VERSION = 1

Event = dict[str, Any]

_FIELDS: dict[str, dict[str, Any]] = {
    "accepted": {"job": dict},
    "dispatched": {"uuid": str, "worker": str},
    "cancel": {"uuid": str},
    "deleted": {"uuid": str},
    "sequence": {"sequence": int},
}


def encode(event: Event) -> bytes:
    """Return one line with its newline."""
    return durable.with_checksum(orjson.dumps({"v": VERSION, **event})[:-1])


def decode(line: bytes) -> Event:
    """Return the event of a line. Raises DamagedLine when it is not one of this version."""
    durable.verify_checksum(line)
    try:
        event: Event = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise DamagedLine("is not JSON") from None
    fields = _FIELDS.get(str(event.get("event")))
    if event.get("v") != VERSION or fields is None:
        raise DamagedLine(f"is not an event of version {VERSION}")
    if any(not isinstance(event.get(name), kind) for name, kind in fields.items()):
        raise DamagedLine(f"lacks a member of the event {event['event']}")
    return event
