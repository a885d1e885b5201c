"""Checks Python, the installed packages and their versions, the memory and the limits.

It needs the standard library alone, because a missing package is a thing that it reports.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from importlib import metadata

from gateway import DISTRIBUTION
from gateway.doctor.finding import Finding, ok, problem, warning
from gpu_worker import host_memory

CLIENT = "sde-client"

OLDEST_PYTHON = (3, 11)

MIN_RAM_GIB, MIN_FILES = 4, 1024

GATEWAY_PACKAGES = (
    *("falcon", "orjson", "pillow", "prometheus-client", "psutil", "pydantic", "pyzmq"),
)
"""Those without which the further checks cannot run."""

_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:>=\s*([\w.]+))?.*extra == [\"'](gateway|worker)[\"']")


def check() -> Iterator[Finding]:
    """Yield findings on this machine and its Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield problem("python", f"{version} is too old: install 3.11 or newer")
    else:
        yield ok("python", f"{version}, {sys.executable}")
    yield from _versions()
    yield from _packages()
    yield from _memory()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files < MIN_FILES:
        yield warning("open files", f"the limit is {files}: raise it to {MIN_FILES} (ulimit -n)")


def lacks_packages() -> bool:
    """Return whether a package is missing that the further checks import."""
    return any(_installed(name) is None for name in GATEWAY_PACKAGES)


def _versions() -> Iterator[Finding]:
    server, client = _installed(DISTRIBUTION), _installed(CLIENT)
    if server is None:
        yield warning("versions", "the server runs from its source and is not installed (pip)")
    elif client is None:
        yield ok("versions", f"server {server}, and no client")
    elif server != client:
        text = f"server {server} and client {client} differ: install both from one release"
        yield warning("versions", text)
    else:
        yield ok("versions", f"server and client {server}")


def _packages() -> Iterator[Finding]:
    """Compare the installed packages with what the server requires."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        requirements = [f"{name}; extra == 'gateway'" for name in GATEWAY_PACKAGES]
    matches = filter(None, map(_REQUIREMENT.match, requirements))
    packages = {match[1]: (match[2], match[3]) for match in matches}  # some are in both extras
    for name, (oldest, extra) in packages.items():
        version = _installed(name)
        if version is None:
            yield problem("packages", f"{name} is missing: pip install '{DISTRIBUTION}[{extra}]'")
        elif oldest and _numbers(version) < _numbers(oldest):
            text = f"{name} {version} is older than {oldest}: pip install '{name}>={oldest}'"
            yield problem("packages", text)
    if not lacks_packages():
        yield ok("packages", f"{len(packages)} requirements were checked")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version.partition("+")[0]))


def _memory() -> Iterator[Finding]:
    total_gib = host_memory.total_bytes() / 2**30
    free_gib = host_memory.available_bytes() / 2**30
    text = f"{total_gib:.1f} GiB of RAM, {free_gib:.1f} GiB of it available"
    text += f", {os.cpu_count()} CPU cores"
    if total_gib < MIN_RAM_GIB:
        yield warning("memory", f"{text}: models of real size need more than {MIN_RAM_GIB} GiB")
    else:
        yield ok("memory", text)
