"""Counts wrong keys by address, and refuses further attempts of an address for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from gateway.access.addresses import network_of
from gateway.errors import TooManyWrongKeys

MAX_FAILURES = 10
WINDOW_S = 60.0
MAX_ADDRESSES = 4096
"""The oldest address is forgotten above this number, so that memory stays bounded."""


class FailureLimit:
    """The wrong keys of the last WINDOW_S seconds. Thread-safe.

    An address that has sent a valid key is not shut out by others behind the same address: that
    key is still accepted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._successes: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(self, address: str, key_name: str | None) -> None:
        """Count an attempt. `key_name` is the name of the key that matched, None for a wrong one.

        Raises:
            TooManyWrongKeys: the address has sent MAX_FAILURES wrong keys within WINDOW_S.
        """
        place = network_of(address)
        with self._lock:
            failures = self._recent(place)
            if key_name is not None and (place, key_name) in self._successes:
                return
            if len(failures) >= MAX_FAILURES:
                raise TooManyWrongKeys(round(failures[0] + WINDOW_S - self._clock()) + 1)
            if key_name is None:
                failures.append(self._clock())
                self._failures[place] = failures
                self._failures.move_to_end(place)
                _shorten(self._failures)
            else:
                self._successes[place, key_name] = None
                _shorten(self._successes)

    def _recent(self, place: str) -> deque[float]:
        failures = self._failures.get(place, deque())
        while failures and failures[0] + WINDOW_S <= self._clock():
            failures.popleft()
        if not failures:
            self._failures.pop(place, None)
        return failures


def _shorten(table: OrderedDict[str, deque[float]] | OrderedDict[tuple[str, str], None]) -> None:
    if len(table) > MAX_ADDRESSES:
        table.popitem(last=False)
