"""The shape of each answer of AUTOMATIC1111's API, compared with a file in tests/golden/.

`pytest tests/dialects/test_automatic1111_shapes.py --update-golden` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.dialects.automatic1111.lists import LISTS
from tests.support.input_images import GOOD
from tests.support.service import ROOT, Service, running

GOLDEN = ROOT / "tests/golden/automatic1111/shapes.json"

SMALL = {"prompt": "a cat", "steps": 2, "cfg_scale": 7, "width": 64, "height": 64, "seed": 1}
POSTS: dict[str, Any] = {
    "/sdapi/v1/txt2img": SMALL,
    "/sdapi/v1/img2img": {**SMALL, "init_images": [GOOD], "include_init_images": True},
    "/sdapi/v1/extra-single-image": {"image": GOOD, "upscaler_1": "Lanczos"},
    "/sdapi/v1/extra-batch-images": {
        "imageList": [{"data": GOOD, "name": "a"}],
        "upscaler_1": "Lanczos",
    },
    "/sdapi/v1/png-info": {"image": GOOD},
    "/sdapi/v1/options": {},
    "/sdapi/v1/interrupt": {},
    "/sdapi/v1/skip": {},
    "/sdapi/v1/refresh-checkpoints": {},
    "/sdapi/v1/unload-checkpoint": {},
    "/sdapi/v1/reload-checkpoint": {},
    "/internal/progress": {"id_task": "task(1)"},
    "/sdapi/v1/interrogate": {},
    "/sdapi/v1/none-such": {},
}


def shape(value: object) -> object:
    """The keys in their order, and the kind of each value; of a list, that of its first entry."""
    match value:
        case dict():
            return {key: shape(each) for key, each in value.items()}
        case list():
            return [shape(each) for each in value[:1]]
        case bool() | None:
            return value if value is None else "boolean"
        case int() | float():
            return "number"
    return "text"


def answer(reply: requests.Response) -> dict[str, Any]:
    content = reply.json()
    entry = {"status": reply.status_code, "body": shape(content)}
    info = content.get("info") if isinstance(content, dict) else None
    if isinstance(info, str) and info.startswith("{"):
        entry["info"] = shape(json.loads(info))
    return entry


def test_the_shape_of_each_answer(folder: Path, request: pytest.FixtureRequest) -> None:
    shapes: dict[str, Any] = {}
    settings = {"SDE_PIPELINE": "tests.pipelines.describes:load"}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        for path in (*LISTS, "/sdapi/v1/options", "/sdapi/v1/sd-models", "/sdapi/v1/progress"):
            shapes[f"GET {path}"] = answer(requests.get(service.url + path, timeout=30))
        for path, body in POSTS.items():
            reply = requests.post(service.url + path, json=body, timeout=60)
            shapes[f"POST {path}"] = answer(reply)
    text = json.dumps(shapes, indent=1) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "a shape has changed"


def test_each_route_is_there_or_refuses_get(service: Service) -> None:
    for path in POSTS:
        status = requests.get(service.url + path, timeout=30).status_code
        is_absent = path.endswith(("interrogate", "none-such"))
        has_get = path == "/sdapi/v1/options"
        assert status == (404 if is_absent else 200 if has_get else 405), path
