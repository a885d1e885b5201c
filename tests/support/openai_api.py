"""What the tests of the OpenAI images API have in common: its client, images and errors."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

import openai
import requests
from PIL import Image

from tests.support.service import LEAK, Service, eventually

DEMO = {"SDE_PIPELINE": "gpu_worker.pipeline:load"}
HELD = {"SDE_PIPELINE": "tests.pipelines.held:load"}
DESCRIBES = {"SDE_PIPELINE": "tests.pipelines.describes:load"}
KEY = "a-key-of-the-openai-tests"


_clients: list[openai.OpenAI] = []


def client(service: Service, key: str = "any", **options: Any) -> openai.OpenAI:
    """The SDK of OpenAI for this service. close_clients() closes its connections."""
    sdk = openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0, **options)
    _clients.append(sdk)
    return sdk


def close_clients() -> None:
    """Close the connections of every client."""
    while _clients:
        _clients.pop().close()


def image_of(text: str | None) -> Image.Image:
    assert text is not None
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def noise(side: int = 64) -> Image.Image:
    return Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3))


def active(service: Service, count: int) -> list[dict[str, Any]]:
    """So many jobs that wait or run."""

    def look() -> list[dict[str, Any]]:
        jobs = service.get("/image/jobs", params={"limit": 1000}).json()
        live = [each for each in jobs if each["state"] in ("queued", "running")]
        return live if len(live) == count else []

    return eventually(look, f"{count} jobs live")


def half_transparent(image: Image.Image) -> Image.Image:
    """The right half is to be painted again."""
    marked = image.convert("RGBA")
    marked.paste((0, 0, 0, 0), (image.width // 2, 0, image.width, image.height))
    return marked


def error_of(reply: requests.Response) -> dict[str, Any]:
    assert reply.headers["Content-Type"] == "application/json"
    assert set(reply.json()) == {"error"} and not LEAK.search(reply.text)
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and isinstance(error["type"], str)
    return error


def post(service: Service, prompt: str, **headers: str) -> requests.Response:
    body = {"prompt": prompt, "num_inference_steps": 2}
    return service.request("POST", "/v1/images/generations", json=body, headers=headers)
