"""A refiner for the last steps of an SDXL picture: against diffusers called by hand, with all that
goes with it, and gone without a trace."""

from __future__ import annotations

import gc
import hashlib
import shutil
import weakref
from pathlib import Path
from typing import Any

import diffusers
import psutil
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline as Img2Img
from PIL import Image

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract import output_size, prompt_weights
from gpu_worker.contract.request import GenerationRequest, Lora
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.sampling import prompt_embedding, refiner
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.command import sde
from tests.support.masked_images import with_sent_pixels
from tests.support.pipeline_bench import PROMPT, Bench, in_own_memory, write_library
from tests.support.service import running

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Already found a `peft_config`"
)

XL = "StableDiffusionXLPipeline"
PICTURE, MASK = tiny_adapters.drawing(), tiny_adapters.mask()
STEPS, AT = 5, 0.6
HALF = {"num_inference_steps": STEPS, "refiner": {"name": "lean", "switch_at": AT}}
"""Three steps of the base and two of the refiner."""


NAMES = ("full", "lean", "sized", "pickled", "evil", "vae", "net")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("refiner")
    models = path / "models"
    base, small = tiny_adapters.build_xl(), tiny_models.build()
    base.save_pretrained(models / "xl")
    small.save_pretrained(models / "sd")
    full = tiny_adapters.build_refiner()
    full.save_pretrained(models / "full")
    full.save_pretrained(models / "lean")
    for shared in ("text_encoder_2", "tokenizer_2", "vae"):
        shutil.rmtree(models / "lean" / shared)
    tiny_adapters.build_refiner(score=False).unet.save_pretrained(models / "sized")
    shutil.copy(
        models / "lean/unet/diffusion_pytorch_model.safetensors", models / "one.safetensors"
    )
    (models / "one").mkdir()
    shutil.copy(models / "lean/unet/config.json", models / "one/config.json")
    full.save_pretrained(models / "pickled", safe_serialization=False)
    shutil.copytree(models / "lean", models / "evil")
    index = (models / "evil/model_index.json").read_text()
    (models / "evil/model_index.json").write_text(index.replace('"diffusers"', '"evil"'))
    (models / "old.ckpt").write_bytes(b"\x80")
    tiny_adapters.save_lora(base, models / "ink.safetensors", text=True)
    tiny_adapters.save_xl_embedding(models / "cat.safetensors")
    tiny_adapters.save_controlnet(base, models / "net")
    tiny_adapters.save_vae(models / "vae")
    write_library(
        path,
        refiners={
            **{name: {"source": name} for name in NAMES},
            "one": {"source": "one.safetensors"},
            "old": {"source": "old.ckpt"},
            "out": {"source": "../elsewhere"},
            "base": {"source": "xl"},
        },
        loras={"ink": {"source": "ink.safetensors"}},
        embeddings={"cat": {"source": "cat.safetensors", "token": "<cat>"}},
        controlnets={"net": {"source": "net"}},
        vaes={"other": {"source": "vae"}},
    )
    shutil.copytree(models / "lean", path / "elsewhere")
    return path


@pytest.fixture(scope="module")
def xl(data: Path) -> Bench:
    return Bench(data, "xl")


@pytest.fixture(scope="module")
def plain(xl: Bench) -> bytes:
    return xl.pixels(num_inference_steps=STEPS)


@pytest.fixture(autouse=True)
def untouched(xl: Bench, plain: bytes) -> Any:
    """After whatever a test has done, a plain job gives the picture of before."""
    parts = dict(xl.pipe.components)
    yield
    assert xl.pipe.components == parts
    assert xl.pixels(num_inference_steps=STEPS) == plain


def base_of(xl: Bench, task: str = "Text2Image") -> Any:
    pipe = getattr(diffusers, XL).from_pretrained(xl.folder / "models/xl", use_safetensors=True)
    return in_own_memory(getattr(diffusers, f"AutoPipelineFor{task}").from_pipe(pipe))


def refiner_for(base: Any, xl: Bench, name: str = "full", **own: Any) -> Any:
    """diffusers' own way: what is shared is the base's."""
    shared = {"text_encoder_2": base.text_encoder_2, "vae": base.vae}
    shared |= {"tokenizer_2": base.tokenizer_2, "scheduler": base.scheduler}
    pipe = Img2Img.from_pretrained(
        xl.folder / "models" / name, use_safetensors=True, add_watermarker=False, **shared | own
    )
    return in_own_memory(pipe)


def by_hand(
    base: Any,
    second: Any,
    *,
    words: tuple[dict[str, Any], dict[str, Any]] | None = None,
    both: dict[str, Any] | None = None,
    at: float = AT,
    then: Any = None,
    **of_base: Any,
) -> Any:
    """The picture of both, called one after the other."""
    first_words, second_words = words or ({"prompt": PROMPT}, {"prompt": PROMPT})
    common = {"num_inference_steps": STEPS, **(both or {})}
    generator = torch.Generator("cpu").manual_seed(7)
    for pipe in (base, second):
        in_own_memory(pipe).set_progress_bar_config(disable=True)
    latents = base(
        **first_words,
        **common,
        **of_base,
        denoising_end=at,
        output_type="latent",
        generator=generator,
    ).images
    more = {} if then is None else then(base, second, generator)
    image: Image.Image = second(
        **second_words, **common, **more, image=latents, denoising_start=at, generator=generator
    ).images[0]
    if "mask_image" in of_base:
        image = with_sent_pixels(image, of_base["image"], of_base["mask_image"])
    return image.tobytes()


def test_the_refiner_makes_the_last_steps(xl: Bench, plain: bytes) -> None:
    base = base_of(xl)
    made = xl.pixels(**HALF)
    assert made == by_hand(base, refiner_for(base, xl)) != plain
    own = Img2Img.from_pretrained(xl.folder / "models/full", use_safetensors=True)
    own.register_to_config(add_watermarker=False)
    asked = HALF | {"refiner": {"name": "full", "switch_at": AT}}
    assert xl.pixels(**asked) == by_hand(base, own) != made
    asked = {"negative_prompt": "a green star", "guidance_scale": 3.0, "num_inference_steps": 6}
    asked |= {"clip_skip": 1, "guidance_rescale": 0.5}
    default = {"name": "lean"}
    assert xl.pixels(**asked, refiner=default) == by_hand(
        base, refiner_for(base, xl), at=0.8, both=asked
    )


def test_it_may_be_a_network_alone_or_one_file(xl: Bench) -> None:
    made = xl.pixels(**HALF)
    assert xl.pixels(**HALF | {"refiner": {"name": "one", "switch_at": AT}}) == made
    base = base_of(xl)
    unet = diffusers.UNet2DConditionModel.from_pretrained(xl.folder / "models/sized")
    second = refiner_for(base, xl, unet=unet)
    second.register_to_config(requires_aesthetics_score=False)
    asked = HALF | {"refiner": {"name": "sized", "switch_at": AT}}
    assert xl.pixels(**asked) == by_hand(base, second) != made


@pytest.mark.parametrize(
    "name",
    ["EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler"],
)
def test_it_goes_on_with_the_jobs_scheduler(xl: Bench, name: str) -> None:
    base = base_of(xl)
    second = refiner_for(base, xl)
    cls = getattr(diffusers, name)
    base.scheduler, second.scheduler = (cls.from_config(base.scheduler.config) for _ in "12")
    assert xl.pixels(**HALF, scheduler=name) == by_hand(base, second)


def test_a_picture_is_refined(xl: Bench) -> None:
    base = base_of(xl, "Image2Image")
    size = {"width": 64, "height": 64}
    asked = {"image": xl.put(PICTURE), "strength": 0.8}
    expected = by_hand(base, refiner_for(base, xl), image=PICTURE, strength=0.8)
    assert xl.pixels(**HALF, **asked) == expected
    assert xl.pixels(**HALF, **size) not in (expected, xl.pixels(num_inference_steps=STEPS, **size))


def put_back(base: Any, second: Any, generator: torch.Generator) -> dict[str, Any]:
    """Inpainting's own loop, by the callback: black keeps what is there."""
    with torch.no_grad():
        pixels = second.image_processor.preprocess(PICTURE)
        kept = second.vae.encode(pixels).latent_dist.sample(generator)
    kept = kept * second.vae.config.scaling_factor
    noise = torch.randn(kept.shape, generator=generator)
    white = torch.nn.functional.interpolate(base.mask_processor.preprocess(MASK), kept.shape[2:])

    def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        behind = kept
        if index + 1 < pipe.num_timesteps:
            following = pipe.scheduler.timesteps[-pipe.num_timesteps :][index + 1]
            behind = pipe.scheduler.add_noise(kept, noise, following[None])
        tensors["latents"] = (1 - white) * behind + white * tensors["latents"]
        return tensors

    return {"callback_on_step_end": step_ended}


def test_a_part_is_painted_anew_and_the_rest_is_kept(xl: Bench) -> None:
    base = base_of(xl, "Inpainting")
    asked = {"image": xl.put(PICTURE), "mask_image": xl.put(MASK), "strength": 0.9}
    given = {"image": PICTURE, "mask_image": MASK, "strength": 0.9, "width": 64, "height": 64}
    expected = by_hand(
        base,
        refiner_for(base, xl),
        both={"guidance_scale": 6.0},
        then=put_back,
        **given,
    )
    assert xl.pixels(**HALF, **asked, guidance_scale=6.0) == expected
    nothing = asked | {"mask_image": xl.put(Image.new("L", (64, 64), 0))}
    kept = xl.pixels(**HALF, **nothing)
    assert kept == xl.pixels(**HALF, **nothing, prompt="a green star"), "black is not drawn on"


def test_weights_and_long_prompts_are_the_refiners_too(xl: Bench) -> None:
    long = "a small green star on a white background, " * 9
    base = base_of(xl)
    second = refiner_for(base, xl)
    for prompt in ("a large (red:1.4) circle", long + "red"):
        request = GenerationRequest(prompt=prompt)
        words, said = prompt_embedding.build(second, request)
        whole, _ = prompt_embedding.build(base, request)
        width = base.text_encoder_2.config.hidden_size
        assert words["prompt_embeds"].equal(whole["prompt_embeds"][..., -width:])
        assert words["pooled_prompt_embeds"].equal(whole["pooled_prompt_embeds"])
        assert said["prompt_tokens"] == len(
            base.tokenizer(
                prompt_weights.plain_text(prompt_weights.parse(prompt)), add_special_tokens=False
            ).input_ids
        )
        assert xl.pixels(**HALF, prompt=prompt) == by_hand(base, second, words=(whole, words))
    assert xl.pixels(**HALF, prompt=long + "red") != xl.pixels(**HALF, prompt=long + "blue")


def test_loras_are_the_bases_alone(xl: Bench) -> None:
    base = base_of(xl)
    second = refiner_for(base, xl)
    clean = prompt_embedding.build(second, GenerationRequest(prompt=PROMPT))[0]
    with torch.no_grad():
        embeds = second.encode_prompt(**clean)
    names = ("", "negative_", "pooled_", "negative_pooled_")
    words = {f"{name}prompt_embeds": each for name, each in zip(names, embeds, strict=True)}
    base.load_lora_weights(xl.folder / "models", weight_name="ink.safetensors")
    assert refiner_encodes_otherwise(second, embeds[0]), "the LoRA is on the shared encoder too"
    expected = by_hand(base, second, words=({"prompt": PROMPT}, words))
    asked = {"loras": [{"name": "ink"}]}
    assert xl.pixels(**HALF, **asked) == expected != xl.pixels(**HALF)
    assert GenerationRequest(prompt=PROMPT, **asked).loras == [Lora(name="ink")]


def refiner_encodes_otherwise(second: Any, embeds: torch.Tensor) -> bool:
    with torch.no_grad():
        return not second.encode_prompt(PROMPT)[0].equal(embeds)


def test_words_that_were_learned_and_another_vae_reach_it(xl: Bench) -> None:
    prompt = f"{PROMPT} with a <cat>"
    made = xl.pixels(**HALF, prompt=prompt, embeddings=["cat"], vae="other")
    assert made not in (
        xl.pixels(**HALF, prompt=prompt, vae="other"),
        xl.pixels(**HALF, prompt=prompt, embeddings=["cat"]),
    )
    whole = HALF | {"refiner": {"name": "full", "switch_at": AT}}
    with pytest.raises(Unsupported, match=r"^refiner: .* its own text_encoder_2 in 'full'"):
        xl.make(**whole, prompt=prompt, embeddings=["cat"])


def test_a_second_pass_ends_with_the_refiner(xl: Bench) -> None:
    seen: list[tuple[int, int]] = []
    asked = {"scale": 1.5, "upscaler": "lanczos", "strength": 0.8}
    made = xl.make(on_step=lambda *at: seen.append(at[:2]), **HALF, hires=asked)[0]
    assert seen == [(step, 9) for step in range(1, 10)]
    base = base_of(xl)
    second = base_of(xl, "Image2Image")
    third = refiner_for(base, xl)
    generator = torch.Generator("cpu").manual_seed(7)
    base.set_progress_bar_config(disable=True)
    first = base(PROMPT, num_inference_steps=STEPS, generator=generator)
    size = output_size.hires_size((32, 32), 1.5)
    begun = first.images[0].resize(size, Image.Resampling.LANCZOS)
    for pipe in (second, third):
        pipe.set_progress_bar_config(disable=True)
    common = {"prompt": PROMPT, "num_inference_steps": STEPS, "generator": generator}
    latents = second(
        **common, image=begun, strength=0.8, denoising_end=AT, output_type="latent"
    ).images
    expected = third(**common, image=latents, denoising_start=AT).images[0]
    assert made.image.size == size and made.image.tobytes() == expected.tobytes()


def test_steps_previews_and_the_log_go_on_over_both(xl: Bench) -> None:
    seen: list[tuple[int, int]] = []
    shown: list[Image.Image] = []

    def on_step(step: int, steps: int, preview: Any = None) -> None:
        seen.append((step, steps))
        shown.append(preview().image)

    two = xl.make(on_step=on_step, **HALF, num_images_per_prompt=2, step_log=True)
    assert seen == [(step, 10) for step in range(1, 11)]
    assert {picture.size for picture in shown} == {(32, 32)}
    rows = two[0].metadata["steps_log"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    scheduler = base_of(xl).scheduler
    scheduler.set_timesteps(STEPS)
    assert [row["timestep"] for row in rows] == scheduler.timesteps.tolist()
    assert [row["sigma"] for row in rows] == scheduler.sigmas[:-1].tolist()
    assert two[1].image.tobytes() == xl.pixels(**HALF, seed=8)
    file = "unet/diffusion_pytorch_model.safetensors"
    content = (xl.folder / "models/lean" / file).read_bytes()
    line = f"{file}\t{hashlib.sha256(content).hexdigest()}\n"
    digest = hashlib.sha256(line.encode()).hexdigest()
    assert two[0].metadata["parts_sha256"] == {"refiners/lean": digest}


def stop_at(xl: Bench, at: int, **asked: Any) -> None:
    def on_step(step: int, steps: int, preview: object = None) -> None:
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        xl.make(on_step=on_step, **HALF, **asked)


@pytest.mark.parametrize("at", [2, 4])
def test_a_stop_in_either_part_leaves_nothing(xl: Bench, at: int) -> None:
    stop_at(xl, at, loras=[{"name": "ink"}])
    assert xl.pipe.get_list_adapters() == {}


def test_offload_outlives_it(data: Path, xl: Bench) -> None:
    """diffusers' own hooks, with the CPU as the device that they bring modules to."""
    bench = Bench(data, "xl")
    bench.pipe.enable_model_cpu_offload(device="cpu")
    asked = HALF | {"num_images_per_prompt": 2}
    for more in ({}, {"loras": [{"name": "ink"}]}, {"image": bench.put(PICTURE), "strength": 0.8}):
        made = [each.image.tobytes() for each in bench.make(**asked, **more)]
        assert made == [each.image.tobytes() for each in xl.make(**asked, **more)]
        for at in (2, 4):
            stop_at(bench, at, **more)
        for part in (bench.pipe.unet, bench.pipe.vae, bench.pipe.text_encoder_2):
            assert hasattr(part, "_hf_hook")
    assert bench.pixels() == xl.pixels()


@pytest.mark.parametrize("size", ["little", "tiny"])
def test_smaller_sizes_have_it_too(data: Path, size: str) -> None:
    """On a GPU with offload; on a CPU slicing and tiling remain."""
    bench = Bench(data, "xl", MACHINE_SIZE=size, SDE_DEVICE="auto")
    before = bench.pixels()
    assert bench.pixels(**HALF | {"refiner": {"name": "full", "switch_at": AT}}) != before
    assert bench.pixels() == before


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"refiner": {"name": "lean", "switch_at": 0.999}},
        Unsupported,
        r"refiner.switch_at: .* leaves the refiner no step, with 5 num_inf.* \(got 0.999\)",
    ),
    (
        {"refiner": {"name": "lean", "switch_at": 0.001}},
        Unsupported,
        r"refiner.switch_at: .* leaves the base no step, with 5 num_inf.* \(got 0.001\)",
    ),
    (
        {"hires": {"strength": 0.2}},
        Unsupported,
        r"leaves the base no step, with 5 num_inference_steps and strength 0.2 \(got 0.6\)",
    ),
    (
        {"refiner": {"name": "none"}},
        ModelsError,
        "no refiner has the name 'none'; the names are: base",
    ),
    ({"refiner": {"name": "vae"}}, ModelsError, "holds AutoencoderKL, not UNet2DConditionModel"),
    ({"refiner": {"name": "net"}}, ModelsError, "holds ControlNetModel, not UNet2D"),
    ({"refiner": {"name": "base"}}, Unsupported, "reads text of width 64, .* has 32"),
    ({"refiner": {"name": "pickled"}}, ModelsError, "refiners.pickled: .*safetensors"),
    ({"refiner": {"name": "evil"}}, ModelsError, "a model's own code is never run"),
    ({"refiner": {"name": "old"}}, ModelsError, "only .safetensors and .gguf files are loaded"),
    ({"refiner": {"name": "out"}}, ModelsError, "leads out of the models folder"),
]


@pytest.mark.parametrize(("asked", "error", "said"), REFUSED, ids=lambda v: ascii(v)[:40])
def test_what_cannot_be_is_told(
    xl: Bench, asked: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        xl.make(**HALF | asked)


def test_another_family_takes_none(data: Path) -> None:
    sd = Bench(data, "sd")
    with pytest.raises(Unsupported, match=r"StableDiffusionPipeline.* does not take it; it takes"):
        sd.make(**HALF)
    takes = {
        name: set(said["takes"]) for name, said in sd.ours.describe().model_dump()["models"].items()
    }
    xl = str(data / "models/xl")
    assert not any("refiner" in each for each in takes.values())
    described = Bench(data, "xl").ours.describe().model_dump()
    assert "refiner" in described["models"][xl]["takes"]
    assert described["refiners"] == sorted(["base", *NAMES, "one"])
    assert set(described["errors"]["refiners"]) == {"old", "out"}


def test_a_pipeline_that_cannot_stop_on_the_way_is_told(xl: Bench) -> None:
    edges = xl.put(PICTURE)
    asked = {"controlnets": [{"name": "net", "image": edges}]}
    base = base_of(xl)
    net = diffusers.ControlNetModel.from_pretrained(xl.folder / "models/net")
    lead = diffusers.AutoPipelineForText2Image.from_pipe(base, controlnet=net)
    size = {"width": 64, "height": 64}
    assert xl.pixels(**HALF, **asked, **size) == by_hand(
        lead, refiner_for(base, xl), image=PICTURE, **size
    )
    with pytest.raises(
        Unsupported, match="ControlNetImg2ImgPipeline cannot stop before its last step"
    ):
        xl.make(**HALF, **asked, image=edges)


@pytest.mark.parametrize(
    ("name", "strength", "counted"),
    [
        ("EulerDiscreteScheduler", None, (3, 2)),
        ("EulerDiscreteScheduler", 0.8, (2, 2)),
        ("EulerDiscreteScheduler", 0.2, (0, 2)),
        ("HeunDiscreteScheduler", None, (5, 5)),
    ],
)
def test_steps_are_counted_as_diffusers_counts_them(
    xl: Bench, name: str, strength: float | None, counted: tuple[int, int]
) -> None:
    scheduler = getattr(diffusers, name).from_config(xl.pipe.scheduler.config)
    assert refiner.split_steps(scheduler, STEPS, AT, strength) == counted
    base = base_of(xl, "Text2Image" if strength is None else "Image2Image")
    second = refiner_for(base, xl)
    base.scheduler, second.scheduler = scheduler, scheduler
    begun = {} if strength is None else {"image": PICTURE, "strength": strength}
    by_hand(base, second, **begun)
    assert (base.num_timesteps, second.num_timesteps) == counted


def test_its_memory_is_free_when_the_job_has_ended(xl: Bench, monkeypatch: Any) -> None:
    """At once, not when somebody looks for cycles: a GPU's memory waits for nobody."""
    found: list[weakref.ref[Any]] = []
    made = refiner.RefinerPipeline.arguments

    def noted(self: Any, *given: Any) -> Any:
        found.append(weakref.ref(self.pipe.unet))
        return made(self, *given)

    monkeypatch.setattr(refiner.RefinerPipeline, "arguments", noted)
    gc.disable()
    try:
        xl.make(**HALF)
        stop_at(xl, 4)
        assert [each() for each in found] == [None, None]
    finally:
        gc.enable()


def test_twenty_jobs_leave_memory_as_it_was(xl: Bench) -> None:
    def resident() -> int:
        gc.collect()
        return psutil.Process().memory_info().rss

    for _ in range(5):
        xl.make(**HALF)
    before = resident()
    for _ in range(20):
        xl.make(**HALF)
    assert resident() < before * 1.02


def test_a_refiner_through_the_service(folder: Path, data: Path, xl: Bench) -> None:
    settings = {
        "SDE_PIPELINE": "gpu_worker.pipeline:load",
        "SDE_DEVICE": "cpu",
        "SDE_MODEL": str(data / "models/xl"),
        "SDE_MODELS_DIR": str(data / "models"),
        "MACHINE_SIZE": "big",
    }
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        file = str(folder / "made.png")
        asked = (
            "generate",
            PROMPT,
            "--steps",
            "5",
            "--seed",
            "7",
            "--refiner",
            "lean:0.6",
            "--size",
            "64x64",
        )
        done = sde(service.url, *asked, "-o", file)
        assert done.returncode == 0, done.stderr
        (record,) = service.get("/image/generate?data=false").json()
        assert record["refiner"] == {"name": "lean", "switch_at": 0.6}
        assert record["request"]["refiner"] == record["refiner"]
        assert set(record["parts_sha256"]) == {"refiners/lean"}
        made = Image.open(file)
        assert made.size == (64, 64)
        assert "Refiner: lean [" in made.text["parameters"]  # type: ignore[attr-defined]
        assert ", Refiner switch at: 0.6, " in made.text["parameters"]  # type: ignore[attr-defined]
        (job,) = service.get("/image/jobs").json()
        assert (job["step"], job["steps"]) == (5, 5)
        verified = sde(service.url, "verify", record["uuid"])
        assert verified.returncode == 0 and "identical" in verified.stdout, verified.stdout
        assert "refiners: base, evil" in sde(service.url, "models").stdout
        refused = service.post({"prompt": "a", "refiner": {"name": "nope"}})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "refiner.name"
        late = service.submit(**HALF | {"refiner": {"name": "lean", "switch_at": 0.999}})
        assert service.result(late)["errors"][0].startswith("refiner.switch_at: ")
