"""Row 35: a request has limits, and all its images, steps and passes have one together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from gpu_worker.contract.limits import RequestLimits
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported
from tests.support.input_images import picture, text
from tests.support.service import Service, running

LARGE, MIDDLE = {"width": 2048, "height": 2048}, {"width": 1024, "height": 1024}
DIGEST = "sha256:" + "0" * 64

REASONABLE: list[dict[str, Any]] = [
    {},
    {"num_inference_steps": 500},
    {**MIDDLE, "num_images_per_prompt": 16, "num_inference_steps": 100},
    {**MIDDLE, "num_images_per_prompt": 4, "num_inference_steps": 50, "hires": {"scale": 2.0}},
    {**MIDDLE, "num_images_per_prompt": 16, "num_inference_steps": 50, "hires": {"scale": 2.0}},
    {**MIDDLE, "num_images_per_prompt": 2, "num_inference_steps": 50, "hires": {"scale": 4.0}},
    {**LARGE, "num_images_per_prompt": 16, "num_inference_steps": 50},
    {**LARGE, "num_images_per_prompt": 2, "num_inference_steps": 500},
    {**LARGE, "num_inference_steps": 50, "hires": {"scale": 2.0}},
]

EXCESSIVE: list[tuple[dict[str, Any], str]] = [
    ({**LARGE, "num_images_per_prompt": 16, "num_inference_steps": 500}, "num_images_per_prompt"),
    ({**LARGE, "num_images_per_prompt": 3, "num_inference_steps": 500}, "num_inference_steps"),
    ({"num_images_per_prompt": 16, "num_inference_steps": 500}, "num_images_per_prompt"),
    ({**LARGE, "num_images_per_prompt": 16, "num_inference_steps": 100}, "num_images_per_prompt"),
    (
        {"num_inference_steps": 500, "hires": {"scale": 4.0, "strength": 1.0}},
        "hires.scale",
    ),
    (
        {**MIDDLE, "num_inference_steps": 1, "num_images_per_prompt": 2}
        | {"hires": {"scale": 4.0, "strength": 1.0, "num_inference_steps": 500}},
        "hires.scale",
    ),
]


@pytest.mark.parametrize("fields", REASONABLE, ids=str)
def test_row_35_reasonable_requests_are_within_the_defaults(fields: dict[str, Any]) -> None:
    RequestLimits().check(GenerationRequest(prompt="a", **fields), None)


@pytest.mark.parametrize(("fields", "field"), EXCESSIVE, ids=str)
def test_row_35_one_budget_for_pixels_steps_and_images(
    service: Service, fields: dict[str, Any], field: str
) -> None:
    reply = service.post({"prompt": "a", **fields})
    assert reply.status_code == 422, reply.text
    (error,) = reply.json()["errors"]
    assert error["field"] == field
    value: Any = fields
    for name in field.split("."):
        value = value[name]
    assert error["value"] == str(value)
    assert "the limit is 5000 (SDE_MAX_MPIX_STEPS)" in error["message"]


def test_row_35_the_size_of_an_input_image_counts() -> None:
    request = GenerationRequest(prompt="a", image=DIGEST, num_inference_steps=100)
    limits = RequestLimits(mpix_steps=10)
    limits.check(request, (256, 256))
    with pytest.raises(Unsupported, match="the limit is 10 "):
        limits.check(request, (512, 512))
    few = GenerationRequest(prompt="a", image=DIGEST, num_inference_steps=100, strength=0.1)
    limits.check(few, (512, 512))  # a tenth of the steps is made


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "SDE_MAX_PROMPT_CHARS": "100",
        "SDE_MAX_STEPS": "30",
        "SDE_MAX_IMAGES": "2",
        "SDE_MAX_MPIX": "0.3",
        "SDE_MAX_MPIX_STEPS": "10",
        "SDE_MAX_INPUT_MPIX": "0.01",
    }
    with running(tmp_path_factory.mktemp("x"), "gateway", "gpu_worker", **settings) as service:
        yield service


SMALL = {"width": 256, "height": 256}


@pytest.mark.parametrize(
    ("fields", "field", "value", "limit"),
    [
        ({"prompt": "x" * 101}, "prompt", "'xxxx", "the limit is 100 (SDE_MAX_PROMPT_CHARS)"),
        ({"negative_prompt": "é" * 101}, "negative_prompt", "'é", "(SDE_MAX_PROMPT_CHARS)"),
        ({"num_inference_steps": 31}, "num_inference_steps", "31", "at most 30 (SDE_MAX_STEPS)"),
        (
            {"hires": {"scale": 2.0, "num_inference_steps": 31}},
            *("hires.num_inference_steps", "31", "at most 30 (SDE_MAX_STEPS)"),
        ),
        ({"num_images_per_prompt": 3}, "num_images_per_prompt", "3", "at most 2 (SDE_MAX_IMAGES)"),
        ({"width": 1024, "height": 512}, "width", "1024", "0.3 million pixels (SDE_MAX_MPIX)"),
        (
            {"image": text(picture(size=(99, 99))), "width": 1024, "height": None},
            *("width", "1024", "0.3 million pixels (SDE_MAX_MPIX)"),
        ),
        ({"hires": {"scale": 3.0}}, "hires.scale", "3.0", "0.3 million pixels (SDE_MAX_MPIX)"),
        (
            {"width": 512, "height": 512, "num_inference_steps": 30, "num_images_per_prompt": 2},
            *("num_images_per_prompt", "2", "the limit is 10 (SDE_MAX_MPIX_STEPS)"),
        ),
        ({"image": text(picture(size=(128, 128)))}, "image", "'", "the limit of 10000 pixels"),
        (
            {"image": text(picture(size=(99, 99))), "upscale": {"scale": 4.0}, "width": None}
            | {"num_images_per_prompt": 3},
            *("num_images_per_prompt", "3", "at most 2 (SDE_MAX_IMAGES)"),
        ),
    ],
    ids=range(11),
)
def test_row_35_each_limit_is_a_setting(
    strict: Service, fields: dict[str, Any], field: str, value: str, limit: str
) -> None:
    reply = strict.post({"prompt": "a", "num_inference_steps": 5, **SMALL, **fields})
    assert reply.status_code == 422, reply.text
    (error,) = reply.json()["errors"]
    assert error["field"] == field and limit in error["message"], error
    assert error["value"].startswith(value)


def test_row_35_an_upscaling_has_the_same_limits(strict: Service) -> None:
    strict.wait_available()
    uuid = strict.submit(num_inference_steps=5, **SMALL)
    strict.result(uuid)
    strict.wait_available()
    body = {"generation_uuid": uuid, "scale": 4.0}
    reply = requests.post(f"{strict.url}/image/upscale", json=body, timeout=30)
    assert reply.status_code == 422, reply.text
    assert "1024 x 1024; the limit is 0.3 million pixels" in reply.json()["detail"]
