"""Numbers that are not finite end a job by a sentence, or a wider dtype saves the image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker.contract.validation_errors import Refusal
from gpu_worker.pipeline.execution import offload, wider_vae
from gpu_worker.pipeline.integrity.finite_values import ValueNotes
from tests.support.builders import tiny_adapters, tiny_dits, tiny_models, tiny_unets, tiny_upscalers
from tests.support.pipeline_bench import PROMPT, Bench, in_own_memory, reference, write_library

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAN, INFINITY = float("nan"), float("inf")
PICTURE = tiny_adapters.drawing()
SD = "StableDiffusionPipeline"


def break_file(folder: Path, word: str, value: float = NAN) -> None:
    """Fill the weights whose names contain the word."""
    for file in folder.rglob("*.safetensors") if folder.is_dir() else [folder]:
        weights = load_file(file)
        filled = {k: torch.full_like(v, value) if word in k else v for k, v in weights.items()}
        save_file(filled, file, metadata={"format": "pt"})


@contextlib.contextmanager
def broken(network: torch.nn.Module, weight: str, value: float = NAN) -> Iterator[None]:
    """Within, one weight of a loaded network is no number."""
    own = network.get_parameter(weight)
    before = own.data.clone()
    own.data.flatten()[0] = value
    try:
        yield
    finally:
        own.data.copy_(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finite")
    models = path / "models"
    pipe, xl = tiny_models.build(), tiny_adapters.build_xl()
    pipe.save_pretrained(models / "sd")
    xl.save_pretrained(models / "xl")
    tiny_dits.flux().save_pretrained(models / "flux")
    tiny_unets.deepfloyd().save_pretrained(models / "if")
    tiny_adapters.save_lora(pipe, models / "sound.safetensors")
    for name, word in (("nan", "lora_B"), ("huge", "lora_"), ("text", "text_encoder")):
        tiny_adapters.save_lora(pipe, models / f"{name}.safetensors", text=name == "text")
        break_file(models / f"{name}.safetensors", word, 1e38 if name == "huge" else NAN)
    tiny_adapters.save_embedding(models / "cat.safetensors")
    break_file(models / "cat.safetensors", "", INFINITY)
    for place, word in ((1, "proj_in"), (2, "controlnet_mid_block"), (3, "conv_in")):
        tiny_adapters.save_controlnet(pipe, models / f"net-{place}")
        break_file(models / f"net-{place}", word if place > 1 else "no weight")
    tiny_adapters.save_vae(models / "vae")
    break_file(models / "vae", "decoder.conv_norm_out")
    tiny_adapters.save_ip_adapter(pipe, models / "ip")
    break_file(models / "ip" / "adapter.safetensors", "to_v_ip")
    tiny_adapters.build_refiner().save_pretrained(models / "refiner")
    break_file(models / "refiner" / "unet", "conv_out")
    tiny_upscalers.esrgan(models / "sharp.safetensors")
    break_file(models / "sharp.safetensors", "conv_last.bias")
    write_library(
        path,
        loras={n: {"source": f"{n}.safetensors"} for n in ("sound", "nan", "huge", "text")},
        embeddings={"cat": {"source": "cat.safetensors", "token": "<cat>"}},
        controlnets={f"net-{place}": {"source": f"net-{place}"} for place in (1, 2, 3)},
        vaes={"vae": {"source": "vae"}},
        ip_adapters={"ip": {"source": "ip/adapter.safetensors"}},
        refiners={"refiner": {"source": "refiner"}},
        upscalers={"sharp": {"source": "sharp.safetensors"}},
    )
    return path


@pytest.fixture(scope="module")
def sd(folder: Path) -> Bench:
    return Bench(folder, "sd")


def refused(bench: Bench, **asked: Any) -> str:
    with pytest.raises(Refusal) as caught:
        bench.make(**asked)
    return str(caught.value)


PARTS = [
    ("unet", "conv_in.weight", NAN, {}),
    ("unet", "conv_out.bias", INFINITY, {"scheduler_options": {"clip_sample": True}}),
    ("unet", "mid_block.resnets.0.conv1.weight", -INFINITY, {"guidance_scale": 1.0}),
    ("vae", "decoder.conv_out.bias", NAN, {}),
    ("vae", "post_quant_conv.weight", INFINITY, {}),
    ("text_encoder", "final_layer_norm.weight", NAN, {}),
    ("text_encoder", "final_layer_norm.weight", NAN, {"prompt": "a (red:1.3) circle"}),
]


@pytest.mark.parametrize(("part", "weight", "value", "more"), PARTS)
def test_the_sentence_names_the_part(
    sd: Bench, part: str, weight: str, value: float, more: dict[str, Any]
) -> None:
    before, network = sd.pixels(), getattr(sd.pipe, part)
    if part == "text_encoder" and hasattr(network, "text_model"):
        weight = f"text_model.{weight}"
    with broken(network, weight, value):
        said = f"model: the {part} produced NaN or infinite values in float32, so there is no image"
        assert refused(sd, **more).startswith(said)
    assert sd.pixels() == before, "the next job draws as before"


def test_an_image_that_cannot_be_encoded_is_the_vaes(sd: Bench) -> None:
    with broken(sd.pipe.vae, "encoder.conv_in.weight"):
        assert refused(sd, image=sd.put(PICTURE)).startswith("model: the vae produced")
        assert sd.make()[0].image.getextrema() != ((0, 0),) * 3, "text alone does not encode"


def test_a_scheduler_is_named(folder: Path) -> None:
    bench = Bench(folder, "sd")
    bench.pipe.scheduler.alphas_cumprod[:500] = NAN
    assert refused(bench, num_inference_steps=4).startswith("scheduler: the scheduler produced NaN")


def net(name: str) -> dict[str, Any]:
    return {"name": name, "image": ""}


FIELDS = [
    ("loras.1.name", "'nan'", {"loras": [{"name": "sound"}, {"name": "nan"}]}),
    ("loras", "['huge']", {"loras": [{"name": "huge", "weight": 2.0}]}),
    ("loras.0.name", "'text'", {"loras": [{"name": "text"}]}),
    ("embeddings", "['cat']", {"embeddings": ["cat"], "prompt": f"{PROMPT} <cat>"}),
    ("embeddings", "['cat']", {"embeddings": ["cat"], "prompt": "a (red:1.2) <cat>"}),
    ("controlnets", "['net-2']", {"controlnets": [net("net-2")]}),
    ("controlnets", "['net-1', 'net-3']", {"controlnets": [net("net-1"), net("net-3")]}),
    ("vae", "'vae'", {"vae": "vae"}),
    ("vae", "'vae'", {"vae": "vae", "hires": {"scale": 1.5}}),
    ("ip_adapter.name", "'ip'", {"ip_adapter": net("ip")}),
    ("upscalers.sharp", "", {"hires": {"scale": 2.0, "upscaler": "sharp"}}),
    ("upscalers.sharp", "", {"image": "", "upscale": {"scale": 2.0, "upscaler": "sharp"}}),
]


@pytest.mark.parametrize(("field", "value", "asked"), FIELDS)
def test_the_sentence_names_the_field_behind_it(
    sd: Bench, field: str, value: str, asked: dict[str, Any]
) -> None:
    picture, before = sd.put(PICTURE), sd.pixels()
    asked = {key: picture if key == "image" else each for key, each in asked.items()}
    nets = [each | {"image": picture} for each in asked.get("controlnets", [])]
    asked |= {"controlnets": nets} if nets else {}
    if "ip_adapter" in asked:
        asked["ip_adapter"] = asked["ip_adapter"] | {"image": picture}
    sentence = refused(sd, **asked)
    assert sentence.startswith(f"{field}: ") and "NaN or infinite values" in sentence
    assert sentence.endswith(f"(got {value})") or not value
    assert sd.pixels() == before


def test_a_refiner_is_named(folder: Path) -> None:
    bench = Bench(folder, "xl")
    refiner = {"name": "refiner", "switch_at": 0.5}
    sentence = refused(bench, refiner=refiner, num_inference_steps=4)
    assert sentence.startswith("refiner.name: the unet produced NaN")
    with broken(bench.pipe.unet, "conv_out.bias"):
        sentence = refused(bench, refiner=refiner, num_inference_steps=4)
        assert sentence.startswith("model: the unet produced NaN")


@pytest.mark.parametrize(
    ("model", "part", "weight"),
    [("flux", "transformer", "proj_out.bias"), ("if", "unet", "conv_out.bias")],
)
def test_other_families_are_watched_too(folder: Path, model: str, part: str, weight: str) -> None:
    """One has a transformer, the other draws pixels without a VAE."""
    bench = Bench(folder, model)
    assert bench.make()[0].image.getextrema() != ((0, 0),) * 3
    with broken(getattr(bench.pipe, part), weight):
        assert refused(bench).startswith(f"model: the {part} produced NaN or infinite values")


@pytest.fixture
def overflowing(folder: Path) -> Bench:
    """Its VAE's first layers give numbers beyond float16, which the next layers normalise."""
    bench = Bench(folder, "sd")
    for name in ("decoder.conv_in", "encoder.conv_in"):
        bench.pipe.vae.get_submodule(name).weight.data *= 3e5
    in_own_memory(bench.pipe).to(torch.float16)
    return bench


def decoded_by_hand(bench: Bench) -> bytes:
    """The latents in float16, and the VAE apart from them in float32."""
    pipe = reference(bench, SD).to(torch.float16)
    pipe.vae.load_state_dict(bench.pipe.vae.state_dict())
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(7)
    latents = pipe(PROMPT, num_inference_steps=2, generator=generator, output_type="latent").images
    vae = pipe.vae.float()
    with torch.no_grad():
        pixels = vae.decode((latents / vae.config.scaling_factor).float()).sample
    image: bytes = pipe.image_processor.postprocess(pixels)[0].tobytes()
    return image


def test_a_vae_that_overflows_decodes_again_in_float32(overflowing: Bench) -> None:
    weights = [(each.data_ptr(), each.dtype) for each in overflowing.pipe.vae.parameters()]
    (made,) = overflowing.make()
    assert made.metadata["vae_dtype"] == "float32"
    assert made.image.tobytes() == decoded_by_hand(overflowing)
    after = [(each.data_ptr(), each.dtype) for each in overflowing.pipe.vae.parameters()]
    assert weights == after, "its own weights are where they were"
    assert overflowing.pixels() == made.image.tobytes()


def test_a_vae_that_overflows_encodes_again_in_float32(overflowing: Bench) -> None:
    (made,) = overflowing.make(image=overflowing.put(PICTURE), strength=0.5, num_inference_steps=4)
    assert made.metadata["vae_dtype"] == "float32"
    assert made.image.getextrema() != ((0, 0),) * 3


def test_a_float16_network_that_overflows_is_no_image(folder: Path) -> None:
    bench = Bench(folder, "sd")
    bench.pipe.unet.conv_in.weight.data *= 1e7
    in_own_memory(bench.pipe).to(torch.float16)
    assert refused(bench).startswith("model: the unet produced NaN or infinite values in float16")


def test_a_sound_image_says_nothing_of_its_vae(sd: Bench) -> None:
    assert "vae_dtype" not in sd.make()[0].metadata


def test_a_preview_that_overflows_costs_no_image(sd: Bench) -> None:
    def on_step(step: int, steps: int, preview: Any = None) -> None:
        with broken(sd.pipe.vae, "decoder.conv_out.bias"), contextlib.suppress(Exception):
            sd.pipe.vae.decode(torch.zeros(1, 4, 8, 8))
            preview()

    before = sd.pixels()
    assert sd.make(on_step=on_step)[0].image.tobytes() == before


def test_a_note_does_not_wait_for_the_device() -> None:
    """What would have to wait fails on `meta`, where tensors have no values."""
    notes = ValueNotes()
    notes.add("unet", {"sample": torch.empty(2, 3, device="meta"), "more": (None, [1, "x"])})
    with pytest.raises((NotImplementedError, RuntimeError)):
        notes.cause()


def test_what_the_image_does_not_read_is_no_fault() -> None:
    notes = ValueNotes()
    notes.add("text_encoder", torch.tensor([NAN]))
    notes.add("unet", torch.full((4,), 65504.0, dtype=torch.float16))
    assert notes.cause() is None
    notes.add("vae", torch.tensor([INFINITY, -INFINITY]))
    cause = notes.cause()
    assert cause is not None and cause.part == "text_encoder"


def test_a_vae_in_layers_is_copied_whole() -> None:
    pipe = tiny_models.build()
    pipe.vae.enable_tiling()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator("cpu").manual_seed(1))
    with torch.no_grad():
        expected = pipe.vae.decode(latents).sample
        offload.enable(pipe, "layers", torch.device("cpu"))
        made = wider_vae.run(pipe.vae, "decode", latents).sample
    assert offload.has_layer_hooks(pipe.vae)
    assert torch.equal(made, expected)
