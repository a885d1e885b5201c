"""The image encoder of an IP-Adapter, in the layout of h94/IP-Adapter with its two encoders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from tests.support.builders import tiny_adapters
from tests.support.pipeline_bench import Bench, direct, reference, write_library

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

VIT_H, BIG_G = (16, 16), (24, 32)
"""Widths of the projection and of the hidden states."""


def save_encoder(folder: Path, widths: tuple[int, int]) -> None:
    torch.manual_seed(sum(widths))
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=widths[1],
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=widths[0],
        )
    ).save_pretrained(folder)


def plus(weights: dict[str, torch.Tensor], width: int, cross: int) -> dict[str, torch.Tensor]:
    """An adapter of the kind "plus", which reads hidden states."""
    torch.manual_seed(width)
    hidden = 64
    layer = {
        "0.norm1.weight": (hidden,),
        "0.norm1.bias": (hidden,),
        "0.norm2.weight": (hidden,),
        "0.norm2.bias": (hidden,),
        "0.to_q.weight": (hidden, hidden),
        "0.to_kv.weight": (2 * hidden, hidden),
        "0.to_out.weight": (hidden, hidden),
        "1.0.weight": (hidden,),
        "1.0.bias": (hidden,),
        "1.1.weight": (4 * hidden, hidden),
        "1.3.weight": (hidden, 4 * hidden),
    }
    layers = {f"layers.{i}.{name}": shape for i in range(4) for name, shape in layer.items()}
    shapes = layers | {
        "latents": (1, 4, hidden),
        "proj_in.weight": (hidden, width),
        "proj_in.bias": (hidden,),
        "proj_out.weight": (cross, hidden),
        "proj_out.bias": (cross,),
        "norm_out.weight": (cross,),
        "norm_out.bias": (cross,),
    }
    attention = {key: value for key, value in weights.items() if key.startswith("ip_adapter.")}
    return attention | {f"image_proj.{name}": torch.randn(s) for name, s in shapes.items()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("encoders")
    models = folder / "models"
    pipe = tiny_adapters.build_xl()
    pipe.save_pretrained(models / "xl")
    tiny_adapters.save_ip_adapter(pipe, models / "made")
    weights = load_file(models / "made" / "adapter.safetensors")
    cross = pipe.unet.config.cross_attention_dim
    save_encoder(models / "h94" / "models" / "image_encoder", VIT_H)
    save_encoder(models / "h94" / "sdxl_models" / "image_encoder", BIG_G)
    files = models / "h94" / "sdxl_models"
    torch.manual_seed(3)
    wide = {"image_proj.proj.weight": torch.randn(4 * cross, BIG_G[0])}
    for name, tensors in {
        "ip-adapter_sdxl": weights | wide,
        "ip-adapter_sdxl_vit-h": weights,
        "ip-adapter-plus_sdxl_vit-h": plus(weights, VIT_H[1], cross),
        "ip-adapter-plus_sdxl": plus(weights, BIG_G[1], cross),
        "strange": weights | {"image_proj.proj.weight": torch.randn(4 * cross, 48)},
    }.items():
        save_file(tensors, files / f"{name}.safetensors")
    shutil.copytree(files, models / "alone", ignore=shutil.ignore_patterns("image_encoder"))
    entries = {
        name: {"source": "h94", "subfolder": "sdxl_models", "weight_name": f"{name}.safetensors"}
        for name in ENCODERS
    }
    entries["strange"] = {"source": "h94/sdxl_models/strange.safetensors"}
    entries["alone"] = {"source": "alone/ip-adapter_sdxl.safetensors"}
    write_library(folder, ip_adapters=entries)
    return Bench(folder, "xl")


ENCODERS = {
    "ip-adapter_sdxl": "sdxl_models",
    "ip-adapter_sdxl_vit-h": "models",
    "ip-adapter-plus_sdxl_vit-h": "models",
    "ip-adapter-plus_sdxl": "sdxl_models",
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_encoder_has_the_width_that_the_adapter_reads(bench: Bench, name: str) -> None:
    image = tiny_adapters.drawing()
    pixels = bench.pixels(ip_adapter={"name": name, "image": bench.put(image), "scale": 0.7})
    h94 = bench.folder / "models" / "h94"
    encoder = CLIPVisionModelWithProjection.from_pretrained(h94 / ENCODERS[name] / "image_encoder")
    pipe = reference(bench, "StableDiffusionXLPipeline", image_encoder=encoder)
    pipe.load_ip_adapter(
        str(h94 / "sdxl_models"),
        subfolder="",
        weight_name=f"{name}.safetensors",
        image_encoder_folder=None,
    )
    pipe.set_ip_adapter_scale(0.7)
    assert pixels == direct(pipe, ip_adapter_image=image)


def test_no_encoder_of_the_width_is_refused_by_name(bench: Bench) -> None:
    before = bench.pixels()
    asked = {"name": "strange", "image": bench.put(tiny_adapters.drawing())}
    with pytest.raises(Unsupported, match="needs an image encoder with projection_dim 48") as error:
        bench.make(ip_adapter=asked)
    assert "that in image_encoder/ has 24" in str(error.value)
    assert "that in ../models/image_encoder/ has 16" in str(error.value)
    assert bench.pixels() == before


def test_no_encoder_at_all_is_a_sentence(bench: Bench) -> None:
    asked = {"name": "alone", "image": bench.put(tiny_adapters.drawing())}
    with pytest.raises(ModelsError, match="there is no image_encoder directory beside"):
        bench.make(ip_adapter=asked)
