"""Sends requests to one worker over REQ, as a lazy pirate (zguide, chapter 4).

A request is answered or raises WorkerUnavailable. One thread owns the link.
"""

from __future__ import annotations

import time

import zmq

from gpu_worker.contract import protocol
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import ProtocolError, Reply, Request, VersionMismatch

SEND_TIMEOUT_S = 0.5
REPLY_TIMEOUT_S = 2.0
"""The control thread's slowest answer, while torch was imported, took 0.25 s; this is 8 times."""


class WorkerUnavailable(RuntimeError):
    """The worker did not answer in time, or in another protocol."""


class WorkerMismatch(WorkerUnavailable):
    """The worker speaks another version of the protocol. The text names both versions."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the worker speaks protocol {version} and the gateway protocol {protocol.VERSION}: "
            "install the same version of both, and restart them"
        )


class WorkerRefused(WorkerUnavailable):
    """The worker answered with an error."""


class WorkerLink:
    """A link that reuses its socket while the worker answers, and replaces it after a miss.

    Raises ValueError for an endpoint that is not a Unix socket.
    """

    def __init__(self, endpoint: str) -> None:
        protocol.check_endpoint(endpoint)
        self._endpoint = endpoint
        self._socket: zmq.Socket[bytes] | None = None

    def status(self) -> Reply:
        """Request the status. Raises WorkerUnavailable."""
        return self._request(Request(op="status", deadline=self._deadline()))

    def submit(self, job: Job) -> Reply:
        """Offer a job; `accepted` says whether the worker holds it. Raises WorkerUnavailable."""
        return self._request(Request(op="submit", deadline=self._deadline(), job=job))

    def cancel(self, uuid: str) -> Reply:
        """Request the end of a held job. Raises WorkerUnavailable."""
        return self._request(Request(op="cancel", deadline=self._deadline(), uuid=uuid))

    def rotate(self, segment: str) -> Reply:
        """Request a new segment after this one. Raises WorkerUnavailable."""
        return self._request(Request(op="rotate", deadline=self._deadline(), log=segment))

    def describe(self) -> Reply:
        """Request the description. Raises WorkerRefused, WorkerUnavailable."""
        return self._request(Request(op="describe", deadline=self._deadline()))

    def load(self, model: str | None) -> Reply:
        """Request a model, None for SDE_MODEL; `accepted` says whether it is being loaded.

        Raises:
            WorkerUnavailable: the worker did not answer.
        """
        return self._request(Request(op="load", deadline=self._deadline(), model=model))

    def unload(self) -> Reply:
        """Request that the worker unloads its model. Raises WorkerUnavailable."""
        return self._request(Request(op="unload", deadline=self._deadline()))

    def close(self) -> None:
        """Close the socket; the next request opens a fresh one."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _deadline(self) -> float:
        # The worker may use half the time. A later answer would come after our timeout.
        return time.monotonic() + REPLY_TIMEOUT_S / 2

    def _request(self, request: Request) -> Reply:
        try:
            socket = self._socket or self._open()
            socket.send(protocol.encode(request))
            reply = protocol.decode_reply(socket.recv())
        except VersionMismatch as error:
            self.close()
            raise WorkerMismatch(error.version) from None
        except (zmq.ZMQError, ProtocolError) as error:
            # A REQ socket that missed its reply stays out of step, and a late reply would answer
            # the next request. So the socket is replaced.
            self.close()
            raise WorkerUnavailable(f"{self._endpoint}: {error}") from error
        if reply.error is not None:
            raise WorkerRefused(f"{self._endpoint}: {reply.error}")
        return reply

    def _open(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        # IMMEDIATE: without a worker the send fails, instead of being queued and run later.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDTIMEO, round(SEND_TIMEOUT_S * 1000))
        socket.setsockopt(zmq.RCVTIMEO, round(REPLY_TIMEOUT_S * 1000))
        socket.setsockopt(zmq.MAXMSGSIZE, protocol.MAX_MESSAGE_BYTES)
        socket.connect(self._endpoint)
        self._socket = socket
        return socket
