"""Writes the answer of an ended job: its images as base64, as URLs, or as events."""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import falcon
import orjson
from PIL import Image

from gateway.dialects.openai.errors import JobCanceled, JobFailed
from gateway.dialects.openai.formats import convert, convert_base64
from gateway.dialects.openai.input.fields import ImageRequest
from gateway.dialects.openai.signed_urls import ImageAddress, UrlSigner
from gateway.errors import ResultDeleted
from gateway.http.params import JSON
from gateway.http.reply_file import InMemory, Part, ReplyFile
from gateway.jobs.job_entry import JobState, JobView
from gateway.jobs.lookup import JobLookup
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex

IGNORED = "x-sde-ignored"
"""The response header that names what was sent and is not used."""

JOB = "x-sde-generation-uuid"
"""The response header that names the job, for the native routes."""

SIGNED_IMAGES = "/v1/images/files"

_NO_WORD = re.compile(r"[^A-Za-z0-9_.\[\]-]")

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}


@dataclass(frozen=True)
class AnswerPlan:
    """What an answer needs of its request. `event` begins the types of its events."""

    format: str
    quality: int
    with_base64: bool
    with_url: bool
    partial_images: int = 0
    event: str = "image_generation"
    ignored: tuple[str, ...] = ()


def plan_of(request: ImageRequest, ignored: list[str], event: str) -> AnswerPlan:
    """Return the plan of a request.

    Who says nothing of the form gets what programs expect of the model's id: base64 of
    `gpt-image-*`, a URL of `dall-e-*` as OpenAI's servers do, and both of any other.
    """
    model = request.model or ""
    form = request.response_format
    if form is None and not request.stream:
        form = "url" if model.startswith("dall-e-") else None
        form = "b64_json" if model.startswith("gpt-image-") else form
    return AnswerPlan(
        format=request.output_format,
        quality=request.output_compression,
        with_base64=request.stream or form != "url",
        with_url=not request.stream and form != "b64_json",
        partial_images=request.partial_images,
        event=event,
        ignored=tuple(ignored),
    )


class Answers:
    """Writes the answers of ended jobs. A large PNG is read from the log while it is sent."""

    def __init__(self, lookup: JobLookup, index: ResultIndex, signer: UrlSigner) -> None:
        self._lookup = lookup
        self._index = index
        self._signer = signer

    def write(
        self, req: falcon.Request, resp: falcon.Response, uuid: str, plan: AnswerPlan
    ) -> None:
        """Answer with the images of a job.

        Raises:
            JobFailed, JobCanceled: it has none.
            ResultDeleted: they were deleted meanwhile.
        """
        write_headers(resp, uuid, plan)
        created, entries = self._result(uuid)
        resp.content_type = JSON
        reply = ReplyFile(*self._object(req, plan, entries, created))
        resp.set_stream(reply, len(reply))

    def events(self, uuid: str, plan: AnswerPlan) -> Iterator[bytes]:
        """Yield the event of each image of an ended job. Raises as write() does."""
        created, entries = self._result(uuid)
        for entry in entries:
            data = self._index.read_data(entry)
            if data is None:
                raise ResultDeleted(uuid)
            members = {"created_at": created} | self._members(plan, entry)
            data = convert_base64(data, plan.format, plan.quality)
            yield _event(f"{plan.event}.completed", members, data)

    def partial_event(self, uuid: str, plan: AnswerPlan, number: int, png: bytes) -> bytes:
        """Return the event of a partial image.

        Args:
            number: of the partial images of the same image, from 0.
        """
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            width, height = image.size
        members = {
            "created_at": _created(self._lookup.view(uuid)),
            "partial_image_index": number,
            "background": "opaque",
            "output_format": plan.format,
            "size": f"{width}x{height}",
        }
        data = binascii.b2a_base64(convert(png, plan.format, plan.quality), newline=False)
        return _event(f"{plan.event}.partial_image", members, data)

    def _result(self, uuid: str) -> tuple[int, list[Entry]]:
        """Return when a job was accepted, in seconds since the epoch, and the places of its images.

        Raises:
            JobFailed, JobCanceled, ResultDeleted: it has none.
        """
        view = self._lookup.view(uuid)
        if view.state is JobState.CANCELED:
            raise JobCanceled("the job was canceled before it had an image")
        if view.state is not JobState.SUCCEEDED:
            raise JobFailed("; ".join(view.errors) or "the job has failed")
        entries = [entry for entry in self._index.find_all(uuid) if entry.data_length]
        if not entries:
            raise ResultDeleted(uuid)
        return _created(view), entries

    def _object(
        self, req: falcon.Request, plan: AnswerPlan, entries: list[Entry], created: int
    ) -> Iterator[Part]:
        """Yield the parts of `{"created", "data": [...], ...}`."""
        yield InMemory(b'{"created":%d,"data":[' % created)
        for number, entry in enumerate(entries):
            yield InMemory(b"," if number else b"")
            yield from self._image(req, plan, entry)
        yield InMemory(b"]," + orjson.dumps(self._members(plan, entries[0]))[1:])

    def _image(self, req: falcon.Request, plan: AnswerPlan, entry: Entry) -> Iterator[Part]:
        members = {"url": self._url(req, plan, entry)} if plan.with_url else {}
        text = orjson.dumps(members)
        if not plan.with_base64:
            yield InMemory(text)
            return
        yield InMemory(b'{"b64_json":"')
        yield self._base64(plan, entry)
        yield InMemory(b'"' + (b"," + text[1:] if members else b"}"))

    def _members(self, plan: AnswerPlan, entry: Entry) -> dict[str, Any]:
        """Return what the API says of an image beside its data."""
        line = self._index.read_without_data(entry)
        record = orjson.loads(line) if line is not None else {}
        return {
            "background": "opaque",
            "output_format": plan.format,
            "size": f"{record.get('width')}x{record.get('height')}",
        }

    def _base64(self, plan: AnswerPlan, entry: Entry) -> Part:
        """Return the image in base64. Raises ResultDeleted."""
        if plan.format == "png":
            stored = self._index.stored_data(entry)
            if stored is None:
                raise ResultDeleted(entry.uuid)
            return stored
        data = self._index.read_data(entry)
        if data is None:
            raise ResultDeleted(entry.uuid)
        return InMemory(convert_base64(data, plan.format, plan.quality))

    def _url(self, req: falcon.Request, plan: AnswerPlan, entry: Entry) -> str:
        address = ImageAddress(entry.uuid, entry.image_index, plan.format, plan.quality)
        token = self._signer.token(address)
        return f"{req.prefix}{SIGNED_IMAGES}/{token}.{_EXTENSIONS[plan.format]}"


def write_headers(resp: falcon.Response, uuid: str, plan: AnswerPlan) -> None:
    """Name the job, and what of its request is not used."""
    resp.set_header(JOB, uuid)
    if plan.ignored:
        resp.set_header(IGNORED, ", ".join(map(_header_text, plan.ignored[:20])))


def _created(view: JobView) -> int:
    return int(datetime.fromisoformat(view.created_time).timestamp())


def _event(kind: str, members: dict[str, Any], data: bytes) -> bytes:
    """Return one event on the wire (HTML standard, section 9.2)."""
    text = orjson.dumps({"type": kind} | members)[:-1]
    return b'event: %s\ndata: %s,"b64_json":"%s"}\n\n' % (kind.encode(), text, data)


def _header_text(name: str) -> str:
    """Return a client's name as a word of a header."""
    return _NO_WORD.sub("_", name)[:64]
