"""What some families do unlike the rest: steps, sizes, schedulers, and files that are not whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.loading import checkpoints
from gpu_worker.pipeline.sampling import step_callbacks
from tests.support.builders import (
    tiny_adapters,
    tiny_chat_dits,
    tiny_dits,
    tiny_files,
    tiny_kandinsky,
    tiny_models,
    tiny_unets,
)
from tests.support.builders.original_layout import (
    BIG_G_BIAS,
    FIRST_VAE_BIAS,
    FLUX_SCALE,
    LAST_UNET_BIAS,
    SD35_WEIGHT,
)
from tests.support.pipeline_bench import PROMPT, Bench, direct, in_own_memory, write_library

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def bench(folder: Path, pipe: Any) -> Bench:
    pipe.save_pretrained(folder / "models" / "one")
    return Bench(folder, "one")


def seen(made: Bench, **given: Any) -> list[tuple[int, int]]:
    steps: list[tuple[int, int]] = []
    made.make(on_step=lambda *at: steps.append(at[:2]), **given)
    return steps


def test_steps_are_told_by_classes_that_know_the_old_callback_alone(tmp_path: Path) -> None:
    made = bench(tmp_path, tiny_unets.deepfloyd())
    assert seen(made) == [(1, 2), (2, 2)]
    given = {"image": made.put(tiny_adapters.drawing()), "strength": 0.5}
    assert seen(made, num_inference_steps=4, **given) == [(1, 2), (2, 2)]
    made.halted()
    logged = made.make(step_log=True)[0].metadata["steps_log"]
    assert [row["step"] for row in logged] == [1, 2] and len(logged[0]["latents_sha256"]) == 64
    assert "progress_bar" not in vars(made.pipe)


def test_steps_are_told_by_classes_that_know_none() -> None:
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    pipe = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    steps: list[tuple[int, int]] = []

    def ended(drawing: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append((index, step_callbacks.steps_of(drawing)))
        return tensors

    with step_callbacks.report_steps(pipe, ended) as arguments:
        pipe(num_inference_steps=3, output_type="np", **arguments)
    assert steps == [(0, 3), (1, 3), (2, 3)]


def test_true_guidance_needs_a_negative_prompt(tmp_path: Path) -> None:
    made = bench(tmp_path, tiny_chat_dits.qwen_image())
    plain = made.pixels()
    assert made.pixels(true_cfg_scale=8.0) == plain
    strong = made.make(true_cfg_scale=8.0, negative_prompt="blurry")[0]
    assert strong.image.tobytes() != made.pixels(true_cfg_scale=2.0, negative_prompt="blurry")
    with pytest.raises(Unsupported, match=r"true_cfg_scale: .* does not take it"):
        bench(tmp_path / "sd", tiny_models.build()).make(true_cfg_scale=8.0)


def test_a_side_that_would_be_cut_is_refused_and_a_picture_is_fitted(tmp_path: Path) -> None:
    made = bench(tmp_path, tiny_dits.flux(levels=4))
    with pytest.raises(Unsupported, match=r"width: FluxPipeline needs a multiple of 16 pixels"):
        made.make(width=72, height=64)
    picture = made.put(tiny_adapters.drawing().resize((72, 88)))
    assert made.make(image=picture, strength=0.6)[0].image.size == (64, 80)


def test_a_second_pass_of_packed_latents_takes_the_picture(tmp_path: Path) -> None:
    made = bench(tmp_path, tiny_dits.flux(levels=4))
    hires = {"scale": 1.4, "strength": 0.6}
    given = {"width": 64, "height": 64}
    with pytest.raises(Unsupported, match=r"hires.upscaler: .* use upscaler lanczos"):
        made.make(hires=hires | {"upscaler": "latent"}, **given)
    first, generator = made.make(**given)[0].image, torch.Generator("cpu").manual_seed(7)
    pipe = in_own_memory(diffusers.FluxPipeline.from_pretrained(made.model))
    pipe.set_progress_bar_config(disable=True)
    asked = {"prompt": PROMPT, "num_inference_steps": 2, "generator": generator}
    assert pipe(**asked, **given).images[0].tobytes() == first.tobytes()
    larger = first.resize((96, 96), Image.Resampling.LANCZOS)
    second = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
    again = second(**asked, image=larger, strength=0.6, width=96, height=96).images[0]
    image = made.make(hires=hires | {"upscaler": "lanczos"}, **given)[0].image
    assert image.size == (96, 96) and image.tobytes() == again.tobytes()


def test_a_family_with_a_prior_draws_with_the_scheduler_that_is_asked_for(tmp_path: Path) -> None:
    made = bench(tmp_path, tiny_kandinsky.kandinsky22())
    given = {"width": 64, "height": 64}
    plain = made.pixels(**given)
    other = made.pixels(scheduler="DDIMScheduler", **given)
    pipe = diffusers.KandinskyV22CombinedPipeline.from_pretrained(made.model)
    assert plain == direct(pipe, **given)
    pipe.decoder_pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    assert other == direct(pipe, **given) != plain
    assert made.pixels(**given) == plain, "the next job has the model's own"


def test_a_network_draws_at_its_own_size_where_it_cannot_otherwise(tmp_path: Path) -> None:
    made = bench(tmp_path, tiny_unets.deepfloyd())
    picture = made.put(tiny_adapters.drawing())
    with pytest.raises(
        Unsupported, match=r"height: IFImg2ImgPipeline generates only at the size of its"
    ):
        made.make(image=picture, height=64)
    assert made.make(image=picture, strength=0.5)[0].image.size == (32, 32)


@pytest.mark.parametrize("build", [tiny_dits.flux, tiny_dits.sd3])
def test_a_quantised_gguf_transformer_draws_nearly_the_same(tmp_path: Path, build: Any) -> None:
    pipe = build()
    made = bench(tmp_path, pipe)
    given = {"width": 64, "height": 64}
    whole = np.asarray(made.make(**given)[0].image).astype(int)
    tiny_files.gguf_transformer(pipe, tmp_path / "models" / "few.gguf", "Q8_0")
    write_library(tmp_path, models={"few": {"source": "few.gguf"}})
    few = np.asarray(Bench(tmp_path, "one").make(model="few", **given)[0].image).astype(int)
    assert 0 < np.abs(whole - few).max() <= 3, "eight bits a weight"


def test_a_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    tiny_files.sd1(tiny_unets.sd1(), folder / "one.safetensors")
    weights = load_file(folder / "one.safetensors")
    save_file({k: v for k, v in weights.items() if ".out.2." not in k}, folder / "one.safetensors")
    write_library(tmp_path, models={"one": {"source": "one.safetensors"}})
    made = Bench(tmp_path, "demo", SDE_MODEL="demo")
    with pytest.raises(ModelsError, match=r"one: the file lacks weights that StableDiffusion"):
        made.make(model="one")
    assert isinstance(made.make()[0].image, Image.Image)


def written(path: Path, *keys: str) -> Path:
    """Names alone, as a checkpoint has them."""
    save_file({key: torch.zeros(1) for key in keys}, path)
    return path


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ([SD35_WEIGHT], "StableDiffusion3Pipeline"),
        ([BIG_G_BIAS, "edm_mean"], "StableDiffusionXLPipeline"),
        ([FLUX_SCALE], "FluxPipeline"),
    ],
)
def test_a_whole_file_is_recognised_by_its_names(
    tmp_path: Path, keys: list[str], kind: str
) -> None:
    whole = written(tmp_path / "a.safetensors", *keys, FIRST_VAE_BIAS)
    assert checkpoints.pipeline_class(whole).__name__ == kind


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            [FLUX_SCALE],
            "is flux-schnell only; put the other parts in diffusers' layout in a/ beside it",
        ),
        (["lora_unet_down.alpha", "vae.x"], "holds no known model"),
        (
            [LAST_UNET_BIAS, "vae.x"],
            "is of another size than stable-diffusion-1; put its configuration in diffusers'",
        ),
        ([BIG_G_BIAS, "vae.x"], "is of another size than stable-diffusion-xl;"),
        (["control_model.time_embed.0.weight", "vae.x"], "is controlnet only"),
    ],
)
def test_a_part_of_a_model_is_refused(tmp_path: Path, keys: list[str], said: str) -> None:
    with pytest.raises(ModelsError, match=said):
        checkpoints.pipeline_class(written(tmp_path / "a.safetensors", *keys))


def test_what_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"pickle" * 9)
    with pytest.raises(ModelsError, match=r"a\.safetensors: is not a safetensors file"):
        checkpoints.pipeline_class(tmp_path / "a.safetensors")
