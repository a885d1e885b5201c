"""Holds the newest events, so that a client that reconnects misses none of them."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

import orjson

SIZE = 2048
"""Events that are held. At ten a second a client may be away for three minutes."""


class Event(NamedTuple):
    """An event on the wire. `number` counts from 1 and belongs to this run of the process."""

    number: int
    name: str
    message: bytes


class EventRing:
    """The newest events. It has no lock: EventHub holds one.

    An id is `RUN.NUMBER`. An id of another run is unknown, so the client fetches its lists again.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._run = f"{time.time_ns() // 1_000_000:x}"
        self._events: deque[Event] = deque(maxlen=size)
        self.last = 0

    def add(self, name: str, data: Any) -> None:
        """Add an event. JSON has no line breaks."""
        self.last += 1
        text = orjson.dumps(data)
        message = b"id: %s\nevent: %s\ndata: %s\n\n" % (self.id(self.last), name.encode(), text)
        self._events.append(Event(self.last, name, message))

    def skip(self) -> None:
        """Forget all events, because from now on some are not noticed."""
        self._events.clear()
        self.last += 1

    def id(self, number: int) -> bytes:
        """Return the id of an event."""
        return f"{self._run}.{number}".encode()

    def number(self, text: str) -> int | None:
        """Return the number of an id after which no event is lost; None for any other text."""
        run, _, digits = text.partition(".")
        if run != self._run or not (digits.isascii() and digits.isdigit() and len(digits) < 16):
            return None
        number = int(digits)
        return number if self.is_held(number) else None

    def is_held(self, number: int) -> bool:
        """Return whether every event after this one is held."""
        oldest = self._events[0].number if self._events else self.last + 1
        return oldest - 1 <= number <= self.last

    def after(self, number: int) -> list[Event]:
        """Return the events after this one."""
        count = min(self.last - number, len(self._events))
        return [
            self._events[index] for index in range(len(self._events) - count, len(self._events))
        ]
