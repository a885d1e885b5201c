"""LoRA, ControlNet, IP-Adapter, textual inversion and VAE for one job each: against diffusers
called by hand, and gone without a trace."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import diffusers
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.execution import machine_size
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_bench import PROMPT, Bench, direct, reference, write_library

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Already found a `peft_config`"
)

SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
PICTURE, MASK = tiny_adapters.drawing(), tiny_adapters.mask()
EDGES = tiny_adapters.drawing(48, 80)
CAT = f"{PROMPT} with a <cat>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters")
    models = path / "models"
    for name, pipe in (("sd", tiny_models.build()), ("xl", tiny_adapters.build_xl())):
        pipe.save_pretrained(models / name)
        for kind in ("loras", "nets"):
            (models / kind).mkdir(exist_ok=True)
        tiny_adapters.save_lora(pipe, models / "loras" / f"{name}.safetensors", text=name == "sd")
        tiny_adapters.save_lora(pipe, models / "loras" / f"{name}-2.safetensors", seed=9)
        tiny_adapters.save_controlnet(pipe, models / "nets" / name)
        tiny_adapters.save_controlnet(pipe, models / "nets" / f"{name}-2", seed=10)
        tiny_adapters.save_ip_adapter(pipe, models / f"ip-{name}")
    shutil.copy(
        models / "nets/sd/diffusion_pytorch_model.safetensors", models / "single.safetensors"
    )
    (models / "single").mkdir()
    shutil.copy(models / "nets/sd/config.json", models / "single/config.json")
    tiny_adapters.save_embedding(models / "cat.safetensors")
    tiny_adapters.save_embedding(models / "wide.safetensors", width=48)
    tiny_adapters.save_embedding(models / "nameless.safetensors", token="emb_params")
    tiny_adapters.save_embedding(models / "long.safetensors", vectors=8, token="<long>")
    tiny_adapters.save_xl_embedding(models / "cat-xl.safetensors")
    tiny_adapters.save_vae(models / "vae")
    tiny_adapters.save_vae(models / "vae-16", latent_channels=16)
    face = {"ip_adapter.0.to_q_lora.down.weight": torch.zeros(1)}
    save_file(face, models / "face.safetensors")
    (models / "face").mkdir()
    save_file({"ip_adapter.1.to_k_ip.weight": torch.zeros(1)}, models / "face/face.safetensors")
    (models / "old.pt").write_bytes(b"\x80")
    write_library(
        path,
        loras={
            "a.sd": {"source": "loras/sd.safetensors"},
            "b.sd": {"source": "loras", "weight_name": "sd-2.safetensors"},
            "a.xl": {"source": "loras/xl.safetensors"},
            "many": {"source": "loras"},
            "old": {"source": "old.pt"},
            "vae": {"source": "vae/diffusion_pytorch_model.safetensors"},
        },
        controlnets={
            "sd": {"source": "nets/sd"},
            "sd2": {"source": "nets", "subfolder": "sd-2"},
            "xl": {"source": "nets/xl"},
            "single": {"source": "single.safetensors"},
            "vae": {"source": "vae"},
        },
        ip_adapters={
            "sd": {"source": "ip-sd", "weight_name": "adapter.safetensors"},
            "xl": {"source": "ip-xl/adapter.safetensors"},
            "lora": {"source": "loras/sd.safetensors"},
            "face": {"source": "face.safetensors"},
            "blind": {"source": "face/face.safetensors"},
        },
        embeddings={
            "cat": {"source": "cat.safetensors"},
            "dog": {"source": "cat.safetensors", "token": "<dog>"},
            "wide": {"source": "wide.safetensors"},
            "long": {"source": "long.safetensors"},
            "nameless": {"source": "nameless.safetensors"},
            "cat-xl": {"source": "cat-xl.safetensors", "token": "<cat>"},
            "lora": {"source": "loras/sd.safetensors"},
        },
        vaes={
            "other": {"source": "vae"},
            "deep": {"source": "vae-16"},
            "net": {"source": "nets/sd"},
        },
    )
    return path


@pytest.fixture(scope="module")
def sd(folder: Path) -> Bench:
    return Bench(folder, "sd")


@pytest.fixture(scope="module")
def xl(folder: Path) -> Bench:
    return Bench(folder, "xl")


@pytest.fixture(scope="module")
def plain(sd: Bench) -> bytes:
    return sd.pixels()


@pytest.fixture(autouse=True)
def untouched(sd: Bench, plain: bytes) -> Any:
    """After whatever a test has done, a plain job gives the picture of before."""
    processors = [type(one).__name__ for one in sd.pipe.unet.attn_processors.values()]
    names = [name for name, _ in sd.pipe.unet.named_modules()]
    yield
    assert [type(one).__name__ for one in sd.pipe.unet.attn_processors.values()] == processors
    assert [name for name, _ in sd.pipe.unet.named_modules()] == names
    assert sd.pixels() == plain


def net(name: str, image: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, **more}


# --- LoRA


def test_loras_count_by_their_weights(sd: Bench, xl: Bench, plain: bytes) -> None:
    loras = [{"name": "a.sd", "weight": 0.8}, {"name": "b.sd", "weight": -0.5}]
    pipe = reference(sd, SD)
    files = sd.folder / "models" / "loras"
    pipe.load_lora_weights(files, weight_name="sd.safetensors", adapter_name="one")
    pipe.load_lora_weights(files, weight_name="sd-2.safetensors", adapter_name="two")
    pipe.set_adapters(["one", "two"], [0.8, -0.5])
    assert sd.pixels(loras=loras) == direct(pipe) != plain
    assert sd.pixels(loras=loras[:1]) not in (plain, sd.pixels(loras=loras))
    pipe = reference(xl, XL)
    pipe.load_lora_weights(files, weight_name="xl.safetensors")
    assert xl.pixels(loras=[{"name": "a.xl"}]) == direct(pipe) != xl.pixels()


def test_a_lora_goes_with_pictures_masks_and_clip_skip(sd: Bench) -> None:
    pipe = reference(sd, SD)
    files = sd.folder / "models" / "loras"
    pipe.load_lora_weights(files, weight_name="sd.safetensors")
    inpaint = diffusers.AutoPipelineForInpainting.from_pipe(pipe)
    asked = {"image": sd.put(PICTURE), "mask_image": sd.put(MASK), "clip_skip": 1}
    given = {"image": PICTURE, "mask_image": MASK, "clip_skip": 1, "width": 64, "height": 64}
    assert sd.pixels(loras=[{"name": "a.sd"}], **asked) == direct(inpaint, **given)


def test_a_lora_of_another_family_is_told(sd: Bench, xl: Bench) -> None:
    for bench, name in ((sd, "a.xl"), (xl, "b.sd")):
        before = bench.pixels()
        with pytest.raises(Unsupported, match=r"^loras: .* another model family"):
            bench.make(loras=[{"name": name}])
        assert bench.pixels() == before


def test_a_lora_that_is_not_there_is_told(sd: Bench) -> None:
    for name, said in {
        "none": "no lora has the name 'none'; the names are: a.sd, a.xl, b.sd",
        "many": "weight_name must choose one; it holds: sd-2.safetensors, sd.safetensors, xl-2",
        "old": "only .safetensors and .gguf files are loaded",
    }.items():
        with pytest.raises(ModelsError, match=said):
            sd.make(loras=[{"name": name}])


def test_a_stopped_job_takes_its_loras_along(sd: Bench) -> None:
    sd.halted(loras=[{"name": "a.sd"}, {"name": "b.sd"}])
    assert sd.pipe.get_list_adapters() == {}


def test_fifty_jobs_with_loras_leave_nothing_behind(sd: Bench, plain: bytes) -> None:
    """Whatever a LoRA brings is tensors and layers: as many are alive after a job as before it.

    Resident memory alone would not tell: fifty of these are a megabyte.
    """

    def alive() -> tuple[int, int]:
        gc.unfreeze()
        gc.collect()
        found = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        sizes = sum(each.numel() * each.element_size() for each in found)
        gc.freeze()
        return len(found), sizes

    def job(weight: float) -> bytes:
        loras = [{"name": "a.sd", "weight": weight}, {"name": "b.sd"}]
        return sd.pixels(loras=loras, num_inference_steps=1)

    first, resident = job(0.5), psutil.Process().memory_info().rss
    before = alive()
    for place in range(50):
        job(1 + place / 50)  # each is another LoRA to whoever would keep them by what was asked
    assert alive() == before
    assert psutil.Process().memory_info().rss < resident * 1.02
    assert job(0.5) == first != plain and sd.pixels() == plain


@pytest.mark.parametrize("size", ["little", "tiny"])
def test_smaller_sizes_take_adapters_too(folder: Path, size: machine_size.Size) -> None:
    """On a GPU with offload; on a CPU the VAE's slicing and tiling remain."""
    bench = Bench(folder, "sd", MACHINE_SIZE=size, SDE_DEVICE="auto")
    before = bench.pixels()
    image = bench.put(EDGES)
    everything = {
        "loras": [{"name": "a.sd"}],
        "controlnets": [net("sd", image)],
        "ip_adapter": net("sd", image),
        "embeddings": ["cat"],
        "vae": "other",
        "prompt": CAT,
    }
    assert bench.pixels(**everything) != before
    bench.halted(**everything)
    assert bench.pixels() == before


def test_offload_outlives_every_adapter(folder: Path, sd: Bench) -> None:
    """diffusers' own hooks, with the CPU as the device that they bring modules to."""
    bench = Bench(folder, "sd")
    bench.pipe.enable_model_cpu_offload(device="cpu")
    before, image = bench.pixels(), bench.put(EDGES)
    for asked in (
        {"loras": [{"name": "a.sd"}]},
        {"controlnets": [net("sd", image)], "image": bench.put(PICTURE)},
        {"ip_adapter": net("sd", image)},
        {"embeddings": ["cat"], "prompt": CAT},
        {"vae": "other"},
    ):
        assert bench.pixels(**asked) == sd.pixels(**asked) != before
        bench.halted(**asked)
        for part in (bench.pipe.unet, bench.pipe.vae, bench.pipe.text_encoder):
            assert hasattr(part, "_hf_hook")
    assert bench.pixels() == before


# --- ControlNet


def test_a_controlnet_leads_words_pictures_and_masks(sd: Bench, xl: Bench) -> None:
    for bench, kind, name in ((sd, SD, "sd"), (xl, XL, "xl")):
        network = diffusers.ControlNetModel.from_pretrained(bench.folder / "models/nets" / name)
        edges, picture, mask = bench.put(EDGES), bench.put(PICTURE), bench.put(MASK)
        ways = {"conditioning_scale": 0.9, "guidance_start": 0.3, "guidance_end": 0.9}
        asked = {"controlnets": [net(name, edges, **ways)], "width": 64, "height": 64}
        asked |= {"num_inference_steps": 3}
        given = {
            "num_inference_steps": 3,
            "controlnet_conditioning_scale": 0.9,
            "control_guidance_start": 0.3,
            "control_guidance_end": 0.9,
            "width": 64,
            "height": 64,
        }
        fitted = EDGES.resize((64, 64), 1)
        pipe = reference(bench, kind, "Text2Image", controlnet=network)
        without = bench.pixels(width=64, height=64)
        assert bench.pixels(**asked) == direct(pipe, image=fitted, **given) != without
        given |= {"image": PICTURE, "control_image": fitted}
        pipe = reference(bench, kind, "Image2Image", controlnet=network)
        assert bench.pixels(**asked, image=picture) == direct(pipe, **given)
        pipe = reference(bench, kind, "Inpainting", controlnet=network)
        made = bench.pixels(**asked, image=picture, mask_image=mask)
        assert made == direct(pipe, mask_image=MASK, **given)


def test_several_controlnets_lead_together(sd: Bench) -> None:
    kind = diffusers.ControlNetModel
    nets = [kind.from_pretrained(sd.folder / "models/nets" / name) for name in ("sd", "sd-2")]
    pipe = reference(sd, SD, "Text2Image", controlnet=nets)
    fitted = [EDGES.resize((64, 64), 1), PICTURE]
    expected = direct(
        pipe, image=fitted, controlnet_conditioning_scale=[1.0, 0.5], width=64, height=64
    )
    two = [net("sd", sd.put(EDGES)), net("sd2", sd.put(PICTURE), conditioning_scale=0.5)]
    assert sd.pixels(controlnets=two, width=64, height=64) == expected


def test_a_controlnet_can_be_one_file(sd: Bench) -> None:
    image = sd.put(EDGES)
    made = sd.pixels(controlnets=[net("single", image)])
    assert made == sd.pixels(controlnets=[net("sd", image)])


def test_a_controlnet_that_does_not_fit_is_told(sd: Bench) -> None:
    image = sd.put(EDGES)
    with pytest.raises(Unsupported, match="its cross_attention_dim is 32, this ControlNet's is 64"):
        sd.make(controlnets=[net("xl", image)])
    with pytest.raises(ModelsError, match="holds AutoencoderKL, not ControlNetModel or"):
        sd.make(controlnets=[net("vae", image)])
    with pytest.raises(
        ModelsError, match="no controlnet has the name 'none'; the names are: sd, sd2"
    ):
        sd.make(controlnets=[net("none", image)])
    sd.halted(controlnets=[net("sd", image)])


# --- IP-Adapter


def test_an_ip_adapter_imitates_a_picture(sd: Bench, xl: Bench, plain: bytes) -> None:
    for bench, kind, name in ((sd, SD, "sd"), (xl, XL, "xl")):
        ip = bench.folder / "models" / f"ip-{name}"
        pipe = reference(bench, kind)
        encoder = CLIPVisionModelWithProjection.from_pretrained(ip / "image_encoder")
        pipe.register_modules(image_encoder=encoder)
        pipe.load_ip_adapter(str(ip), subfolder="", weight_name="adapter.safetensors")
        pipe.set_ip_adapter_scale(0.7)
        expected = direct(pipe, ip_adapter_image=PICTURE)
        asked = {"ip_adapter": net(name, bench.put(PICTURE), scale=0.7)}
        before = bench.pixels()
        assert bench.pixels(**asked) == expected != before
        bench.halted(**asked)
        assert bench.pipe.image_encoder is None and bench.pixels() == before


def test_an_ip_adapter_that_does_not_fit_is_told(sd: Bench) -> None:
    image = sd.put(PICTURE)
    with pytest.raises(Unsupported, match=r"^ip_adapter: .* another model family"):
        sd.make(ip_adapter=net("xl", image))
    with pytest.raises(Unsupported, match="does not support FaceID adapters"):
        sd.make(ip_adapter=net("face", image))
    with pytest.raises(ModelsError, match="is not an IP-Adapter"):
        sd.make(ip_adapter=net("lora", image))
    with pytest.raises(ModelsError, match="there is no image_encoder directory beside face"):
        sd.make(ip_adapter=net("blind", image))


# --- textual inversion


def test_a_learned_word_can_be_used(sd: Bench, xl: Bench) -> None:
    pipe = reference(sd, SD)
    models = sd.folder / "models"
    pipe.load_textual_inversion(str(models), weight_name="cat.safetensors")
    expected = direct(pipe, prompt=CAT)
    size = len(sd.pipe.tokenizer)
    assert sd.pixels(prompt=CAT, embeddings=["cat"]) == expected != sd.pixels(prompt=CAT)
    dog = CAT.replace("<cat>", "<dog>")
    assert sd.pixels(prompt=dog, embeddings=["dog"]) == expected
    named = CAT.replace("<cat>", "nameless")
    assert sd.pixels(prompt=named, embeddings=["nameless"]) == expected
    assert len(sd.pipe.tokenizer) == size == sd.pipe.text_encoder.config.vocab_size
    sd.halted(prompt=CAT, embeddings=["cat", "dog"])
    pipe = reference(xl, XL)
    vectors = load_file(models / "cat-xl.safetensors")
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        parts = {
            "text_encoder": getattr(pipe, f"text_encoder{end}"),
            "tokenizer": getattr(pipe, f"tokenizer{end}"),
        }
        pipe.load_textual_inversion(vectors[key], token="<cat>", **parts)
    before = xl.pixels(prompt=CAT)
    assert xl.pixels(prompt=CAT, embeddings=["cat-xl"]) == direct(pipe, prompt=CAT) != before
    assert xl.pixels(prompt=CAT) == before


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize("last", ["{}", "({}:1.01)"])
def test_a_word_of_many_vectors_does_not_cut_what_follows(sd: Bench, field: str, last: str) -> None:
    words = "red " * 60 + "<long> <long> <long> "  # 60 + 3 * 8 tokens, beyond the 75 that fit
    made = [
        sd.make(embeddings=["long"], **{field: words + last.format(color)})[0]
        for color in ("green", "blue")
    ]
    assert made[0].image.tobytes() != made[1].image.tobytes(), "the last word counts"
    if field == "prompt":
        assert made[0].metadata["prompt_tokens"] == 60 + 3 * 8 + 1


def test_a_word_that_does_not_fit_is_told(sd: Bench) -> None:
    with pytest.raises(Unsupported, match=r"has a text encoder of width 32, but this .* 48"):
        sd.make(embeddings=["wide"])
    with pytest.raises(Unsupported, match="has no second text encoder, which"):
        sd.make(embeddings=["cat-xl"])
    with pytest.raises(ModelsError, match="is not a textual inversion"):
        sd.make(embeddings=["lora"])
    with pytest.raises(ModelsError, match="no embedding has the name 'none'"):
        sd.make(embeddings=["cat", "none"])


# --- VAE


def test_another_vae_decodes(sd: Bench, plain: bytes) -> None:
    pipe = reference(sd, SD)
    pipe.vae = diffusers.AutoencoderKL.from_pretrained(sd.folder / "models" / "vae")
    own = sd.pipe.vae
    assert sd.pixels(vae="other") == direct(pipe) != plain
    image = sd.put(PICTURE)
    pipe = diffusers.AutoPipelineForImage2Image.from_pipe(pipe)
    assert sd.pixels(vae="other", image=image) == direct(pipe, image=PICTURE)
    assert sd.pipe.vae is own


def test_a_vae_that_does_not_fit_is_told(sd: Bench) -> None:
    with pytest.raises(Unsupported, match="has latents of 4 channels, but this VAE reads 16"):
        sd.make(vae="deep")
    with pytest.raises(ModelsError, match="holds ControlNetModel, not AutoencoderKL or"):
        sd.make(vae="net")


@pytest.mark.parametrize(
    ("file", "kind", "asked"),
    [
        ("cat.safetensors", "embeddings.cat", {"embeddings": ["cat"]}),
        ("ip-sd/adapter.safetensors", "ip_adapters.sd", {"ip_adapter": "sd"}),
    ],
)
def test_a_damaged_part_is_named(sd: Bench, file: str, kind: str, asked: dict[str, Any]) -> None:
    path = sd.folder / "models" / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    if "ip_adapter" in asked:
        asked = {"ip_adapter": net("sd", sd.put(PICTURE))}
    try:
        with pytest.raises(ModelsError, match=f"^{kind}: {path.name} is damaged"):
            sd.make(**asked)
    finally:
        path.write_bytes(content)


def test_a_file_that_is_damaged_is_told(sd: Bench) -> None:
    file = sd.folder / "models" / "loras" / "sd-2.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:100])
    try:
        with pytest.raises(Unsupported, match=r"^loras: "):
            sd.make(loras=[{"name": "b.sd"}])
    finally:
        file.write_bytes(content)
