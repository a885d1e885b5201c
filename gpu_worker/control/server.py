"""The control thread: one REP socket, decode -> slots -> reply at once. It never generates."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import zmq

from gpu_worker.contract import protocol
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import ModelCommand, ProtocolError, Reply, Request, WorkerStatus
from gpu_worker.control.slots import Slots

log = logging.getLogger(__name__)


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

    def start(self) -> None:
        """Bind, then serve in a daemon thread. The store's lock must be held already: a second bind
        on an ipc path silently takes the endpoint over (zmq_ipc(7)).

        Raises:
            zmq.ZMQError: the endpoint cannot be bound.
        """
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REP)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, protocol.MAX_MESSAGE_BYTES)
        socket.bind(self._endpoint)
        threading.Thread(target=self._serve, args=(socket,), name="control", daemon=True).start()

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            frames = socket.recv_multipart()
            socket.send(self._answer(frames))

    def _answer(self, frames: list[bytes]) -> bytes:
        # A REP socket that does not reply is dead for good, so every message gets an answer.
        try:
            if len(frames) != 1:
                raise ProtocolError(f"a message has one frame, not {len(frames)}")
            return protocol.encode(self._handle(protocol.decode_request(frames[0])))
        except ProtocolError as error:
            return protocol.encode(Reply(status=self._status(), error=str(error)))
        except Exception:
            log.exception("the control thread could not answer; process %d goes on", os.getpid())
            message = "the worker had an internal error; its log has the details"
            return protocol.encode(Reply(status=self._status(), error=message))

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
