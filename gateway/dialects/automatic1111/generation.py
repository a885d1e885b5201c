"""POST /sdapi/v1/txt2img and /img2img: a job like any other, and its images when it has ended."""

from __future__ import annotations

import hashlib
from typing import Any

import falcon

from gateway.admission.submission_options import SubmissionOptions
from gateway.dialects.automatic1111 import answers
from gateway.dialects.automatic1111.answers import Paste, Waiting
from gateway.dialects.automatic1111.door import DoorResource
from gateway.dialects.automatic1111.errors import (
    FieldRefused,
    InitImageNotFound,
    SamplerNotFound,
)
from gateway.dialects.automatic1111.translation import generation, image_preparation
from gateway.dialects.automatic1111.translation.image_preparation import (
    LATENT_UPSCALE,
    Inpainting,
    Prepared,
)
from gateway.dialects.automatic1111.translation.request_models import (
    Generation,
    Img2Img,
    Txt2Img,
    echo,
    parse,
)
from gateway.dialects.automatic1111.translation.sampler_table import UnknownSampler
from gateway.dialects.blocking import waited
from gateway.errors import InvalidRequest
from gateway.http.json_body import json_body
from gateway.http.params import idempotency_key
from gateway.http.request_log import caller
from gateway.store.input_store import InputFiles
from gpu_worker.contract import output_size
from gpu_worker.contract.field_types import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_MULTIPLE_PX
from gpu_worker.contract.validation_errors import Unsupported

QUEUED = SubmissionOptions(queue=True)
"""Their clients wait for their turn and never poll."""


class _Resource(DoorResource):
    """Submits a job, frees the thread, and answers when the job has ended."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"images", "parameters", "info"}`."""
        ended = waited(req)
        resp.content_type = falcon.MEDIA_JSON
        if ended is not None:
            resp.data = answers.generation(self._door, ended.uuid, ended.state)
            return
        reader = self._door.services.image_reader
        with reader.room(req.content_length or 0):
            try:
                uuid, waiting = self._submit(req, json_body(req, self._door.max_body_bytes))
            except UnknownSampler as error:
                raise SamplerNotFound(str(error)) from None
            except (InvalidRequest, Unsupported) as error:
                raise FieldRefused.of(error) from None
        self._door.services.waiter.wait(req, resp, uuid, waiting)

    def _submit(self, req: falcon.Request, content: object) -> tuple[str, Waiting]:
        raise NotImplementedError

    def _accept(
        self, req: falcon.Request, body: dict[str, Any], further: InputFiles, notes: list[str]
    ) -> str:
        """Submit a job, whose record has the notes. Raises RequestRefused, Unsupported."""
        services = self._door.services
        request, images = services.image_reader.request(body)
        req.context.generation = request
        return services.submission.submit(
            request,
            idempotency_key(req),
            images | further,
            caller=caller(req),
            options=QUEUED,
            warnings=dict.fromkeys(notes),
        )

    def _waiting(self, request: Generation, paste: Paste | None = None) -> Waiting:
        return Waiting(
            parameters=echo(request),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            send_images=request.send_images,
            paste=paste,
        )


class Txt2ImgResource(_Resource):
    """POST /sdapi/v1/txt2img."""

    def _submit(self, req: falcon.Request, content: object) -> tuple[str, Waiting]:
        sent = parse(Txt2Img, content)
        request = self._door.with_options(sent)
        notes: list[str] = []
        target = generation.target_of(request, self._door.target(), notes)
        body = generation.txt2img(request, target, notes)
        uuid = self._accept(req, body, {}, notes)
        self._door.note_task(request.force_task_id, uuid)
        return uuid, self._waiting(sent)


class Img2ImgResource(_Resource):
    """POST /sdapi/v1/img2img."""

    def _submit(self, req: falcon.Request, content: object) -> tuple[str, Waiting]:
        sent = parse(Img2Img, content)
        request = self._door.with_options(sent)
        if not request.init_images or not request.init_images[0]:
            raise InitImageNotFound
        notes: list[str] = []
        target = generation.target_of(request, self._door.target(), notes)
        with self._door.preparation.turn():
            prepared = self._prepare(request, notes)
            image = answers.to_base64(prepared.image)
            mask = None if prepared.mask is None else answers.to_base64(prepared.mask)
            paste, further = _paste(prepared)
        body = generation.img2img(request, target, image, mask, notes)
        uuid = self._accept(req, body, further, notes)
        self._door.note_task(request.force_task_id, uuid)
        return uuid, self._waiting(sent, paste)

    def _prepare(self, request: Img2Img, notes: list[str]) -> Prepared:
        """Return the images as the job needs them. Raises InvalidRequest."""
        reader = self._door.services.image_reader
        image = image_preparation.flatten(reader.image("init_images.0", request.init_images[0]))
        if len(request.init_images) > 1:
            notes.append("init_images: the first image is used")
        size = _size(request, image.size)
        if request.resize_mode == LATENT_UPSCALE and image.size != size:
            notes.append("resize_mode: the image is resized, and not its latents")
        if not request.mask:
            return image_preparation.prepare(image, None, size, request.resize_mode, Inpainting())
        mask = image_preparation.binary_mask(reader.image("mask", request.mask))
        if request.inpainting_fill in (2, 3):
            notes.append("inpainting_fill: the pixels below the mask are replaced, not the latents")
        inpainting = Inpainting(
            blur=request.blur,
            is_inverted=request.inpainting_mask_invert == 1,
            fill=request.inpainting_fill,
            padding_px=request.inpaint_full_res_padding if request.inpaint_full_res else None,
            seed=max(0, request.seed),
        )
        return image_preparation.prepare(image, mask, size, request.resize_mode, inpainting)


def _size(request: Img2Img, sent: output_size.Size) -> output_size.Size:
    """Return the size of the generated image: that of the request, else that of the sent one.

    Raises:
        InvalidRequest: a side is out of bounds.
    """
    scale = min(1.0, MAX_SIDE_PX / max(sent))
    sides = []
    for name, own, other in (
        ("width", request.width, sent[0]),
        ("height", request.height, sent[1]),
    ):
        side = int(max(other * scale, MIN_SIDE_PX)) if own is None else own
        side = side // SIDE_MULTIPLE_PX * SIDE_MULTIPLE_PX
        if not MIN_SIDE_PX <= side <= MAX_SIDE_PX:
            message = f"must be from {MIN_SIDE_PX} to {MAX_SIDE_PX}"
            raise InvalidRequest([{"field": name, "message": message, "value": str(own)[:80]}])
        sides.append(side)
    return sides[0], sides[1]


def _paste(prepared: Prepared) -> tuple[Paste | None, InputFiles]:
    """Return where the generated part belongs, and the images that are needed for that."""
    if prepared.box is None or prepared.original is None or prepared.share is None:
        return None, {}
    files = [answers.to_png(each) for each in (prepared.original, prepared.share)]
    original, share = (f"sha256:{hashlib.sha256(content).hexdigest()}" for content in files)
    return Paste(prepared.box, original, share), {original: files[0], share: files[1]}
