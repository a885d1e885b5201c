"""POST /sdapi/v1/extra-single-image and /extra-batch-images: a job of upscaling for each image."""

from __future__ import annotations

import binascii
import contextlib
import html
import io
from dataclasses import dataclass
from typing import Any

import falcon
import orjson
from PIL import Image
from pydantic import ValidationError

from gateway.admission.submission_options import SubmissionOptions
from gateway.dialects.automatic1111 import answers, lists
from gateway.dialects.automatic1111.door import DoorResource
from gateway.dialects.automatic1111.errors import (
    FieldRefused,
    GenerationFailed,
    UpscalerNotFound,
)
from gateway.dialects.automatic1111.translation import image_preparation, infotext
from gateway.dialects.automatic1111.translation.request_models import (
    ExtraBatch,
    Extras,
    ExtraSingle,
    NamedImage,
    parse,
)
from gateway.dialects.automatic1111.translation.target import find_name
from gateway.dialects.blocking import waited
from gateway.errors import InvalidRequest, RequestRefused
from gateway.http.json_body import json_body
from gateway.http.request_log import caller
from gateway.jobs.job_entry import JobState
from gpu_worker.contract import output_size
from gpu_worker.contract.field_types import LANCZOS
from gpu_worker.contract.output_size import Size
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported

MAX_SCALE = 4.0
"""A job enlarges at most so much; the rest is resized."""

NO_PROMPT = "an upscaled image"
"""The prompt of a job whose image does not say how it was made."""

QUEUED = SubmissionOptions(queue=True)

_RESIZE_TO = 1

_LARGEST_SCALE = 1000
"""A larger factor is a mistake, whatever the size of the image."""


@dataclass(frozen=True)
class Task:
    """One image: the job that enlarges it, or the finished image where none is needed.

    `size` is that of the result, which is cut from the middle where `crops`.
    """

    size: Size
    crops: bool = False
    uuid: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class Batch:
    """The images of a request, and what has no effect."""

    tasks: list[Task]
    notes: list[str]


class _Resource(DoorResource):
    """Submits the jobs, frees the thread, and answers when all of them have ended."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the images and `html_info`, which names what has no effect."""
        ended = waited(req)
        batch = self._begin(req) if ended is None else ended.state
        uuid = self._next_job(batch)
        if uuid is not None:
            self._door.services.waiter.wait(req, resp, uuid, batch)
            return
        images = [self._image(task) for task in batch.tasks]
        info = "; ".join(html.escape(note) for note in batch.notes)
        resp.data = orjson.dumps({"html_info": f"<p>{info}</p>", **self._members(images)})

    def _read(self, req: falcon.Request) -> tuple[Extras, list[NamedImage]]:
        raise NotImplementedError

    def _members(self, images: list[str]) -> dict[str, Any]:
        raise NotImplementedError

    def _begin(self, req: falcon.Request) -> Batch:
        reader = self._door.services.image_reader
        with reader.room(req.content_length or 0):
            extras, images = self._read(req)
            notes: list[str] = []
            upscaler = self._upscaler(extras, notes)
            tasks: list[Task] = []
            try:
                for place, image in enumerate(images):
                    where = "image" if len(images) == 1 else f"imageList.{place}.data"
                    tasks.append(self._task(req, extras, upscaler, where, image.data))
            except (InvalidRequest, Unsupported) as error:
                self._cancel(tasks)
                raise FieldRefused.of(error) from None
            except BaseException:
                self._cancel(tasks)
                raise
        return Batch(tasks, notes)

    def _cancel(self, tasks: list[Task]) -> None:
        for task in tasks:
            with contextlib.suppress(RequestRefused):
                self._door.services.cancellation.cancel(task.uuid or "")

    def _upscaler(self, extras: Extras, notes: list[str]) -> str | None:
        """Return our name of the upscaler; None for none. Raises UpscalerNotFound."""
        if extras.extras_upscaler_2_visibility > 0 and extras.upscaler_2.lower() != "none":
            notes.append("upscaler_2: the results of two upscalers are not mixed here")
        if extras.gfpgan_visibility > 0 or extras.codeformer_visibility > 0:
            notes.append("gfpgan_visibility, codeformer_visibility: faces are not restored here")
        text = extras.upscaler_1.strip()
        if text.lower() in ("", "none"):
            return None
        if text.lower() == "nearest":
            notes.append("upscaler_1: Lanczos is used in place of Nearest")
            return LANCZOS
        names = lists.upscaler_names(self._door)
        choice = find_name(text, names[1:])
        if choice is None:
            raise UpscalerNotFound(text, names)
        return LANCZOS if choice == lists.LANCZOS else choice

    def _task(
        self, req: falcon.Request, extras: Extras, upscaler: str | None, where: str, text: str
    ) -> Task:
        """Submit the job of an image. Raises RequestRefused, Unsupported."""
        image = self._door.services.image_reader.image(where, text)
        if upscaler is None:
            return Task(image.size, data=answers.to_base64(_plain(image)))
        scale, task = _plan(extras, image.size)
        if scale <= 1.0:
            resized = _plain(image).resize(
                output_size_of(image.size, scale), Image.Resampling.LANCZOS
            )
            return Task(task.size, data=answers.to_base64(_fitted(resized, task)))
        services = self._door.services
        body = {
            "prompt": _prompt(image),
            "image": text,
            "upscale": {"scale": min(scale, MAX_SCALE), "upscaler": upscaler},
        }
        request, images = services.image_reader.request(body)
        req.context.generation = request
        uuid = services.submission.submit(request, None, images, None, caller(req), QUEUED)
        return Task(task.size, task.crops, uuid)

    def _next_job(self, batch: Batch) -> str | None:
        """Return the first job that has not ended."""
        for task in batch.tasks:
            if task.uuid is not None and not self._door.services.lookup.view(task.uuid).state.ended:
                return task.uuid
        return None

    def _image(self, task: Task) -> str:
        """Return base64 of a finished image. Raises GenerationFailed."""
        if task.uuid is None:
            return task.data or ""
        view = self._door.services.lookup.view(task.uuid)
        if view.state is not JobState.SUCCEEDED:
            raise GenerationFailed("; ".join(view.errors) or f"the job was {view.state.value}")
        _, data = answers.images_of(self._door, task.uuid)[0]
        with _opened(data) as image:
            if image.size == task.size:
                return data
            return answers.to_base64(_fitted(image, task), answers.parameters_of(data))


class ExtraSingleResource(_Resource):
    """POST /sdapi/v1/extra-single-image."""

    def _read(self, req: falcon.Request) -> tuple[Extras, list[NamedImage]]:
        body = parse(ExtraSingle, json_body(req, self._door.max_body_bytes))
        return body, [NamedImage(data=body.image)]

    def _members(self, images: list[str]) -> dict[str, Any]:
        return {"image": images[0]}


class ExtraBatchResource(_Resource):
    """POST /sdapi/v1/extra-batch-images."""

    def _read(self, req: falcon.Request) -> tuple[Extras, list[NamedImage]]:
        body = parse(ExtraBatch, json_body(req, self._door.max_body_bytes))
        return body, body.imageList

    def _members(self, images: list[str]) -> dict[str, Any]:
        return {"images": images}


def _plan(extras: Extras, size: Size) -> tuple[float, Task]:
    """Return how many times larger an image becomes, and the size of the result.

    Raises:
        InvalidRequest: the factor or a side is not above 0.
        Unsupported: the result is too large.
    """
    goal = (extras.upscaling_resize_w, extras.upscaling_resize_h)
    if extras.resize_mode == _RESIZE_TO:
        field, scale = "upscaling_resize_w", max(goal[0] / size[0], goal[1] / size[1])
    else:
        field, scale = "upscaling_resize", extras.upscaling_resize
    is_empty = extras.resize_mode == _RESIZE_TO and min(goal) <= 0
    if is_empty or not 0 < scale <= _LARGEST_SCALE:
        message = f"must be above 0, and at most {_LARGEST_SCALE} times the size of the image"
        raise InvalidRequest([{"field": field, "message": message, "value": str(scale)[:80]}])
    output_size.upscaled_size(size, scale, field)
    crops = extras.resize_mode == _RESIZE_TO and extras.upscaling_crop
    return scale, Task(goal if crops else output_size_of(size, scale), crops)


def output_size_of(size: Size, scale: float) -> Size:
    """Return the size of an image that becomes `scale` times as large."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fitted(image: Image.Image, task: Task) -> Image.Image:
    """Return the image in the size of a task."""
    if task.crops:
        return image_preparation.resize(image, task.size, image_preparation.CROP_AND_RESIZE)
    return image_preparation.resize(image, task.size, image_preparation.JUST_RESIZE)


def _plain(image: Image.Image) -> Image.Image:
    return image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")


def _opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(binascii.a2b_base64(data)), formats=("PNG",))


def _prompt(image: Image.Image) -> str:
    """Return the prompt of an image that says how it was made, else a sentence."""
    text = image.info.get("parameters")
    prompt = infotext.split(text)[0] if isinstance(text, str) and text else ""
    try:
        return GenerationRequest(prompt=prompt).prompt
    except ValidationError:
        return NO_PROMPT
