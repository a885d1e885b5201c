"""Every mode and every way to save that image programs use is read, and the pixels are Pillow's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from gpu_worker.contract import image_codec
from gpu_worker.contract.image_codec import UnreadableImage
from gpu_worker.pipeline.inputs.input_images import InputImages
from tests.support.builders import tiny_adapters

SIZE = (72, 48)

SAVED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png-1": ("1", "PNG", {}),
    "png-l": ("L", "PNG", {}),
    "png-la": ("LA", "PNG", {}),
    "png-p": ("P", "PNG", {}),
    "png-p-2-bits": ("P", "PNG", {"bits": 2}),
    "png-p-clear": ("P", "PNG", {"transparency": 0}),
    "png-p-clear-by-bytes": ("P", "PNG", {"transparency": bytes(range(256))}),
    "png-l-clear": ("L", "PNG", {"transparency": 255}),
    "png-rgb": ("RGB", "PNG", {}),
    "png-rgb-clear": ("RGB", "PNG", {"transparency": (255, 0, 0)}),
    "png-rgba": ("RGBA", "PNG", {}),
    "png-16-bits": ("I;16", "PNG", {}),
    "png-stored": ("RGB", "PNG", {"compress_level": 0}),
    "png-dpi": ("RGB", "PNG", {"dpi": (300, 300)}),
    "jpeg-l": ("L", "JPEG", {}),
    "jpeg-rgb": ("RGB", "JPEG", {}),
    "jpeg-cmyk": ("CMYK", "JPEG", {}),
    "jpeg-progressive": ("RGB", "JPEG", {"progressive": True, "quality": 30}),
    "jpeg-4:4:4": ("RGB", "JPEG", {"subsampling": 0, "quality": 100}),
    "jpeg-4:2:0": ("RGB", "JPEG", {"subsampling": 2}),
    "jpeg-restarts": ("RGB", "JPEG", {"restart_marker_blocks": 2}),
    "jpeg-keeps-rgb": ("RGB", "JPEG", {"keep_rgb": True}),
    "jpeg-comment": ("RGB", "JPEG", {"comment": b"\xff\x00\xfe" * 99}),
    "webp-lossy": ("RGB", "WEBP", {"quality": 20}),
    "webp-lossless": ("RGB", "WEBP", {"lossless": True}),
    "webp-alpha": ("RGBA", "WEBP", {}),
    "webp-exact": ("RGBA", "WEBP", {"lossless": True, "exact": True}),
}


def drawing(mode: str) -> Image.Image:
    image = Image.new("RGBA", SIZE, (200, 120, 40, 255))
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 8, 40, 40), fill=(255, 0, 0, 255))
    draw.rectangle((44, 4, 70, 44), fill=(0, 60, 255, 90))
    if mode == "I;16":
        return image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    if mode in ("L", "LA", "RGBA"):
        return image.convert(mode)
    rgb = image.convert("RGB")
    return rgb.quantize(4) if mode == "P" else rgb.convert(mode)


def saved(name: str) -> bytes:
    mode, kind, how = SAVED[name]
    file = io.BytesIO()
    drawing(mode).save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize("name", SAVED)
def test_it_is_read_as_pillow_reads_it(name: str) -> None:
    content = saved(name)
    decoded = image_codec.decode(content)
    expected = Image.open(io.BytesIO(content))
    assert (decoded.mode, decoded.size) == (expected.mode, SIZE)
    assert decoded.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", SAVED)
def test_the_worker_makes_rgb_and_a_mask_of_it(name: str, tmp_path: Path) -> None:
    content = saved(name)
    images = InputImages(tmp_path)
    digest = tiny_adapters.put_bytes(tmp_path, content)
    image, mask = images.image(digest), images.mask(digest)
    assert (image.mode, mask.mode) == ("RGB", "L")
    assert image.size == mask.size == SIZE
    ground = image.getpixel((2, 2))
    assert isinstance(ground, tuple)
    mode = SAVED[name][0]
    if "clear" not in name:
        assert (len(set(ground)) == 1) == (mode in ("1", "L", "LA", "I;16"))
    # The ground's brightness is 135 (ITU-R BT.601).
    if mode != "1" and "clear" not in name:
        assert abs(image.convert("L").getpixel((2, 2)) - 135) < 20


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "JPEG2000"])
def test_another_format_is_refused_by_what_is_wanted(kind: str) -> None:
    file = io.BytesIO()
    drawing("RGB").save(file, kind)
    with pytest.raises(UnreadableImage, match="is not a PNG, JPEG or WebP"):
        image_codec.decode(file.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_called_one(kind: str) -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", SIZE, shade) for shade in ("red", "blue")]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImage, match="is an animation"):
        image_codec.decode(file.getvalue())


@pytest.mark.parametrize("name", ["png-rgb", "jpeg-rgb", "jpeg-progressive", "webp-lossy"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_cut_file_is_refused_in_words(name: str, share: float) -> None:
    content = saved(name)
    with pytest.raises(UnreadableImage, match=r"is a damaged|is not a PNG, JPEG or WebP"):
        image_codec.decode(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 999, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x99\0\0\0WEBPVP8 ", b"<svg/>"],
    ids=ascii,
)
def test_what_is_no_image_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"is a damaged|is not a PNG, JPEG or WebP"):
        image_codec.decode(content)
