"""The Python client of the service. HTTP is its contract: it imports nothing of the server."""

from client.api import Client
from client.errors import (
    BadAddress,
    Conflict,
    Deleted,
    GatewayUnreachable,
    GenerationCanceled,
    GenerationFailed,
    InvalidRequest,
    NoPicture,
    NotAvailable,
    NotSaved,
    SdeError,
    StorageUnavailable,
    UnexpectedReply,
    UnknownJob,
    WaitTimeout,
    WorkerUnavailable,
)
from client.records import Job, Result, Storage, Worker

__all__ = [
    "BadAddress",
    "Client",
    "Conflict",
    "Deleted",
    "GatewayUnreachable",
    "GenerationCanceled",
    "GenerationFailed",
    "InvalidRequest",
    "Job",
    "NoPicture",
    "NotAvailable",
    "NotSaved",
    "Result",
    "SdeError",
    "Storage",
    "StorageUnavailable",
    "UnexpectedReply",
    "UnknownJob",
    "WaitTimeout",
    "Worker",
    "WorkerUnavailable",
]
