"""What a mask keeps has the pixels that were sent, whatever else the request says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from gpu_worker.pipeline.integrity import kept_pixels
from tests.support.builders import tiny_adapters, tiny_dits, tiny_models
from tests.support.masked_images import largest_change, with_sent_pixels
from tests.support.pipeline_bench import Bench, write_library

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def ellipse(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((size[0] // 3, 0, size[0] - 1, size[1] // 2), fill=255)
    return mask


def soft(size: tuple[int, int]) -> Image.Image:
    return ellipse(size).filter(ImageFilter.GaussianBlur(5))


def scattered(size: tuple[int, int]) -> Image.Image:
    """Each pixel for itself: no latent pixel is wholly black or white."""
    grey = np.random.default_rng(3).integers(0, 2, (size[1], size[0]), dtype=np.uint8) * 255
    return Image.fromarray(grey)


def border(size: tuple[int, int]) -> Image.Image:
    """The rim of the image is painted anew, the inside is kept."""
    mask = Image.new("L", size, 255)
    ImageDraw.Draw(mask).rectangle((17, 9, size[0] - 12, size[1] - 20), fill=0)
    return mask


MASKS = {each.__name__: each for each in (ellipse, soft, scattered, border)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept")
    tiny_models.build().save_pretrained(path / "models" / "sd")
    tiny_adapters.build_xl().save_pretrained(path / "models" / "xl")
    tiny_adapters.build_refiner().save_pretrained(path / "models" / "fine")
    tiny_adapters.build_inpainting().save_pretrained(path / "models" / "inpaint")
    tiny_dits.flux().save_pretrained(path / "models" / "flux")
    write_library(path, refiners={"fine": {"source": "fine"}})
    return path


@pytest.fixture(scope="module")
def sd(folder: Path) -> Bench:
    return Bench(folder, "sd")


def masked(bench: Bench, image: Image.Image, mask: Image.Image, **more: Any) -> Image.Image:
    return bench.make(image=bench.put(image), mask_image=bench.put(mask), **more)[0].image


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("shape", MASKS)
def test_black_has_the_sent_pixels_and_white_is_painted_anew(
    sd: Bench, shape: str, strength: float
) -> None:
    sent, mask = tiny_adapters.drawing(88, 72), MASKS[shape]((88, 72))
    image = masked(sd, sent, mask, strength=strength)
    assert largest_change(image, sent, mask) == 0
    assert largest_change(image, sent, mask, where="white") > 8


def test_the_grey_that_networks_take_for_black_is_kept_too(sd: Bench) -> None:
    sent, mask = tiny_adapters.drawing(), Image.new("L", (64, 64), 127)
    assert masked(sd, sent, mask).tobytes() == sent.tobytes()


def test_a_mask_that_is_black_all_over_returns_the_image(sd: Bench) -> None:
    sent = tiny_adapters.drawing(72, 96)
    assert masked(sd, sent, Image.new("1", sent.size), strength=1.0).tobytes() == sent.tobytes()


def test_a_mask_that_is_white_all_over_keeps_nothing(sd: Bench) -> None:
    sent = tiny_adapters.drawing()
    image = masked(sd, sent, Image.new("L", (64, 64), 255), strength=1.0)
    other = masked(sd, Image.new("RGB", (64, 64)), Image.new("L", (64, 64), 255), strength=1.0)
    assert image.tobytes() == other.tobytes()


def test_the_sent_image_is_kept_in_the_size_that_is_drawn(sd: Bench) -> None:
    sent, mask = tiny_adapters.drawing(100, 90), ellipse((50, 45))
    image = masked(sd, sent, mask)
    assert image.size == (96, 88)
    fitted, cut = sent.resize(image.size, Image.Resampling.LANCZOS), mask.resize(image.size, 0)
    assert largest_change(image, fitted, cut) == 0
    wide = masked(sd, sent, mask, width=128, height=64)
    fitted, cut = sent.resize((128, 64), Image.Resampling.LANCZOS), mask.resize((128, 64), 0)
    assert largest_change(wide, fitted, cut) == 0


def test_a_second_pass_keeps_them_at_its_own_size(sd: Bench) -> None:
    sent, mask = tiny_adapters.drawing(128, 128), ellipse((128, 128))
    for upscaler in ("latent", "lanczos"):
        hires = {"upscaler": upscaler, "scale": 2.0, "strength": 0.8}
        image = masked(sd, sent, mask, width=64, height=64, hires=hires)
        assert image.size == sent.size
        assert largest_change(image, sent, mask) == 0
        assert largest_change(image, sent, mask, where="white") > 8


def test_other_networks_keep_them(folder: Path) -> None:
    sent, mask = tiny_adapters.drawing(96, 64), ellipse((96, 64))
    for name in ("xl", "inpaint", "flux"):
        image = masked(Bench(folder, name), sent, mask, strength=0.8)
        assert largest_change(image, sent, mask) == 0
        assert largest_change(image, sent, mask, where="white") > 8


def test_a_refiner_keeps_them(folder: Path) -> None:
    sent, mask = tiny_adapters.drawing(), ellipse((64, 64))
    refiner = {"name": "fine", "switch_at": 0.5}
    more: dict[str, Any] = {"refiner": refiner, "num_inference_steps": 4, "strength": 1.0}
    bench = Bench(folder, "xl")
    assert largest_change(masked(bench, sent, mask, **more), sent, mask) == 0
    more |= {"hires": {"scale": 1.5, "strength": 0.9}}
    image = masked(bench, sent, mask, **more)
    fitted = sent.resize(image.size, Image.Resampling.LANCZOS)
    assert largest_change(image, fitted, mask.resize(image.size, 0)) == 0


def test_the_record_says_how_far_they_blend(sd: Bench) -> None:
    sent, mask = sd.put(tiny_adapters.drawing()), sd.put(ellipse((64, 64)))
    assert sd.make(image=sent, mask_image=mask)[0].metadata["mask_blend_px"] == kept_pixels.BLEND_PX
    assert "mask_blend_px" not in sd.make(image=sent)[0].metadata


def test_the_blend_lies_in_the_white_alone() -> None:
    mask = Image.new("L", (9, 1))
    ImageDraw.Draw(mask).rectangle((2, 0, 8, 0), fill=255)
    share = [kept_pixels.generated_share(mask).getpixel((x, 0)) for x in range(9)]
    assert share == [0, 0, 85, 170, 255, 255, 255, 255, 255]
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    one, other = Image.fromarray(noise), Image.fromarray(noise[::-1])
    for shape in MASKS.values():
        expected = with_sent_pixels(one, other, shape((40, 40)))
        assert kept_pixels.restore(one, other, shape((40, 40))).tobytes() == expected.tobytes()
