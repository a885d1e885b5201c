"""Streams, events and pinned memory: a copy to pinned memory is there only after a wait.

All work is done at once and in order, so a stream has no queue of its own. Only the copies that
the host did not wait for are held back, so that reading them too early shows.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.support.cuda import current
from tests.support.cuda.counters import COUNTERS
from tests.support.cuda.faults import FAULTS
from tests.support.cuda.storages import Storages

_PINNED = Storages()
_LATE: list[tuple[torch.Tensor, torch.Tensor]] = []
"""Copies to the host that nobody has waited for: destination, and the values of that moment."""


def pin(tensor: torch.Tensor) -> torch.Tensor:
    """Return the CPU tensor, whose memory counts as pinned from now on."""
    if tensor not in _PINNED:
        _PINNED.add(tensor)
    return tensor


def is_pinned(tensor: torch.Tensor) -> bool:
    """Return whether a CPU tensor lies in pinned memory."""
    return tensor in _PINNED


def copy_later(destination: torch.Tensor) -> None:
    """Take the values of a CPU tensor away until the next wait; until then it has none of use."""
    _LATE.append((destination, destination.clone()))
    if destination.is_floating_point():
        destination.fill_(float("nan"))


def land() -> None:
    """Write all copies that were held back."""
    for destination, values in _LATE:
        destination.copy_(values)
    _LATE.clear()


def wait() -> None:
    """Make the host wait for the device, and count it."""
    COUNTERS.wait()
    land()


def synchronize(name: str) -> None:
    """Wait in the call of torch.cuda of this name.

    Raises:
        torch.AcceleratorError: the device is lost.
    """
    COUNTERS.calls[name] += 1
    FAULTS.check(f"cuda::{name}")
    wait()


class Event:
    """torch.cuda.Event, of a device that is always done when it is asked."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self.enable_timing = enable_timing

    def record(self, stream: Any = None) -> None:
        """Mark a point of the stream."""
        FAULTS.check("cuda::event_record")

    def synchronize(self) -> None:
        """Wait for the point."""
        synchronize("event_synchronize")

    def wait(self, stream: Any = None) -> None:
        """Make a stream wait for the point; the host goes on."""
        FAULTS.check("cuda::event_wait")

    def query(self) -> bool:
        """Return that the device has passed the point."""
        FAULTS.check("cuda::event_query")
        land()
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return milliseconds, which are none here."""
        return 0.0


class Stream:
    """torch.cuda.Stream."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device = current.device_of("cuda" if device is None else device)
        self.priority = priority
        self._before: list[Stream] = []

    def __enter__(self) -> Stream:
        self._before.append(current.stream(Stream))
        current.set_stream(self)
        return self

    def __exit__(self, *_: object) -> None:
        current.set_stream(self._before.pop())

    def synchronize(self) -> None:
        """Wait until all work of the stream is done."""
        synchronize("stream_synchronize")

    def query(self) -> bool:
        """Return that all work of the stream is done."""
        FAULTS.check("cuda::stream_query")
        land()
        return True

    def record_event(self, event: Event | None = None) -> Event:
        """Return an event at this point of the stream."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Make the stream wait; the host goes on."""
        event.wait(self)

    def wait_stream(self, stream: Any) -> None:
        """Make the stream wait for another; the host goes on."""
        FAULTS.check("cuda::stream_wait")
