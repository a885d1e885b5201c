"""The card that the parts measure: a real one, or the make-believe one of tests/support/cuda.

Everything that differs between the two is here. A make-believe card has no time of its own.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

MAKE_BELIEVE = "BENCH_MAKE_BELIEVE"
"""The variable of the environment that tells the processes of a run which card they have."""

DEVICE = torch.device("cuda", 0)
GIB = 1 << 30

_TORCH = str(Path(torch.__file__).parent) + os.sep
_ROOT = str(Path(__file__).parents[2]) + os.sep
_SYNC_WARNING = "called a synchronizing CUDA operation"
"""The words of c10/cuda/CUDAFunctions.cpp in the sync debug mode `warn`."""

_PROBE_CYCLES = 20_000_000


def is_make_believe() -> bool:
    """Return whether this run has no real card."""
    return os.environ.get(MAKE_BELIEVE) == "1"


def enter() -> None:
    """Put the make-believe card in place if the run has one. diffusers must not be imported yet.

    Raises:
        SystemExit: there is no card at all.
    """
    if is_make_believe():
        from tests.support.cuda import device

        device.enter(count=1, memory_bytes=80 * GIB)
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here; --make-believe runs without one")


def name() -> str:
    """Return the product name of the card."""
    return str(torch.cuda.get_device_name(DEVICE))


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Yield what counts the places, as `file:line function`, where the host waits for the card.

    Only waits that torch itself notices count: its copies and reads, no `synchronize`.
    """
    if is_make_believe():
        from tests.support.cuda.counters import COUNTERS

        COUNTERS.reset()
        yield COUNTERS.waits
        return
    places: Counter[str] = Counter()

    def count(message: Any, *_: Any, **__: Any) -> None:
        if _SYNC_WARNING in str(message):
            places[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _place() -> str:
    """Return the innermost place outside of torch, this file and the library of warnings."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_passed_through(frame.f_code.co_filename):
        frame = frame.f_back
    file = frame.f_code.co_filename.split("site-packages/")[-1].removeprefix(_ROOT)
    return f"{file}:{frame.f_lineno} {frame.f_code.co_name}"


def _is_passed_through(file: str) -> bool:
    return file.startswith(_TORCH) or file == __file__ or Path(file).name == "warnings.py"


def spin(seconds: float) -> None:
    """Keep the card busy for so long; the host goes on. Without a real card it is the host."""
    if is_make_believe():
        time.sleep(seconds)
    else:
        torch.cuda._sleep(int(seconds * _cycles_per_second()))


@functools.cache
def _cycles_per_second() -> float:
    """Return how many of the card's clock cycles a second has, while it works."""
    for _ in range(2):  # the first kernel of a process is loaded first
        start, end = event(), event()
        torch.cuda._sleep(_PROBE_CYCLES)
        end.record()
        end.synchronize()
        milliseconds = start.elapsed_time(end)
    return float(_PROBE_CYCLES / milliseconds * 1e3)


def event() -> Any:
    """Return an event with a time, at the end of what the card has to do."""
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


def milliseconds(start: Any, end: Any) -> float:
    """Return the time between two events, for which the host waits; NaN without a real card."""
    end.synchronize()
    return math.nan if is_make_believe() else float(start.elapsed_time(end))


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[None]:
    """Let torch allocate at most so much of the card in this process."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), DEVICE)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
