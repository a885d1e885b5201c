"""GET /image/results and its days: the images that a gallery shows, by search and by position."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, ClassVar

import falcon
import orjson

from gateway.http.params import bool_param, invalid_parameter, number_param
from gateway.store.gallery.image_search import SHORT, Cursor, Filters, ImageRow
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.job import Outcome
from gpu_worker.store.durable import DamagedLine

MAX_PAGE, DEFAULT_PAGE = 1000, 100
MAX_OFFSET = 10**9
MAX_WORDS_CHARS = 500
MAX_FIELDS = 64
MAX_SEED = 10**15 - 1

FILTERS = (
    *("q", "model", "seed", "size", "lora", "owner", "batch", "client"),
    *("after", "before", "star", "state", "trash"),
)

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9a-f-]{36})\.([0-9]{1,4})")
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class ResultsResource:
    """Serves pages of images, the newest job first."""

    query: ClassVar = {"GET": (*FILTERS, "fields", "offset", "limit", "cursor")}

    def __init__(self, index: ResultIndex) -> None:
        self._index = index

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"total", "offset", "next", "results"}`."""
        filters = filters_of(req)
        limit = int(number_param(req, "limit", DEFAULT_PAGE, 1, MAX_PAGE))
        offset = int(number_param(req, "offset", 0, 0, MAX_OFFSET))
        fields = _fields(req)
        cursor = _cursor(req)
        if cursor is not None and offset:
            raise invalid_parameter("offset", str(offset), "cannot be sent together with cursor")
        total, rows = self._index.search(filters, limit, offset, cursor)
        results = [self._members(row, fields) for row in rows]
        resp.data = orjson.dumps(
            {
                "total": total,
                "offset": offset,
                "next": str(rows[-1].cursor) if len(rows) == limit else None,
                "results": results,
            }
        )

    def _members(self, row: ImageRow, fields: tuple[str, ...]) -> dict[str, Any]:
        if not fields:
            return row.members
        members = row.members
        if not members.keys() >= set(fields):
            members = self._record(row) | members
        return {field: members.get(field) for field in fields}

    def _record(self, row: ImageRow) -> dict[str, Any]:
        """Return the whole record; nothing of it if it cannot be read."""
        entry = self._index.find_image(*row.name, trash=True)
        try:
            line = self._index.read_without_data(entry) if entry is not None else None
        except (OSError, DamagedLine):
            line = None
        record: dict[str, Any] = orjson.loads(line or b"{}")
        return record


class DaysResource:
    """Serves the days of the same images, for a scrollbar over all of them."""

    query: ClassVar = {"GET": FILTERS}

    def __init__(self, index: ResultIndex) -> None:
        self._index = index

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"days": [[day, count], ...]}`, the newest day first."""
        filters = filters_of(req)
        days = self._index.query(lambda db: db.images.days(filters))
        resp.data = orjson.dumps({"days": days})


def filters_of(req: falcon.Request) -> Filters:
    """Return the filters of a query. Raises falcon.HTTPBadRequest."""
    words = req.get_param("q") or ""
    if len(words) > MAX_WORDS_CHARS:
        raise invalid_parameter("q", words, f"has more than {MAX_WORDS_CHARS} characters")
    seed = None
    if "seed" in req.params:
        seed = int(number_param(req, "seed", 0, 0, MAX_SEED))
    return Filters(
        words=words,
        model=req.get_param("model"),
        seed=seed,
        size=_size(req),
        lora=req.get_param("lora"),
        owner=req.get_param("owner"),
        batch=req.get_param("batch"),
        client=req.get_param("client"),
        after=_moment(req, "after"),
        before=_moment(req, "before"),
        star=bool_param(req, "star", default=False) if "star" in req.params else None,
        states=_states(req),
        trash=bool_param(req, "trash", default=False),
    )


def _size(req: falcon.Request) -> tuple[int, int] | None:
    text = req.get_param("size")
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise invalid_parameter("size", text, "is not WIDTHxHEIGHT, such as 512x768")
    return int(match[1]), int(match[2])


def _moment(req: falcon.Request, name: str) -> float | None:
    """Return seconds since 1970 of a date or a date-time; UTC is the zone of one without."""
    text = req.get_param(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a query is a space
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        why = "is not a date or a date-time of ISO 8601, such as 2026-01-31"
        raise invalid_parameter(name, text, why) from None


def _states(req: falcon.Request) -> tuple[str, ...]:
    text = req.get_param("state")
    if text is None:
        return ()
    states = tuple(text.split(","))
    for state in states:
        if state not in {each.value for each in Outcome}:
            names = ", ".join(each.value for each in Outcome)
            raise invalid_parameter("state", state, f"is not a state; the states are {names}")
    return states


def _fields(req: falcon.Request) -> tuple[str, ...]:
    text = req.get_param("fields")
    if text is None:
        return ()
    fields = tuple(dict.fromkeys(text.split(",")))
    if len(fields) > MAX_FIELDS:
        raise invalid_parameter("fields", text, f"has more than {MAX_FIELDS} names")
    for field in fields:
        if field not in SHORT and (not _FIELD.fullmatch(field) or field == "data"):
            raise invalid_parameter("fields", field, "is not a member of a record without its data")
    return fields


def _cursor(req: falcon.Request) -> Cursor | None:
    text = req.get_param("cursor")
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise invalid_parameter("cursor", text, "is not the `next` of a page")
    return Cursor(int(match[1]), match[2], int(match[3]))
