"""Writes previews of the running job as a small JPEG file beside the sockets.

Previews cost at most a fiftieth of the time. One that takes t seconds follows 50 t after the one
before or after the job's first step; t is that of the last preview of any job.
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
    """The file `<writer>.<uuid>.jpg`. The files of an earlier process are removed."""

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
        """Write a preview if one is due. A preview that fails is logged and skipped."""
        start = self._clock()
        if uuid != self._uuid:
            self._uuid, self._next = uuid, start + self._cost_s / SHARE
        if start < self._next:
            return
        path = self._directory / f"{self._writer}.{uuid}.jpg"
        try:
            draft = path.with_suffix(".tmp")
            make().convert("RGB").save(draft, format="JPEG", quality=80)
            draft.replace(path)
            self._path = path
        except Exception as error:
            log.warning("the job %s has no preview now: %s", uuid, error)
        self._cost_s = self._clock() - start
        self._next = start + max(LEAST_PAUSE_S, self._cost_s / SHARE)

    def remove(self) -> None:
        """Remove the preview, because the job has ended."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        elif self._uuid is not None:
            # Another model's may be cheaper, and only a try can show it.
            self._cost_s /= 2
        self._path = self._uuid = None
