"""Sends every event to every page: one thread, a bounded ring, and no thread for a page.

A page is a connection that outlives the thread of its request (http/detached_stream.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from gateway.events.event_ring import Event, EventRing
from gpu_worker.store import process

log = logging.getLogger(__name__)

MAX_PAGES = 256
"""Each page is a connection, of which waitress accepts 500. More are refused with 503."""

LOOK_S = 1.0
"""Seconds between two looks while nothing is reported. A preview is only a file."""

PAUSE_S = 0.05
"""The shortest time between two looks. Changes in between become one."""

HEARTBEAT_S = 15.0
"""waitress closes a connection that is silent for 30 s, and proxies do after 60 s. The page of a
revoked key loses its connection at the next heartbeat."""

IDLE_S = 60.0
"""Without a page for so long, nobody looks. A page that comes back later fetches its lists."""


class Page(Protocol):
    """The connection of one page."""

    prefix: bytes
    """The path of the service behind a proxy, such as /sd. It precedes the URL of a preview."""

    def send(self, data: bytes) -> bool:
        """Send without waiting; return False if the page has left or does not read."""

    def close(self) -> None:
        """Close the connection soon."""


class _Place(NamedTuple):
    """The number of the last event that a page has, and whether it may still read."""

    number: int
    is_admitted: Callable[[], bool]


class EventHub:
    """The pages and the events for them. Thread-safe; one thread runs it.

    Args:
        look: returns what has changed since its last call.
    """

    def __init__(
        self,
        look: Callable[[], Iterable[tuple[str, Any]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._ring = EventRing()
        self._pages: dict[Page, _Place] = {}
        self._last_page = float("-inf")
        self._last_heartbeat = clock()
        self._is_looking = False
        self._wake = threading.Event()

    def start(self) -> None:
        """Run in a daemon thread. The process ends with it."""
        process.start_thread("events", self.run)

    def wake(self) -> None:
        """Have the thread look soon. It never waits, so any thread may call it."""
        self._wake.set()

    @property
    def is_full(self) -> bool:
        """Return whether no further page can be attached."""
        return len(self._pages) >= MAX_PAGES

    def publish(self, name: str, data: Any) -> None:
        """Send an event to all pages."""
        with self._lock:
            if self._is_looking:
                self._ring.add(name, data)
        self._wake.set()

    def greeting(self, last_id: str | None) -> tuple[int, bytes]:
        """Return the number after which a page's events begin, and the first bytes of its stream.

        Args:
            last_id: the id of the last event that the page has, None for a new page.
        """
        with self._lock:
            self._last_page = self._clock()
            self._resume()
            number = None if last_id is None else self._ring.number(last_id)
            start = self._ring.last if number is None else number
            text = b"retry: 1000\nid: %s\n\n" % self._ring.id(start)
            if last_id is not None and number is None:
                text += _resync(self._ring.id(start))
        return start, text

    def attach(
        self, page: Page, number: int, is_admitted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Add a page that has the events up to a number; return False if there are too many.

        Args:
            is_admitted: is asked at each heartbeat whether the page may still read.
        """
        with self._lock:
            if len(self._pages) >= MAX_PAGES:
                return False
            self._pages[page] = _Place(number, is_admitted)
        self._wake.set()
        return True

    def run(self) -> None:
        """Look, send and wait, forever."""
        while True:
            self._wake.wait(LOOK_S if self._is_looking else None)
            self._wake.clear()
            try:
                self.run_once()
            except Exception:
                log.exception("a round of events failed; the next one follows")
            time.sleep(PAUSE_S)

    def run_once(self) -> None:
        """Look once and send what is new."""
        with self._lock:
            self._pause_if_idle()
            if self._is_looking:
                for name, data in self._look():
                    self._ring.add(name, data)
            beat = self._clock() - self._last_heartbeat >= HEARTBEAT_S
            if beat:
                self._last_heartbeat = self._clock()
            pages = list(self._pages.items())
        for page, place in pages:
            if beat and not place.is_admitted():
                page.close()
                with self._lock:
                    del self._pages[page]
            else:
                self._send(page, place, beat)

    def _send(self, page: Page, place: _Place, beat: bool) -> None:
        number = place.number
        with self._lock:
            last = self._ring.last
            is_held = self._ring.is_held(number)
            events = self._ring.after(number) if is_held else []
        text = b"".join(_message(event, page.prefix) for event in events)
        if not is_held:
            text = _resync(self._ring.id(last))
        if not text and beat:
            text = b": still here\n\n"
        is_there = page.send(text) if text else True
        with self._lock:
            if is_there:
                self._pages[page] = place._replace(number=last)
            else:
                del self._pages[page]

    def _resume(self) -> None:
        """Begin to look again. What changes from now on is an event."""
        if not self._is_looking:
            self._is_looking = True
            self._ring.skip()
            for _ in self._look():
                pass  # the page fetches all of this itself

    def _pause_if_idle(self) -> None:
        now = self._clock()
        if self._pages:
            self._last_page = now
        elif now - self._last_page > IDLE_S:
            self._is_looking = False


def _message(event: Event, prefix: bytes) -> bytes:
    if prefix and event.name == "preview":
        return event.message.replace(b'"url":"/', b'"url":"' + prefix + b"/", 1)
    return event.message


def _resync(identifier: bytes) -> bytes:
    return b"id: %s\nevent: resync\ndata: {}\n\n" % identifier
