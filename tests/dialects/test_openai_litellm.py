"""The OpenAI images API with litellm, which hands requests of one form to many services."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.openai_api import DEMO, KEY, image_of, noise, png
from tests.support.service import ROOT, running


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each case of tests/support/litellm_calls.py."""
    settings = {**DEMO, "SDE_KEYS": f"own:{KEY}", "SDE_KEY": KEY}
    folder = tmp_path_factory.mktemp("litellm")
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.litellm_calls", f"{service.url}/v1", KEY],
            input=png(noise()),
            capture_output=True,
            cwd=ROOT,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize(
    ("case", "count"), [("generate", 2), ("generate async", 2), ("edit", 2), ("variation", 1)]
)
def test_images_come_back(outcomes: dict[str, Any], case: str, count: int) -> None:
    assert isinstance(outcomes[case], list), outcomes[case]
    assert [image_of(text).size for text in outcomes[case]] == [(64, 64)] * count


@pytest.mark.parametrize(
    ("case", "kind", "status", "words"),
    [
        ("refusal", "BadRequestError", 400, "multiple of 8"),
        ("wrong key", "AuthenticationError", 401, "key"),
    ],
)
def test_a_refusal_is_an_error_of_litellm(
    outcomes: dict[str, Any], case: str, kind: str, status: int, words: str
) -> None:
    error = outcomes[case]
    assert (error["kind"], error["status"]) == (kind, status)
    assert words in error["words"]
