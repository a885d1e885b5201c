"""Previews: what the linear map and the guess make of latents, on the built-in model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker import pipeline
from gpu_worker.pipeline.loading.latent_rgb import MIN_FIT, Projection, decode
from gpu_worker.pipeline.sampling.latent_preview import LatentPreviews, shrink
from tests.support.pipeline_jobs import settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPT = "a large red circle on a blue background"


def likeness(one: Image.Image, other: Image.Image) -> float:
    """Correlation of two pictures at 16 x 16, -1 to 1."""
    values = [
        np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), float).ravel()
        for picture in (one, other)
    ]
    return float(np.corrcoef(*values)[0, 1])


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_the_picture_is_seen_before_it_is_there(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import diffusers

    ours = pipeline.load(settings(tmp_path_factory.mktemp("preview")))
    assert ours._loaded is not None
    pipe = ours._loaded.pipe
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    previews = LatentPreviews(pipe.scheduler, int(pipe.vae_scale_factor), lambda z: decode(pipe, z))
    made: list[Image.Image] = []

    def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        make = previews.after(index, tensors["latents"])
        assert make is not None
        made.append(make())
        return tensors

    final = pipe(
        PROMPT,
        num_inference_steps=20,
        generator=torch.Generator("cpu").manual_seed(3),
        callback_on_step_end=step_ended,
    ).images[0]
    assert {picture.size for picture in made} == {(64, 64)}
    assert likeness(made[-1], final) > 0.95
    assert likeness(made[9], final) > 0.7, "half-way it can be told what it becomes"


def test_packed_latents_have_no_preview() -> None:
    previews = LatentPreviews(None, 8, Projection(torch.zeros(5, 3)).image)
    assert previews.after(0, torch.zeros(1, 16, 64)) is None


class Linear(torch.nn.Module):
    """An autoencoder whose latents are mixed colours, a pixel for 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(scaling_factor=0.5, shift_factor=0.1)
        self.device = torch.device("cpu")
        self.mix = torch.nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))

    def encode(self, pictures: torch.Tensor) -> Any:
        small = torch.nn.functional.avg_pool2d(pictures, 8)
        return SimpleNamespace(latent=torch.einsum("dc,nchw->ndhw", self.mix, small))


def test_a_linear_map_is_found_where_there_is_one() -> None:
    vae = Linear()
    found = Projection.from_vae(vae, 8)
    assert found.fit > 0.999
    colors = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = (vae.encode(colors).latent - 0.1) * 0.5
    expected = torch.nn.functional.avg_pool2d(colors, 8)[0].permute(1, 2, 0)
    seen = torch.from_numpy(np.asarray(found.image(latents.detach())).copy())
    assert torch.allclose(seen / 127.5 - 1, expected, atol=0.02)


def test_the_built_in_model_is_not_linear(tmp_path: Path) -> None:
    ours = pipeline.load(settings(tmp_path))
    assert ours._loaded is not None
    assert Projection.from_vae(ours._loaded.pipe.vae, 4).fit < MIN_FIT


@pytest.mark.parametrize(
    ("size", "limit", "shown"),
    [((16, 8), (64, 32), (64, 32)), ((128, 96), (1024, 768), (256, 192))],
)
def test_a_preview_is_small(
    size: tuple[int, int], limit: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert shrink(Image.new("RGB", size), limit).size == shown
