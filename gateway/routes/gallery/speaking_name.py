"""Names files for people: the date, the first words of the prompt, and the seed."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Any
from urllib.parse import quote

MAX_WORDS_CHARS = 60

_WORDS = re.compile(r"\w+")
_ASCII_WORDS = re.compile(r"[A-Za-z0-9]+")


def speaking_name(image: dict[str, Any]) -> str:
    """Return `2026-01-31-a-red-circle-7`, without an extension.

    Args:
        image: the members `created_time`, `prompt` and `seed` of a record.
    """
    return _join(image, _WORDS.findall(unicodedata.normalize("NFC", image["prompt"])))


def content_disposition(image: dict[str, Any], extension: str) -> str:
    """Return the header of a download: an ASCII name, and the whole name (RFC 6266)."""
    whole = f"{speaking_name(image)}.{extension}"
    plain = unicodedata.normalize("NFKD", image["prompt"]).encode("ascii", "ignore").decode()
    ascii_name = f"{_join(image, _ASCII_WORDS.findall(plain))}.{extension}"
    header = f'attachment; filename="{ascii_name}"'
    return header if whole == ascii_name else f"{header}; filename*=UTF-8''{quote(whole, safe='')}"


def _join(image: dict[str, Any], words: list[str]) -> str:
    title = ""
    for word in words:
        longer = f"{title}-{word}" if title else word
        if len(longer) > MAX_WORDS_CHARS:
            break
        title = longer
    seed = image.get("seed")
    parts = [_day(image.get("created_time")), title.lower(), "" if seed is None else str(seed)]
    return "-".join(part for part in parts if part) or "image"


def _day(text: object) -> str:
    try:
        return datetime.fromisoformat(str(text)).astimezone().date().isoformat()
    except (ValueError, OverflowError):
        return ""
