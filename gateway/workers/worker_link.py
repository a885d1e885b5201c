"""Lazy-pirate REQ to one worker: it answers or raises WorkerUnavailable. One thread owns it."""

from __future__ import annotations

import time

import zmq

from gpu_worker.contract import protocol
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import ProtocolError, Reply, Request

SEND_TIMEOUT_S = 0.5
REPLY_TIMEOUT_S = 2.0
"""The control thread's worst answer beside importing torch was 0.25 s; this is eight times that."""


class WorkerUnavailable(RuntimeError):
    """The worker did not answer in time, or not in our protocol."""


class WorkerRefused(WorkerUnavailable):
    """It answered that it could not."""


class WorkerLink:
    """Reuses its socket while it answers; after a miss the socket is thrown away."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._socket: zmq.Socket[bytes] | None = None

    def status(self) -> Reply:
        """Ask for the status. Raises WorkerUnavailable."""
        return self._request(Request(op="status", deadline=self._deadline()))

    def submit(self, job: Job) -> Reply:
        """Offer a job; `accepted` says whether the worker holds it. Raises WorkerUnavailable."""
        return self._request(Request(op="submit", deadline=self._deadline(), job=job))

    def cancel(self, uuid: str) -> Reply:
        """Ask for the end of the held job, if it is this one. Raises WorkerUnavailable."""
        return self._request(Request(op="cancel", deadline=self._deadline(), uuid=uuid))

    def rotate(self, segment: str) -> Reply:
        """Ask for a new segment after this one. Raises WorkerUnavailable."""
        return self._request(Request(op="rotate", deadline=self._deadline(), log=segment))

    def describe(self) -> Reply:
        """Ask what it can do. Raises WorkerRefused when it cannot say, WorkerUnavailable."""
        return self._request(Request(op="describe", deadline=self._deadline()))

    def load(self, model: str | None) -> Reply:
        """Ask for a model; `accepted` says whether it is being loaded. Raises WorkerUnavailable."""
        return self._request(Request(op="load", deadline=self._deadline(), model=model))

    def unload(self) -> Reply:
        """Ask it to let go of its model. Raises WorkerUnavailable."""
        return self._request(Request(op="unload", deadline=self._deadline()))

    def close(self) -> None:
        """Close the socket; the next request opens a fresh one."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _deadline(self) -> float:
        # Half the time is the worker's; what it takes later than that we would no longer hear of.
        return time.monotonic() + REPLY_TIMEOUT_S / 2

    def _request(self, request: Request) -> Reply:
        socket = self._socket or self._open()
        try:
            socket.send(protocol.encode(request))
            reply = protocol.decode_reply(socket.recv())
        except (zmq.ZMQError, ProtocolError) as error:
            # A REQ that missed its reply is out of step for good, and a reply that comes late
            # would answer the next question: throw the socket away.
            self.close()
            raise WorkerUnavailable(f"{self._endpoint}: {error}") from error
        if reply.error is not None:
            raise WorkerRefused(f"{self._endpoint}: {reply.error}")
        return reply

    def _open(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        # IMMEDIATE: with no worker the send fails, instead of waiting in a queue to run later.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDTIMEO, round(SEND_TIMEOUT_S * 1000))
        socket.setsockopt(zmq.RCVTIMEO, round(REPLY_TIMEOUT_S * 1000))
        socket.setsockopt(zmq.MAXMSGSIZE, protocol.MAX_MESSAGE_BYTES)
        socket.connect(self._endpoint)
        self._socket = socket
        return socket
