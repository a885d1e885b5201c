"""Fixtures: one service a module for tests that leave it as it was, short folders for sockets."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_worker import quantization_libraries
from tests.support import network
from tests.support.service import Service, running

# Torch's threads spin while they wait; beside other processes on few cores that costs ten times
# the work. The processes that tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

network.guard_all()

# A shell's background jobs ignore SIGINT, and what they start inherits that: `make test &`.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As the worker does it: what quantises is imported by processes that are told so, not by this one.
quantization_libraries.hide_unused("none")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ anew")


@pytest.fixture(autouse=True)
def _no_connection_leaves_this_machine() -> Iterator[None]:
    """Row 47: neither a test nor a process that it starts speaks to another machine."""
    yield
    assert network.refused_connections() == []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="sde-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Gateway and worker with the instant pipeline, for a whole module."""
    path = Path(tempfile.mkdtemp(prefix="sde-"))
    with running(path, "gateway", "gpu_worker") as started:
        yield started
    shutil.rmtree(path, ignore_errors=True)
