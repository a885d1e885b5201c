"""The journal's codec: an event as a line with its checksum. Pure, does no I/O.

{"v":1,"event":"accepted","job":{...},"crc32":"89abcdef"}\\n
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
    """One line with its newline."""
    return durable.seal(orjson.dumps({"v": VERSION, **event})[:-1])


def decode(line: bytes) -> Event:
    """Raises DamagedLine on what is no event of this version."""
    durable.check(line)
    event: Event = orjson.loads(line)
    fields = _FIELDS.get(event.get("event", ""))
    if event.get("v") != VERSION or fields is None:
        raise DamagedLine(f"is no event of version {VERSION}")
    if any(not isinstance(event.get(name), kind) for name, kind in fields.items()):
        raise DamagedLine(f"lacks what {event['event']} says")
    return event
