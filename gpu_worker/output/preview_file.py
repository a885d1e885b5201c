"""Writes previews of the running job as a small JPEG file beside the sockets.

Previews cost at most a fiftieth of the time. What one costs is earned by 50 times as much time of
running jobs before the next one begins. The cost is what the preview itself takes; a wait until
its data has come from the device is none, because the steps go on.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from gpu_worker.pipeline_api import Preview

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
        self._last_offer = self._last_start = 0.0
        self._unpaid_s = 0.0
        """The cost that running jobs have not earned yet."""
        self._device_s = 0.0
        """The seconds that the last preview took on the device."""
        self._pending: Callable[[], Preview | None] | None = None
        with contextlib.suppress(OSError):
            for old in directory.glob(f"{writer}.*"):
                old.unlink()

    def offer(self, uuid: str, make: Callable[[], Preview | None]) -> None:
        """Write a preview if one is due, or the one that was begun at an earlier step.

        A preview that fails is logged and skipped.
        """
        start = self._clock()
        if uuid != self._uuid:
            self._uuid, self._pending = uuid, None
            self._last_offer, self._last_start = start, start - LEAST_PAUSE_S
        self._unpaid_s = max(0.0, self._unpaid_s - SHARE * (start - self._last_offer))
        self._last_offer = start
        if self._pending is None:
            if self._unpaid_s > 0 or start < self._last_start + LEAST_PAUSE_S:
                return
            self._pending, self._last_start = make, start
        try:
            self._advance(uuid, self._pending)
        except Exception as error:
            self._pending = None
            log.warning("the job %s has no preview now: %s", uuid, error)
        self._unpaid_s += self._clock() - start

    def _advance(self, uuid: str, make: Callable[[], Preview | None]) -> None:
        preview = make()
        if preview is None:
            return
        self._pending, self._device_s = None, preview.device_s
        self._unpaid_s += preview.device_s
        self._write(uuid, preview.image)

    def _write(self, uuid: str, image: Image.Image) -> None:
        path = self._directory / f"{self._writer}.{uuid}.jpg"
        draft = path.with_suffix(".tmp")
        image.convert("RGB").save(draft, format="JPEG", quality=80)
        draft.replace(path)
        self._path = path

    def remove(self) -> None:
        """Remove the preview, because the job has ended."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        if self._pending is not None:
            # The device may have worked for it already; the last preview's cost is the best guess.
            self._unpaid_s += self._device_s
        self._path = self._uuid = self._pending = None
