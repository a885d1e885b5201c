"""Pictures that start from a picture, through the whole service: as diffusers itself draws them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image, ImageDraw

from gpu_worker.pipeline import DEMO_MODEL
from tests.support.masked_images import with_sent_pixels
from tests.support.pipeline_bench import in_own_memory
from tests.support.pipeline_jobs import demo_side_px
from tests.support.service import Service, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPT = "a large red apple on a blue background"
SIDE = demo_side_px()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The built-in model."""
    with running(
        tmp_path_factory.mktemp("modes"),
        "gateway",
        "gpu_worker",
        SDE_PIPELINE="gpu_worker.pipeline:load",
        SDE_DEVICE="cpu",
        SDE_QUEUE_SIZE="4",
    ) as found:
        yield found


def picture() -> Image.Image:
    """A green square on white."""
    made = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(made).rectangle((16, 16, 47, 47), fill="green")
    return made


def mask() -> Image.Image:
    """The right half is painted anew."""
    made = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(made).rectangle((SIDE // 2, 0, SIDE, SIDE), fill=255)
    return made


def base64_of(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def made(service: Service, **asked: Any) -> tuple[bytes, dict[str, Any]]:
    uuid = service.submit(PROMPT, seed=3, num_inference_steps=5, strength=0.8, **asked)
    record = service.result(uuid)
    assert record["errors"] == []
    return Image.open(io.BytesIO(base64.b64decode(record["data"]))).tobytes(), record


def direct(kind: Any, **given: Any) -> bytes:
    pipe = kind.from_pretrained(DEMO_MODEL, torch_dtype=torch.float32, use_safetensors=True)
    in_own_memory(pipe).set_progress_bar_config(disable=True)
    image = pipe(
        PROMPT,
        num_inference_steps=5,
        strength=0.8,
        guidance_scale=4.0,
        generator=torch.Generator("cpu").manual_seed(3),
        **given,
    ).images[0]
    if "mask_image" in given:
        image = with_sent_pixels(image, given["image"], given["mask_image"])
    return bytes(image.tobytes())


def test_image_to_image(service: Service) -> None:
    pixels, record = made(service, image=base64_of(picture()))
    assert pixels == direct(diffusers.AutoPipelineForImage2Image, image=picture())
    assert record["image"].startswith("sha256:") and record["strength"] == 0.8


def test_inpainting(service: Service) -> None:
    pixels, record = made(service, image=base64_of(picture()), mask_image=base64_of(mask()))
    expected = direct(
        diffusers.AutoPipelineForInpainting,
        image=picture(),
        mask_image=mask(),
        width=SIDE,
        height=SIDE,
    )
    assert pixels == expected and record["mask_image"].startswith("sha256:")


def test_a_result_with_pictures_is_verified(service: Service) -> None:
    from sde_client import Client

    _, record = made(service, image=base64_of(picture()))
    with Client(service.url) as sde:
        (result,) = sde.results(record["uuid"])
        assert sde.verify(result).identical


def test_a_word_that_the_built_in_model_does_not_know_is_in_the_record(service: Service) -> None:
    record = service.result(service.submit("a cat in a lighthouse", num_inference_steps=1))
    (sentence,) = record["warnings"]
    assert sentence.endswith(" It does not know: lighthouse.")
