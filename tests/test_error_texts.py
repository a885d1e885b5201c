"""No answer of the service holds the name of an exception, a path of it, or pydantic's own words.

The texts are those of real faults: every kind of invalid request, file and table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Library, ModelsError
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import error_text, field_errors, join_errors
from gpu_worker.output.result_records import error_message
from tests.support.service import LEAK, Service

WRONG: list[dict[str, Any]] = [
    {},
    {"prompt": 5},
    {"prompt": ""},
    {"prompt": "a" * 5000},
    {"prompt": "a", "width": 63},
    {"prompt": "a", "width": 65},
    {"prompt": "a", "width": "64"},
    {"prompt": "a", "width": 1.5},
    {"prompt": "a", "width": 10**30},
    {"prompt": "a", "guidance_scale": "x"},
    {"prompt": "a", "guidance_scale": -1},
    {"prompt": "a", "guidance_scale": 51},
    {"prompt": "a", "seed": True},
    {"prompt": "a", "scheduler": "no scheduler"},
    {"prompt": "a", "scheduler_options": []},
    {"prompt": "a", "scheduler_options": {"X": 1}},
    {"prompt": "a", "loras": {}},
    {"prompt": "a", "loras": [1]},
    {"prompt": "a", "loras": [{"name": "../x"}]},
    {"prompt": "a", "loras": [{"name": "x"}] * 9},
    {"prompt": "a", "ip_adapter": []},
    {"prompt": "a", "hires": {"scale": 1}},
    {"prompt": "a", "hires": {"scale": 5}},
    {"prompt": "a", "refiner": {"name": "x", "switch_at": 1}},
    {"prompt": "a", "step_log": "yes"},
    {"prompt": "a", "image": "not base64"},
    {"prompt": "a", "num_images_per_prompt": 17},
    {"prompt": "a", "unknown": 1},
]


@pytest.mark.parametrize("body", WRONG, ids=lambda body: str(body)[:50])
def test_a_refusal_is_in_our_own_words(service: Service, body: dict[str, Any]) -> None:
    reply = service.post(body)
    assert 400 <= reply.status_code < 500
    problem = reply.json()
    assert problem["errors"] and not LEAK.search(reply.text), problem["detail"]
    assert all(error["message"] and error["field"] for error in problem["errors"])


def refused(model: type[BaseModel], value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return join_errors(field_errors(caught.value))


def test_a_table_is_refused_in_our_own_words() -> None:
    tables: list[object] = [
        {"models": []},
        {"models": {"a": {}}},
        {"models": {"a": {"source": 5}}},
        {"models": {"a": {"source": ""}}},
        {"models": {"a b": {"source": "x"}}},
        {"loras": {"a": {"source": "x", "token": "y"}}},
        {"nonsense": {}},
        {"models": {"a": {"source": "x", "defaults": {"guidance_scale": "7"}}}},
        {"models": {"a": {"source": "x", "defaults": {"scheduler": 1}}}},
    ]
    texts = [refused(Library, table) for table in tables]
    texts += [refused(GenerationRequest, 5), refused(GenerationRequest, {"prompt": "a", "x": 1})]
    assert [text for text in texts if LEAK.search(text)] == []


@pytest.mark.parametrize("content", [b"[", b"\xff", b"models = 1", b"[models.a]\nsource = 1"])
def test_a_broken_models_toml_is_told_without_a_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(content)
    with pytest.raises(ModelsError) as caught:
        model_library.read(path)
    text = error_text(caught.value)
    assert text.startswith("models.toml: ") and not LEAK.search(text), text


def test_a_byte_order_mark_in_models_toml_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.a]\nsource = "a"\n', encoding="utf-8-sig")
    assert list(model_library.read(path).models) == ["a"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "bad"),
        (KeyError("unet"), "'unet'"),
        (RuntimeError("torch.OutOfRangeError: no"), "no"),
        (OSError(2, "No such file or directory", "/data/models/x/y.json"), "'y.json'"),
        (RuntimeError("cannot open /usr/lib/a.so: no"), "cannot open a.so: no"),
        (RuntimeError("'/home/joe/my models/x.bin' is bad"), "'x.bin' is bad"),
        (RuntimeError("path:/home/u/models/x"), "path:x"),
        (RuntimeError("file:///home/u/x and ~/.cache/x/y"), "x and y"),
        (TypeError("no for <class 'torch.nn.Linear'>"), "no for Linear"),
        (AssertionError(), "the job ended with an unexpected error;"),
    ],
)
def test_an_unforeseen_error_keeps_its_words_without_name_and_path(
    error: Exception, text: str
) -> None:
    message = error_message(error)
    assert text in message and not LEAK.search(message), message
    assert message.endswith("; the worker's log has more")


def test_an_address_and_a_route_stay() -> None:
    text = "http://host/a/b and https://hub/x/y.json, data/run/gpu-0.log, 3/4 of 5/6"
    assert error_text(text) == text
