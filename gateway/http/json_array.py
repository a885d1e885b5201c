"""Records as one JSON array: whole where it is small, else a stream that keeps a place."""

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
"""Of the gateway's threads (SERVER_THREADS), so many may serve streams; beyond them 503."""

SMALL_BYTES = 1 << 20
"""What is read whole has a Content-Length, so that its connection is kept. One record always is: it
is in memory at once anyway."""

PIECE_BYTES = 256 << 10
"""waitress copies what it is given more than once; a record is some megabytes."""


class RecordArrayResponder:
    """Answers with records of the log."""

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
        """A list of entries may be small; what is no list is not. Raises TooManyStreams."""
        read = self._index.read if with_data else self._index.read_without_data
        resp.content_type = JSON
        if isinstance(entries, list) and is_small(entries, with_data):
            resp.data = b"".join(array(entries, read))
        elif req.method == "HEAD":
            resp.stream = []  # falcon sends nothing of a stream, and closes none
        else:
            resp.stream = RecordStream(array(entries, read), self._streams.acquire())


def is_small(entries: list[Entry], with_data: bool) -> bool:
    """Whether a reply with these is held in memory as a whole."""
    size = sum(entry.length - (0 if with_data else entry.data_length) for entry in entries)
    return len(entries) <= 1 or size <= SMALL_BYTES


class RecordStream:
    """A WSGI iterable that gives its place back when it is closed, which waitress does whatever
    becomes of the client."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            for at in range(0, len(chunk), PIECE_BYTES):
                yield chunk[at : at + PIECE_BYTES]


def array(entries: Iterable[Entry], read: Callable[[Entry], bytes | None]) -> Iterator[bytes]:
    """The records as one JSON array, a line an object; nothing is parsed, one is held at a time.

    A record that has become unreadable is left out and reported: the others are served.
    """
    yield b"["
    separator = b""
    for entry in entries:
        try:
            line = read(entry)
        except (OSError, DamagedLine) as error:
            log.warning("left the result %s out: %s", entry.uuid, error)
            continue
        if line is not None:
            yield separator + line
            separator = b",\n"
    yield b"]"
