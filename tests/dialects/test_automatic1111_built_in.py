"""AUTOMATIC1111's API with the built-in model: what a mask keeps, samplers, upscaling."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests
import webuiapi
from PIL import Image, ImageDraw

from gateway.dialects.automatic1111.translation.sampler_table import (
    SAMPLERS,
    SCHEDULE_TYPES,
)
from tests.support.service import Service, running

CHECKED = ["Euler a", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM++ 2S a", "DDIM", "UniPC", "TCD"]


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("b")
    settings = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        yield service


def client(service: Service) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(baseurl=f"{service.url}/sdapi/v1", steps=4)


def source(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An image with no two areas alike."""
    wide, high = size
    pixels = np.indices((high, wide)).sum(0)[..., None] * np.array([1, 2, 3]) + [10, 20, 30]
    return Image.fromarray((pixels % 256).astype(np.uint8))


def half(size: tuple[int, int], *, white: str) -> Image.Image:
    mask = Image.new("L", size, 0)
    left = 0 if white == "left" else size[0] // 2
    ImageDraw.Draw(mask).rectangle((left, 0, left + size[0] // 2 - 1, size[1]), fill=255)
    return mask


def changes(image: Image.Image, other: Image.Image, mask: Image.Image) -> tuple[int, int]:
    """The largest change where the mask is black, and where it is white."""
    one, two = (np.asarray(each.convert("RGB")).astype(int) for each in (image, other))
    grey = np.asarray(mask)
    change = np.abs(one - two).max(-1)
    return int(change[grey == 0].max()), int(change[grey == 255].max())


@pytest.mark.parametrize("full_res", [False, True])
@pytest.mark.parametrize("fill", [0, 1, 2, 3])
def test_what_a_mask_keeps_is_kept(built_in: Service, full_res: bool, fill: int) -> None:
    size = (64, 64) if not full_res else (192, 96)
    image, mask = source(size), half(size, white="right")
    answer = client(built_in).img2img(
        images=[image],
        mask_image=mask,
        prompt="a red apple",
        width=64,
        height=64,
        denoising_strength=0.9,
        inpainting_fill=fill,
        inpaint_full_res=full_res,
        mask_blur=2,
        seed=3,
    )
    assert answer.image.size == size
    kept_change, painted_change = changes(answer.image, image, mask)
    assert kept_change == 0 and painted_change > 20
    assert answer.info["infotexts"][0] == answer.image.info["parameters"]
    assert bool(answer.info["sde_notes"]) == (fill > 1)


def test_an_inverted_mask_paints_the_rest(built_in: Service) -> None:
    image, mask = source(), half((64, 64), white="left")
    answer = client(built_in).img2img(
        images=[image],
        mask_image=mask,
        prompt="a red apple",
        width=64,
        height=64,
        denoising_strength=0.9,
        inpainting_fill=1,
        inpainting_mask_invert=1,
        mask_blur=0,
    )
    inverse = half((64, 64), white="right")
    kept_change, painted_change = changes(answer.image, image, inverse)
    assert kept_change == 0 and painted_change > 20


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_an_image_is_resized_in_each_mode(built_in: Service, mode: int) -> None:
    answer = client(built_in).img2img(
        images=[source((128, 64))],
        prompt="a red apple",
        width=64,
        height=64,
        resize_mode=mode,
        denoising_strength=0.0,
    )
    assert answer.image.size == (64, 64)
    assert bool(answer.info["sde_notes"]) == (mode == 3)


@pytest.mark.parametrize("name", CHECKED)
def test_a_sampler_of_the_table_runs(built_in: Service, name: str) -> None:
    answer = client(built_in).txt2img(
        prompt="a red apple", width=64, height=64, sampler_name=name, seed=1
    )
    row = next(each for each in SAMPLERS if each.label == name)
    assert bool(answer.info["sde_notes"]) == (row.note is not None)
    record = built_in.result(answer.info["sde_uuid"])
    assert record["scheduler"] == row.scheduler
    for option, value in row.options.items():
        assert record["scheduler_config"][option] == value


@pytest.mark.parametrize(
    "schedule", [each.name for each in SCHEDULE_TYPES if each.options], ids=str
)
def test_a_schedule_type_of_the_table_runs(built_in: Service, schedule: str) -> None:
    answer = client(built_in).txt2img(
        prompt="a red apple",
        width=64,
        height=64,
        sampler_name="Euler",
        scheduler=schedule.upper(),
        seed=1,
    )
    options = built_in.get("/server/models").json()["schedulers"]["EulerDiscreteScheduler"][
        "options"
    ]
    row = next(each for each in SCHEDULE_TYPES if each.name == schedule)
    is_here = all(option in options for option in row.options)  # some need scipy
    assert bool(answer.info["sde_notes"]) != is_here


def test_a_long_strip_needs_no_large_image(built_in: Service) -> None:
    for mode in (1, 2):
        answer = client(built_in).img2img(
            images=[source((16, 4096))], prompt="a", width=512, height=64, resize_mode=mode, steps=1
        )
        assert answer.image.size == (512, 64)


def test_a_second_pass_enlarges(built_in: Service) -> None:
    answer = client(built_in).txt2img(
        prompt="a red apple",
        width=64,
        height=64,
        enable_hr=True,
        hr_scale=1.5,
        hr_upscaler="Latent (bicubic)",
        sampler_name="DDIM",
    )
    assert answer.image.size == (96, 96) and answer.info["sde_notes"] == []
    assert "Hires upscale: 1.5" in answer.info["infotexts"][0]


def upscaled(service: Service, **body: Any) -> requests.Response:
    url = f"{service.url}/sdapi/v1/extra-single-image"
    return requests.post(url, json=body, timeout=60)


def text(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"upscaler_1": "Lanczos", "upscaling_resize": 3}, (192, 192)),
        ({"upscaler_1": "Lanczos", "upscaling_resize": 5}, (320, 320)),
        ({"upscaler_1": "Lanczos", "upscaling_resize": 0.5}, (32, 32)),
        ({"upscaler_1": "None", "upscaling_resize": 3}, (64, 64)),
        (
            {
                "upscaler_1": "Nearest",
                "resize_mode": 1,
                "upscaling_resize_w": 128,
                "upscaling_resize_h": 96,
            },
            (128, 96),
        ),
    ],
)
def test_an_image_is_enlarged(
    built_in: Service, options: dict[str, Any], size: tuple[int, int]
) -> None:
    answer = client(built_in).extra_single_image(source(), **options)
    assert answer.image.size == size
    assert ("Lanczos is used" in answer.info) == (options["upscaler_1"] == "Nearest")


def test_images_of_a_batch_are_enlarged_in_their_order(built_in: Service) -> None:
    images = [Image.new("RGB", (64, 64), (shade,) * 3) for shade in (10, 120, 230)]
    answer = client(built_in).extra_batch_images(images, upscaler_1="Lanczos", upscaling_resize=2)
    assert [image.getpixel((64, 64)) for image in answer.images] == [
        (10,) * 3,
        (120,) * 3,
        (230,) * 3,
    ]
    assert [image.size for image in answer.images] == [(128, 128)] * 3


def test_an_unknown_upscaler_is_refused_with_the_list(built_in: Service) -> None:
    reply = upscaled(built_in, image=text(source()), upscaler_1="R-ESRGAN 4x+")
    assert reply.status_code == 400 and "None, Lanczos" in reply.json()["detail"]
    reply = upscaled(built_in, image="x", upscaler_1="Lanczos")
    assert reply.status_code == 422 and "image" in reply.json()["detail"]
    for factor in (0, -1, 1e308, 900, "x"):
        body = {"image": text(source()), "upscaler_1": "Lanczos", "upscaling_resize": factor}
        reply = upscaled(built_in, **body)
        assert reply.status_code == 422 and "upscaling_resize" in reply.json()["detail"]
