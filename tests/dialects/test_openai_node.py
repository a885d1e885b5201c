"""The OpenAI images API with its JavaScript clients: openai, and the AI SDK with two providers."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.installs import npm_packages
from tests.support.openai_api import DEMO, half_transparent, image_of, noise, png
from tests.support.service import ROOT, Service, running

TOOLS = ROOT / "tools" / "clients"
MISSING = "The tests of JavaScript clients need Node.js and npm, which fetch them"
KEY = "a-key-of-the-javascript-tests"
IMAGE = noise()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    npm_packages(TOOLS, "ai", MISSING)
    settings = {**DEMO, "SDE_KEYS": f"own:{KEY}", "SDE_KEY": KEY}
    with running(tmp_path_factory.mktemp("node"), "gateway", "gpu_worker", **settings) as service:
        yield service


def run(service: Service, case: str) -> Any:
    """The JSON that a case of tools/clients/run.mjs prints."""
    files = {"image": png(IMAGE), "mask": png(half_transparent(IMAGE))}
    done = subprocess.run(
        ["node", TOOLS / "run.mjs", case, f"{service.url}/v1", KEY],
        input=json.dumps({name: base64.b64encode(each).decode() for name, each in files.items()}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pixels(image: Image.Image) -> Any:
    return np.asarray(image.convert("RGB"))


def images(service: Service, case: str) -> list[Image.Image]:
    return [image_of(text) for text in run(service, case)]


@pytest.mark.parametrize(
    ("case", "count"),
    [
        ("openai generate", 2),
        ("openai url", 1),
        ("openai variation", 1),
        ("ai openai generate", 3),
        ("ai compatible generate", 2),
        ("ai compatible edit", 1),
    ],
)
def test_images_come_back(service: Service, case: str, count: int) -> None:
    assert [image.size for image in images(service, case)] == [(64, 64)] * count


def test_a_seed_gives_the_same_image_through_either_form(service: Service) -> None:
    first, second = images(service, "openai generate")
    (fetched,) = images(service, "openai url")
    assert pixels(fetched).tobytes() == pixels(first).tobytes() != pixels(second).tobytes()


@pytest.mark.parametrize("case", ["openai edit", "ai openai edit"])
def test_what_a_mask_keeps_is_the_sent_image(service: Service, case: str) -> None:
    (image,) = images(service, case)
    kept = pixels(half_transparent(IMAGE)), np.asarray(half_transparent(IMAGE))[..., 3] == 255
    assert kept[1].any() and not kept[1].all()
    assert (pixels(image)[kept[1]] == pixels(IMAGE)[kept[1]]).all()
    assert (pixels(image) != pixels(IMAGE)).any()


def test_models_are_listed(service: Service) -> None:
    assert run(service, "openai models") == {"ids": ["demo"], "one": "demo"}


def test_a_stream_shows_the_denoising(service: Service) -> None:
    events = run(service, "openai stream")
    assert [event["type"] for event in events] == [
        *["image_generation.partial_image"] * 2,
        "image_generation.completed",
    ]
    assert {image_of(event["image"]).size for event in events} == {(64, 64)}


@pytest.mark.parametrize(
    ("case", "status", "param", "code", "words"),
    [
        ("openai refusal", 400, "size", "invalid_value", "multiple of 8"),
        ("openai unknown model", 404, "model", "model_not_found", "org/x"),
        ("openai wrong key", 401, None, "invalid_api_key", "key"),
        ("ai refusal", 400, None, None, "multiple of 8"),
    ],
)
def test_a_refusal_arrives_in_the_clients_own_error(
    service: Service, case: str, status: int, param: str | None, code: str | None, words: str
) -> None:
    error = run(service, case)
    assert error["status"] == status and words in error["message"]
    assert (error.get("param"), error.get("code")) == (param, code)
