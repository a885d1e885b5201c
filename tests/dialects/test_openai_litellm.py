"""The OpenAI images API with litellm, which hands requests of one form to many services."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.openai_api import DEMO, KEY, image_of, noise, png
from tests.support.service import ROOT, Service, running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {**DEMO, "SDE_KEYS": f"own:{KEY}"}
    folder = tmp_path_factory.mktemp("litellm")
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        yield service


def run(service: Service, case: str) -> Any:
    module = "tests.support.litellm_calls"
    done = subprocess.run(
        [sys.executable, "-m", module, case, f"{service.url}/v1", KEY],
        input=png(noise()),
        capture_output=True,
        cwd=ROOT,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["generate", "generate async", "edit", "variation"])
def test_images_come_back(service: Service, case: str) -> None:
    images = [image_of(text) for text in run(service, case)]
    assert [image.size for image in images] == [(64, 64)] * 2


@pytest.mark.parametrize(
    ("case", "kind", "status", "words"),
    [
        ("refusal", "BadRequestError", 400, "multiple of 8"),
        ("wrong key", "AuthenticationError", 401, "key"),
    ],
)
def test_a_refusal_is_an_error_of_litellm(
    service: Service, case: str, kind: str, status: int, words: str
) -> None:
    error = run(service, case)
    assert (error["kind"], error["status"]) == (kind, status)
    assert words in error["words"]
