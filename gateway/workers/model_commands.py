"""Load and unload: HTTP threads submit them, the dispatcher's thread runs them on its socket.

A command whose caller timed out is dropped. Knows no ZeroMQ.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from gateway.errors import NoWorker, WorkerBusy
from gpu_worker.contract.protocol import ModelCommand, Reply, WorkerStatus

REPLY_TIMEOUT_S = 10.0
"""A worker answers or has been given up long before: this only bounds a stuck dispatcher."""


@dataclass(frozen=True)
class PendingCommand:
    """A command, and where its caller waits for the worker's answer."""

    command: ModelCommand
    answer: Future[WorkerStatus] = field(default_factory=Future)


class CommandQueue:
    """The commands for one worker. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[PendingCommand] = queue.SimpleQueue()

    def submit(self, command: ModelCommand) -> WorkerStatus:
        """Have the worker run a command; its status after it has agreed.

        Raises:
            WorkerBusy: it is loading or busy.
            NoWorker: it does not answer.
        """
        pending = PendingCommand(command)
        self._waiting.put(pending)
        try:
            return pending.answer.result(REPLY_TIMEOUT_S)
        except TimeoutError:
            pending.answer.cancel()
            raise NoWorker(retry_after_s=5) from None

    def run_next(self, send: Callable[[ModelCommand], Reply]) -> Reply | None:
        """Send the oldest command; the worker's reply, None when there was none.

        Raises:
            Exception: `send` raised it; the caller has been told that there is no worker.
        """
        while (pending := self._next()) is not None:
            if not pending.answer.set_running_or_notify_cancel():
                continue
            try:
                reply = send(pending.command)
            except Exception:
                pending.answer.set_exception(NoWorker(retry_after_s=5))
                raise
            if reply.accepted:
                pending.answer.set_result(reply.status)
            else:
                pending.answer.set_exception(
                    WorkerBusy(f"the worker is {reply.status.state}; it is asked when it is idle")
                )
            return reply
        return None

    def reject_all(self) -> None:
        """There is no worker: tell all callers that wait."""
        while (pending := self._next()) is not None:
            if pending.answer.set_running_or_notify_cancel():
                pending.answer.set_exception(NoWorker(retry_after_s=5))

    def _next(self) -> PendingCommand | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None
