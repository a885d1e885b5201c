"""Writes the partial images of a job that asks for them, as PNG files beside the previews.

They are spread evenly over the steps of each image. A gateway reads them a moment later, so the
files of the last jobs stay for a while.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from gpu_worker.contract.job import Job
from gpu_worker.output.result_records import encode_png
from gpu_worker.store import partial_image
from gpu_worker.store.partial_image import PartialImage

log = logging.getLogger(__name__)

MAX_JOBS = 8
"""How many jobs have files at a time."""


class PartialImages:
    """The files of one writer. Those of an earlier process are removed with its previews."""

    def __init__(self, directory: Path, writer: str) -> None:
        self._directory = directory
        self._writer = writer
        self._paths: OrderedDict[str, list[Path]] = OrderedDict()

    def offer(self, job: Job, step: int, steps: int, make: Callable[[], Image.Image]) -> None:
        """Write a partial image if one is due after this step.

        One that fails is logged and left out: the job goes on.

        Args:
            step: from 1 to `steps`, over all images of the job.
        """
        place = due(job, step, steps)
        if place is None:
            return
        try:
            self._write(job.uuid, place, make())
        except Exception as error:
            log.warning("the job %s lacks a partial image: %s", job.uuid, error)

    def _write(self, uuid: str, place: PartialImage, image: Image.Image) -> None:
        path = partial_image.path(self._directory, self._writer, uuid, place)
        if uuid not in self._paths:
            self._make_room()
        self._paths.setdefault(uuid, []).append(path)
        draft = path.with_suffix(".tmp")
        draft.write_bytes(encode_png(image.convert("RGB")))
        draft.replace(path)

    def _make_room(self) -> None:
        while len(self._paths) >= MAX_JOBS:
            for old in self._paths.popitem(last=False)[1]:
                with contextlib.suppress(OSError):
                    old.unlink(missing_ok=True)


def due(job: Job, step: int, steps: int) -> PartialImage | None:
    """Return the partial image that is due after a step; None for most steps.

    The last step of an image has none, because the image itself follows.
    """
    count, per_image = job.partial_images, steps // job.request.num_images_per_prompt
    if not count or not per_image:
        return None
    image, before = divmod(step - 1, per_image)
    places = {round(per_image * (number + 1) / (count + 1)) for number in range(count)}
    inner = sorted(place for place in places if 1 <= place < per_image)
    return PartialImage(image, inner.index(before + 1)) if before + 1 in inner else None
