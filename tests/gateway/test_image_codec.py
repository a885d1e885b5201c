"""Images of real programs and phones: every form of base64, broken EXIF, long texts, profiles."""

from __future__ import annotations

import base64
import io
import struct
import textwrap
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageDraw
from PIL.PngImagePlugin import PngInfo

from gpu_worker.contract import image_codec
from gpu_worker.contract.image_codec import UnreadableImage
from gpu_worker.pipeline.inputs.input_images import InputImages
from tests.support.builders import tiny_adapters
from tests.support.input_images import GOOD, picture

CONTENT = base64.b64decode(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"data:image/png;base64,{GOOD}",
        f"DATA:image/png;name=a.png;base64,{GOOD}",
        f"data:;base64,{GOOD}",
        f" data:image/png;charset=utf-8;base64, {GOOD}\n",
        "\n".join(textwrap.wrap(GOOD, 76)) + "\n",
        "\r\n".join(textwrap.wrap(GOOD, 64)),
        GOOD.rstrip("="),
        base64.urlsafe_b64encode(CONTENT).decode(),
    ],
    ids=["plain", "url", "name", "no type", "charset", "base64(1)", "mime", "unpadded", "url-safe"],
)
def test_every_usual_form_of_base64_is_read(text: str) -> None:
    assert image_codec.from_base64(text) == CONTENT


def test_the_url_safe_alphabet_is_read() -> None:
    content = bytes(range(256)) * 3
    encoded = base64.urlsafe_b64encode(content).decode()
    assert "-" in encoded and "_" in encoded
    assert image_codec.from_base64(encoded) == content


@pytest.mark.parametrize("text", ["", "data:image/png;base64,", "\n"])
def test_nothing_is_said_to_be_empty(text: str) -> None:
    with pytest.raises(UnreadableImage, match="is empty"):
        image_codec.from_base64(text)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF directory in an APP1 segment's form: tag, type, count, value (EXIF 2.32, 4.6)."""
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries))
    more, at = b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(more))
        more += value if len(value) > 4 else b""
        head += struct.pack("<HHI", tag, kind, count) + inline
    return b"Exif\0\0" + head + bytes(4) + more


ORIENTATION = (0x0112, 3, 1, struct.pack("<H", 6))
ODD_EXIF = {
    "fraction of -1/0": exif(ORIENTATION, (0x011A, 10, 1, struct.pack("<ii", -1, 0))),
    "unknown type": exif(ORIENTATION, (0x011A, 99, 1, b"abcd")),
    "value beyond the end": exif(ORIENTATION, (0x010F, 2, 5000, struct.pack("<I", 90000) + b"x")),
}


def photo(**how: object) -> bytes:
    image = Image.new("RGB", (96, 64), "navy")
    ImageDraw.Draw(image).ellipse((10, 10, 50, 40), fill="red")
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return file.getvalue()


@pytest.mark.parametrize("name", ODD_EXIF)
def test_odd_exif_costs_nothing_and_its_orientation_counts(name: str) -> None:
    plain = image_codec.decode(photo(exif=exif(ORIENTATION)))
    odd = image_codec.decode(photo(exif=ODD_EXIF[name]))
    assert plain.size == odd.size == (64, 96)
    assert odd.tobytes() == plain.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    from PIL import ImageOps

    content = photo(exif=exif((0x0112, 3, 1, struct.pack("<H", orientation))))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert image_codec.decode(content).tobytes() == expected.tobytes()


def png(info: PngInfo, **how: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(file, "PNG", pnginfo=info, **how)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt"])
def test_a_long_text_costs_nothing_and_the_parameters_stay(kind: str) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20")
    long = "x" * 3_000_000
    if kind == "iTXt":
        info.add_itxt("workflow", long, zip=True)
    else:
        info.add_text("workflow", long, zip=kind == "zTXt")
    image = image_codec.decode(png(info))
    assert image.size == (64, 64) and image.getpixel((0, 0)) == (0, 128, 128)
    assert image.info["parameters"] == "a cat\nSteps: 20"


def swapped_primaries() -> bytes:
    """An RGB profile in which red and blue have changed places (ICC.1:2022, 9.2.32, 9.2.4)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    return (
        renamed.replace(b"rXYZ", b"....", 1)
        .replace(b"bXYZ", b"rXYZ", 1)
        .replace(b"....", b"bXYZ", 1)
    )


def test_a_profile_counts_and_a_damaged_one_costs_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red = Image.new("RGB", (64, 64), (255, 0, 0))
    seen = {
        name: InputImages(tmp_path)
        .image(tiny_adapters.put(tmp_path, red, icc_profile=profile))
        .getpixel((0, 0))
        for name, profile in (("damaged", b"x"), ("srgb", srgb), ("swapped", swapped_primaries()))
    }
    assert seen["damaged"] == seen["srgb"] == (255, 0, 0)
    red_part, _, blue_part = seen["swapped"]
    assert blue_part > 200 > 60 > red_part


def test_a_truncated_image_is_named_as_damaged() -> None:
    with pytest.raises(UnreadableImage, match="is a damaged JPEG"):
        image_codec.decode(picture("JPEG", (512, 512))[:-900])


def chunk(kind: bytes, data: bytes, crc: bytes | None = None) -> bytes:
    checksum = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + (crc or checksum)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"a\0b", b"\0\0\0\0"),
        chunk(b"tIME", b"", None),
        chunk(b"pHYs", b""),
        chunk(b"gAMA", b""),
        chunk(b"cHRM", b"\0"),
        b"".join(chunk(b"tEXt", b"k\0" + b"x" * 60_000) for _ in range(40)),
    ],
    ids=["wrong crc", "empty time", "empty size", "empty gamma", "short colours", "many texts"],
)
def test_what_stands_beside_the_pixels_of_a_png_costs_nothing(extra: bytes) -> None:
    whole = picture()
    at = 8 + 25  # after the signature and IHDR
    decoded = image_codec.decode(whole[:at] + extra + whole[at:])
    assert decoded.tobytes() == Image.open(io.BytesIO(whole)).tobytes()


def test_a_png_is_turned_once() -> None:
    info = PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    turned = []
    for more in ({}, {"pnginfo": info}):
        file = io.BytesIO()
        image = Image.new("RGB", (64, 48), "teal")
        image.save(file, "PNG", exif=exif(ORIENTATION), **more)
        turned.append(image_codec.decode(file.getvalue()).size)
    assert turned == [(48, 64), (48, 64)]


@pytest.mark.parametrize("marker", [0xE0, 0xED, 0xE2])
def test_a_cut_segment_of_a_jpeg_costs_nothing(marker: int) -> None:
    whole = photo()
    segment = bytes([0xFF, marker, 0, 6]) + b"JFI\0"
    expected = image_codec.decode(whole)
    assert image_codec.decode(whole[:2] + segment + whole[2:]).tobytes() == expected.tobytes()
