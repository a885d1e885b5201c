"""POST /v1/images/generations, /edits and /variations: a job each, and its images as the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast, get_args

import falcon

from gateway.admission.submission_options import SubmissionOptions
from gateway.dialects.blocking import JobWaiter, Policy, waited
from gateway.dialects.openai.answers import AnswerPlan, Answers, plan_of, write_headers
from gateway.dialects.openai.input import forms, joining
from gateway.dialects.openai.input.fields import ImageRequest, VariationRequest, parse, warnings_of
from gateway.dialects.openai.input.joining import RecentRequests
from gateway.dialects.openai.input.translation import Translator, their_names
from gateway.dialects.openai.models import DOOR, ModelIds
from gateway.dialects.openai.streams import ImageStreams
from gateway.errors import InvalidRequest, TooManyStreams
from gateway.http.json_body import json_body
from gateway.http.params import idempotency_key, invalid_parameter
from gateway.http.request_log import caller
from gateway.jobs.submission import JobSubmission
from gateway.store.input_store import InputFiles
from gpu_worker.contract import request_digest
from gpu_worker.contract.request import GenerationRequest

DISCONNECT = "X-SDE-On-Disconnect"


@dataclass(frozen=True)
class ImageParts:
    """What the three routes need. `max_body_bytes` is the limit of a request's body."""

    submission: JobSubmission
    translator: Translator
    ids: ModelIds
    answers: Answers
    recent: RecentRequests
    waiter: JobWaiter
    streams: ImageStreams
    max_body_bytes: int


class ImagesResource:
    """Serves one of the three routes.

    Args:
        model: declares the fields of its requests.
        has_form: its requests are forms with images, else JSON.
        event: begins the types of its events; None where the API has no stream.
    """

    door: ClassVar = DOOR
    is_api: ClassVar = False
    takes_any_query: ClassVar = True

    def __init__(
        self, parts: ImageParts, model: type[ImageRequest], has_form: bool, event: str | None
    ) -> None:
        self._parts = parts
        self._model = model
        self._has_form = has_form
        self._event = event

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Submit a job, and answer with its images when it has ended."""
        ended = waited(req)
        if ended is not None:
            self._parts.answers.write(req, resp, ended.uuid, ended.state)
            return
        key, policy = idempotency_key(req), _policy(req)
        with self._parts.translator.reader.room(req.content_length or 0):
            uuid, plan, is_stream = self._submit(req, key)
        if not is_stream:
            self._parts.waiter.wait(req, resp, uuid, plan, policy)
            return
        write_headers(resp, uuid, plan)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")
        resp.stream = self._parts.streams.body(req.env, uuid, plan, policy)

    def _submit(self, req: falcon.Request, key: str | None) -> tuple[str, AnswerPlan, bool]:
        """Return the uuid of the request's job, how to answer, and whether as a stream."""
        parts = self._parts
        form = forms.read(req, parts.max_body_bytes) if self._has_form else None
        body = json_body(req, parts.max_body_bytes) if form is None else form.fields
        request, ignored = parse(self._model, body)
        self._check_stream(request)
        plan = plan_of(request, ignored, self._event or "")
        name = parts.ids.name_of(request.model)
        true_cfg = parts.ids.true_cfg_field(name)
        generation, images = parts.translator.generation(request, name, true_cfg, form)
        req.context.generation = generation
        uuid = self._job(req, key, request, generation, images, warnings_of(ignored))
        return uuid, plan, request.stream

    def _job(
        self,
        req: falcon.Request,
        key: str | None,
        request: ImageRequest,
        generation: GenerationRequest,
        images: InputFiles,
        warnings: list[str],
    ) -> str:
        """Return the job of a request: a new one, or that of the same request before."""
        sender = caller(req)
        digest = joining.digest(
            req.path, repr(sender.owner), repr(request), request_digest.digest_of(generation)
        )
        if key is None and joining.is_repeated(req):
            earlier = self._parts.recent.find(digest)
            if earlier is not None:
                return earlier
        options = SubmissionOptions(queue=True, client_name=request.label)
        with their_names():
            uuid = self._parts.submission.submit(
                generation,
                key,
                images,
                caller=sender,
                options=options,
                partial_images=request.partial_images,
                warnings=warnings,
            )
        self._parts.recent.add(digest, uuid)
        return uuid

    def _check_stream(self, request: ImageRequest) -> None:
        """Raises InvalidRequest for what cannot be streamed, and TooManyStreams."""
        if request.stream and self._parts.streams.is_full:
            raise TooManyStreams("streams of images", retry_after_s=5)
        if request.stream and self._event is None:
            raise _invalid("stream", "must be false: a variation has no events", "True")
        if request.partial_images and not request.stream:
            raise _invalid("partial_images", "needs stream", str(request.partial_images))


def resources(parts: ImageParts) -> dict[str, ImagesResource]:
    """Return the resource of each route."""
    return {
        "/v1/images/generations": ImagesResource(parts, ImageRequest, False, "image_generation"),
        "/v1/images/edits": ImagesResource(parts, ImageRequest, True, "image_edit"),
        "/v1/images/variations": ImagesResource(parts, VariationRequest, True, None),
    }


def _policy(req: falcon.Request) -> Policy | None:
    """Return what becomes of the job if the client leaves, None for the operator's setting."""
    text = req.get_header(DISCONNECT)
    if text is None:
        return None
    if text not in get_args(Policy):
        raise invalid_parameter(DISCONNECT, text, f"is none of {', '.join(get_args(Policy))}")
    return cast(Policy, text)


def _invalid(field: str, message: str, value: str) -> InvalidRequest:
    return InvalidRequest([{"field": field, "message": message, "value": value}])
