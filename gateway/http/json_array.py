"""Sends records as one JSON array: whole when it is small, else as a stream."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import falcon

from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.params import JSON
from gateway.http.reply_file import LARGE_BYTES, InMemory, Part, ReplyFile
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex
from gateway.store.stored_bytes import PIECE_BYTES, StoredBytes
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

MAX_STREAMS = 8
"""Streams at a time, each of which keeps a thread (SERVER_THREADS); more are refused with 503."""

SMALL_BYTES = 1 << 20
"""A smaller array is sent whole, with a Content-Length, so that its connection is reused. A single
record is always sent whole, because it is in memory at once anyway."""


Content = TypeVar("Content", bytes, StoredBytes)
"""A record: in memory, or read from the log when it is sent."""


class RecordArrayResponder:
    """Writes responses that hold records of the log."""

    def __init__(self, index: ResultIndex) -> None:
        self._index = index
        self._streams = ConcurrencyLimit(MAX_STREAMS, "long lists of results", retry_after_s=5)

    def answer(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        entries: Iterable[Entry],
        with_data: bool,
    ) -> None:
        """Write the records of these entries. Only a list can be small enough to be sent whole.

        Raises:
            TooManyStreams: too many arrays are being streamed.
        """
        read = self._index.read if with_data else self._index.read_without_data
        resp.content_type = JSON
        if isinstance(entries, list) and is_small(entries, with_data):
            if with_data and any(entry.length > LARGE_BYTES for entry in entries):
                reply = ReplyFile(*self._parts(entries))
                resp.set_stream(reply, len(reply))
            else:
                resp.data = b"".join(array(entries, read))
        elif req.method == "HEAD":
            resp.stream = []  # falcon sends nothing of a stream, and closes none
        else:
            close = self._streams.acquire()
            resp.stream = RecordStream(self._pieces(entries, with_data), close)

    def _parts(self, entries: Iterable[Entry]) -> Iterator[Part]:
        """Yield the array in parts that are read from the log when they are sent."""
        for each in array(entries, self._index.stored):
            yield InMemory(each) if isinstance(each, bytes) else each

    def _pieces(self, entries: Iterable[Entry], with_data: bool) -> Iterator[bytes]:
        """Yield the array in pieces. One of them is in memory at a time, not a whole record."""
        if not with_data:
            yield from array(entries, self._index.read_without_data)
            return
        for part in self._parts(entries):
            for start in range(0, len(part), PIECE_BYTES):
                yield part.read(start, start + PIECE_BYTES)


def is_small(entries: list[Entry], with_data: bool) -> bool:
    """Return whether a response with these records is held in memory as a whole."""
    size = sum(entry.length - (0 if with_data else entry.data_length) for entry in entries)
    return len(entries) <= 1 or size <= SMALL_BYTES


class RecordStream:
    """A WSGI iterable that frees its place when it is closed. waitress always closes it."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks


def array(
    entries: Iterable[Entry], read: Callable[[Entry], Content | None]
) -> Iterator[Content | bytes]:
    """Yield the records as one JSON array, a line for each, unparsed.

    An unreadable record is left out and logged. The others are sent.
    """
    yield b"["
    separator = b""
    for entry in entries:
        try:
            line = read(entry)
        except (OSError, DamagedLine, sqlite3.Error) as error:
            log.warning("the result %s is left out of a response: %s", entry.uuid, error)
            continue
        if line is not None:
            if separator:
                yield separator
            yield line
            separator = b",\n"
    yield b"]"
