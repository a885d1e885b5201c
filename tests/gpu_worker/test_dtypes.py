"""The dtype of each family and part: as diffusers' examples load them, and as the device can."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from gpu_worker import pipeline
from gpu_worker.pipeline.execution import dtypes, vae_calls
from gpu_worker.pipeline.execution.dtypes import Dtypes
from gpu_worker.pipeline.families import FAMILIES, Family, family_of
from gpu_worker.pipeline.loading import task_pipelines
from gpu_worker.pipeline.sampling import decoding
from tests.support.builders import tiny_adapters
from tests.support.pipeline_bench import Bench, write_library
from tests.support.pipeline_jobs import ignore, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CPU = torch.device("cpu")

OTHERWISE = {
    # An example that saves no memory on purpose; the weights are published in float16.
    "LatentConsistencyModel": "float16",
}
"""Families whose example does not say what the weights are for."""


UNLISTED = (
    *("AnimateDiff", "ShapE", "StableAudio", "StableCascade", "StableUnCLIP", "Versatile"),
    "Wuerstchen",
)
"""Classes that no model of docs/models.md has. bfloat16 has the range of float16 and more."""


def examples() -> dict[str, set[str]]:
    """The dtypes in diffusers' example of each class that generates images from prompts."""
    documented = {}
    for name in sorted(filter(lambda name: name.endswith("Pipeline"), dir(diffusers))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cls = getattr(diffusers, name)
        if getattr(cls, "_backends", None) or not issubclass(cls, DiffusionPipeline):
            continue
        if task_pipelines.unsupported_reason(cls) is None and ".deprecated." not in cls.__module__:
            text = getattr(sys.modules[cls.__module__], "EXAMPLE_DOC_STRING", "")
            documented[name] = set(re.findall(r"dtype=torch\.(\w+)", text))
    return documented


def test_the_table_is_what_diffusers_examples_do() -> None:
    compared = {name: of for name, of in examples().items() if len(of) == 1}
    assert len(compared) > 60
    differing = {}
    for name, (dtype,) in compared.items():
        family = family_of(name)
        expected = next((of for start, of in OTHERWISE.items() if name.startswith(start)), dtype)
        if family.dtype != expected:
            differing[name] = (family.dtype, expected)
    assert {name: of for name, of in differing.items() if not name.startswith(UNLISTED)} == {}


def test_every_part_of_the_table_is_a_dtype_of_torch() -> None:
    for family in FAMILIES:
        names = {family.dtype, *family.part_dtypes.values()}
        assert all(isinstance(getattr(torch, name), torch.dtype) for name in names)


@pytest.mark.parametrize(
    ("family", "model", "setting", "expected"),
    [
        ("StableDiffusionXLPipeline", None, "auto", Dtypes(torch.float32)),
        ("ZImagePipeline", None, "auto", Dtypes(torch.float32)),
        ("ZImagePipeline", None, "bfloat16", Dtypes(torch.bfloat16)),
        ("StableDiffusionPipeline", None, "float16", Dtypes(torch.float16)),
        (
            "StableDiffusionXLPipeline",
            None,
            "float16",
            Dtypes(torch.float16, {"vae": torch.float32}),
        ),
        ("StableDiffusionXLPipeline", "bfloat16", "float16", Dtypes(torch.bfloat16)),
        ("SanaPipeline", None, "float32", Dtypes(torch.float32)),
    ],
)
def test_the_operator_precedes_the_family(
    family: str, model: Any, setting: str, expected: Dtypes
) -> None:
    assert dtypes.choose(family_of(family), CPU, model, setting) == expected


def test_the_argument_is_what_diffusers_takes() -> None:
    assert Dtypes(torch.float16).argument == torch.float16
    both = Dtypes(torch.float16, {"vae": torch.float32})
    assert both.argument == {"default": torch.float16, "vae": torch.float32}


def test_a_vae_in_another_dtype_serves_every_mode(tmp_path: Path) -> None:
    """SDXL in float16 with its VAE in float32, as on a GPU; a CPU computes both."""
    tiny_adapters.build_xl().save_pretrained(tmp_path / "models" / "xl")
    bench, exact = (Bench(tmp_path, "xl", SDE_DTYPE=dtype) for dtype in ("float16", "float32"))
    networks = {"unet": torch.float16, "vae": torch.float32, "text_encoder": torch.float16}
    assert {name: getattr(bench.pipe, name).dtype for name in networks} == networks
    image = bench.put(tiny_adapters.drawing())
    mask = bench.put(tiny_adapters.mask())
    for asked in (
        {},
        {"image": image, "strength": 0.7},
        {"image": image, "mask_image": mask, "strength": 0.7},
        {"width": 64, "height": 64, "hires": {"scale": 1.5, "upscaler": "latent"}},
    ):
        made = bench.make(**asked)[0]
        expected = exact.make(**asked)[0].image
        pairs = zip(made.image.tobytes(), expected.tobytes(), strict=True)
        assert max(abs(one - other) for one, other in pairs) <= 4
        assert "vae_dtype" not in made.metadata
        assert {name: getattr(bench.pipe, name).dtype for name in networks} == networks
    assert bench.ours.metadata["dtype"] == "float16"


def test_latents_are_scaled_in_the_dtype_of_a_wider_vae() -> None:
    pipe = tiny_adapters.build_xl()
    vae_calls.install(pipe.vae)
    inputs: list[torch.Tensor] = []
    pipe.vae.post_quant_conv.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    generator = torch.Generator("cpu").manual_seed(1)
    latents = torch.randn(1, 4, 8, 8, generator=generator).half()
    decoding.decode(pipe, latents, generator)
    assert inputs[0].equal(latents.float() / pipe.vae.config.scaling_factor)


def test_a_vae_that_was_mended_for_float16_keeps_it(tmp_path: Path) -> None:
    """`force_upcast` is false in the configuration of such a VAE."""
    xl = tiny_adapters.build_xl()
    xl.vae.register_to_config(force_upcast=False)
    xl.save_pretrained(tmp_path / "models" / "xl")
    assert Bench(tmp_path, "xl", SDE_DTYPE="float16").pipe.vae.dtype == torch.float16


def test_models_toml_names_a_dtype(tmp_path: Path) -> None:
    tiny_adapters.build_xl().save_pretrained(tmp_path / "models" / "xl")
    write_library(tmp_path, models={"half": {"source": "xl", "dtype": "bfloat16"}})
    ours = pipeline.load(settings(tmp_path, SDE_MODEL="half", SDE_DTYPE="float32"))
    assert ours.metadata["dtype"] == "bfloat16"
    assert ours.generate(job(num_inference_steps=1), ignore)


def test_an_ordinary_family_is_for_bfloat16() -> None:
    assert Family().dtype == "bfloat16"
