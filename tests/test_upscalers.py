"""Making a picture larger: the filter, the tiles, and what is said when there is no upscaler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gpu_worker.models import Library, ModelsError
from gpu_worker.pipeline import upscalers

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


def test_lanczos_is_pillows_own(tmp_path: Path) -> None:
    picture = noise(40, 24)
    made = upscalers.enlarge(picture, "lanczos", (100, 60), Library(), tmp_path, CPU)
    assert made.tobytes() == picture.resize((100, 60), Image.Resampling.LANCZOS).tobytes()


@pytest.mark.parametrize("size", [(30, 20), (512, 512), (449, 897), (1000, 64)])
def test_tiles_leave_no_seam(size: tuple[int, int]) -> None:
    pixels = upscalers._tensor(noise(*size))
    whole = Doubling()(pixels)
    tiled = upscalers._tiled(Doubling(), pixels)
    assert tiled.shape == whole.shape
    assert torch.allclose(tiled, whole, atol=1e-6)


def test_an_upscaler_that_is_not_there_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "y.pth").write_bytes(b"x")
    library = Library.model_validate(
        {"upscalers": {"x": {"source": "x.safetensors"}, "y": {"source": "y.pth"}}}
    )

    def said(name: str) -> str:
        with pytest.raises(ModelsError) as caught:
            upscalers.enlarge(noise(8, 8), name, (16, 16), library, tmp_path, CPU)
        return str(caught.value)

    assert said("esrgan") == "no upscaler is called 'esrgan'; there are: x, y"
    assert "only .safetensors and .gguf" in said("y")
    # With spandrel here it is no upscaler; without, the sentence says what to install.
    assert "is no upscaler" in said("x") or "[upscale]" in said("x")
