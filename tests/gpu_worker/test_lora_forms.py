"""LoRA files of every form against the same change made in the weights by hand; what has no place
is refused by count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gpu_worker.contract.validation_errors import Unsupported
from tests.support.builders import tiny_dits, tiny_models
from tests.support.pipeline_bench import Bench, direct, reference, write_library

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Tensors = dict[str, torch.Tensor]
SD = "StableDiffusionPipeline"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"
ORIGINAL_QUERY = "middle_block.1.transformer_blocks.0.attn1.to_q"
RANK = 2


def factors(layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up of a LoRA on a layer of 64 inputs and outputs."""
    torch.manual_seed(len(layer))
    down, up = torch.randn(RANK, 64), torch.randn(64, RANK)
    if layer == CONV:
        return torch.randn(RANK, 64, 3, 3), up[..., None, None]
    return down, up


def change(layer: str, scale: float = 1.0) -> torch.Tensor:
    down, up = factors(layer)
    return scale * torch.einsum("or,r...->o...", up.flatten(1), down)


def kohya(layer: str) -> str:
    return "lora_unet_" + layer.replace(".", "_")


def pair(stem: str, layer: str = QUERY, ends: tuple[str, str] = ("lora_A", "lora_B")) -> Tensors:
    down, up = factors(layer)
    return {f"{stem}.{ends[0]}.weight": down, f"{stem}.{ends[1]}.weight": up}


KOHYA = ("lora_down", "lora_up")
ALPHA = torch.tensor(1.0)

FORMS: dict[str, Tensors] = {
    "kohya": pair(kohya(QUERY), ends=KOHYA) | {f"{kohya(QUERY)}.alpha": ALPHA},
    "peft": pair(f"unet.{QUERY}"),
    "peft-alpha": pair(f"unet.{QUERY}") | {f"unet.{QUERY}.alpha": ALPHA},
    "diffusers": pair(f"unet.{QUERY}", ends=("lora.down", "lora.up")),
    "processors": {
        key.replace(".to_q.", ".processor.to_q_"): tensor
        for key, tensor in pair(QUERY, ends=("lora.down", "lora.up")).items()
    },
    "bare": pair(QUERY),
    "wrapped": pair(f"base_model.model.{QUERY}"),
    "denoiser": pair(f"diffusion_model.{QUERY}", ends=KOHYA),
    "original": pair(f"diffusion_model.{ORIGINAL_QUERY}"),
    "kohya-conv": pair(kohya(CONV), CONV, KOHYA),
}
SCALES = {"kohya": 0.5, "peft-alpha": 0.5}


def loha(layer: str, shape: tuple[int, int], rank: int) -> tuple[Tensors, torch.Tensor]:
    torch.manual_seed(rank)
    a1, a2 = torch.randn(2, shape[0], rank)
    b1, b2 = torch.randn(2, rank, shape[1])
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    tensors = dict(zip(names, (a1, b1, a2, b2), strict=True)) | {"alpha": ALPHA}
    stem = kohya(layer)
    return (
        {f"{stem}.{end}": tensor.contiguous() for end, tensor in tensors.items()},
        (a1 @ b1) * (a2 @ b2) / rank,
    )


def lokr(*, low_rank: bool) -> tuple[Tensors, torch.Tensor]:
    torch.manual_seed(9)
    first, a, b = torch.randn(4, 4), torch.randn(16, 3), torch.randn(3, 16)
    stem = kohya(QUERY)
    tensors = {f"{stem}.lokr_w1": first, f"{stem}.alpha": ALPHA}
    if low_rank:
        tensors |= {f"{stem}.lokr_w2_a": a, f"{stem}.lokr_w2_b": b}
        return tensors, torch.kron(first, a @ b) / 3
    return tensors | {f"{stem}.lokr_w2": a @ b}, torch.kron(first, a @ b)


def core() -> tuple[Tensors, torch.Tensor]:
    torch.manual_seed(8)
    down, mid, up = torch.randn(2, 64, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(64, 2, 1, 1)
    stem = kohya(CONV)
    names = ("lora_down.weight", "lora_mid.weight", "lora_up.weight")
    tensors = {f"{stem}.{end}": each for end, each in zip(names, (down, mid, up), strict=True)}
    weight = torch.einsum("op,pqhw,qi->oihw", up.flatten(1), mid, down.flatten(1))
    return tensors, weight


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("forms")
    tiny_models.build().save_pretrained(folder / "models" / "sd")
    write_library(folder, loras={"it": {"source": "it.safetensors"}})
    return Bench(folder, "sd")


@pytest.fixture(autouse=True)
def untouched(sd: Bench) -> None:
    (sd.folder / "models" / "adapter_config.json").unlink(missing_ok=True)


def save(sd: Bench, tensors: Tensors) -> None:
    save_file(
        {key: each.clone() for key, each in tensors.items()}, sd.folder / "models/it.safetensors"
    )


def by_hand(sd: Bench, layer: str, weight: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    pipe = reference(sd, SD)
    module = pipe.unet.get_submodule(layer)
    module.weight = torch.nn.Parameter(weight(module.weight.detach()))
    return pixels(direct(pipe))


def pixels(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8).astype(int)


def check(sd: Bench, layer: str, delta: torch.Tensor) -> None:
    """The image is that of the changed weight, up to rounding, and not the plain one."""
    image = pixels(sd.pixels(loras=[{"name": "it"}]))
    expected = by_hand(sd, layer, lambda weight: weight + delta.reshape(weight.shape))
    assert np.abs(image - expected).max() <= 2
    assert np.abs(image - pixels(sd.pixels())).max() > 2


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_keys_is_applied(sd: Bench, name: str) -> None:
    layer = CONV if name.endswith("conv") else QUERY
    save(sd, FORMS[name])
    check(sd, layer, change(layer, SCALES.get(name, 1.0)))


def test_pefts_configuration_says_the_scale(sd: Bench) -> None:
    save(sd, FORMS["wrapped"])
    config = {"r": RANK, "lora_alpha": 1, "use_rslora": False}
    (sd.folder / "models" / "adapter_config.json").write_text(json.dumps(config))
    check(sd, QUERY, change(QUERY, 0.5))


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (QUERY, loha(QUERY, (64, 64), 2)),
        (QUERY, loha(QUERY, (64, 64), 12)),
        (CONV, loha(CONV, (64, 64 * 9), 2)),
        (CONV, loha(CONV, (64, 64 * 9), 9)),
        (QUERY, lokr(low_rank=True)),
        (QUERY, lokr(low_rank=False)),
        (CONV, core()),
    ],
    ids=["loha", "loha-full", "loha-conv", "loha-conv-full", "lokr", "lokr-full", "core"],
)
def test_lycoris_is_applied(sd: Bench, layer: str, form: tuple[Tensors, torch.Tensor]) -> None:
    tensors, delta = form
    save(sd, tensors)
    check(sd, layer, delta)


def test_a_dora_is_applied(sd: Bench) -> None:
    sizes = torch.linspace(0.5, 2.0, 64)[:, None]
    save(sd, FORMS["kohya"] | {f"{kohya(QUERY)}.dora_scale": sizes})

    def decomposed(weight: torch.Tensor) -> torch.Tensor:
        whole = weight + change(QUERY, 0.5)
        return sizes * whole / whole.norm(dim=1, keepdim=True)

    image = pixels(sd.pixels(loras=[{"name": "it"}]))
    assert np.abs(image - by_hand(sd, QUERY, decomposed)).max() <= 2


OTHER = QUERY.replace("mid_block", "down_blocks.7")
ORIGINAL = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_k"


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        *(
            (
                pair(stem(QUERY), ends=ends) | pair(stem(OTHER), ends=ends),
                "1 of the 2 layers that this LoRA changes",
            )
            for stem, ends in (
                (kohya, KOHYA),
                (lambda layer: f"unet.{layer}", ("lora_A", "lora_B")),
                (lambda layer: f"base_model.model.{layer}", ("lora_A", "lora_B")),
                (lambda layer: f"diffusion_model.{layer}", KOHYA),
                (str, ("lora_A", "lora_B")),
            )
        ),
        (
            FORMS["peft"] | pair(f"vae.{QUERY}"),
            "such as 'unet.vae",
        ),
        (FORMS["kohya"] | pair(ORIGINAL, ends=KOHYA), "1 of the 2 layers that this LoRA changes"),
        (FORMS["kohya"] | {f"{kohya(CONV)}.diff": ALPHA}, "an unknown form in 1 of"),
        (
            FORMS["kohya"] | {f"{kohya(CONV)}.oft_blocks": ALPHA, f"{kohya(CONV)}.x": ALPHA},
            "an unknown form in 2 of",
        ),
        (
            FORMS["kohya"] | {f"{kohya(CONV)}.lora_down.weight": factors(CONV)[0]},
            "1 of its 2 layers",
        ),
        (FORMS["kohya"] | {f"{kohya(QUERY)}.dora_scale": torch.ones(1, 64)}, "1 of its 1 layers"),
        ({"conv_in.weight": ALPHA}, "has no layer of a LoRA"),
    ],
)
def test_what_has_no_place_is_refused_by_count(sd: Bench, tensors: Tensors, sentence: str) -> None:
    save(sd, tensors)
    before = sd.pixels()
    with pytest.raises(Unsupported, match=rf"^loras: .*({sentence}).*\(got 'it'\)"):
        sd.make(loras=[{"name": "it"}])
    assert sd.pixels() == before


@pytest.mark.parametrize(
    ("name", "tensors"), [("LoHa", loha(QUERY, (64, 64), 2)[0]), ("LoKr", lokr(low_rank=True)[0])]
)
def test_a_family_without_a_unet_refuses_lycoris_by_its_name(
    tmp_path: Path, name: str, tensors: Tensors
) -> None:
    tiny_dits.flux().save_pretrained(tmp_path / "models" / "flux")
    save_file(tensors, tmp_path / "models" / "it.safetensors")
    write_library(tmp_path, loras={"it": {"source": "it.safetensors"}})
    with pytest.raises(Unsupported) as error:
        Bench(tmp_path, "flux").make(loras=[{"name": "it"}])
    assert f"tensors of a {name}, which this model family does not support" in str(error.value)
    assert "another" not in str(error.value)
