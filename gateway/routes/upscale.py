"""POST /image/upscale: upscales a stored image, as a job like any other."""

from __future__ import annotations

import hashlib
import io
from typing import Annotated

import falcon
import orjson
from PIL import Image
from pydantic import Field, ValidationError

from gateway.admission import submission_options
from gateway.admission.input_images import InputImageReader
from gateway.errors import InvalidRequest, ResultDeleted
from gateway.http.json_body import json_body, validated
from gateway.http.params import idempotency_key, parse_uuid
from gateway.http.request_log import caller
from gateway.jobs.lookup import JobLookup
from gateway.jobs.submission import JobSubmission
from gateway.routes.image_files import find_image, read_image
from gateway.store.result_index import ResultIndex
from gpu_worker.contract import output_size
from gpu_worker.contract.job import Source
from gpu_worker.contract.request import GenerationRequest, Upscale
from gpu_worker.contract.validation_errors import Unsupported, field_errors

MAX_BODY_BYTES = 4096


class UpscaleRequest(Upscale):
    """The job, the index of its image from 0, and the upscaling."""

    generation_uuid: str
    image_index: Annotated[int, Field(ge=0, le=999)] = 0


class UpscaleResource:
    """Submits a job whose input image is the stored one."""

    def __init__(
        self,
        submission: JobSubmission,
        lookup: JobLookup,
        index: ResultIndex,
        reader: InputImageReader,
    ) -> None:
        self._reader = reader
        self._submission = submission
        self._lookup = lookup
        self._index = index

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 `{"generation_uuid": ...}` of the new job, or as POST /image/generate does."""
        key = idempotency_key(req)
        options, content = submission_options.split(json_body(req, MAX_BODY_BYTES))
        body = validated(UpscaleRequest, content)
        uuid = parse_uuid(body.generation_uuid, "generation_uuid")
        entry = find_image(self._index, self._lookup, uuid, body.image_index + 1)
        png = read_image(self._index, entry)
        line = self._index.read_without_data(entry)
        if line is None:
            raise ResultDeleted(uuid)
        prompt = orjson.loads(line)["prompt"]
        digest = f"sha256:{hashlib.sha256(png).hexdigest()}"
        upscale = Upscale(scale=body.scale, upscaler=body.upscaler)
        try:
            request = GenerationRequest(prompt=prompt, image=digest, upscale=upscale)
        except ValidationError as error:  # an older version accepted more in a prompt
            raise InvalidRequest(field_errors(error)) from None
        try:
            output_size.upscaled_size(_size(png), body.scale, field="scale")
            self._reader.check_limits(request, _size(png))
        except Unsupported as error:
            raise InvalidRequest([error.error]) from None
        source = Source(uuid=uuid, image_index=body.image_index)
        req.context.generation = request
        images = {digest: png}
        new_uuid = self._submission.submit(request, key, images, source, caller(req), options)
        resp.data = orjson.dumps({"generation_uuid": new_uuid})


def _size(content: bytes) -> output_size.Size:
    """Return the size of one of our PNGs, from its header."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return image.size
