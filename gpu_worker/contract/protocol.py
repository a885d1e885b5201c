"""Defines the messages between gateway and worker. docs/protocol.md explains them.

It only encodes and decodes. It opens no socket. Images travel through the result log.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job, Uuid
from gpu_worker.contract.validation_errors import field_name

VERSION = 5

MAX_MESSAGE_BYTES = 1 << 20
"""ZMQ_MAXMSGSIZE on both sides: a request is a few KiB, so 1 MiB is generous."""

MAX_REASON_CHARS = 200

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


class VersionMismatch(ProtocolError):
    """A message is of another protocol version, which `version` is."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the message is of protocol {version}, and protocol {VERSION} is spoken")
        self.version = version


class _Strict(BaseModel):
    # An error of a message may be logged, and a message has the prompt of a job.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class _Message(_Strict):
    v: Annotated[int, Field(ge=VERSION, le=VERSION)] = VERSION


_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class SlotStatus(_Strict):
    """A job that a worker holds, with its step, the number of steps, and the attempt.

    `started_time` is the time since which it is held, in ISO 8601. `stepped_at` is when its present
    step began, in seconds of CLOCK_MONOTONIC.
    """

    uuid: str
    step: _Count = 0
    steps: _Count = 0
    attempt: _Count = 0
    started_time: str | None = None
    stepped_at: float | None = None


class WorkerStatus(_Message):
    """The status that a worker reports.

    `slots` are the held jobs in the order of their acceptance, at most `capacity`. `committed` is
    the number of bytes of the segment `log` that are on the disk. Readers never read past it.
    `step_s` is the measured mean of a step in seconds, None before the second step. `described`
    counts the changes of the description, and is 0 before the first. `loaded` is the model in
    memory, and `load_error` the reason why the last one could not be loaded. `trouble` is the error
    of the disk while it refuses a write, which is tried again. `gpu_memory_bytes` is what all
    processes use of the GPU's memory, and `gpu_memory_total_bytes` its size.
    """

    state: Annotated[WorkerState, Field(strict=False)]
    boot_id: str
    log: str
    committed: _Count
    capacity: _Count = 1
    slots: list[SlotStatus] = []
    step_s: float | None = None
    trouble: str | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    machine_size: str | None = None
    described: _Count = 0
    loaded: str | None = None
    load_error: str | None = None
    versions: dict[str, str] = {}
    memory_bytes: _Count | None = None
    gpu_memory_bytes: _Count | None = None
    gpu_memory_total_bytes: _Count | None = None

    def slot(self, uuid: str) -> SlotStatus | None:
        """Return the slot that holds a job, or None."""
        return next((each for each in self.slots if each.uuid == uuid), None)

    @property
    def free_slots(self) -> int:
        """Return how many more jobs the worker would accept now."""
        is_ready = self.state is not WorkerState.LOADING
        return max(0, self.capacity - len(self.slots)) if is_ready else 0


_OPERANDS = {"submit": "job", "cancel": "uuid", "rotate": "log", "load": "model"}
"""The field that an operation takes. Only `load` may lack it."""


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
    uuid: Uuid | None = None
    log: str | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _about_one_thing(self) -> Request:
        operand = _OPERANDS.get(self.op)
        for name in ("job", "uuid", "log", "model"):
            value = getattr(self, name)
            if value is not None and name != operand:
                raise ValueError(f"{self.op} does not take {name}")
            if value is None and name == operand and self.op != "load":
                raise ValueError(f"{self.op} needs {name}")
        return self


class Reply(_Message):
    """The reply of a worker.

    `accepted` says whether the worker does what was requested. `error` says why a message could not
    be handled. docs/http-api.md describes `description` for GET /server/models.
    """

    status: WorkerStatus
    accepted: bool = False
    description: Capabilities | None = None
    error: str | None = None


MessageT = TypeVar("MessageT", Request, Reply)


def encode(message: Request | Reply) -> bytes:
    """Return the message as UTF-8 JSON on one line."""
    return orjson.dumps(message.model_dump(mode="json"))


def decode_request(frame: bytes) -> Request:
    """Return the request in a frame.

    Raises:
        VersionMismatch: it is of another protocol version.
        ProtocolError: it is not a valid request.
    """
    return _decode(Request, frame, "request")


def decode_reply(frame: bytes) -> Reply:
    """Return the reply in a frame.

    Raises:
        VersionMismatch: it is of another protocol version.
        ProtocolError: it is not a valid reply.
    """
    reply = _decode(Reply, frame, "reply")
    if "v" not in reply.status.model_fields_set:
        raise ProtocolError("not a reply: the status lacks v, the version")
    return reply


def _decode(kind: type[MessageT], frame: bytes, what: str) -> MessageT:
    if len(frame) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a {what} has {len(frame)} bytes, at most {MAX_MESSAGE_BYTES} work")
    try:
        message = kind.model_validate_json(frame)
    except ValidationError as error:
        version = _version_of(frame)
        if version not in (None, VERSION):
            raise VersionMismatch(version) from None
        raise ProtocolError(f"not a {what} of protocol {VERSION}: {_reason(error)}") from None
    if "v" not in message.model_fields_set:
        raise ProtocolError(f"not a {what}: it lacks v, the version")
    return message


def _version_of(frame: bytes) -> int | None:
    """Return the version that a message names, or None."""
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    version = message.get("v") if isinstance(message, dict) else None
    return version if type(version) is int else None


def _reason(error: ValidationError) -> str:
    """Return the first error without the value, which may be a prompt."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    return f"{field_name(details[0]['loc'])}: {details[0]['msg'][:MAX_REASON_CHARS]}"


def check_endpoint(address: str) -> None:
    """Raises ValueError unless the address is a Unix socket with an absolute path.

    Anybody could connect to another kind, and such a peer runs jobs (tcp) or has no file mode (an
    abstract name).
    """
    if not address.startswith("ipc:///"):
        raise ValueError(
            f"the address {address!r} of a worker is not a Unix socket: gateway and worker speak "
            "over ipc:// alone, on one machine"
        )


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
