"""Hands model commands from HTTP threads to the dispatcher's thread, which owns the socket.

A command whose caller timed out is dropped.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from gateway.errors import NoWorker, WorkerBusy
from gpu_worker.contract.protocol import ModelCommand, Reply, WorkerStatus

REPLY_TIMEOUT_S = 10.0
"""Bounds a stuck dispatcher; a worker answers or times out long before."""


@dataclass(frozen=True)
class PendingCommand:
    """A command and the future on which its caller waits."""

    command: ModelCommand
    reply: Future[WorkerStatus] = field(default_factory=Future)


class CommandQueue:
    """The commands for one worker. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[PendingCommand] = queue.SimpleQueue()

    def submit(self, command: ModelCommand) -> WorkerStatus:
        """Have the worker run a command; return its status after it accepted.

        Raises:
            WorkerBusy: the worker is loading or busy.
            NoWorker: the worker does not answer.
        """
        pending = PendingCommand(command)
        self._waiting.put(pending)
        try:
            return pending.reply.result(REPLY_TIMEOUT_S)
        except TimeoutError:
            pending.reply.cancel()
            raise NoWorker(retry_after_s=5) from None

    def run_next(self, send: Callable[[ModelCommand], Reply]) -> Reply | None:
        """Send the oldest command; return the worker's reply, None when no command waits.

        Raises:
            Exception: `send` raised it; the caller gets NoWorker.
        """
        while (pending := self._next()) is not None:
            if not pending.reply.set_running_or_notify_cancel():
                continue
            try:
                reply = send(pending.command)
            except Exception:
                pending.reply.set_exception(NoWorker(retry_after_s=5))
                raise
            if reply.accepted:
                pending.reply.set_result(reply.status)
            else:
                pending.reply.set_exception(
                    WorkerBusy(f"the worker is {reply.status.state}; try again when it is idle")
                )
            return reply
        return None

    def reject_all(self) -> None:
        """Raise NoWorker in every caller that waits."""
        while (pending := self._next()) is not None:
            if pending.reply.set_running_or_notify_cancel():
                pending.reply.set_exception(NoWorker(retry_after_s=5))

    def _next(self) -> PendingCommand | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None
