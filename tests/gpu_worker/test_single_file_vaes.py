"""VAEs from a single file, in each layout, with and without a configuration of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from tests.support.builders import original_layout, tiny_adapters, tiny_models
from tests.support.pipeline_bench import Bench, direct, reference, write_library
from tests.support.pipeline_jobs import settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

XL_FACTOR = 0.13025
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def with_values(vae: AutoencoderKL, **values: Any) -> AutoencoderKL:
    config = dict(vae.config) | {"_use_default_values": []} | values
    changed = AutoencoderKL.from_config(config)
    changed.load_state_dict(vae.state_dict())
    return changed


def other_vae(**values: Any) -> AutoencoderKL:
    torch.manual_seed(7)
    plain = tiny_models.build(seed=7).vae
    return with_values(plain, **values)


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        renamed[name] = tensor
    return renamed


def contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vaes")
    pipe = tiny_adapters.build_xl()
    pipe.register_modules(vae=with_values(pipe.vae, scaling_factor=XL_FACTOR))
    pipe.save_pretrained(path / "models" / "xl")
    return path


def bench_with(folder: Path, source: str) -> Bench:
    write_library(folder, vaes={"it": {"source": source}})
    return Bench(folder, "xl")


LAYOUTS = {
    "original": lambda vae: tiny_models._ldm_vae(vae),
    "checkpoint": lambda vae: {
        original_layout.VAE_PREFIX + key: value for key, value in tiny_models._ldm_vae(vae).items()
    },
    "diffusers": lambda vae: vae.state_dict(),
    "old": lambda vae: old_names(vae.state_dict()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_without_configuration_has_the_models_values(folder: Path, layout: str) -> None:
    vae = other_vae()
    save_file(contiguous(LAYOUTS[layout](vae)), folder / "models" / f"{layout}.safetensors")
    bench = bench_with(folder, f"{layout}.safetensors")
    assert pipeline.load(settings(folder)).describe().errors == {}
    expected = reference(bench, "StableDiffusionXLPipeline")
    expected.register_modules(vae=with_values(vae, scaling_factor=XL_FACTOR))
    assert bench.pixels(vae="it") == direct(expected) != bench.pixels()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scaling_factor": 0.18215}, "scaling_factor 0.13025, but this VAE's .* is 0.18215"),
        ({"shift_factor": 0.1159}, "shift_factor None, but this VAE's .* is 0.1159"),
        ({"latents_mean": [0.1] * 4}, r"latents_mean None, but this VAE's .* is \[0.1"),
        ({"latents_std": [0.5] * 4}, r"latents_std None, but this VAE's .* is \[0.5"),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_other_scales_are_refused_by_name(
    folder: Path, values: dict[str, Any], sentence: str, is_file: bool
) -> None:
    vae = other_vae(**{"scaling_factor": XL_FACTOR} | values)
    own = folder / "models" / "own"
    vae.save_pretrained(own)
    if is_file:
        weights = own / "diffusion_pytorch_model.safetensors"
        weights.rename(folder / "models" / "own.safetensors")
    bench = bench_with(folder, "own.safetensors" if is_file else "own")
    with pytest.raises(Unsupported, match=f"^vae: .*{sentence}.*\\(got 'it'\\)"):
        bench.make(vae="it")


def test_equal_scales_are_taken(folder: Path) -> None:
    other_vae(scaling_factor=0.130250001).save_pretrained(folder / "models" / "equal")
    bench = bench_with(folder, "equal")
    assert bench.pixels(vae="it") != bench.pixels()


@pytest.mark.parametrize("spoil", ["shapes", "missing", "foreign"])
def test_a_file_that_does_not_fit_is_a_sentence(folder: Path, spoil: str) -> None:
    weights = contiguous(tiny_models._ldm_vae(other_vae()))
    if spoil == "shapes":
        weights["decoder.conv_in.weight"] = torch.zeros(32, 16, 3, 3)
    elif spoil == "missing":
        weights = {key: value for key, value in weights.items() if "decoder.mid" not in key}
    else:
        weights = {"conv.weight": torch.zeros(1)}
    save_file(weights, folder / "models" / "bad.safetensors")
    bench = bench_with(folder, "bad.safetensors")
    before = bench.pixels()
    with pytest.raises(ModelsError, match=r"^vaes\.it: bad\.safetensors ") as error:
        bench.make(vae="it")
    assert str(folder) not in str(error.value)
    assert bench.pixels() == before


def test_a_class_of_its_own_needs_its_configuration(folder: Path) -> None:
    (folder / "models" / "own").mkdir(exist_ok=True)
    config = folder / "models" / "own" / "config.json"
    config.write_text(json.dumps({"_class_name": "VQModel"}))
    save_file({"x": torch.zeros(1)}, folder / "models" / "own.safetensors")
    bench = bench_with(folder, "own.safetensors")
    with pytest.raises(ModelsError, match="holds VQModel, not AutoencoderKL or AutoencoderTiny"):
        bench.make(vae="it")
    assert Path(config).is_file()
