"""Previews: what the linear map and the guess make of latents, on the built-in model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker import pipeline
from gpu_worker.pipeline.execution import vae_calls
from gpu_worker.pipeline.loading.latent_rgb import MIN_FIT, Projection, encoder_copy
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.sampling.latent_preview import LatentPreviews, shrink
from tests.support import layer_offload
from tests.support.builders import tiny_models
from tests.support.builders.tiny_families import FAMILIES
from tests.support.pipeline_jobs import demo_side_px, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

BILINEAR = Image.Resampling.BILINEAR
PROMPT = "a rocket on a blue background"


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
    ours = pipeline.load(settings(tmp_path_factory.mktemp("preview")))
    assert ours._loaded is not None
    pipe = ours._loaded.pipe
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    previews = LatentPreviews(pipe, pipe)  # through its VAE, whether a linear map fits or not
    made: list[Image.Image] = []

    def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        make = previews.after(index, timestep, tensors["latents"])
        preview = make() if make is not None else None
        assert preview is not None and preview.device_s == 0
        made.append(preview.image)
        return tensors

    final = pipe(
        PROMPT,
        num_inference_steps=20,
        generator=torch.Generator("cpu").manual_seed(3),
        callback_on_step_end=step_ended,
    ).images[0]
    assert {picture.size for picture in made} == {final.size}
    assert likeness(made[-1], final) > 0.95
    assert likeness(made[9], final) > 0.5, "half-way it can be told what it becomes"


def test_packed_latents_have_no_preview() -> None:
    previews = LatentPreviews(tiny_models.build(), Projection(torch.zeros(5, 3)))
    assert previews.after(0, 999, torch.zeros(1, 16, 64)) is None
    assert previews.after(0, 999, None) is None
    assert previews.after(0, 999, torch.zeros(1, 4, 8, 8)) is not None


SCHEDULERS = ["DDIM", "DDPM", "PNDM", "LCM", "TCD", "EulerDiscrete", "HeunDiscrete"]
SCHEDULERS += ["DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "KDPM2Discrete"]
SCHEDULERS += ["FlowMatchEulerDiscrete"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_step_waits_for_the_device(name: str) -> None:
    """What would have to wait fails on `meta`, where tensors have no values."""
    pipe = tiny_models.build()
    pipe.scheduler = getattr(diffusers, f"{name}Scheduler")()
    pipe.scheduler.set_timesteps(4)
    for tensor in ("sigmas", "timesteps", "alphas_cumprod"):
        if hasattr(pipe.scheduler, tensor):
            setattr(pipe.scheduler, tensor, getattr(pipe.scheduler, tensor).to("meta"))
    previews = LatentPreviews(pipe, Projection(torch.zeros(5, 3)))
    for index, timestep in enumerate(pipe.scheduler.timesteps):
        make = previews.after(index, timestep, torch.empty(1, 4, 8, 8, device="meta"))
        assert make is not None
    with pytest.raises((NotImplementedError, RuntimeError)):
        make()


@pytest.mark.parametrize("name", ["EulerDiscrete", "DDIM", "DPMSolverMultistep", "PNDM"])
def test_a_preview_leads_to_the_image_in_a_call_that_begins_on_the_way(name: str) -> None:
    """From latents of known noise: the line through two steps meets the image."""
    cls, config = getattr(diffusers, f"{name}Scheduler"), {"beta_schedule": "scaled_linear"}
    pipe = tiny_models.build()
    pipe.scheduler = scheduler = cls.from_config(config | {"skip_prk_steps": True})
    scheduler.set_timesteps(10)
    generator = torch.Generator("cpu").manual_seed(5)
    clean, noise = (torch.randn(1, 4, 8, 8, generator=generator) / 4 for _ in range(2))
    identity = torch.cat([torch.eye(4)[:, :3], torch.zeros(1, 3)])
    previews = LatentPreviews(pipe, Projection(identity))
    first = 6
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    for index, place in enumerate((first, first + 1)):
        timestep, later = scheduler.timesteps[place : place + 2]
        if hasattr(scheduler, "step_index"):
            scheduler.step(noise, timestep, clean)  # it counts its steps
        latents = scheduler.add_noise(clean, noise, later[None])
        make = previews.after(index, timestep, latents)
    preview = make() if make is not None else None
    assert preview is not None
    expected = Projection(identity).image(clean).resize(preview.image.size, BILINEAR)
    difference = np.asarray(preview.image, int) - np.asarray(expected, int)
    assert np.abs(difference).max() <= 2


class Linear(torch.nn.Module):
    """An autoencoder whose latents are mixed colours, a pixel for 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"scaling_factor": 0.5, "shift_factor": 0.1}
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


def test_no_linear_map_is_found_where_there_is_none() -> None:
    vae = tiny_models.build().vae
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    assert Projection.from_vae(encoder_copy(vae), factor).fit < MIN_FIT


KL = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
KL |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}


@pytest.mark.parametrize(
    ("config", "colors"),
    [
        ({"scaling_factor": 0.18215}, (132, 160, 192)),
        ({"scaling_factor": 0.13025}, (255, 203, 163)),
        ({"scaling_factor": 0.5}, None),
        ({"scaling_factor": 0.3611, "shift_factor": 0.1159, "latent_channels": 16}, None),
        ({"scaling_factor": 0.18215, "latent_channels": 16}, None),
    ],
)
def test_a_published_map_needs_no_weights(config: dict[str, Any], colors: Any) -> None:
    """The weights are on `meta`: whoever reads them fails."""
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(**KL, **config)
    found = Projection.published(vae, 8)
    if colors is None:
        assert found is None
        return
    assert found is not None and Projection.published(vae, 16) is None
    latents = torch.tensor([0.2, -0.4, 0.6, -0.8]).view(1, 4, 1, 1)
    assert found.image(latents).getpixel((0, 0)) == colors, "by hand"


def layered(pipe: Any, folder: Path) -> None:
    layer_offload.offload(pipe, folder)


def whole(pipe: Any, folder: Path) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def grouped(pipe: Any, folder: Path) -> None:
    pipe.vae.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


@pytest.mark.parametrize("offload", [layered, whole, grouped])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_map_is_fitted_to_a_copy_wherever_the_weights_are(
    offload: Callable[[Any, Path], None], dtype: torch.dtype, tmp_path: Path
) -> None:
    pipe = tiny_models.build()
    expected = Projection.from_vae(encoder_copy(pipe.vae), 2)
    pipe.vae.to(dtype)
    offload(pipe, tmp_path)
    before = {name: (w.device, w.dtype) for name, w in pipe.vae.named_parameters()}
    ran: list[object] = []
    for part in pipe.vae.modules():
        part.register_forward_hook(lambda *_: ran.append(1))
    found = Projection.from_vae(encoder_copy(pipe.vae), 2)
    assert found.fit == pytest.approx(expected.fit, abs=1e-6 if dtype == torch.float32 else 0.02)
    assert ran == []
    assert before == {name: (w.device, w.dtype) for name, w in pipe.vae.named_parameters()}


def test_a_vae_whose_encoder_overflows_has_no_map_and_no_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    vae = tiny_models.build().vae
    vae.encoder.conv_in.weight.data *= 1e38
    assert Projection.from_vae(encoder_copy(vae), 2).fit == 0
    assert capfd.readouterr() == ("", "")


def test_a_preview_is_not_decoded_twice() -> None:
    """An image would be, in float32 or in tiles, and that waits for the device."""
    pipe = tiny_models.build()
    pipe.vae.decoder.conv_in.weight.data *= 1e38
    pipe.vae.to(torch.bfloat16)
    vae_calls.install(pipe.vae)
    decodes: list[object] = []
    pipe.vae.decoder.register_forward_hook(lambda *_: decodes.append(1))
    make = LatentPreviews(pipe, pipe).after(0, pipe.scheduler.timesteps[0], torch.ones(1, 4, 8, 8))
    assert make is not None and make() is not None
    assert len(decodes) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_vae_whose_decoder_overflows_still_has_a_preview(
    dtype: torch.dtype, recwarn: pytest.WarningsRecorder
) -> None:
    pipe = tiny_models.build()
    pipe.vae.decoder.conv_in.weight.data *= 1e38
    pipe.vae.to(dtype)
    previews = LatentPreviews(pipe, pipe)
    make = previews.after(0, pipe.scheduler.timesteps[0], torch.ones(1, 4, 8, 8, dtype=dtype))
    preview = make() if make is not None else None
    assert preview is not None and preview.image.size == (16, 16)
    assert [each for each in recwarn if "invalid value" in str(each.message)] == []


def loaded(pipe: Any) -> LoadedModel:
    return LoadedModel("tiny", pipe, "little", "little", torch.device("cpu"))


@pytest.mark.parametrize("offload", [layered, whole, grouped])
def test_no_part_is_moved_for_a_preview(
    offload: Callable[[Any, Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The VAE would be moved to the device, and the denoiser away from it."""
    pipe = tiny_models.build()
    assert loaded(pipe).latent_colors(pipe) is pipe
    offload(pipe, tmp_path)
    model = loaded(pipe)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert model.latent_colors(pipe) is None
    assert [record.getMessage() for record in caplog.records] == [
        "tiny has no previews: no linear map fits its VAE, and its parts are offloaded"
    ]
    # A map needs the VAE no more.
    model._projection = Projection(torch.zeros(5, 3))
    assert model.latent_colors(pipe) is model._projection


def test_the_map_is_there_before_the_first_step(tmp_path: Path) -> None:
    ours = pipeline.load(settings(tmp_path))
    model = ours._loaded
    assert model is not None and model._projection is None
    side = demo_side_px()

    def on_step(step: int, steps: int, preview: Any = None) -> None:
        assert model._projection is not None and preview().image.size == (side, side)

    ours.generate(job(), on_step)


@pytest.mark.parametrize("name", ["flux", "qwen-image"])
def test_no_map_is_fitted_for_packed_latents(name: str) -> None:
    pipe = FAMILIES[name].build()
    model = loaded(pipe)
    assert model.latent_colors(pipe) is None
    assert model._projection is None


@pytest.mark.parametrize(
    ("size", "limit", "shown"),
    [((16, 8), (64, 32), (64, 32)), ((128, 96), (1024, 768), (256, 192))],
)
def test_a_preview_is_small(
    size: tuple[int, int], limit: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert shrink(Image.new("RGB", size), limit).size == shown
