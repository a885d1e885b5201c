"""The API of AUTOMATIC1111 through webuiapi, as its users call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
import webuiapi
from PIL import Image, ImageDraw

from tests.support.service import Service


def client(service: Service, **options: Any) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(baseurl=f"{service.url}/sdapi/v1", steps=4, **options)


def post(service: Service, name: str, body: object) -> requests.Response:
    return requests.post(f"{service.url}/sdapi/v1/{name}", json=body, timeout=60)


def sent(size: tuple[int, int] = (96, 64)) -> tuple[Image.Image, Image.Image]:
    """An image of one colour, and a mask with a white square."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle((10, 10, 30, 30), fill=255)
    return Image.new("RGB", size, (200, 30, 30)), mask


def test_a_prompt_becomes_images_of_the_seeds_that_follow(service: Service) -> None:
    answer = client(service).txt2img(
        prompt="a red circle", width=71, height=64, seed=5, batch_size=2, n_iter=2
    )
    assert [image.size for image in answer.images] == [(64, 64)] * 4
    assert answer.info["all_seeds"] == [5, 6, 7, 8] and answer.info["seed"] == 5
    assert answer.info["sde_notes"] == [] and answer.parameters["override_settings"] == {}
    assert answer.info["sampler_name"] == "Euler a"
    assert answer.info["infotexts"][1].startswith("a red circle\nSteps: 4, Sampler: Euler a")
    assert answer.images[1].info["parameters"] == answer.info["infotexts"][1]
    again = client(service).txt2img(prompt="a red circle", width=64, height=64, seed=6)
    assert again.image.tobytes() == answer.images[1].tobytes()
    record = service.result(again.info["sde_uuid"])
    assert record["prompt"] == "a red circle" and record["seed"] == 6


def test_a_masked_part_is_painted_and_pasted_back(service: Service) -> None:
    image, mask = sent()
    answer = client(service).img2img(
        images=[image], mask_image=mask, prompt="a circle", width=64, height=64
    )
    assert answer.image.size == image.size
    for place in ((0, 0), (95, 63), (40, 20), (20, 45)):
        assert answer.image.getpixel(place) == (200, 30, 30)
    assert answer.image.getpixel((20, 20)) != (200, 30, 30)
    record = service.result(answer.info["sde_uuid"])
    assert record["strength"] == 0.75 and record["data"]


def test_what_is_not_here_is_a_note_and_no_error(service: Service) -> None:
    body = {
        "prompt": "a <lora:none:0.5> (red) BREAK circle",
        "steps": "4",
        "width": 64.0,
        "height": None,
        "restore_faces": True,
        "scheduler": "gits",
        "styles": ["x"],
        "override_settings": {"sd_model_checkpoint": "none.safetensors [0123456789]"},
        "unknown": {"a": 1},
        "auth": "a:secret",
        "url": "http://x",
    }
    reply = post(service, "txt2img", body)
    assert reply.status_code == 200, reply.text
    notes = " ".join(json.loads(reply.json()["info"])["sde_notes"])
    for word in ("LoRA", "BREAK", "faces", "GITS", "styles", "sd_model_checkpoint"):
        assert word in notes
    assert "secret" not in reply.text and "http://x" not in reply.text
    assert not {"auth", "url", "unknown"} & set(reply.json()["parameters"])
    stored = Path(service.data_dir / "journal" / "jobs.jsonl").read_text() + str(service.lines())
    assert "secret" not in stored


@pytest.mark.parametrize(
    ("name", "body", "status", "words"),
    [
        ("txt2img", {"prompt": "x", "sampler_name": "none such"}, 400, "Sampler not found"),
        ("txt2img", {"prompt": "x", "steps": "many"}, 422, "steps"),
        ("txt2img", {"prompt": "x", "steps": 9999, "width": 8}, 422, "steps"),
        ("img2img", {"prompt": "x"}, 404, "Init image not found"),
        ("img2img", {"prompt": "x", "init_images": ["no image"]}, 422, "init_images"),
        ("img2img", {"prompt": "x", "init_images": [""]}, 404, "Init image not found"),
        ("nowhere", {}, 404, "nowhere"),
    ],
)
def test_an_error_has_their_form(
    service: Service, name: str, body: object, status: int, words: str
) -> None:
    reply = post(service, name, body)
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error", "detail", "body", "errors"]
    assert reply.json()["error"] == "HTTPException" and words in reply.json()["detail"]
    assert reply.headers["Content-Type"] == "application/json"


def test_the_texts_of_long_prompts_are_whole(service: Service) -> None:
    prompt, negative = "\U0001f431" * 4000, "\U0001f436" * 4000
    answer = client(service).txt2img(prompt=prompt, negative_prompt=negative, width=64, height=64)
    assert answer.info["infotexts"][0].startswith(f"{prompt}\nNegative prompt: {negative}\nSteps")


def test_what_exists_is_405_for_get_and_200_for_options(service: Service) -> None:
    for name in ("txt2img", "img2img"):
        url = f"{service.url}/sdapi/v1/{name}"
        assert requests.get(url, timeout=30).status_code == 405
        assert requests.options(url, timeout=30).ok
