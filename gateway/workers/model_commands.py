"""What HTTP threads want of a worker, done by the dispatcher's thread, which owns the socket.

A wish whose asker has given up is not done. Knows no ZeroMQ.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from gateway.errors import NoWorker, WorkerBusy
from gpu_worker.contract.protocol import Reply, WorkerStatus

REPLY_TIMEOUT_S = 10.0
"""A worker answers or has been given up long before: this only bounds a stuck dispatcher."""


@dataclass(frozen=True)
class PendingCommand:
    """Have `model` loaded, or None: let go of what is loaded."""

    model: str | None
    answer: Future[WorkerStatus] = field(default_factory=Future)


class CommandQueue:
    """Of one worker. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[PendingCommand] = queue.SimpleQueue()

    def ask(self, model: str | None) -> WorkerStatus:
        """Have the worker load a model, None: unload; its state after it has agreed.

        Raises:
            WorkerBusy: it is loading or busy.
            NoWorker: it does not answer.
        """
        wish = PendingCommand(model)
        self._waiting.put(wish)
        try:
            return wish.answer.result(REPLY_TIMEOUT_S)
        except TimeoutError:
            wish.answer.cancel()
            raise NoWorker(retry_after_s=5) from None

    def grant(self, send: Callable[[str | None], Reply]) -> Reply | None:
        """Send the oldest one; what the worker said, None when there was none.

        Raises:
            Exception: `send` raised it; the asker has been told that there is no worker.
        """
        while (wish := self._next()) is not None:
            if not wish.answer.set_running_or_notify_cancel():
                continue
            try:
                reply = send(wish.model)
            except Exception:
                wish.answer.set_exception(NoWorker(retry_after_s=5))
                raise
            if reply.accepted:
                wish.answer.set_result(reply.status)
            else:
                wish.answer.set_exception(
                    WorkerBusy(f"the worker is {reply.status.state}; it is asked when it is idle")
                )
            return reply
        return None

    def refuse(self) -> None:
        """There is no worker: tell all that wait."""
        while (wish := self._next()) is not None:
            if wish.answer.set_running_or_notify_cancel():
                wish.answer.set_exception(NoWorker(retry_after_s=5))

    def _next(self) -> PendingCommand | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None
