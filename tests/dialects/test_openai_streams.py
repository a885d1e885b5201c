"""Images as events: partial ones from the denoising, then the whole one, or an error."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from PIL import Image, ImageChops, ImageStat

from tests.support.openai_api import (
    DEMO,
    HELD,
    active,
    client,
    half_transparent,
    image_of,
    noise,
    png,
)
from tests.support.service import Service, eventually, running

SETTINGS: dict[str, Any] = {"num_inference_steps": 20, "seed": 5}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with its built-in model."""
    with running(tmp_path_factory.mktemp("d"), "gateway", "gpu_worker", **DEMO) as started:
        yield started


def distance(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two images, of 255."""
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return sum(ImageStat.Stat(difference).mean) / 3


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_partial_images_come_from_the_denoising(demo: Service, count: int) -> None:
    sdk = client(demo)
    events: list[Any] = list(
        sdk.images.generate(
            prompt="a red circle", stream=True, partial_images=count, extra_body=SETTINGS
        )
    )
    partial = "image_generation.partial_image"
    assert [event.type for event in events] == [partial] * count + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:-1]] == list(range(count))
    images = [image_of(event.b64_json) for event in events]
    assert {image.size for image in images} == {images[-1].size}
    assert {event.size for event in events} == {"x".join(map(str, images[-1].size))}
    distances = [distance(image, images[-1]) for image in images[:-1]]
    assert all(earlier > later > 0 for earlier, later in itertools.pairwise(distances))
    whole = sdk.images.generate(
        prompt="a red circle", response_format="b64_json", extra_body=SETTINGS
    )
    # To be watched changes nothing of the image.
    assert image_of((whole.data or [])[0].b64_json).tobytes() == images[-1].tobytes()


def test_partial_images_have_the_format_of_the_whole_one(demo: Service) -> None:
    events: list[Any] = list(
        client(demo).images.generate(
            prompt="a red circle",
            n=2,
            stream=True,
            partial_images=1,
            output_format="jpeg",
            extra_body=SETTINGS,
        )
    )
    kinds = [event.type.rpartition(".")[2] for event in events]
    assert kinds == ["partial_image"] * 2 + ["completed"] * 2
    assert {image_of(event.b64_json).format for event in events} == {"JPEG"}
    assert {event.output_format for event in events} == {"jpeg"}


def test_an_edit_keeps_what_its_mask_keeps_from_the_first_event_on(demo: Service) -> None:
    source = noise()
    events: list[Any] = list(
        client(demo).images.edit(
            image=png(source),
            mask=png(half_transparent(source)),
            prompt="a red circle",
            stream=True,
            partial_images=2,
            extra_body=SETTINGS,
        )
    )
    assert [event.type for event in events] == [
        *["image_edit.partial_image"] * 2,
        "image_edit.completed",
    ]
    left = (0, 0, 32, 64)
    for event in events:
        image = image_of(event.b64_json).convert("RGB")
        assert image.crop(left).tobytes() == source.crop(left).tobytes()


@pytest.mark.parametrize("kind", ["failed", "canceled"])
def test_a_job_without_an_image_ends_its_stream_with_an_error(folder: Path, kind: str) -> None:
    pipeline = {"SDE_PIPELINE": "tests.pipelines.raises:load"} if kind == "failed" else HELD
    with running(folder, "gateway", "gpu_worker", **pipeline) as service:
        stream = client(service).images.generate(prompt="memory", stream=True)
        if kind == "canceled":
            (job,) = active(service, 1)
            service.request("DELETE", f"/image/jobs/{job['uuid']}")
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == f"job_{kind}"


@pytest.mark.parametrize(("policy", "state"), [("finish", "succeeded"), ("cancel", "canceled")])
def test_a_client_that_leaves_its_stream(folder: Path, policy: str, state: str) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_ON_DISCONNECT=policy, **HELD) as service:
        reply = requests.post(
            f"{service.url}/v1/images/generations",
            json={"prompt": "a", "stream": True, "num_inference_steps": 2},
            stream=True,
            timeout=60,
        )
        assert reply.headers["Content-Type"] == "text/event-stream"
        uuid = reply.headers["x-sde-generation-uuid"]
        reply.close()
        if policy == "finish":
            service.release()
        eventually(lambda: service.job(uuid)["ended_time"], "it has ended")
        assert service.job(uuid)["state"] == state


def test_many_streams_hold_no_thread(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="64", **HELD) as service:
        replies = [
            requests.post(
                f"{service.url}/v1/images/generations",
                json={"prompt": str(number), "stream": True, "num_inference_steps": 1},
                stream=True,
                timeout=60,
            )
            for number in range(60)
        ]
        assert len(active(service, 60)) == 60
        service.release()
        for reply in replies:
            text = reply.content
            assert text.count(b"event: image_generation.completed\n") == 1
            data = text.partition(b'"b64_json":"')[2].partition(b'"')[0]
            assert base64.b64decode(data).startswith(b"\x89PNG")


def test_a_variation_has_no_stream(service: Service) -> None:
    reply = service.request(
        "POST",
        "/v1/images/variations",
        data={"stream": "true"},
        files={"image": png(noise())},
    )
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "stream"
