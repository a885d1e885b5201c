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

from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.families import family_of
from tests.support.builders import tiny_chat_dits, tiny_dits, tiny_files, tiny_more_dits, tiny_unets
from tests.support.pipeline_bench import Bench

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CUDA = torch.device("cuda")

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


def test_kolors_own_decoding_converts_its_vae_on_mps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU computes both, and diffusers only asks whether the machine has MPS."""
    tiny_unets.kolors().save_pretrained(tmp_path / "models" / "kolors")
    bench = Bench(tmp_path, "kolors", SDE_DTYPE="float16")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    (made,) = bench.make(**SIDES)
    assert bench.pipe.vae.dtype == torch.float32
    assert made.image.getextrema() != ((0, 0),) * 3
    run(bench.pipe, **SIDES)
    assert bench.pipe.vae.dtype == torch.float16


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


def uncalled(pipe: Any, part: str) -> list[str]:
    """The layers of a part that have weights and whose forward a call does not use."""
    layers = {
        name: layer
        for name, layer in getattr(pipe, part).named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }
    called = set()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    run(pipe, **SIDES, **family_of(pipe).call_arguments)
    return sorted(layers.keys() - called)


def test_hunyuans_layers_cannot_be_offloaded_one_by_one() -> None:
    """Layer hooks bring weights to the device when a layer is called, and these never are."""
    pipe = tiny_dits.hunyuan()
    assert machine_size.offload_for(pipe, "tiny", CUDA) == "model"
    names = uncalled(pipe, "transformer")
    assert names and all("pooler" in name for name in names)


def test_layers_of_a_plain_family_can_be_offloaded_one_by_one() -> None:
    """The failure above is that family's own."""
    pipe = tiny_unets.sd1()
    assert machine_size.offload_for(pipe, "tiny", CUDA) == "layers"
    assert uncalled(pipe, "unet") == []


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_ggufs_layers_are_offloaded_as_a_whole(tmp_path: Path, kind: str) -> None:
    pipe = tiny_dits.flux()
    tiny_files.gguf_transformer(pipe, tmp_path / "flux.gguf", kind)
    pipe.transformer = diffusers.FluxTransformer2DModel.from_single_file(
        str(tmp_path / "flux.gguf"),
        config=str(tmp_path / "flux"),
        subfolder="transformer",
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
    )
    assert [machine_size.offload_for(pipe, size, CUDA) for size in machine_size.SIZES] == [
        *("none", "none", "model", "model")
    ]
