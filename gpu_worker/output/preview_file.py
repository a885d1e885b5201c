"""What the running job looks like so far, as a small JPEG file beside the sockets. A leaf.

Costs at most a fiftieth of the time: one that takes t seconds is made when 50 t have passed since
the one before or since the job's first step. The last one, whatever job's, tells what t is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

log = logging.getLogger(__name__)

SHARE = 0.02
LEAST_PAUSE_S = 0.25


class PreviewFile:
    """`<writer>.<uuid>.jpg`; what an earlier process left is removed."""

    def __init__(
        self, directory: Path, writer: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._clock = clock
        self._path: Path | None = None
        self._uuid: str | None = None
        self._next = 0.0
        self._cost_s = 0.0
        with contextlib.suppress(OSError):
            for old in directory.glob(f"{writer}.*"):
                old.unlink()

    def offer(self, uuid: str, make: Callable[[], Image.Image]) -> None:
        """Make one and put it into place, if it is time for one. A preview that fails is no
        reason to lose the picture: it is reported, and there is none."""
        begun = self._clock()
        if uuid != self._uuid:
            self._uuid, self._next = uuid, begun + self._cost_s / SHARE
        if begun < self._next:
            return
        path = self._directory / f"{self._writer}.{uuid}.jpg"
        try:
            fresh = path.with_suffix(".tmp")
            make().convert("RGB").save(fresh, format="JPEG", quality=80)
            fresh.replace(path)
            self._path = path
        except Exception as error:
            log.warning("no preview of %s: %s", uuid, error)
        self._cost_s = self._clock() - begun
        self._next = begun + max(LEAST_PAUSE_S, self._cost_s / SHARE)

    def remove(self) -> None:
        """The job has ended."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        elif self._uuid is not None:
            # Another model's may be cheaper; without a try that would never be known.
            self._cost_s /= 2
        self._path = self._uuid = None
