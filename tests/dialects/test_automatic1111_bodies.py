"""What clients of AUTOMATIC1111's API send: their bodies byte for byte, and of every form.

Their keys, values and order are those that the programs were seen to send.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.dialects.automatic1111.translation import generation
from gateway.dialects.automatic1111.translation.request_models import (
    Img2Img,
    Txt2Img,
    echo,
    parse,
)
from gateway.dialects.automatic1111.translation.sampler_table import (
    SAMPLERS,
    SCHEDULE_TYPES,
    UnknownSampler,
)
from gateway.dialects.automatic1111.translation.target import Target
from gateway.errors import InvalidRequest
from gpu_worker.contract.request import GenerationRequest
from tests.support.service import ROOT, Service

OPEN_WEBUI = (
    b'{"prompt": "a red circle", "batch_size": 1, "width": 512, "height": 512, "steps": 50, '
    b'"negative_prompt": "blurry"}'
)
"""Open WebUI 0.12.4, engine Automatic1111."""

RECORDED = Path(__file__).with_name("recorded")
"""Bodies that reached the service from a program, whose page was used in a browser: SillyTavern
1.19.0, its sources Stable Diffusion Web UI (AUTOMATIC1111) and stable-diffusion.cpp."""

PASSWORD = "the-key-of-this-trial"
"""SillyTavern puts the user's password into the body."""

LIBRECHAT = (
    b'{"prompt":"a red circle","negative_prompt":"blurry","cfg_scale":4.5,"steps":22,'
    b'"width":1024,"height":1024}'
)
"""LibreChat's tool stable-diffusion."""


@pytest.mark.parametrize(
    ("body", "side", "steps"),
    [
        (OPEN_WEBUI, 512, 50),
        ((RECORDED / "sillytavern-1.19.0-auto.json").read_bytes(), 96, 4),
        ((RECORDED / "sillytavern-1.19.0-sdcpp.json").read_bytes(), 96, 4),
        (LIBRECHAT, 1024, 22),
    ],
    ids=["open-webui", "sillytavern", "sillytavern-sdcpp", "librechat"],
)
def test_a_recorded_body_is_answered(service: Service, body: bytes, side: int, steps: int) -> None:
    reply = requests.post(
        f"{service.url}/sdapi/v1/txt2img",
        data=body,
        headers={"Content-Type": "application/json", "Authorization": "Basic "},
        timeout=60,
    )
    assert reply.status_code == 200, reply.text[:500]
    assert reply.headers["Content-Type"] == "application/json"
    info = json.loads(reply.json()["info"])
    assert len(reply.json()["images"]) == 1 and not reply.json()["images"][0].startswith("data:")
    # The pipeline of this test has no names of models.
    named = json.loads(body).get("model")
    assert info["sde_notes"] == ([f"model: no model has the name {named!r}"] if named else [])
    record = service.result(info["sde_uuid"])
    assert (record["width"], record["height"]) == (side, side)
    assert record["num_inference_steps"] == steps
    assert record["negative_prompt"] == json.loads(body)["negative_prompt"]
    assert PASSWORD.encode() not in reply.content and PASSWORD not in json.dumps(service.lines())
    assert PASSWORD not in (service.data_dir / "journal/jobs.jsonl").read_text()


WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z")), max_size=20)
NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-5, 3000).map(str),
    st.floats(-5, 100, allow_nan=False).map(str),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)
USUAL: dict[str, Any] = {
    "prompt": st.sampled_from(["a (red) [blue] cat", "BREAK <lora:x:y>", "((", "a:1.2)"]),
    "steps": st.sampled_from([1, "2", 3.0, None]),
    "cfg_scale": st.sampled_from([7, "7.5", 0, None]),
    "width": st.sampled_from([64, "71", 64.0, None]),
    "height": st.sampled_from([64, "71", 64.0, None]),
    "sampler_name": st.sampled_from(["Euler a", "dpm++2m", "DPM++ 2M Karras", "", None]),
    "scheduler": st.sampled_from(["Karras", "normal", "none such", None]),
    "enable_hr": st.booleans(),
    "hr_scale": st.sampled_from([1, 2, "1.5"]),
    "batch_size": st.sampled_from([1, "1", None]),
    "denoising_strength": st.sampled_from([0, "0.5", 1, None]),
    "override_settings": st.sampled_from([None, {}, {"CLIP_stop_at_last_layers": "2", "x": [1]}]),
}


def bodies(model: type[Txt2Img | Img2Img]) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies of which any field may be null, or be what it should not be."""
    fields = dict.fromkeys(model.model_fields, ANYTHING)
    usual = st.fixed_dictionaries({}, optional=USUAL)
    strange = st.fixed_dictionaries({}, optional=fields)
    unknown = st.dictionaries(WORDS.filter(lambda name: name not in fields), ANYTHING, max_size=3)
    return st.one_of(
        st.tuples(unknown, usual), st.tuples(unknown, strange), st.tuples(strange, usual)
    ).map(lambda pair: pair[0] | pair[1])


@settings(max_examples=300, deadline=None)
@given(body=bodies(Txt2Img))
def test_each_body_is_translated_or_refused_in_words(body: dict[str, Any]) -> None:
    try:
        request = parse(Txt2Img, body)
        notes: list[str] = []
        native = generation.txt2img(request, Target(), notes)
    except (InvalidRequest, UnknownSampler):
        return
    assert all(isinstance(note, str) and len(note) < 200 for note in notes)
    assert set(echo(request)) - set(Txt2Img.model_fields) == set()
    try:
        GenerationRequest.model_validate(native)
    except ValidationError as error:
        assert {str(each["loc"][0]) for each in error.errors()} <= set(native)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x", "width": 64, "hr_resize_x": "9" * 400, "enable_hr": True},
        {"prompt": "x", "override_settings": {"CLIP_stop_at_last_layers": "\u00b2"}},
        {"prompt": "(" * 4000},
        {"prompt": "<lora:" + "9" * 3000 + ":" + "9" * 900 + ">"},
        {"prompt": "x", "steps": "\u00b2", "seed": "1e999"},
        {"prompt": "x", "batch_size": 2**62, "n_iter": 2**62},
        {"prompt": "x", "alwayson_scripts": {"ControlNet": {"args": [{"weight": "x"}]}}},
    ],
    ids=["side", "digit", "brackets", "lora", "numbers", "count", "unit"],
)
def test_an_extreme_body_is_answered_or_refused_in_words(
    service: Service, body: dict[str, Any]
) -> None:
    small = {"width": 64, "height": 64, "steps": 1}
    reply = requests.post(f"{service.url}/sdapi/v1/txt2img", json=small | body, timeout=60)
    assert reply.status_code in (200, 422), reply.text[:300]


@settings(max_examples=100, deadline=None)
@given(body=st.fixed_dictionaries({}, optional=USUAL), nulls=st.sets(st.sampled_from([*USUAL])))
def test_null_is_not_sent(body: dict[str, Any], nulls: set[str]) -> None:
    left = {name: value for name, value in body.items() if name not in nulls}
    with_nulls = left | dict.fromkeys(nulls)
    assert parse(Txt2Img, with_nulls) == parse(Txt2Img, left)
    assert parse(Img2Img, {**with_nulls, "x": 1}) == parse(Img2Img, left)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.fixed_dictionaries({}, optional=USUAL))
def test_a_usual_body_is_answered(service: Service, body: dict[str, Any]) -> None:
    reply = requests.post(f"{service.url}/sdapi/v1/txt2img", json=body, timeout=60)
    assert reply.status_code == 200, reply.text[:500]
    info = json.loads(reply.json()["info"])
    assert len(info["all_seeds"]) == len(reply.json()["images"]) == 1


def test_the_page_shows_the_table_of_samplers() -> None:
    page = (ROOT / "docs/clients.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    table: dict[str, list[str]] = {}
    for cells in rows:
        table.setdefault(cells[0], cells)
    for sampler in SAMPLERS:
        cells = table[sampler.label]
        assert all(f"`{alias}`" in cells[1] for alias in sampler.aliases), sampler.label
        assert (sampler.scheduler or "none") in cells[2] or cells[2].startswith("the same")
    for schedule in SCHEDULE_TYPES:
        assert schedule.label in page
