"""Each workaround of a library is still needed: without it the library fails as described.

A test that fails here means that the workaround can be removed.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from gpu_worker.pipeline.families import family_of
from tests.support.builders import tiny_chat_dits, tiny_dits, tiny_files, tiny_more_dits, tiny_unets

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SIDES = {"width": 96, "height": 64}


def run(pipe: Any, **arguments: Any) -> Image.Image:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(7)
    arguments = {"prompt": "a cat", "num_inference_steps": 2, **arguments}
    image: Image.Image = pipe(**arguments, generator=generator).images[0]
    return image


@pytest.mark.parametrize("name", family_of("BriaPipeline").lacks_schedulers)
def test_a_scheduler_that_bria_lacks_fails(name: str) -> None:
    pipe = tiny_more_dits.bria()
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    with pytest.raises(AttributeError, match="scale_model_input"):
        run(pipe, **SIDES)


def test_chromas_inpainting_fails() -> None:
    (name,) = family_of("ChromaPipeline").unusable_pipelines
    text_to_image = tiny_dits.chroma()
    pipe = getattr(diffusers, name)(**text_to_image.components)
    image = Image.new("RGB", (96, 64), "teal")
    with pytest.raises(AttributeError, match="guidance_embeds"):
        run(pipe, image=image, mask_image=Image.new("L", (96, 64), 255), **SIDES)


def test_kontexts_inpainting_resizes_without_the_argument() -> None:
    arguments = family_of("FluxKontextInpaintPipeline").call_arguments
    assert arguments == {"_auto_resize": False}
    parameter = inspect.signature(diffusers.FluxKontextInpaintPipeline.__call__).parameters
    assert parameter["_auto_resize"].default is True


def test_hunyuan_draws_another_size_without_the_argument() -> None:
    assert family_of("HunyuanDiTPipeline").call_arguments == {"use_resolution_binning": False}
    assert run(tiny_dits.hunyuan(), use_resolution_binning=False, **SIDES).size == (96, 64)
    parameter = inspect.signature(diffusers.HunyuanDiTPipeline.__call__).parameters
    assert parameter["use_resolution_binning"].default is True


def test_clip_skip_fails_with_a_flat_text_encoder() -> None:
    pipe = tiny_unets.sd1()
    assert not hasattr(pipe.text_encoder, "text_model")
    with pytest.raises(AttributeError, match="text_model"):
        run(pipe, clip_skip=1)


def test_a_single_file_leaves_t5_in_training_mode(tmp_path: Path) -> None:
    pipe = tiny_dits.sd3()
    pipe.save_pretrained(tmp_path / "one")
    tiny_files.sd3(pipe, tmp_path / "one.safetensors")
    loaded = diffusers.StableDiffusion3Pipeline.from_single_file(
        tmp_path / "one.safetensors", config=str(tmp_path / "one")
    )
    assert loaded.text_encoder_3.training


def test_flow_matching_heun_cannot_take_the_sigmas_of_a_pipeline() -> None:
    pipe = tiny_dits.flux()
    pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    with pytest.raises(ValueError, match="does not support custom sigmas"):
        run(pipe, **SIDES)
    assert family_of("FluxPipeline").makes_own_sigmas is False
    assert family_of(tiny_chat_dits.lumina()).makes_own_sigmas is True
