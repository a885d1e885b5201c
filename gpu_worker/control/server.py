"""The control thread: one REP socket, decode -> slots -> reply at once. It never generates."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import zmq

from gpu_worker.contract import protocol
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import (
    ModelCommand,
    ProtocolError,
    Reply,
    Request,
    VersionMismatch,
    WorkerStatus,
)
from gpu_worker.control.slots import Slots
from gpu_worker.store import process

log = logging.getLogger(__name__)

_MAX_VERSIONS = 8
"""The most versions that are remembered as logged."""


class ControlServer:
    """Answers status and submit while the main thread imports, loads and generates."""

    def __init__(
        self,
        endpoint: str,
        status: Callable[[], WorkerStatus],
        slots: Slots,
        describe: Callable[[], Capabilities] = Capabilities,
    ) -> None:
        self._endpoint = endpoint
        self._status = status
        self._slots = slots
        self._describe = describe
        self._foreign_versions: set[int] = set()

    def start(self) -> None:
        """Bind, then serve in a daemon thread. The store's lock must be held already: a second bind
        on an ipc path silently takes the endpoint over (zmq_ipc(7)).

        Only processes of this user can connect (SO_PEERCRED). The process ends with the thread.

        Raises:
            ValueError: the endpoint is not a Unix socket.
            zmq.ZMQError: the endpoint cannot be bound.
        """
        protocol.check_endpoint(self._endpoint)
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REP)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, protocol.MAX_MESSAGE_BYTES)
        try:
            socket.setsockopt(zmq.IPC_FILTER_UID, os.geteuid())
        except zmq.ZMQError as error:  # the folder of the socket is still the owner's alone
            log.warning("the system does not report who connects to the socket: %s", error)
        socket.bind(self._endpoint)
        process.start_thread("control", lambda: self._serve(socket))

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            frame, count = socket.recv(), 1
            while socket.getsockopt(zmq.RCVMORE):
                socket.recv()
                count += 1
            socket.send(self._answer(frame, count))

    def _answer(self, frame: bytes, count: int) -> bytes:
        # A REP socket that does not reply is dead for good, so every message gets an answer.
        try:
            if count != 1:
                raise ProtocolError(f"a message has one frame, not {count}")
            return protocol.encode(self._handle(protocol.decode_request(frame)))
        except ProtocolError as error:
            self._log_mismatch(error)
            return protocol.encode(Reply(status=self._status(), error=str(error)))
        except Exception:
            log.exception("the control thread could not answer; process %d goes on", os.getpid())
            message = "the worker had an internal error; its log has the details"
            return protocol.encode(Reply(status=self._status(), error=message))

    def _log_mismatch(self, error: ProtocolError) -> None:
        if isinstance(error, VersionMismatch) and error.version not in self._foreign_versions:
            if len(self._foreign_versions) < _MAX_VERSIONS:
                self._foreign_versions.add(error.version)
            log.error(
                "a gateway speaks protocol %d and this worker protocol %d: install the same "
                "version of both, and restart them",
                error.version,
                protocol.VERSION,
            )

    def _handle(self, request: Request) -> Reply:
        if time.monotonic() > request.deadline:
            return Reply(status=self._status(), error="the deadline has passed")
        if request.op == "describe":
            return Reply(status=self._status(), accepted=True, description=self._describe())
        accepted = self._run_operation(request)
        return Reply(status=self._status(), accepted=accepted)

    def _run_operation(self, request: Request) -> bool:
        match request:
            case Request(op="status"):
                return True
            case Request(op="submit", job=Job() as job):
                return self._slots.offer(job)
            case Request(op="cancel", uuid=str(uuid)):
                return self._slots.cancel(uuid)
            case Request(op="load", model=model):
                return self._slots.request_command(ModelCommand(model))
            case Request(op="unload"):
                return self._slots.request_command(ModelCommand(unload=True))
            case Request(op="rotate", log=str(log_name)):
                return self._slots.request_rotation(log_name)
        raise ProtocolError(f"{request.op} lacks what it is about")
