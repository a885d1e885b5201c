"""Pictures from words, from a picture, and under a mask: against diffusers called by hand."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from gpu_worker.assets.model_library import Defaults
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.execution import offload as placement
from gpu_worker.pipeline.inputs.input_images import InputImages, MissingImage
from gpu_worker.pipeline.loading import task_pipelines
from tests.support import pipeline_bench
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_bench import Bench, direct, reference

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SD, XL, INPAINT = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionInpaintPipeline",
)
PICTURE, MASK = tiny_adapters.drawing(), tiny_adapters.mask()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modes")
    tiny_models.build().save_pretrained(path / "models" / "sd")
    tiny_adapters.build_xl().save_pretrained(path / "models" / "xl")
    tiny_adapters.build_inpainting().save_pretrained(path / "models" / "inpaint")
    return path


@pytest.fixture(scope="module")
def sd(folder: Path) -> Bench:
    return Bench(folder, "sd")


@pytest.fixture(scope="module")
def xl(folder: Path) -> Bench:
    return Bench(folder, "xl")


@pytest.fixture(scope="module")
def inpaint(folder: Path) -> Bench:
    return Bench(folder, "inpaint")


def both(sd: Bench, xl: Bench) -> list[tuple[Bench, str]]:
    return [(sd, SD), (xl, XL)]


def test_picture_i_is_the_single_picture_of_seed_plus_i(sd: Bench) -> None:
    many = sd.make(num_images_per_prompt=3)
    assert [picture.metadata["seed"] for picture in many] == [7, 8, 9]
    for place, picture in enumerate(many):
        assert picture.image.tobytes() == sd.pixels(seed=7 + place)


def test_a_batch_of_diffusers_is_measured_against_single_pictures(sd: Bench) -> None:
    """No claim, for it depends on the device: what docs/http-api.md speaks of is printed."""
    pipe = reference(sd, SD)
    pipe.set_progress_bar_config(disable=True)
    seeds = [torch.Generator("cpu").manual_seed(7 + place) for place in range(3)]
    batch = pipe(
        pipeline_bench.PROMPT, num_inference_steps=2, num_images_per_prompt=3, generator=seeds
    ).images
    alone = [picture.image for picture in sd.make(num_images_per_prompt=3)]
    same = [a.tobytes() == b.tobytes() for a, b in zip(batch, alone, strict=True)]
    print(f"\nbatch of 3 against 3 single pictures, byte for byte: {same}")


def test_words_become_the_picture_that_diffusers_makes(sd: Bench, xl: Bench) -> None:
    for bench, kind in both(sd, xl):
        given = {"negative_prompt": "blurry", "guidance_scale": 4.0, "width": 72, "height": 64}
        given |= {"clip_skip": 1, "guidance_rescale": 0.5}
        assert bench.pixels(**given) == direct(reference(bench, kind), **given)


def test_eta_is_passed_on(sd: Bench) -> None:
    assert sd.pixels(eta=1.0) == direct(reference(sd, SD), eta=1.0) != sd.pixels()


def test_a_picture_becomes_the_picture_that_diffusers_makes(sd: Bench, xl: Bench) -> None:
    plain = sd.pixels()
    for bench, kind in both(sd, xl):
        made = bench.make(image=bench.put(PICTURE), strength=0.7)[0]
        image2image = reference(bench, kind, "Image2Image")
        assert made.image.tobytes() == direct(image2image, image=PICTURE, strength=0.7)
        assert made.metadata["strength"] == 0.7
    assert sd.pixels() == plain


def test_what_a_mask_shows_is_painted_anew_by_ordinary_networks(sd: Bench, xl: Bench) -> None:
    for bench, kind in both(sd, xl):
        asked = {"image": bench.put(PICTURE), "mask_image": bench.put(MASK)}
        pipe = reference(bench, kind, "Inpainting")
        expected = direct(pipe, image=PICTURE, mask_image=MASK, strength=0.8, width=64, height=64)
        assert bench.pixels(**asked, strength=0.8) == expected
        black = bench.put(Image.new("L", PICTURE.size))
        assert bench.pixels(**asked | {"mask_image": black}) != bench.pixels(**asked)


def test_what_a_mask_shows_is_painted_anew_by_networks_made_for_it(inpaint: Bench) -> None:
    asked = {"image": inpaint.put(PICTURE), "mask_image": inpaint.put(MASK)}
    expected = direct(
        reference(inpaint, INPAINT), image=PICTURE, mask_image=MASK, width=64, height=64
    )
    assert inpaint.pixels(**asked) == expected
    for alone in ({}, {"image": asked["image"]}):
        with pytest.raises(Unsupported, match="it supports inpaint: image and mask_image"):
            inpaint.make(**alone)


def test_progress_counts_the_steps_that_strength_leaves(sd: Bench) -> None:
    seen: list[tuple[int, int]] = []
    asked: dict[str, Any] = {"image": sd.put(PICTURE), "strength": 0.5, "num_inference_steps": 4}
    sd.make(on_step=lambda *at: seen.append(at[:2]), num_images_per_prompt=2, **asked)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("own", "asked", "size"),
    [
        ((100, 90), {}, (96, 88)),
        ((100, 90), {"width": 64, "height": 128}, (64, 128)),
        ((100, 50), {"width": 128}, (128, 64)),
        ((128, 96), {"height": 64}, (80, 64)),
        ((32, 40), {}, (64, 80)),
    ],
)
def test_the_size_is_asked_for_or_the_pictures_own(
    sd: Bench, own: tuple[int, int], asked: dict[str, int], size: tuple[int, int]
) -> None:
    picture, mask = tiny_adapters.drawing(*own), tiny_adapters.mask(40, 40)
    given = {"image": sd.put(picture), "num_inference_steps": 2, **asked}
    assert sd.make(**given)[0].image.size == size
    assert sd.make(**given, mask_image=sd.put(mask))[0].image.size == size


def test_pictures_come_upright_in_rgb_and_masks_by_their_brightness(sd: Bench) -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    inputs = _inputs(sd)
    assert inputs.image(sd.put(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert inputs.mask(sd.put(clear)).getpixel((0, 0)) == 0
    turned = Image.Exif()
    turned[0x0112] = 6
    assert inputs.image(sd.put(tiny_adapters.drawing(64, 80), exif=turned)).size == (80, 64)
    deep = Image.new("I;16", (64, 64), 32768)
    assert inputs.image(sd.put(deep)).getpixel((0, 0)) == (128, 128, 128)
    indexed = tiny_adapters.drawing().convert("P")
    assert inputs.image(sd.put(indexed)).mode == "RGB"


def test_a_picture_that_is_gone_or_another_or_none_is_told(sd: Bench) -> None:
    name = sd.put(PICTURE)
    file = sd.folder / "inputs" / pipeline_bench.UUID / name.removeprefix("sha256:")
    with pytest.raises(MissingImage, match="is missing"):
        sd.make(image="sha256:" + "0" * 64)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(MissingImage, match="has changed"):
        sd.make(image=name)
    file.write_bytes(content)
    with pytest.raises(MissingImage, match="cannot be read"):
        sd.make(image=_put_bytes(sd, b"no picture"))


def _inputs(bench: Bench) -> InputImages:
    return InputImages(bench.folder / "inputs" / pipeline_bench.UUID)


def _put_bytes(bench: Bench, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (bench.folder / "inputs" / pipeline_bench.UUID / digest).write_bytes(content)
    return f"sha256:{digest}"


def test_a_field_that_the_pipeline_does_not_know_is_refused_with_what_it_takes(sd: Bench) -> None:
    image = sd.put(PICTURE)
    with pytest.raises(
        Unsupported, match=r"^guidance_rescale: .* does not take it for img2img"
    ) as caught:
        sd.make(image=image, guidance_rescale=0.5)
    assert "it takes clip_skip, controlnets, embeddings, eta, guidance_scale" in str(caught.value)
    with pytest.raises(Unsupported, match="which does not take it"):
        sd.make(scheduler="EulerDiscreteScheduler", eta=0.5)
    for strength in (0.0, 0.2):
        with pytest.raises(Unsupported, match=r"^strength: .* which is less than one"):
            sd.make(image=image, strength=strength)


def test_layers_that_a_text_encoder_has_not_are_told(sd: Bench, xl: Bench) -> None:
    for prompt in ("a red circle", "a (red:1.3) circle"):
        for bench, most in ((sd, 2), (xl, 1)):
            bench.make(prompt=prompt, clip_skip=most)
            why = rf"^clip_skip: .* of 2 layers and can skip at most {most} \(got {most + 1}\)"
            with pytest.raises(Unsupported, match=why):
                bench.make(prompt=prompt, clip_skip=most + 1)


def test_a_second_pass_is_not_for_networks_made_for_masks(inpaint: Bench) -> None:
    asked = {"image": inpaint.put(PICTURE), "mask_image": inpaint.put(MASK), "hires": {}}
    with pytest.raises(Unsupported, match=r"^hires: .* does not take it"):
        inpaint.make(**asked)


def test_the_record_says_what_was_really_used(sd: Bench, xl: Bench) -> None:
    metadata = sd.make()[0].metadata
    assert (metadata["num_inference_steps"], metadata["guidance_scale"]) == (2, 7.5)
    assert metadata["scheduler"] == "DDIMScheduler"
    assert metadata["scheduler_config"]["num_train_timesteps"] == 1000
    assert "strength" not in metadata
    assert xl.make()[0].metadata["guidance_scale"] == 5.0
    assert xl.make(guidance_scale=2.0)[0].metadata["guidance_scale"] == 2.0
    metadata = sd.make(image=sd.put(PICTURE))[0].metadata
    assert metadata["strength"] == 0.8


def test_what_the_description_says_is_used_unless_the_request_says_more(folder: Path) -> None:
    bench = Bench(folder, "sd")
    assert bench.ours._loaded is not None
    bench.ours._loaded.defaults = Defaults(
        num_inference_steps=3,
        guidance_scale=3.0,
        scheduler="EulerDiscreteScheduler",
        scheduler_options={"use_karras_sigmas": True},
    )
    metadata = bench.make(num_inference_steps=None)[0].metadata
    assert (metadata["num_inference_steps"], metadata["guidance_scale"]) == (3, 3.0)
    assert metadata["scheduler"] == "EulerDiscreteScheduler"
    assert metadata["scheduler_config"]["use_karras_sigmas"] is True
    more = bench.make(scheduler_options={"timestep_spacing": "trailing"})[0].metadata
    assert more["scheduler_config"]["use_karras_sigmas"] is True
    assert more["scheduler_config"]["timestep_spacing"] == "trailing"
    other = bench.make(scheduler="DPMSolverMultistepScheduler")[0].metadata
    assert other["scheduler_config"]["use_karras_sigmas"] is False


def test_a_job_that_ends_in_the_middle_leaves_no_trace(sd: Bench) -> None:
    before, scheduler = sd.pixels(), sd.pipe.scheduler
    sd.halted(image=sd.put(PICTURE), scheduler="EulerDiscreteScheduler")
    sd.halted(image=sd.put(PICTURE), mask_image=sd.put(MASK))
    with pytest.raises(Unsupported):
        sd.make(image=sd.put(PICTURE), strength=0.0)
    assert sd.pipe.scheduler is scheduler
    assert sd.pixels() == before


def test_pipelines_made_for_a_job_are_gone_after_it(sd: Bench) -> None:
    asked: dict[str, Any] = {"image": sd.put(PICTURE), "num_inference_steps": 2}
    for more in ({}, {"mask_image": sd.put(MASK)}):
        sd.make(**asked, **more)
        sd.halted(**asked, **more)
    gc.collect()
    kinds = (diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusionInpaintPipeline)
    assert [thing for thing in gc.get_objects() if type(thing) in kinds] == []


@pytest.mark.parametrize("size", ["little", "tiny"])
def test_smaller_sizes_take_pictures_too(folder: Path, size: machine_size.Size) -> None:
    """On a GPU with offload; on a CPU the VAE's slicing and tiling remain."""
    bench = Bench(folder, "sd", MACHINE_SIZE=size, SDE_DEVICE="auto")
    hooks = _hooks(bench)
    plain = bench.pixels()
    asked = {"image": bench.put(PICTURE), "mask_image": bench.put(MASK), "strength": 0.7}
    assert bench.make(**asked)[0].image.size == PICTURE.size
    bench.halted(**asked)
    bench.halted()
    assert bench.pixels() == plain
    assert _hooks(bench) == hooks


def test_offload_outlives_pictures_from_pictures(folder: Path, sd: Bench) -> None:
    """diffusers' own hooks, with the CPU as the device that they bring modules to."""
    bench = Bench(folder, "sd")
    bench.pipe.enable_model_cpu_offload(device="cpu")
    hooks = _hooks(bench)
    asked: dict[str, Any] = {"image": bench.put(PICTURE), "strength": 0.7}
    assert bench.pixels(**asked) == sd.pixels(**asked)
    bench.halted(**asked)
    bench.halted()
    assert _hooks(bench) == hooks != _hooks(sd)
    assert bench.pixels() == sd.pixels()


def test_layer_by_layer_offload_goes_to_the_jobs_pipeline_and_back() -> None:
    """With the CPU as the device that the layers are moved to."""
    pipe = tiny_models.build()
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    placement.enable(pipe, "layers", torch.device("cpu"))
    other = tiny_models.build().unet
    with pytest.raises(pipeline_bench.Halt), placement.suspended(pipe) as offload:
        assert offload == "layers" and placement.current(pipe) == "none"
        copy = task_pipelines.for_mode(pipe, "img2img")
        assert all(torch.equal(weights[name], w) for name, w in pipe.unet.state_dict().items())
        copy.unet = other
        with placement.applied(copy, offload, torch.device("cpu")):
            assert placement.has_layer_hooks(other) and placement.current(copy) == "layers"
            raise pipeline_bench.Halt
    assert not placement.has_layer_hooks(other)
    assert placement.current(pipe) == "layers"
    placement.disable(pipe)
    assert placement.current(pipe) == "none"
    assert all(torch.equal(weights[name], w) for name, w in pipe.unet.state_dict().items())


def _hooks(bench: Bench) -> list[str]:
    parts = (bench.pipe.unet, bench.pipe.vae, bench.pipe.text_encoder)
    return [type(getattr(part, "_hf_hook", None)).__name__ for part in parts]
