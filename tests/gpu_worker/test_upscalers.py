"""Making a picture larger: the filter, real upscalers through spandrel, the tiles, and refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gpu_worker.assets.model_library import Library, ModelsError
from gpu_worker.pipeline.upscaling import spandrel_models, upscale
from tests.support.builders import tiny_upscalers

CPU = torch.device("cpu")


class Doubling(torch.nn.Module):
    """Every pixel twice, then a blur that looks a few pixels around, as a real one does."""

    scale = 2

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        twice = torch.nn.functional.interpolate(pixels, scale_factor=2, mode="nearest")
        padded = torch.nn.functional.pad(twice, (3, 3, 3, 3), mode="replicate")
        return torch.nn.functional.avg_pool2d(padded, 7, stride=1)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def library(*names: str) -> Library:
    """Upscalers that are called as their files are."""
    named = {name.partition(".")[0]: {"source": name} for name in names}
    return Library.model_validate({"upscalers": named})


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    pixels = [np.asarray(each).astype(int) for each in (one, other)]
    return int(np.abs(pixels[0] - pixels[1]).max())


def test_lanczos_is_pillows_own(tmp_path: Path) -> None:
    picture = noise(40, 24)
    made = upscale.enlarge(picture, "lanczos", (100, 60), Library(), tmp_path, CPU)
    assert made.tobytes() == picture.resize((100, 60), Image.Resampling.LANCZOS).tobytes()


@pytest.mark.parametrize("size", [(30, 20), (512, 512), (449, 897), (1000, 64)])
def test_tiles_leave_no_seam(size: tuple[int, int]) -> None:
    pixels = upscale._to_tensor(noise(*size))
    whole = Doubling()(pixels)
    tiled = upscale._upscale_tiles(Doubling(), pixels)
    assert tiled.shape == whole.shape
    assert torch.allclose(tiled, whole, atol=1e-6)


def test_an_esrgan_in_tiles_is_the_esrgan_in_one_piece(tmp_path: Path) -> None:
    """Beside our own generator with the same weights, which knows neither spandrel nor tiles."""
    model = tiny_upscalers.esrgan(tmp_path / "sharp.safetensors")
    picture = noise(560, 40)
    made = upscale.enlarge(
        picture, "sharp", (2240, 160), library("sharp.safetensors"), tmp_path, CPU
    )
    with torch.no_grad():
        expected = upscale._to_image(model(upscale._to_tensor(picture)))
    assert largest_difference(made, expected) <= 1, "rounding alone"
    assert 0 < np.asarray(made).mean() < 255 and np.asarray(made).std() > 0.5


def test_another_size_than_the_models_own_is_resized(tmp_path: Path) -> None:
    tiny_upscalers.esrgan(tmp_path / "sharp.safetensors")
    known = library("sharp.safetensors")
    own = upscale.enlarge(noise(24, 16), "sharp", (96, 64), known, tmp_path, CPU)
    half = upscale.enlarge(noise(24, 16), "sharp", (48, 32), known, tmp_path, CPU)
    assert half.tobytes() == own.resize((48, 32), Image.Resampling.LANCZOS).tobytes()


@pytest.mark.parametrize("build", [tiny_upscalers.compact, tiny_upscalers.swin_ir])
def test_other_architectures_are_recognised(build: Any, tmp_path: Path) -> None:
    torch.manual_seed(12)
    model = tiny_upscalers.save(build(), tmp_path / "x.safetensors")
    picture = noise(40, 24)
    made = upscale.enlarge(picture, "x", (80, 48), library("x.safetensors"), tmp_path, CPU)
    with torch.no_grad():
        expected = upscale._to_image(model(upscale._to_tensor(picture)))
    assert largest_difference(made, expected) <= 1


def test_an_upscaler_that_is_not_there_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "y.pth").write_bytes(b"x")
    (tmp_path / "torn.safetensors").write_bytes(b"\0" * 9)
    grey = tiny_upscalers.Esrgan()
    grey.conv_first = tiny_upscalers.conv(1, tiny_upscalers.WIDTH)
    grey.conv_last = tiny_upscalers.conv(tiny_upscalers.WIDTH, 1)
    tiny_upscalers.save(grey, tmp_path / "grey.safetensors")
    known = library("x.safetensors", "y.pth", "torn.safetensors", "grey.safetensors")

    def said(name: str) -> str:
        with pytest.raises(ModelsError) as caught:
            upscale.enlarge(noise(8, 8), name, (16, 16), known, tmp_path, CPU)
        return str(caught.value)

    assert said("esrgan") == "no upscaler has the name 'esrgan'; the names are: grey, torn, x, y"
    assert "only .safetensors and .gguf" in said("y")
    assert said("x").startswith("upscalers.x: x.safetensors is not an upscaler: ")
    assert said("torn").startswith("upscalers.torn: torn.safetensors is not an upscaler: ")
    assert said("grey").endswith("maps 1 channels to 1, not 3 to 3")


def test_a_library_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_upscalers.esrgan(tmp_path / "sharp.safetensors")
    known = library("sharp.safetensors")
    # Python's own way to say that there is no such module.
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModelsError) as caught:
        upscale.enlarge(noise(8, 8), "sharp", (16, 16), known, tmp_path, CPU)
    said = "upscalers.sharp: spandrel is not installed; pip install "
    assert str(caught.value) == said + "'stable-diffusion-environment[upscale]'"


def test_what_spandrel_takes_of_torchvision_is_told_when_it_is_asked_for() -> None:
    """RestoreFormer is one of the two architectures that use it; nothing of the name stays."""
    spandrel_models.import_spandrel()
    from spandrel.architectures import RestoreFormer

    assert not [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    with pytest.raises(ModelsError, match="needs torchvision, which is not installed"):
        RestoreFormer.tv_normalize(torch.zeros(1, 3, 8, 8), [0.5] * 3, [0.5] * 3)
