"""Two passes, and a plain upscale: on the built-in model, beside direct calls of diffusers."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError, read
from gpu_worker.contract import output_size
from gpu_worker.contract.request import Hires
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.loading import task_pipelines
from gpu_worker.pipeline.sampling import hires
from gpu_worker.pipeline.upscaling import upscale
from tests.support.builders import tiny_models, tiny_upscalers
from tests.support.part_places import Places
from tests.support.pipeline_jobs import demo_side_px, ignore, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


GUIDANCE = 4.0
"""The built-in model's own default."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hires")
    tiny_upscalers.esrgan(folder / "models" / "sharp.safetensors")
    (folder / "models" / "models.toml").write_text(
        "[upscalers.sharp]\nsource = 'sharp.safetensors'"
    )
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> pipeline.DiffusersPipeline:
    """The built-in model."""
    return pipeline.load(settings(folder))


def second(ours: pipeline.DiffusersPipeline, begun: Any, generator: torch.Generator) -> Image.Image:
    """Image to image by diffusers itself."""
    assert ours._loaded is not None
    pipe = StableDiffusionImg2ImgPipeline(
        **ours._loaded.pipe.components, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    request = job().request
    made: Image.Image = pipe(
        request.prompt,
        begun,
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        generator=generator,
    ).images[0]
    return made


@pytest.mark.parametrize("upscaler", ["latent", "lanczos", "sharp"])
def test_a_second_pass_is_image_to_image_of_the_first(
    ours: pipeline.DiffusersPipeline, upscaler: str, folder: Path
) -> None:
    seen: list[tuple[int, int]] = []
    side = demo_side_px()
    size = (side * 3 // 2,) * 2
    asked = {"scale": 1.5, "upscaler": upscaler, "strength": 0.5}
    made = ours.generate(job(hires=asked), lambda *at: seen.append(at[:2]))[0]
    assert made.image.size == size
    assert seen == [(step, 6) for step in range(1, 7)]
    assert ours._loaded is not None
    pipe = ours._loaded.pipe
    generator = torch.Generator("cpu").manual_seed(7)
    first = pipe(
        job().request.prompt,
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        generator=generator,
        output_type="latent",
    ).images
    if upscaler == "latent":
        begun = torch.nn.functional.interpolate(
            first, (first.shape[-1] * 3 // 2,) * 2, mode="bilinear"
        )
    else:
        begun = pipe.image_processor.postprocess(
            pipe.vae.decode(first / pipe.vae.config.scaling_factor, return_dict=False)[0].detach()
        )[0]
        if upscaler == "sharp":
            models = folder / "models"
            library = read(models / "models.toml")
            begun = upscale.enlarge(begun, upscaler, (4 * side,) * 2, library, models, pipe.device)
            file = (models / "sharp.safetensors").read_bytes()
            digest = hashlib.sha256(file).hexdigest()
            assert made.metadata["parts_sha256"] == {"upscalers/sharp": digest}
        begun = begun.resize(size, Image.Resampling.LANCZOS)
    assert made.image.tobytes() == second(ours, begun, generator).tobytes()


def test_a_plain_job_is_as_before_afterwards(ours: pipeline.DiffusersPipeline) -> None:
    before = ours.generate(job(), ignore)[0].image.tobytes()
    ours.generate(job(hires={}, num_images_per_prompt=2), ignore)
    assert ours.generate(job(), ignore)[0].image.tobytes() == before


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_offloaded_parts_rest_after_a_second_pass(
    folder: Path, upscaler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = pipeline.load(settings(folder))
    assert ours._loaded is not None
    asked = job(hires={"scale": 1.5, "upscaler": upscaler, "strength": 0.5})
    expected = ours.generate(asked, ignore)[0].image.tobytes()
    ours._loaded.pipe.enable_model_cpu_offload(device="cpu")
    places = Places(ours._loaded.pipe, monkeypatch)

    def at_work(step: int, steps: int, preview: object = None) -> None:
        assert places.last["unet"] == "cpu:0"

    made = ours.generate(asked, at_work)[0].image.tobytes()
    assert made == expected
    assert places.last == {"unet": "cpu", "vae": "cpu", "text_encoder": "cpu"}
    assert offload.current(ours._loaded.pipe) == "model"


def test_a_pipeline_of_the_same_parts_has_the_same_offload() -> None:
    pipe = tiny_models.build()
    assert offload.current(task_pipelines.for_mode(pipe, "img2img")) == "none"
    pipe.enable_model_cpu_offload(device="cpu")
    for mode in task_pipelines.MODES:
        assert offload.current(task_pipelines.for_mode(pipe, mode)) == "model"


def test_the_sizes_and_steps_of_a_second_pass() -> None:
    assert output_size.hires_size((512, 768), 2.0) == (1024, 1536)
    assert output_size.hires_size((64, 72), 1.01) == (72, 80)
    assert hires.steps_after(Hires(strength=0.6), 20) == 12
    assert hires.steps_after(Hires(strength=0.01), 20) == 1


@pytest.mark.parametrize(
    ("asked", "more", "why"),
    [
        ({"strength": 0}, {}, r"\(4\) steps, which is less than one \(got 0\.0\)"),
        ({"strength": 0.1}, {}, r"\(4\) steps, which is less than one \(got 0\.1\)"),
        ({"num_inference_steps": 1}, {}, r"\(1\) steps"),
        ({}, {"num_inference_steps": 1}, r"\(1\) steps"),
    ],
)
def test_a_second_pass_without_a_step_is_told_before_the_first(
    ours: pipeline.DiffusersPipeline, asked: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    steps: list[int] = []
    with pytest.raises(Unsupported, match=rf"^hires\.strength: .*{why}"):
        ours.generate(job(hires=asked, **more), lambda step, *_: steps.append(step))
    assert steps == []


def test_an_unknown_upscaler_is_told(ours: pipeline.DiffusersPipeline) -> None:
    with pytest.raises(ModelsError, match="no upscaler has the name 'esrgan'"):
        ours.generate(job(hires={"upscaler": "esrgan"}), ignore)


def test_a_picture_is_made_larger_without_a_model(
    ours: pipeline.DiffusersPipeline, folder: Path
) -> None:
    buffer = io.BytesIO()
    picture = ours.generate(job(), ignore)[0].image
    picture.save(buffer, "PNG")
    name = hashlib.sha256(buffer.getvalue()).hexdigest()
    asked = job(image=f"sha256:{name}", upscale={"scale": 2.5})
    inputs = settings(folder).inputs_dir / asked.uuid
    inputs.mkdir(parents=True, exist_ok=True)
    (inputs / name).write_bytes(buffer.getvalue())
    ours.unload()
    made = ours.generate(asked, ignore)[0]
    size = (picture.width * 5 // 2,) * 2
    assert made.image.tobytes() == picture.resize(size, Image.Resampling.LANCZOS).tobytes()
    assert ours._loaded is None, "no model was needed"
