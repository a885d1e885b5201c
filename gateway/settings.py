"""Defines the gateway's settings as one typed table. `__main__` passes the environment in."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from gateway.access import hosts, keyring, origins, proxies
from gateway.errors import HostMalformed
from gateway.http.server.limits import HttpLimits
from gpu_worker.contract.field_types import MAX_IMAGES, MAX_PROMPT_CHARS, MAX_STEPS
from gpu_worker.contract.limits import RequestLimits
from gpu_worker.contract.output_size import MAX_LARGE_PIXELS
from gpu_worker.contract.validation_errors import display_value
from gpu_worker.settings import Settings, form


def _texts(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part for part in map(str.strip, value.split(",")) if part)


def _each(parse: Callable[[str], Any], what: str) -> AfterValidator:
    """Return a validator that refuses the first text that `parse` refuses."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            try:
                parse(text)
            except (ValueError, HostMalformed):
                raise ValueError(f"{display_value(text)} is not {what}") from None
        return texts

    return AfterValidator(check)


def _own_addresses(routes: Path = Path("/proc/net/route")) -> list[str]:
    """Return the addresses of the card that has the default route, else those of all cards."""
    cards = {
        card: [ipaddress.ip_address(each.address) for each in addresses if each.family in _INTERNET]
        for card, addresses in psutil.net_if_addrs().items()
    }
    lines = map(str.split, routes.read_text().splitlines()) if routes.exists() else ()
    routed = [fields[0] for fields in lines if fields[1:2] == ["00000000"]]  # proc(5)
    chosen = [cards[name] for name in routed if cards.get(name)][:1] or list(cards.values())
    return [
        str(address)
        for card in chosen
        for address in sorted(card, key=lambda address: address.version)
        if not (address.is_loopback or address.is_link_local)
    ]


def _check_keys(value: SecretStr) -> SecretStr:
    keyring.parse_environment(value.get_secret_value())
    return value


_INTERNET = (socket.AF_INET, socket.AF_INET6)

Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class GatewaySettings(Settings):
    """The settings of the gateway; docs/operations.md explains each."""

    host: Annotated[str, Field(min_length=1)] = Field(
        default="127.0.0.1",
        alias="SDE_HOST",
        description="address to listen on; 0.0.0.0 listens on all; others than loopback need a key",
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=9090, alias="SDE_PORT", description="TCP port"
    )
    queue_size: Annotated[int, Field(ge=0, le=10000)] = Field(
        default=64,
        alias="SDE_QUEUE_SIZE",
        description="jobs that may wait; unset: 64, for clients that ask for it; 0: none",
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
    max_uploads_mib: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=256,
        alias="SDE_MAX_UPLOADS_MIB",
        description="the memory for the bodies of all requests; at least one body always fits",
    )
    max_header_kib: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, alias="SDE_MAX_HEADER_KIB", description="the largest header of a request"
    )
    request_timeout_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        default=60.0,
        alias="SDE_REQUEST_TIMEOUT_S",
        description="the seconds in which a whole request must arrive; its header needs 10 at most",
    )
    max_connections: Annotated[int, Field(ge=8, le=10000)] = Field(
        default=500, alias="SDE_MAX_CONNECTIONS", description="open connections of all clients"
    )
    max_waiting_per_address: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=100,
        alias="SDE_MAX_WAITING_PER_ADDRESS",
        description="connections of one address without a complete request",
    )
    max_prompt_chars: Annotated[int, Field(ge=1, le=MAX_PROMPT_CHARS)] = Field(
        default=MAX_PROMPT_CHARS,
        alias="SDE_MAX_PROMPT_CHARS",
        description="the longest prompt and negative prompt, in characters",
    )
    max_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = Field(
        default=MAX_STEPS, alias="SDE_MAX_STEPS", description="the most steps of one pass"
    )
    max_images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = Field(
        default=MAX_IMAGES, alias="SDE_MAX_IMAGES", description="the most images of one request"
    )
    max_mpix: Annotated[float, Field(gt=0, le=MAX_LARGE_PIXELS / 1e6)] = Field(
        default=MAX_LARGE_PIXELS / 1e6,
        alias="SDE_MAX_MPIX",
        description="the largest image that is made, in millions of pixels",
    )
    max_mpix_steps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=5000.0,
        alias="SDE_MAX_MPIX_STEPS",
        description="millions of pixels x steps x images of one request, over all its passes",
    )
    max_input_mpix: Annotated[float, Field(gt=0, le=64)] = Field(
        default=16.0,
        alias="SDE_MAX_INPUT_MPIX",
        description="the largest image in a request, in millions of pixels",
    )
    log_prompts: Literal["0", "1"] = Field(
        default="0",
        alias="SDE_LOG_PROMPTS",
        description="1: the logs have the prompts of jobs and the values of refused fields",
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

    trash_days: Annotated[float, Field(ge=0, le=36500, allow_inf_nan=False)] = Field(
        default=7,
        alias="SDE_TRASH_DAYS",
        description="how long deleted images can be restored; 0 deletes them at once",
    )
    thumbnails_mib: Annotated[int, Field(ge=0)] = Field(
        default=256,
        alias="SDE_THUMBNAILS_MIB",
        description="the size of the cache of thumbnails; 0 stores none",
    )
    queue_per_key: Annotated[int, Field(ge=0, le=10000)] = Field(
        default=0,
        alias="SDE_QUEUE_PER_KEY",
        description="jobs of one key that may wait; 0: as many as SDE_QUEUE_SIZE",
    )
    on_disconnect: Literal["finish", "cancel"] = Field(
        default="finish",
        alias="SDE_ON_DISCONNECT",
        description="what becomes of a job whose client waited for it and has left",
    )
    openai_aliases: Annotated[bool, Field()] = Field(
        default=True,
        alias="SDE_OPENAI_ALIASES",
        description="1: on /v1 dall-e-2, dall-e-3 and gpt-image-* stand for the default model",
    )
    keys: Annotated[SecretStr, AfterValidator(_check_keys)] = Field(
        default=SecretStr(""),
        alias="SDE_KEYS",
        description="keys beside those of `sde key`, as NAME:SECRET with commas between",
    )
    allow_anonymous: Annotated[bool, Field()] = Field(
        default=False,
        alias="SDE_ALLOW_ANONYMOUS",
        description="1 admits everybody without a key",
    )
    allowed_hosts: Annotated[Texts, _each(hosts.split_host, "a name like gpu-box")] = Field(
        default=(),
        alias="SDE_ALLOWED_HOSTS",
        description="further names of this service in the Host header, with commas between",
    )
    allowed_origins: Annotated[
        Texts, _each(origins.parse_origin, "an origin like https://example.org")
    ] = Field(
        default=(),
        alias="SDE_ALLOWED_ORIGINS",
        description="origins whose web pages may send requests (CORS), with commas between",
    )
    trusted_proxies: Annotated[
        Texts, _each(lambda text: proxies.parse_networks([text]), "an address or a CIDR block")
    ] = Field(
        default=(),
        alias="SDE_TRUSTED_PROXIES",
        description="addresses of reverse proxies whose X-Forwarded headers count",
    )
    path_prefix: Annotated[
        str, form(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", "a path of plain words, such as /sd")
    ] = Field(
        default="",
        alias="SDE_PATH_PREFIX",
        description="path under which a reverse proxy serves this service, such as /sd",
    )

    @property
    def every_job_waits(self) -> bool:
        """Return whether jobs wait although their clients do not ask for it.

        An operator who sets SDE_QUEUE_SIZE means every job.
        """
        return "queue_size" in self.model_fields_set

    @property
    def keys_path(self) -> Path:
        """Return the file of keys, which holds digests alone."""
        return self.data_dir / "keys.json"

    @property
    def sessions_path(self) -> Path:
        """Return the file of browsers' sessions, which holds digests alone."""
        return self.data_dir / "sessions.json"

    @property
    def url_secret_path(self) -> Path:
        """Return the file of the secret that signs the URLs of images."""
        return self.data_dir / "url_secret"

    @property
    def automatic1111_options_path(self) -> Path:
        """Return the file of the options that clients of AUTOMATIC1111's API set."""
        return self.data_dir / "automatic1111.json"

    @property
    def is_local(self) -> bool:
        """Return whether the service listens on loopback alone."""
        return hosts.is_loopback(self.host)

    @property
    def request_limits(self) -> RequestLimits:
        """Return the limits of each request."""
        return RequestLimits(
            prompt_chars=self.max_prompt_chars,
            steps=self.max_steps,
            images=self.max_images,
            mpix=self.max_mpix,
            mpix_steps=self.max_mpix_steps,
        )

    @property
    def http_limits(self) -> HttpLimits:
        """Return the limits of the HTTP server."""
        return HttpLimits(
            max_body_bytes=self.max_body_mib << 20,
            max_header_bytes=self.max_header_kib << 10,
            max_connections=self.max_connections,
            max_waiting_per_address=self.max_waiting_per_address,
            request_timeout_s=self.request_timeout_s,
            max_uploads_bytes=max(self.max_uploads_mib, self.max_body_mib + 1) << 20,
        )

    @property
    def url(self) -> str:
        """Return its URL; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
        return self._url(self.host)

    @property
    def public_urls(self) -> list[str]:
        """Return the URLs for others, the best first.

        A service on all addresses has the machine's name, which others may be unable to resolve,
        and the machine's addresses.
        """
        name = hosts.public_name(self.host)
        names = [name] if name == self.host else [name, *_own_addresses()]
        return [self._url(each) for each in dict.fromkeys(names)]

    def _url(self, name: str) -> str:
        host = f"[{name}]" if ":" in name else name
        return f"http://{host}:{self.port}{self.path_prefix}"
