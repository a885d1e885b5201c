"""Reads the texts of a PNG (PNG, third edition, section 11.3.3). It needs no Pillow."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""https://www.w3.org/TR/png-3/#5PNG-file-signature"""

RECORD_KEYWORD = "stable-diffusion-environment"
"""The text that holds the record of an image (docs/results-format.md)."""

MAX_FILE_BYTES = 64 << 20
"""A larger file is not one of the service."""

_MAX_TEXT_BYTES = 16 << 20


def texts(png: bytes) -> dict[str, str]:
    """Return the texts of a PNG by keyword. Broken chunks are left out."""
    by_keyword: dict[str, str] = {}
    at = len(PNG_SIGNATURE)
    while png.startswith(PNG_SIGNATURE) and at + 12 <= len(png):
        length, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, rest = png[at + 8 : at + 8 + length].partition(b"\0")
            text = _decode(kind, rest)
            if text is not None:
                by_keyword[keyword.decode("latin-1")] = text
        at += 12 + length
    return by_keyword


def record_uuid(path: Path) -> str | None:
    """Return the uuid of the job in the record of a PNG file; None for any other file."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        record = json.loads(texts(path.read_bytes())[RECORD_KEYWORD])
        uuid = record["uuid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return uuid if isinstance(uuid, str) else None


def _decode(kind: bytes, rest: bytes) -> str | None:
    try:
        if kind == b"tEXt":
            return rest.decode("latin-1")
        if kind == b"zTXt":
            return _inflate(rest[1:]).decode("latin-1")
        flag, rest = rest[0], rest[2:]
        text = rest.split(b"\0", 2)[2]
        return (_inflate(text) if flag else text).decode("utf-8")
    except (ValueError, IndexError, zlib.error):
        return None


def _inflate(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)
