"""Defines the messages between gateway and worker. docs/protocol.md explains them.

It only encodes and decodes. It opens no socket. Images travel through the result log.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job

VERSION = 4

MAX_MESSAGE_BYTES = 1 << 20
"""ZMQ_MAXMSGSIZE on both sides: a request is a few KiB, so 1 MiB is generous."""

MAX_IPC_PATH_BYTES = 107
"""`sun_path` of a Linux unix socket is 108 bytes with its NUL (unix(7))."""


class WorkerState(enum.StrEnum):
    """`idle` implies that every outcome is committed; `busy` that a job is held."""

    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"


@dataclass(frozen=True)
class ModelCommand:
    """A command to load a model (None: that of SDE_MODEL), or with `unload` to unload it."""

    model: str | None = None
    unload: bool = False


class ProtocolError(ValueError):
    """A message is invalid or of another protocol version."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    v: Literal[4] = 4


class SlotStatus(BaseModel):
    """A job that a worker holds, with its step, the number of steps, and the attempt.

    `started_time` is the time since which it is held, in ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uuid: str
    step: int = 0
    steps: int = 0
    attempt: int = 0
    started_time: str | None = None


class WorkerStatus(_Message):
    """The status that a worker reports.

    `slots` are the held jobs in the order of their acceptance, at most `capacity`. `committed` is
    the number of bytes of the segment `log` that are on the disk. Readers never read past it.
    `step_s` is the measured mean of a step in seconds, None before the first step. `described`
    counts the changes of the description, and is 0 before the first. `loaded` is the model in
    memory, and `load_error` the reason why the last one could not be loaded. `trouble` is the error
    of the disk while it refuses a write, which is tried again.
    """

    state: WorkerState
    boot_id: str
    log: str
    committed: int
    capacity: int = 1
    slots: list[SlotStatus] = []
    step_s: float | None = None
    trouble: str | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    machine_size: str | None = None
    described: int = 0
    loaded: str | None = None
    load_error: str | None = None
    versions: dict[str, str] = {}
    memory_bytes: int | None = None

    def slot(self, uuid: str) -> SlotStatus | None:
        """Return the slot that holds a job, or None."""
        return next((each for each in self.slots if each.uuid == uuid), None)

    @property
    def free_slots(self) -> int:
        """Return how many more jobs the worker would accept now."""
        is_ready = self.state is not WorkerState.LOADING
        return max(0, self.capacity - len(self.slots)) if is_ready else 0


class Request(_Message):
    """A request of the gateway.

    `deadline` is in seconds of CLOCK_MONOTONIC, which all processes of a host share. A worker drops
    a request whose deadline has passed, because the gateway no longer waits for the reply.

    `status` asks for the status, and `describe` for `description`. `submit` offers `job`, and
    `cancel` cancels the held job `uuid`. `rotate` starts a new segment if `log` is the newest one.
    `load` loads `model` into an idle worker, and `unload` removes its model from memory.
    """

    op: Literal["status", "submit", "cancel", "rotate", "describe", "load", "unload"]
    deadline: float
    job: Job | None = None
    uuid: str | None = None
    log: str | None = None
    model: str | None = None


class Reply(_Message):
    """The reply of a worker.

    `accepted` says whether the worker does what was requested. `error` says why a message could not
    be handled. docs/http-api.md describes `description` for GET /server/models.
    """

    status: WorkerStatus
    accepted: bool = False
    description: Capabilities | None = None
    error: str | None = None


def encode(message: Request | Reply) -> bytes:
    """Return the message as UTF-8 JSON on one line."""
    return orjson.dumps(message.model_dump(mode="json"))


def decode_request(frame: bytes) -> Request:
    """Raises ProtocolError on anything that is not a valid request."""
    try:
        return Request.model_validate_json(frame)
    except ValidationError as error:
        raise ProtocolError(f"not a request of protocol version {VERSION}: {error}") from error


def decode_reply(frame: bytes) -> Reply:
    """Raises ProtocolError on anything that is not a valid reply."""
    try:
        return Reply.model_validate_json(frame)
    except ValidationError as error:
        raise ProtocolError(f"not a reply of protocol version {VERSION}: {error}") from error


def endpoint(run_dir: Path, gpu: int) -> str:
    """Return the worker's `ipc://` address.

    Raises:
        ValueError: the path is longer than the name of a Unix socket may be.
    """
    path = run_dir / f"gpu-{gpu}.sock"
    length = len(str(path).encode())
    if length > MAX_IPC_PATH_BYTES:
        raise ValueError(
            f"the socket path {path} has {length} bytes, at most {MAX_IPC_PATH_BYTES} work: "
            "choose a shorter SDE_DATA_DIR"
        )
    return f"ipc://{path}"
