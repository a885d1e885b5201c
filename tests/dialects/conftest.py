"""Closes what the clients of other programs leave open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.openai_api import close_clients


@pytest.fixture(autouse=True)
def _no_client_stays_open() -> Iterator[None]:
    yield
    close_clients()
