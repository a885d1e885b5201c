"""GET /v1/images/files/{name}: an image of an answer, without a key; its name cannot be guessed."""

from __future__ import annotations

from typing import ClassVar

import falcon

from gateway.dialects.openai.formats import FORMATS, convert
from gateway.dialects.openai.models import DOOR
from gateway.dialects.openai.signed_urls import UrlSigner
from gateway.errors import NoImage
from gateway.jobs.lookup import JobLookup
from gateway.routes.image_files import find_image, read_image
from gateway.store.result_index import ResultIndex


class SignedImageResource:
    """Serves stored images alone, so a URL ends when its image is deleted."""

    door: ClassVar = DOOR
    is_api: ClassVar = False
    takes_any_query: ClassVar = True

    def __init__(self, signer: UrlSigner, index: ResultIndex, lookup: JobLookup) -> None:
        self._signer = signer
        self._index = index
        self._lookup = lookup

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Answer with the image. Raises NoImage or ResultDeleted."""
        address = self._signer.address(name.rpartition(".")[0])
        if address is None:
            raise NoImage("no image has this URL")
        number = address.image_index + 1
        entry = find_image(self._index, self._lookup, address.uuid, number)
        etag = falcon.ETag(f"{address.uuid}-{number}-{address.format}-{address.quality}")
        if etag in (req.if_none_match or []):
            resp.status = falcon.HTTP_NOT_MODIFIED
        else:
            resp.content_type = FORMATS[address.format]
            resp.data = convert(read_image(self._index, entry), address.format, address.quality)
        resp.etag = etag
        resp.set_header("Cache-Control", "private, max-age=31536000, immutable")
        # A page of another program may show it: who has the URL may have the image.
        resp.set_header("Cross-Origin-Resource-Policy", "cross-origin")
