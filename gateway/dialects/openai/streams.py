"""Sends the events of running jobs: partial images, and each image at the end. One thread does it.

A stream is a connection that outlives the thread of its request (http/detached_stream.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from gateway.dialects.blocking import Policy
from gateway.dialects.openai.answers import AnswerPlan, Answers
from gateway.dialects.openai.errors import error_object
from gateway.errors import RequestRefused
from gateway.http.detached_stream import (
    MAX_WAITING_BYTES,
    TASK,
    DetachedConnection,
    DetachedStream,
)
from gateway.http.problems import document
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.lookup import JobLookup
from gateway.store.preview_reader import PreviewReader
from gpu_worker.store import durable, process
from gpu_worker.store.partial_image import PartialImage

log = logging.getLogger(__name__)

MAX_STREAMS = 256
"""Each stream is a connection, of which waitress accepts 500. More are refused with 503."""

LOOK_S = 0.05
"""Seconds between two looks at the jobs of all streams."""

HEARTBEAT_S = 15.0
"""waitress closes a connection that is silent for 30 s, and proxies do after 60 s."""

GREETING = b": the job is accepted\n\n"
_HEARTBEAT = b": still here\n\n"


class StreamConnection(DetachedConnection):
    """The connection of a stream, which ends when all is sent."""

    def __init__(self, task: Any, channel: Any, write: Callable[[bytes], None]) -> None:
        super().__init__(channel, write)
        self._task = task

    @property
    def is_connected(self) -> bool:
        """Return whether the client is still there."""
        return bool(self._channel.connected)

    @property
    def is_ready(self) -> bool:
        """Return whether the client has read most of what it was sent."""
        return bool(self._channel.total_outbufs_len <= MAX_WAITING_BYTES)

    def finish(self) -> None:
        """Write the end of the response (RFC 9112, section 7.1), and close once it is sent."""
        if self._task.chunked_response:
            self._channel.write_soon(b"0\r\n\r\n")
        self._channel.close_when_flushed = True
        self._channel.server.pull_trigger()


class StreamBody(DetachedStream):
    """The body of such a response. `attach` gets its connection."""

    def __init__(self, environ: dict[str, Any], attach: Callable[[StreamConnection], bool]) -> None:
        super().__init__(environ, GREETING, lambda connection: False)
        self._task = environ[TASK]
        self._attach_stream = attach

    def take_over(self, channel: Any, write: Callable[[bytes], None]) -> None:
        """Hand the connection over; the thread of the request calls it last."""
        connection = StreamConnection(self._task, channel, write)
        if not self._attach_stream(connection):
            connection.close()


class _Stream:
    """A connection and what it has of its job."""

    def __init__(
        self, connection: StreamConnection, uuid: str, plan: AnswerPlan, policy: Policy
    ) -> None:
        self.connection = connection
        self.uuid = uuid
        self.plan = plan
        self.policy = policy
        self.sent: set[PartialImage] = set()
        self.written_at = time.monotonic()
        self.last_events: Iterator[bytes] | None = None


class ImageStreams:
    """All streams. Thread-safe; one thread runs it.

    Args:
        policy: what becomes of a job whose client leaves, where the client says nothing.
    """

    def __init__(
        self,
        answers: Answers,
        lookup: JobLookup,
        previews: PreviewReader,
        cancellation: JobCancellation,
        policy: Policy,
    ) -> None:
        self._answers = answers
        self._lookup = lookup
        self._previews = previews
        self._cancellation = cancellation
        self._policy = policy
        self._lock = threading.Lock()
        self._streams: list[_Stream] = []
        self._is_started = False
        self._wake = threading.Event()

    @property
    def is_full(self) -> bool:
        """Return whether no further stream can be attached."""
        return len(self._streams) >= MAX_STREAMS

    def body(
        self, environ: dict[str, Any], uuid: str, plan: AnswerPlan, policy: Policy | None
    ) -> StreamBody:
        """Return the body of a request's response: the events of its job."""

        def attach(connection: StreamConnection) -> bool:
            stream = _Stream(connection, uuid, plan, policy or self._policy)
            with self._lock:
                self._streams.append(stream)
                if not self._is_started:
                    self._is_started = True
                    process.start_thread("image streams", self._run)
            self._wake.set()
            return True

        return StreamBody(environ, attach)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            with self._lock:
                streams = list(self._streams)
                if not streams:
                    self._wake.clear()
                    continue
            for stream in streams:
                if not self._goes_on_safely(stream):
                    with self._lock:
                        self._streams.remove(stream)
            time.sleep(LOOK_S)

    def _goes_on_safely(self, stream: _Stream) -> bool:
        try:
            return self._goes_on(stream)
        except Exception:
            log.exception("the stream of the job %s ends", stream.uuid)
            stream.connection.close()
            return False

    def _goes_on(self, stream: _Stream) -> bool:
        """Send what is due; return whether more may follow."""
        connection = stream.connection
        if not connection.is_connected:
            self._leave(stream)
            return False
        if not connection.is_ready:
            return True
        try:
            text = self._next(stream)
        except RequestRefused as refusal:
            text = _failure(refusal)
            stream.last_events = iter(())
        if text is not None:
            stream.written_at = time.monotonic()
            connection.send(text)
        elif stream.last_events is not None:
            connection.finish()
            return False
        return True

    def _next(self, stream: _Stream) -> bytes | None:
        """Return the next event of a stream; None if there is none now, or none any more."""
        if stream.last_events is None:
            # A job writes its partial images before it ends, so it is looked at first.
            has_ended = self._lookup.view(stream.uuid).state.ended
            partial = self._partial(stream)
            if partial is not None:
                return partial
            if has_ended:
                stream.last_events = self._answers.events(stream.uuid, stream.plan)
        if stream.last_events is not None:
            return next(stream.last_events, None)
        is_silent = time.monotonic() - stream.written_at >= HEARTBEAT_S
        return _HEARTBEAT if is_silent else None

    def _partial(self, stream: _Stream) -> bytes | None:
        """Return the event of the next partial image that exists."""
        if not stream.plan.partial_images:
            return None
        for place, path in self._previews.partial_images(stream.uuid).items():
            if place in stream.sent:
                continue
            stream.sent.add(place)
            try:
                png = durable.read_plain(path)
            except OSError:
                continue  # it is of an earlier attempt, or too old
            return self._answers.partial_event(stream.uuid, stream.plan, place.number, png)
        return None

    def _leave(self, stream: _Stream) -> None:
        """Do with the job of a client that has left what it or the operator says."""
        if stream.policy == "finish":
            return
        try:
            self._cancellation.cancel(stream.uuid)
            log.info("the job %s is canceled, because its client has left", stream.uuid)
        except RequestRefused as error:
            log.info("the job %s of a client that has left goes on: %s", stream.uuid, error)


def _failure(refusal: RequestRefused) -> bytes:
    """Return the event of an error, which both SDKs raise."""
    kind = type(refusal).__name__
    problem = document(refusal.status, refusal.title, refusal.detail, kind, None)
    return b"event: error\ndata: %s\n\n" % orjson.dumps({"error": error_object(problem)})
