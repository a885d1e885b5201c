"""Counts what a CUDA device costs the host: waits, copies and calls, by their place in the source.

It decides nothing: the dispatch rules say what is a wait or a copy.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

_TORCH = str(Path(torch.__file__).parent) + "/"
_OURS = str(Path(__file__).parent) + "/"
_ROOT = str(Path(__file__).parents[3]) + "/"
_PASSED_THROUGH = ("contextlib.py", "functools.py", "threading.py")


def place() -> str:
    """Return the innermost place outside of torch and of this package, as `file:line function`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_passed_through(frame.f_code.co_filename):
        frame = frame.f_back
    file = frame.f_code.co_filename.split("site-packages/")[-1].removeprefix(_ROOT)
    return f"{file}:{frame.f_lineno} {frame.f_code.co_name}"


def _is_passed_through(file: str) -> bool:
    return file.startswith((_TORCH, _OURS)) or file.endswith(_PASSED_THROUGH)


@dataclass
class Copies:
    """Copies in one direction: how many, and of how many bytes, by place."""

    times: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)

    def note(self, tensor: torch.Tensor) -> None:
        """Count a copy of this tensor's size."""
        at = place()
        self.times[at] += 1
        self.size_bytes[at] += tensor.numel() * tensor.element_size()


@dataclass
class Counters:
    """All counts since the last reset.

    `waits` are the places where the host stands still until the device is done. `calls` are the
    calls of torch.cuda's own functions, by name. `operations` are those on device tensors.
    """

    waits: Counter[str] = field(default_factory=Counter)
    to_device: Copies = field(default_factory=Copies)
    from_device: Copies = field(default_factory=Copies)
    calls: Counter[str] = field(default_factory=Counter)
    operations: int = 0

    def reset(self) -> None:
        """Set every count to zero."""
        fresh = Counters()
        for name, value in vars(fresh).items():
            setattr(self, name, value)

    def wait(self) -> None:
        """Count a wait at the place that causes it."""
        self.waits[place()] += 1


COUNTERS = Counters()
