"""Defines the gateway's settings as one typed table. `__main__` passes the environment in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gpu_worker.settings import Settings


class GatewaySettings(Settings):
    """The settings of the gateway; docs/operations.md explains each."""

    host: Annotated[str, Field(min_length=1)] = Field(
        default="127.0.0.1",
        alias="SDE_HOST",
        description="address to listen on; 0.0.0.0 listens on all, without a password",
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=9090, alias="SDE_PORT", description="TCP port"
    )
    queue_size: Annotated[int, Field(ge=0, le=10000)] = Field(
        default=0, alias="SDE_QUEUE_SIZE", description="jobs that may wait; 0 accepts one at a time"
    )
    min_free_mib: Annotated[int, Field(ge=0)] = Field(
        default=64,
        alias="SDE_MIN_FREE_MIB",
        description="no job is accepted when the disk has less free space",
    )
    max_body_mib: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64,
        alias="SDE_MAX_BODY_MIB",
        description="the largest request body, with its base64 images",
    )
    max_input_mpix: Annotated[float, Field(gt=0, le=64)] = Field(
        default=16.0,
        alias="SDE_MAX_INPUT_MPIX",
        description="the largest image in a request, in millions of pixels",
    )
    keep_days: Annotated[float, Field(ge=0, le=36500, allow_inf_nan=False)] = Field(
        default=0, alias="SDE_KEEP_DAYS", description="older results are deleted; 0 keeps all"
    )
    keep_results: Annotated[int, Field(ge=0)] = Field(
        default=0,
        alias="SDE_KEEP_RESULTS",
        description="how many newest results are kept; 0: all",
    )
    keep_mib: Annotated[int, Field(ge=0)] = Field(
        default=0,
        alias="SDE_KEEP_MIB",
        description="how many MiB of newest results are kept; 0: all",
    )

    @property
    def url(self) -> str:
        """Return its URL; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"
