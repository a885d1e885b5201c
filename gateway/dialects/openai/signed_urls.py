"""Signs the URLs of images that are fetched without a key: nobody can guess one.

The token names an image and the form in which it is sent. Its secret is a file for the owner alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import uuid as uuids
from pathlib import Path
from typing import NamedTuple

from gateway.dialects.openai.formats import FORMATS
from gpu_worker.store import durable

log = logging.getLogger(__name__)

SECRET_BYTES = 32
MAC_BYTES = 16
"""128 bits cannot be guessed over a network."""


class ImageAddress(NamedTuple):
    """The `image_index`-th image, from 0, of a job, in a format and quality."""

    uuid: str
    image_index: int
    format: str
    quality: int


class UrlSigner:
    """Makes and reads tokens. Thread-safe.

    Args:
        secret: whoever has it can make a token for any image.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def token(self, address: ImageAddress) -> str:
        """Return the token of an image, in base64url (RFC 4648, section 5)."""
        payload = (
            uuids.UUID(address.uuid).bytes
            + address.image_index.to_bytes(2)
            + bytes((list(FORMATS).index(address.format), address.quality))
        )
        return base64.urlsafe_b64encode(payload + self._mac(payload)).decode().rstrip("=")

    def address(self, token: str) -> ImageAddress | None:
        """Return the image of a token; None if this service has not made it."""
        try:
            content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        payload, mac = content[:-MAC_BYTES], content[-MAC_BYTES:]
        if len(payload) != 20 or not hmac.compare_digest(mac, self._mac(payload)):
            return None
        name = list(FORMATS)[payload[18]]
        index = int.from_bytes(payload[16:18])
        return ImageAddress(str(uuids.UUID(bytes=payload[:16])), index, name, payload[19])

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, payload, hashlib.sha256)[:MAC_BYTES]


def read_secret(path: Path) -> bytes:
    """Return the secret in a file, which is made the first time.

    On a disk that refuses it, the URLs end with this process.
    """
    try:
        secret = durable.read_plain(path)
        if len(secret) == SECRET_BYTES:
            return secret
        log.warning("%s is not a secret of this service; another one replaces it", path.name)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("the secret of the images' URLs cannot be read: %s", error.strerror)
        return secrets.token_bytes(SECRET_BYTES)
    secret = secrets.token_bytes(SECRET_BYTES)
    try:
        durable.replace(path, secret)
    except OSError as error:
        log.warning("the URLs of images end with this process: %s", error.strerror)
    return secret
