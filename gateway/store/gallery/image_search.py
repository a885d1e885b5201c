"""Searches the table of images: filters, pages by position and by cursor, days, totals."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from gateway.store.gallery.image_name import ImageName

_PARTS = re.compile(r'"([^"]*)"?|(\S+)')

_COLUMNS = "uuid, image_index, sequence, prompt, members, star, trashed_time"
_ORDER = "sequence DESC, uuid DESC, place DESC"

SHORT = (
    *("name", "uuid", "image_index", "num_images", "state", "created_time", "ended_time"),
    *("prompt", "negative_prompt", "model", "seed", "width", "height"),
    *("num_inference_steps", "guidance_scale", "scheduler"),
    *("star", "trashed_time", "owner", "batch_id", "client_name", "errors", "seconds"),
)
"""The members of an image that the index has."""


@dataclass(frozen=True)
class Filters:
    """What images must have. None is no condition; `states` without an entry is none, too.

    `after` (inclusive) and `before` (exclusive) are seconds since 1970. `trash` selects the trash
    alone, else it is left out.
    """

    words: str = ""
    model: str | None = None
    seed: int | None = None
    size: tuple[int, int] | None = None
    lora: str | None = None
    owner: str | None = None
    batch: str | None = None
    client: str | None = None
    after: float | None = None
    before: float | None = None
    star: bool | None = None
    states: tuple[str, ...] = ()
    trash: bool = False

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL and its values."""
        width, height = self.size or (None, None)
        conditions: list[tuple[str, Any]] = [
            ("id IN (SELECT rowid FROM words WHERE words MATCH ?)", match_expression(self.words)),
            ("model = ?", self.model),
            ("seed = ?", self.seed),
            ("width = ?", width),
            ("height = ?", height),
            ("instr(loras, ?)", None if self.lora is None else f"\n{self.lora}\n"),
            ("owner = ?", self.owner),
            ("batch_id = ?", self.batch),
            ("client_name = ?", self.client),
            ("created >= ?", self.after),
            ("created < ?", self.before),
            ("star = ?", self.star),
        ]
        active = [(text, value) for text, value in conditions if value is not None]
        texts = [f"trashed_time IS {'NOT ' if self.trash else ''}NULL"]
        texts += [text for text, _ in active]
        if self.states:
            texts.append(f"state IN ({', '.join('?' * len(self.states))})")
        return " AND ".join(texts), [*(value for _, value in active), *self.states]


class Cursor(NamedTuple):
    """The image after which a page begins."""

    sequence: int
    uuid: str
    image_index: int

    def __str__(self) -> str:
        return f"{self.sequence}.{self.uuid}.{self.image_index}"


class ImageRow(NamedTuple):
    """One image of a page: `members` are those of SHORT."""

    name: ImageName
    cursor: Cursor
    members: dict[str, Any]


class ImageSearch:
    """Queries of an open index. It raises sqlite3.DatabaseError as IndexDb does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def total(self, filters: Filters) -> int:
        """Return how many images there are."""
        where, values = filters.where()
        query = f"SELECT COUNT(*) FROM images WHERE {where}"
        return int(self._db.execute(query, values).fetchone()[0])

    def page(
        self, filters: Filters, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[ImageRow]:
        """Return images, the newest job first and the images of a job in their order.

        Args:
            offset: how many images come before the page.
            after: the page begins after this image; it need not exist any more.
        """
        where, values = filters.where()
        if after is not None:
            where += " AND (sequence, uuid, place) < (?, ?, ?)"
            values += [after.sequence, after.uuid, -after.image_index]
        query = f"SELECT {_COLUMNS} FROM images WHERE {where} ORDER BY {_ORDER} LIMIT ? OFFSET ?"
        return list(map(_row, self._db.execute(query, [*values, limit, offset])))

    def find(self, name: ImageName) -> ImageRow | None:
        """Return one image, in the trash or not."""
        query = f"SELECT {_COLUMNS} FROM images WHERE uuid = ? AND image_index = ?"
        row = self._db.execute(query, name).fetchone()
        return _row(row) if row else None

    def owners(self, names: Iterable[ImageName]) -> set[str | None]:
        """Return the owners of those images that exist."""
        query = "SELECT owner FROM images WHERE uuid = ? AND image_index = ?"
        rows = (self._db.execute(query, name).fetchone() for name in names)
        return {row[0] for row in rows if row is not None}

    def days(self, filters: Filters) -> list[tuple[str, int]]:
        """Return the local days that have images, the newest first, with their numbers."""
        where, values = filters.where()
        query = (
            f"SELECT day, COUNT(*) FROM images WHERE {where} AND day IS NOT NULL "
            "GROUP BY day ORDER BY day DESC"
        )
        return [(str(day), int(count)) for day, count in self._db.execute(query, values)]


def _row(row: tuple[Any, ...]) -> ImageRow:
    uuid, image_index, sequence, prompt, text, star, trashed_time = row
    name = ImageName(uuid, image_index)
    all_members = {
        **orjson.loads(text),
        "name": str(name),
        "prompt": prompt,
        "star": bool(star),
        "trashed_time": trashed_time,
    }
    members = {key: all_members[key] for key in SHORT}
    return ImageRow(name, Cursor(sequence, uuid, image_index), members)


def match_expression(words: str) -> str | None:
    """Return an expression of FTS5 for what a person types; None if it has no word.

    Every word must occur. The last word is a prefix, unless a space or a quote ends it. Words in
    quotes are a phrase.
    """
    terms, is_open = [], False
    words = "".join(char if char.isprintable() else " " for char in words)
    for match in _PARTS.finditer(words):
        phrase, word = match[1], match[2]
        text = phrase if word is None else word.replace('"', " ")
        if any(char.isalnum() for char in text):
            terms.append(f'"{text}"')
            is_open = word is not None and match.end() == len(words)
    if not terms:
        return None
    return " ".join(terms) + ("*" if is_open else "")
