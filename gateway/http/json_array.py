"""Sends records as one JSON array: whole when it is small, else as a stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import falcon

from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.params import JSON
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

MAX_STREAMS = 8
"""Streams at a time, each of which keeps a thread (SERVER_THREADS); more are refused with 503."""

SMALL_BYTES = 1 << 20
"""A smaller array is sent whole, with a Content-Length, so that its connection is reused. A single
record is always sent whole, because it is in memory at once anyway."""

PIECE_BYTES = 256 << 10
"""waitress copies each piece more than once, and a record has some megabytes."""


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
            resp.data = b"".join(array(entries, read))
        elif req.method == "HEAD":
            resp.stream = []  # falcon sends nothing of a stream, and closes none
        else:
            resp.stream = RecordStream(array(entries, read), self._streams.acquire())


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
        for chunk in self._chunks:
            for at in range(0, len(chunk), PIECE_BYTES):
                yield chunk[at : at + PIECE_BYTES]


def array(entries: Iterable[Entry], read: Callable[[Entry], bytes | None]) -> Iterator[bytes]:
    """Yield the records as one JSON array, a line for each. One is in memory at a time, unparsed.

    An unreadable record is left out and logged. The others are sent.
    """
    yield b"["
    separator = b""
    for entry in entries:
        try:
            line = read(entry)
        except (OSError, DamagedLine) as error:
            log.warning("the result %s is left out of a response: %s", entry.uuid, error)
            continue
        if line is not None:
            yield separator + line
            separator = b",\n"
    yield b"]"
