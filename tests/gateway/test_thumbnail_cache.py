"""The cache of thumbnails at its bound, on a bad disk, and after a crash."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.thumbnail_cache import ThumbnailCache


def name(number: int) -> ImageName:
    return ImageName(f"{number:08x}-0000-4000-8000-000000000000", 0)


def png(mode: str = "RGB", size: tuple[int, int] = (200, 100)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def refuse() -> bytes:
    raise AssertionError("the image is read again")


def test_it_is_made_once(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path / "t", 1 << 20)
    first = cache.thumbnail(name(1), 64, png)
    assert Image.open(io.BytesIO(first)).size == (64, 32)
    assert cache.thumbnail(name(1), 64, refuse) == first


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_any_image_has_one(tmp_path: Path, mode: str) -> None:
    content = ThumbnailCache(tmp_path, 1 << 20).thumbnail(name(1), 64, lambda: png(mode))
    assert Image.open(io.BytesIO(content)).format == "WEBP"


def test_the_bound_holds_and_what_was_used_last_stays(tmp_path: Path) -> None:
    size = len(ThumbnailCache(tmp_path / "x", 1 << 20).thumbnail(name(0), 64, png))
    cache = ThumbnailCache(tmp_path / "t", 5 * size)
    for number in range(1, 20):
        cache.thumbnail(name(number), 64, png)
        for path in (tmp_path / "t").rglob(f"{name(number)}*"):
            os.utime(path, (number, number))
        total = sum(path.stat().st_size for path in (tmp_path / "t").rglob("*.webp"))
        assert total <= 5 * size * 1.3
    cache.thumbnail(name(19), 64, refuse)


def test_a_part_of_a_file_is_made_again(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path, 1 << 20)
    whole = cache.thumbnail(name(1), 64, png)
    (path,) = tmp_path.rglob("*.webp")
    for content in (b"", whole[:50], b"x" * len(whole)):
        path.write_bytes(content)
        again = cache.thumbnail(name(1), 64, png)
        assert Image.open(io.BytesIO(again)).size == (64, 32) and path.read_bytes() == again


def test_a_full_disk_costs_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ThumbnailCache(tmp_path, 1 << 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpu_worker.store.durable.write_all", full)
    assert cache.thumbnail(name(1), 64, png)
    assert list(tmp_path.rglob("*.*")) == []


def test_what_is_deleted_or_left_over_is_removed(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path, 1 << 20)
    for number in (1, 2, 3):
        cache.thumbnail(name(number), 64, png)
        cache.thumbnail(name(number), 128, png)
    cache.remove({name(1)})
    (tmp_path / "00" / "half.webp.tmp").write_bytes(b"x")
    cache.sweep(lambda each: each != name(2))
    assert sorted({path.name[:8] for path in tmp_path.rglob("*.*")}) == ["00000003"]
