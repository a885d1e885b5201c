"""The Python client of the service. HTTP is its contract: it imports nothing of the server."""

from client.api import Client
from client.errors import (
    BadAddress,
    GatewayUnreachable,
    GenerationFailed,
    InvalidRequest,
    NotAvailable,
    NotSaved,
    SdeError,
    UnexpectedReply,
    UnknownJob,
    WaitTimeout,
    WorkerUnavailable,
)
from client.records import Job, Result, Worker

__all__ = [
    "BadAddress",
    "Client",
    "GatewayUnreachable",
    "GenerationFailed",
    "InvalidRequest",
    "Job",
    "NotAvailable",
    "NotSaved",
    "Result",
    "SdeError",
    "UnexpectedReply",
    "UnknownJob",
    "WaitTimeout",
    "Worker",
    "WorkerUnavailable",
]
