"""A VAE that does not fit: which tiles its calls try, and how long they remember what sufficed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.execution.fit import FORGET_S
from gpu_worker.pipeline.execution.vae_calls import SafeVae

SCALE = 8
"""Pixels for each latent pixel of the VAE below."""


class CrampedVae(AutoencoderKL):
    """A VAE that computes nothing, and whose memory suffices for images of a side in pixels.

    `sides` has the side that each call tried.
    """

    def __init__(self) -> None:
        super().__init__(
            block_out_channels=(32,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=1024,
        )
        self.largest_px = {"encode": 4096, "decode": 4096}
        self.sides: list[int] = []

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        return self._call("encode", x, max(x.shape[-2:]))

    def decode(self, z: torch.Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        return self._call("decode", z, SCALE * max(z.shape[-2:]))

    def _call(self, method: str, value: torch.Tensor, side: int) -> torch.Tensor:
        side = min(side, self.tile_sample_min_size) if self.use_tiling else side
        self.sides.append(side)
        if side > self.largest_px[method]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return value


class Calls:
    """The safe calls of such a VAE, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.vae = CrampedVae()
        self.safe = SafeVae(self.vae, lambda: self.now_s)

    def encode(self, side_px: int) -> list[int]:
        """Return the sides that an image of this side tried."""
        return self._sides("encode", torch.zeros(1, 3, side_px, side_px))

    def decode(self, side_px: int) -> list[int]:
        side = side_px // SCALE
        return self._sides("decode", torch.zeros(1, 4, side, side))

    def _sides(self, method: str, value: torch.Tensor) -> list[int]:
        self.vae.sides.clear()
        self.safe.begin()
        self.safe.call(method, value)
        return list(self.vae.sides)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_the_first_tiles_are_smaller_than_the_image(calls: Calls) -> None:
    calls.vae.largest_px = {"encode": 256, "decode": 128}
    assert calls.encode(512) == [512, 256]
    assert calls.safe.report == {"vae_tile_px": 256}
    assert calls.decode(512) == [512, 256, 128]
    assert calls.decode(1024) == [128], "a larger image needs no larger tiles"
    assert not calls.vae.use_tiling


def test_an_image_as_small_as_the_smallest_tile_is_not_tried_again(calls: Calls) -> None:
    calls.vae.largest_px["decode"] = 64
    with pytest.raises(torch.OutOfMemoryError):
        calls.decode(128)
    assert calls.vae.sides == [128]


def test_pixels_and_latents_of_one_area_are_apart(calls: Calls) -> None:
    calls.vae.largest_px["encode"] = 128
    assert calls.encode(256)[-1] == 128
    assert calls.decode(256 * SCALE) == [256 * SCALE]
    assert calls.safe.report == {}


def test_the_smallest_side_that_was_needed_counts(calls: Calls) -> None:
    calls.vae.largest_px["decode"] = 128
    calls.decode(2048)
    calls.vae.largest_px["decode"] = 512
    assert calls.decode(1024)[-1] == 512
    calls.vae.largest_px["decode"] = 128
    assert calls.decode(2048) == [128]


def test_a_need_is_forgotten(calls: Calls) -> None:
    calls.vae.largest_px["decode"] = 512
    assert calls.decode(1024) == [1024, 768, 512]
    calls.now_s = FORGET_S - 1
    assert calls.decode(1024) == [512]
    calls.vae.largest_px["decode"] = 4096
    calls.now_s = FORGET_S
    assert calls.decode(1024) == [1024]


def test_a_need_enlarges_no_tiles_of_machine_size(calls: Calls) -> None:
    calls.vae.largest_px["decode"] = 512
    calls.decode(1024)
    machine_size.set_tiles(calls.vae, 256)
    assert calls.decode(1024) == [256]
    assert calls.safe.report == {}
