"""How large `hires` and `upscale` may become: what is refused, where, and that the rest fits."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import ExifTags, Image

from gateway.admission.input_images import InputImageReader
from gateway.errors import InvalidRequest
from gpu_worker.contract import output_size
from gpu_worker.contract.output_size import MAX_LINE_BYTES
from gpu_worker.output import result_records
from gpu_worker.pipeline.inputs.input_images import InputImages
from tests.support.service import Service

READER = InputImageReader(16_000_000)


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))


def text(image: Image.Image, kind: str = "JPEG", **how: Any) -> str:
    made = io.BytesIO()
    image.save(made, kind, **how)
    return base64.b64encode(made.getvalue()).decode()


def flat(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "grey")


def faults(**asked: Any) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRequest) as refused:
        READER.request({"prompt": "x", **asked})
    return refused.value.errors


def test_noise_of_the_largest_size_is_a_line_that_readers_take() -> None:
    image = noise(1024, 512)
    coded = len(base64.b64encode(result_records.encode_png(image)))
    share = output_size.MAX_LARGE_PIXELS / (image.width * image.height)
    assert coded * share < MAX_LINE_BYTES - (1 << 20), "and a MiB is left for words"
    assert output_size.MAX_LARGE_PIXELS == 4096 * 4096


@pytest.mark.parametrize(
    ("size", "asked", "field", "made"),
    [
        ((2000, 2000), {"upscale": {"scale": 4.0}}, "upscale.scale", "8000 x 8000"),
        ((4100, 16), {"upscale": {}}, "upscale.scale", "8200 x 32"),
        ((1500, 1000), {"hires": {"scale": 4.0}}, "hires.scale", "5984 x 4000"),
        ((1000, 500), {"hires": {"scale": 3.0}, "width": 2048}, "hires.scale", "6144 x 3072"),
        (None, {"hires": {"scale": 4.0}, "width": 2048, "height": 1032}, "hires.scale", "8192 x"),
    ],
)
def test_what_becomes_too_large_is_refused_with_its_field(
    size: tuple[int, int] | None, asked: dict[str, Any], field: str, made: str
) -> None:
    given = {} if size is None else {"image": text(flat(*size))}
    (fault,) = faults(**given, **asked)
    assert fault["field"] == field and made in fault["message"]
    assert fault["value"] == str(next(iter(asked.values())).get("scale", 2.0))


def test_what_is_not_too_large_is_taken() -> None:
    READER.request({"prompt": "x", "image": text(flat(1024, 1024)), "upscale": {"scale": 4.0}})
    READER.request({"prompt": "x", "width": 1024, "height": 1024, "hires": {"scale": 4.0}})
    READER.request({"prompt": "x", "width": 2048, "hires": {"scale": 4.0}})  # the model knows


def test_a_picture_is_measured_upright() -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    asked: dict[str, Any] = {"width": 2048, "hires": {"scale": 2.0}}
    READER.request({"prompt": "x", "image": text(flat(2000, 1000)), **asked})
    given = text(flat(2000, 1000), exif=turned)
    READER.request({"prompt": "x", "image": given, **asked})
    (fault,) = faults(image=given, **asked | {"hires": {"scale": 2.1}})
    assert "4304 x 4304" in fault["message"], "1000 x 2000 at a width of 2048, within 2048"


def test_a_stored_picture_is_measured_too(service: Service) -> None:
    service.wait_available()
    uuid = service.submit(width=1040, height=1040, num_inference_steps=1)
    service.result(uuid)
    service.wait_available()
    asked = {"generation_uuid": uuid, "scale": 4.0}
    refused = requests.post(f"{service.url}/image/upscale", json=asked, timeout=30)
    assert refused.status_code == 422, refused.text
    (fault,) = refused.json()["errors"]
    assert (fault["field"], fault["value"]) == ("scale", "4.0")
    assert "4160 x 4160" in fault["message"]


def test_a_photo_with_a_second_picture_in_it_is_its_first(tmp_path: Path) -> None:
    first = noise(64, 48)
    photo = text(first, "MPO", save_all=True, append_images=[flat(32, 24)])
    request, found = READER.request({"prompt": "x", "image": photo})
    (content,) = found.values()
    with Image.open(io.BytesIO(content)) as seen:
        assert (seen.format, getattr(seen, "n_frames", 1)) == ("MPO", 2)
        seen.load()
        (tmp_path / str(request.image).removeprefix("sha256:")).write_bytes(content)
        made = InputImages(tmp_path).image(str(request.image))
        assert made.size == (64, 48) and made.tobytes() == seen.tobytes()
    (fault,) = faults(image=text(first, "WEBP", save_all=True, append_images=[flat(64, 48)]))
    assert "animation" in fault["message"]
