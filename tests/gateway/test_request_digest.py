"""Row 19 (fault 6): the same key and body are the same job, whichever version accepted it first."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from pydantic import create_model

from gpu_worker.contract import request_digest
from gpu_worker.contract.request import GenerationRequest, Lora, Strict

IMAGE = f"sha256:{'ab' * 32}"

BODIES: list[dict[str, Any]] = [
    {"prompt": "a"},
    {"prompt": "ein Hündchen 🐶", "seed": 7, "guidance_scale": 7, "width": 64},
    {"prompt": "a", "loras": [{"name": "ink"}, {"name": "b", "weight": 0.25}]},
    {"prompt": "a", "controlnets": [{"name": "canny", "image": IMAGE}]},
    {"prompt": "a", "image": IMAGE, "hires": {"scale": 1.5}, "refiner": {"name": "r"}},
    {"prompt": "a", "image": IMAGE, "upscale": {"scale": 2}},
    {"prompt": "a", "scheduler_options": {"x": True, "y": 1.5, "z": "linear"}, "step_log": True},
]


LATER_FIELDS = {"true_cfg_scale"}


class Tint(Strict):
    strength: float = 0.5


def later_version() -> type[GenerationRequest]:
    """A version with new optional fields, and one more member of a LoRA."""
    later_lora = create_model("LaterLora", __base__=Lora, layers=(str | None, None))
    return create_model(
        "LaterRequest",
        __base__=GenerationRequest,
        first=(bool, False),
        tint=(Tint | None, None),
        words=(list[str], []),
        loras=(list[later_lora], []),
    )


def whole_digest(request: GenerationRequest) -> str:
    """The digest of protocols 3 and 4: of every field that they had."""
    text = request.model_dump_json(exclude=LATER_FIELDS)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize("body", BODIES)
def test_a_new_optional_field_changes_no_digest(body: dict[str, Any]) -> None:
    ours = GenerationRequest.model_validate(body)
    theirs = later_version().model_validate(body)
    assert request_digest.digest_of(theirs) == request_digest.digest_of(ours)


@pytest.mark.parametrize("body", BODIES)
def test_a_digest_of_every_field_stays_valid(body: dict[str, Any]) -> None:
    ours = GenerationRequest.model_validate(body)
    assert whole_digest(ours) in request_digest.valid_digests(ours)
    later = later_version().model_validate(body)
    assert whole_digest(ours) in request_digest.valid_digests(later)


@pytest.mark.parametrize(
    "change",
    [
        {"first": True},
        {"tint": {}},
        {"words": ["a"]},
        {"loras": [{"name": "ink", "layers": "all"}]},
    ],
)
def test_what_an_earlier_version_could_not_say_is_another_request(change: dict[str, Any]) -> None:
    base = {"prompt": "a", "loras": [{"name": "ink"}]}
    ours = GenerationRequest.model_validate(base)
    later = later_version().model_validate(base | change)
    earlier = {whole_digest(ours), request_digest.digest_of(ours)}
    assert not earlier & request_digest.valid_digests(later)


def test_other_requests_have_other_digests() -> None:
    digests = [request_digest.valid_digests(GenerationRequest.model_validate(b)) for b in BODIES]
    for number, each in enumerate(digests):
        for other in digests[number + 1 :]:
            assert not each & other


def test_a_default_that_is_sent_and_an_order_of_fields_do_not_count() -> None:
    one = GenerationRequest.model_validate({"prompt": "a", "seed": 1, "step_log": False})
    two = GenerationRequest.model_validate({"seed": 1, "width": None, "prompt": "a"})
    assert request_digest.digest_of(one) == request_digest.digest_of(two)
