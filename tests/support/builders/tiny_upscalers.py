"""Models that make pictures larger, with random weights, of a few kilobytes: made on the spot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from gpu_worker.pipeline.upscaling import spandrel_models

WIDTH, GROWTH = 8, 32
"""Channels, and what each convolution of a dense block adds: spandrel knows 32 alone."""


def conv(given: int, made: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1)


def bent(pixels: torch.Tensor) -> torch.Tensor:
    return nn.functional.leaky_relu(pixels, 0.2)


class Dense(nn.Module):
    """Five convolutions, each of which sees what all before it have made."""

    def __init__(self) -> None:
        super().__init__()
        for place in range(4):
            setattr(self, f"conv{place + 1}", conv(WIDTH + place * GROWTH, GROWTH))
        self.conv5 = conv(WIDTH + 4 * GROWTH, WIDTH)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        seen = given
        for place in range(4):
            seen = torch.cat((seen, bent(getattr(self, f"conv{place + 1}")(seen))), 1)
        return given + 0.2 * self.conv5(seen)


class Block(nn.Module):
    """Residual in residual."""

    def __init__(self) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = Dense(), Dense(), Dense()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = given + 0.2 * self.rdb3(self.rdb2(self.rdb1(given)))
        return made


class Esrgan(nn.Module):
    """ESRGAN's generator (arXiv:1809.00219) with one block, its layers named as in the files that
    Real-ESRGAN gives out. It sees 21 pixels around."""

    scale = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv_first, self.body = conv(3, WIDTH), nn.Sequential(Block())
        self.conv_body, self.conv_up1 = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.conv_up2, self.conv_hr = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.conv_last = conv(WIDTH, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        first = self.conv_first(pixels)
        made = first + self.conv_body(self.body(first))
        for layer in (self.conv_up1, self.conv_up2):
            made = bent(layer(nn.functional.interpolate(made, scale_factor=2, mode="nearest")))
        found: torch.Tensor = self.conv_last(bent(self.conv_hr(made)))
        return found


def compact() -> Any:
    """Real-ESRGAN's small one (SRVGGNetCompact)."""
    spandrel_models.import_spandrel()
    from spandrel.architectures.Compact import Compact

    return Compact(num_feat=8, num_conv=2, upscale=2)


def swin_ir() -> Any:
    """A transformer: its picture has to be filled up to whole windows of 8 pixels."""
    spandrel_models.import_spandrel()
    from spandrel.architectures.SwinIR import SwinIR

    shape = {"embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2.0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        return SwinIR(img_size=16, window_size=8, upscale=2, upsampler="pixelshuffle", **shape)


def save(model: Any, file: Path) -> Any:
    """The same model, ready to be called."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    return model.eval()


def esrgan(file: Path) -> Esrgan:
    """Saved; what it makes is as bright as a picture."""
    torch.manual_seed(11)
    model = Esrgan()
    torch.nn.init.constant_(model.conv_last.bias, 0.5)
    made: Esrgan = save(model, file)
    return made
