"""A second signal that comes while the first one is handled must not stop the process for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_worker.store.process import SignalEvent

PATIENCE_S = 5.0


class Interrupted(threading.Condition):
    """Sends the signal again while the lock of the event is held."""

    def __enter__(self) -> Any:
        assert self.acquire(timeout=PATIENCE_S), "the second handler waits for the first one"
        signal.raise_signal(signal.SIGUSR1)
        return self


@pytest.fixture
def event() -> Iterator[SignalEvent]:
    """An event that SIGUSR1 sets."""
    made = SignalEvent()
    made._cond = Interrupted(threading.Lock())
    before = signal.signal(signal.SIGUSR1, lambda *_: made.set())
    yield made
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_within_the_handler_of_another_is_harmless(event: SignalEvent) -> None:
    signal.raise_signal(signal.SIGUSR1)
    assert event.is_set()


def test_it_is_an_event(event: SignalEvent) -> None:
    event.set()
    assert event.is_set() and event.wait(0)
