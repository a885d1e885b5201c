"""Adds the routes of the OpenAI images API to the application."""

from __future__ import annotations

from typing import Any

import falcon

from gateway.dialects.openai import images
from gateway.dialects.openai.answers import SIGNED_IMAGES, Answers
from gateway.dialects.openai.input.joining import RecentRequests
from gateway.dialects.openai.input.translation import Translator
from gateway.dialects.openai.models import ModelIds, ModelResource, ModelsResource
from gateway.dialects.openai.signed_images import SignedImageResource
from gateway.dialects.openai.signed_urls import UrlSigner
from gateway.dialects.openai.streams import ImageStreams
from gateway.errors import ResultDeleted, UnknownJob
from gateway.jobs.job_entry import JobState
from gateway.jobs.lookup import JobLookup
from gateway.services import Services

PREFIX = "/v1/"


def add_routes(app: falcon.App[Any, Any], services: Services, max_body_bytes: int) -> None:
    """Add every route under /v1."""
    options = services.openai
    ids = ModelIds(services.capabilities, options.aliases)
    signer = UrlSigner(options.url_secret)
    answers = Answers(services.lookup, services.index, signer)
    parts = images.ImageParts(
        submission=services.submission,
        translator=Translator(services.image_reader),
        ids=ids,
        answers=answers,
        recent=RecentRequests(lambda uuid: _has_image(services.lookup, uuid)),
        waiter=services.waiter,
        streams=ImageStreams(
            answers,
            services.lookup,
            services.previews,
            services.cancellation,
            options.on_disconnect,
        ),
        max_body_bytes=max_body_bytes,
    )
    for path, resource in images.resources(parts).items():
        app.add_route(path, resource)
    app.add_route("/v1/models", ModelsResource(ids))
    app.add_route("/v1/models/{model:path}", ModelResource(ids))
    files = SignedImageResource(signer, services.index, services.lookup)
    app.add_route(f"{SIGNED_IMAGES}/{{name}}", files)


def _has_image(lookup: JobLookup, uuid: str) -> bool:
    """Return whether a job has an image, or may get one."""
    try:
        return lookup.view(uuid).state not in (JobState.FAILED, JobState.CANCELED)
    except (ResultDeleted, UnknownJob):
        return False
