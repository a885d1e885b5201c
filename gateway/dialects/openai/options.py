"""Holds the operator's settings of the OpenAI images API."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dialects.blocking import Policy


@dataclass(frozen=True)
class OpenAiOptions:
    """The settings of this API.

    `aliases`: OpenAI's own ids of models stand for the default model. `url_secret` signs the URLs
    of images. `on_disconnect` is what becomes of a job whose client leaves its stream.
    """

    aliases: bool
    url_secret: bytes
    on_disconnect: Policy
