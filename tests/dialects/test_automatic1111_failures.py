"""What clients of AUTOMATIC1111's API get when a job fails, the queue is full, or nobody works."""

from __future__ import annotations

import threading
from pathlib import Path

import requests

from tests.support.service import LEAK, Service, eventually, running

SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 2}


def post(service: Service, name: str = "txt2img", **body: object) -> requests.Response:
    return requests.post(f"{service.url}/sdapi/v1/{name}", json=SMALL | body, timeout=120)


def check(reply: requests.Response, status: int) -> str:
    """The words of an error in their form."""
    assert reply.status_code == status, reply.text
    content = reply.json()
    assert list(content) == ["error", "detail", "body", "errors"]
    assert content.pop("error") == "HTTPException" and not LEAK.search(str(content))
    return str(content["detail"])


def test_a_failed_job_is_an_error_in_words(folder: Path) -> None:
    settings = {"SDE_PIPELINE": "tests.pipelines.raises:load"}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        assert "unexpected" in check(post(service, prompt="raise"), 500)
        assert "memory" in check(post(service, prompt="memory"), 500)


def test_a_full_queue_is_429_with_a_time(folder: Path) -> None:
    settings = {"SDE_PIPELINE": "tests.pipelines.held:load", "SDE_QUEUE_SIZE": "0"}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        replies: list[requests.Response] = []
        caller = threading.Thread(target=lambda: replies.append(post(service)))
        caller.start()
        eventually(lambda: not service.available(), "the worker is busy")
        refused = post(service)
        check(refused, 429)
        assert int(refused.headers["Retry-After"]) >= 1
        service.release()
        caller.join(60)
        assert replies[0].status_code == 200


def test_without_a_worker_lists_are_there_and_jobs_are_refused(folder: Path) -> None:
    with running(folder, "gateway") as service:
        for name in ("options", "sd-models", "samplers", "upscalers", "progress", "sd-vae"):
            reply = requests.get(f"{service.url}/sdapi/v1/{name}", timeout=30)
            assert reply.status_code == 200, name
        assert "worker" in check(post(service), 503)


def test_everybody_is_admitted_without_a_password_where_the_operator_says_so(folder: Path) -> None:
    settings = {"SDE_KEYS": "own:the-own-key-of-this-test", "SDE_ALLOW_ANONYMOUS": "1"}
    with running(folder, "gateway", **settings) as service:
        url = f"{service.url}/sdapi/v1/options"
        for header, status in (("Basic ", 200), ("Basic Og==", 200), ("Basic dTp4", 401)):
            reply = requests.get(url, headers={"Authorization": header}, timeout=30)
            assert reply.status_code == status, header
