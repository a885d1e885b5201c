"""POST /image/star, /image/trash, /image/restore and /image/delete change many images at once."""

from __future__ import annotations

from typing import Annotated

import falcon
import orjson
from pydantic import Field

from gateway.errors import InvalidRequest
from gateway.http.access_control import principal
from gateway.http.json_body import json_body, validated
from gateway.jobs.trash import ResultTrash
from gateway.store.gallery import image_name
from gateway.store.gallery.image_name import ImageName
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.request import Strict
from gpu_worker.contract.validation_errors import display_value

MAX_IMAGES = 10_000
MAX_BODY_BYTES = 1 << 20


class ImageList(Strict):
    """The names of images, `UUID` or `UUID-N`."""

    images: Annotated[list[str], Field(min_length=1, max_length=MAX_IMAGES)]


class StarChange(ImageList):
    """Images, and whether they have a star from now on."""

    star: bool = True


def read_images(req: falcon.Request) -> ImageList:
    """Return the body of a request. Raises InvalidRequest, falcon.HTTPError."""
    return validated(ImageList, json_body(req, MAX_BODY_BYTES))


def names_of(body: ImageList) -> list[ImageName]:
    """Return the images of a body. Raises InvalidRequest."""
    parsed = [image_name.parse(text) for text in body.images]
    errors = [
        {
            "field": f"images.{index}",
            "message": "is not UUID or UUID-N",
            "value": display_value(body.images[index]),
        }
        for index, name in enumerate(parsed)
        if name is None
    ]
    if errors:
        raise InvalidRequest(errors)
    return [name for name in parsed if name is not None]


class ChangesResource:
    """Changes images that the sender owns, or all of them for an admin. Unknown ones are left out.

    The answer is `{"changed": N}`.
    """

    def __init__(self, trash: ResultTrash, index: ResultIndex) -> None:
        self._trash = trash
        self._index = index

    def on_post_star(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Set or remove stars."""
        body = validated(StarChange, json_body(req, MAX_BODY_BYTES))
        _answer(resp, self._trash.star(self._own(req, body), body.star))

    def on_post_trash(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Move images into the trash; with SDE_TRASH_DAYS=0 delete them."""
        _answer(resp, self._trash.trash(self._own(req, read_images(req))))

    def on_post_restore(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Move images out of the trash."""
        _answer(resp, self._trash.restore(self._own(req, read_images(req))))

    def on_post_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Delete images for good, wherever they are."""
        _answer(resp, self._trash.delete(self._own(req, read_images(req))))

    def _own(self, req: falcon.Request, body: ImageList) -> list[ImageName]:
        """Return the images, all of which the sender may change. Raises NotOwner."""
        names, sender = names_of(body), principal(req)
        if not sender.is_admin:
            owners = self._index.query(lambda db: db.images.owners(names))
            for owner in owners:
                sender.check_owner(owner)
        return names


def _answer(resp: falcon.Response, changed: int) -> None:
    resp.data = orjson.dumps({"changed": changed})
