"""Decodes input images. The gateway and the worker read an image here, in the same way.

An image is accepted for its pixels. Its EXIF, texts and colour profile may be broken. The module
does no disk I/O.
"""

from __future__ import annotations

import binascii
import io
import re
import string
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""https://www.w3.org/TR/png-3/#5PNG-file-signature"""

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf")
"""The PNG chunks that an image needs. A decoder may reject it for any of the others."""

_JPEG_START, _JPEG_SCAN = b"\xff\xd8", b"\xff\xda"

_MAX_SCANS = 200
"""The scans of a JPEG. An encoder makes about ten, and each takes the time of the whole image."""

_WEBP_HEADER_BYTES = 30

_MAX_PREFIX_CHARS = 1000
"""Where a `data:` URL has its comma at the latest."""

_MAX_TAGS = 200
"""The number of EXIF tags that are searched."""

_LONG_TEXT_BYTES = 64 << 10
"""The size of all texts of a PNG that are kept. A1111's parameters are much shorter."""

_DATA_URL = re.compile(
    r"[\s\ufeff]*(?:data:)?[^,;]{0,100}(?:;[^,;]{0,100})*;\s*base64\s*,", re.IGNORECASE
)
_WHITE_SPACE = str.maketrans("", "", string.whitespace)
_URL_SAFE = str.maketrans("-_", "+/")

_ORIENTATION = 0x0112
"""The EXIF tag of the orientation (EXIF 2.32, section 4.6.4)."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image of each orientation upright."""


class UnreadableImage(ValueError):
    """The bytes are not an image that the service accepts. The text says why."""


def from_base64(text: str) -> bytes:
    """Return the bytes of an image in base64.

    A `data:` URL, line breaks, the URL-safe alphabet (RFC 4648, section 5) and missing padding are
    accepted.

    Raises:
        UnreadableImage: the text is empty or is not base64.
    """
    prefix = _DATA_URL.match(text, 0, _MAX_PREFIX_CHARS)
    encoded = text[prefix.end() :] if prefix else text
    try:
        # The usual form needs no copy of a text of many megabytes.
        content = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        content = _from_other_base64(encoded)
    if not content:
        raise UnreadableImage("is empty; it must be a PNG, JPEG or WebP in base64")
    return content


def _from_other_base64(encoded: str) -> bytes:
    encoded = encoded.translate(_WHITE_SPACE)
    if "-" in encoded or "_" in encoded:
        encoded = encoded.translate(_URL_SAFE)
    if "=" not in encoded:
        encoded += "=" * (-len(encoded) % 4)
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:  # binascii's, and of a string that is not ASCII
        raise UnreadableImage(f"must be an image in base64: {error}") from None


def inspect(content: bytes, check_size: Callable[[int, int], None]) -> None:
    """Check the header of an image. Nothing is decoded, so damaged pixels are not noticed.

    Args:
        check_size: is called with width and height in pixels, as they are stored.

    Raises:
        UnreadableImage: the bytes do not begin as a PNG, JPEG or WebP, or are an animation.
        Exception: what `check_size` raises.
    """
    try:
        _open_single(content, check_size)
    except UnreadableImage:
        pixels_only = _without_extras(content)
        if pixels_only is None:
            raise
        _open_single(pixels_only, check_size)


def decode(content: bytes, check_size: Callable[[int, int], None] = lambda *_: None) -> Image.Image:
    """Return the image, upright and with its pixels in memory, in its own mode.

    Args:
        check_size: is called with width and height in pixels before anything is decoded.

    Raises:
        UnreadableImage: the bytes are not a whole PNG, JPEG or WebP, or are an animation.
        Exception: what `check_size` raises.
    """
    try:
        return _decode(content, check_size)
    except UnreadableImage:
        pixels_only = _without_extras(content)
        if pixels_only is None:
            raise
        # Pillow rejects an image for what stands beside its pixels.
        image = _decode(pixels_only, check_size)
        return _turned(image, _raw_orientation(content)) if image.format == "JPEG" else image


def _decode(content: bytes, check_size: Callable[[int, int], None]) -> Image.Image:
    image = _open_single(content, check_size)
    try:
        image.load()
    except Exception as error:  # Pillow raises errors of any class for damaged data
        raise UnreadableImage(f"is a damaged {image.format}: {error}") from None
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # and for broken EXIF
        orientation = _raw_orientation(content)
    return _turned(image, orientation)


def _open_single(content: bytes, check_size: Callable[[int, int], None]) -> Image.Image:
    """Read the header of a single image, and check its size and form."""
    webp_size = _webp_size(content)
    if webp_size is not None:
        check_size(*webp_size)  # Pillow allocates the pixels of a WebP when it opens it
    if content.startswith(_JPEG_START) and content.count(_JPEG_SCAN) > _MAX_SCANS:
        raise UnreadableImage(f"is a JPEG with more than {_MAX_SCANS} scans")
    image = _open(content)
    check_size(*image.size)
    # MPO is a JPEG with further images behind it (depth, a small copy), not an animation.
    if image.format != "MPO" and getattr(image, "n_frames", 1) != 1:
        raise UnreadableImage("is an animation; it must be a single image")
    return image


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP (RFC 9649, section 2); None for anything else."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < _WEBP_HEADER_BYTES:
        return None
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return None
    return width, height


def _open(content: bytes) -> Image.Image:
    """Read the header only. Pillow tries no other format."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage("has more pixels than the service accepts") from None
    except Exception:  # Pillow raises errors of any class for a broken header
        raise UnreadableImage("is not a PNG, JPEG or WebP") from None


def _turned(image: Image.Image, orientation: object) -> Image.Image:
    """Return the image turned as its orientation says."""
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: value for key, value in image.info.items() if key != "exif"}
    return turned


def _without_extras(content: bytes) -> bytes | None:
    """Return an image without long texts, profile and EXIF; None if there is nothing to remove."""
    if content.startswith(PNG_SIGNATURE):
        parts = [PNG_SIGNATURE, *_png_chunks(content)]
    elif content.startswith(_JPEG_START):
        parts = [_JPEG_START, *(part for part in _jpeg_segments(content) if not _is_extra(part))]
    else:
        return None
    plain = b"".join(parts)
    return plain if len(plain) < len(content) else None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """Yield the chunks that hold the pixels, and short texts that are whole (PNG, section 5.3)."""
    at, texts = len(PNG_SIGNATURE), 0
    while at + 12 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        chunk = content[at : at + 12 + length]
        if kind == b"tEXt" and texts + length <= _LONG_TEXT_BYTES:
            checksum = zlib.crc32(memoryview(chunk)[4:-4]).to_bytes(4, "big")
            if chunk[-4:] == checksum:
                texts += length
                yield chunk
        elif kind in _PIXELS:
            yield chunk
        at += 12 + length


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    """Yield the segments before the pixels, and then the rest (ITU-T T.81, annex B)."""
    at = len(_JPEG_START)
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != _JPEG_SCAN:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if end <= at + 2:
            break
        yield content[at:end]
        at = end
    yield content[at:]


def _is_extra(segment: bytes) -> bool:
    """Return whether a segment is no part of the pixels: EXIF, XMP, a profile, a comment.

    APP14 is one, because it names the colour transform (ITU-T T.872, section 6.5.3).
    """
    marker = segment[1] if len(segment) > 1 and segment[0] == 0xFF else 0
    return marker == 0xFE or (0xE0 <= marker <= 0xEF and marker != 0xEE)


def _raw_orientation(content: bytes) -> int:
    """Return the orientation of EXIF that Pillow does not read; 1 where there is none."""
    tiff = content.find(b"Exif\0\0", 0, 1 << 16) + 6
    order: Literal["little", "big"] = "little" if content[tiff : tiff + 2] == b"II" else "big"
    directory = tiff + int.from_bytes(content[tiff + 4 : tiff + 8], order)
    count = int.from_bytes(content[directory : directory + 2], order) if tiff > 5 else 0
    for number in range(min(count, _MAX_TAGS)):
        entry = content[directory + 2 + 12 * number :][:12]
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            return int.from_bytes(entry[8:10], order)
    return 1
