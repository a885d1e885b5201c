"""Single files of Stable Diffusion 1, 2 and XL in their full size, without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.model_configs import FOLDER, clip_tokenizer
from gpu_worker.pipeline.families import SHIPPED_CONFIGURATIONS
from tests.support import shipped_networks
from tests.support.builders import original_layout
from tests.support.pipeline_bench import write_library
from tests.support.pipeline_jobs import job, settings
from tests.support.service import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAMES = sorted(SHIPPED_CONFIGURATIONS.values())

VAE, CLIP_L, CLIP_H, BIG_G = 83_653_863, 123_060_480, 340_387_840, 694_659_840
XL_TEXTS = {"text_encoder": CLIP_L, "text_encoder_2": BIG_G}
SIZES: dict[str, dict[str, int]] = {
    "stable-diffusion-1": {"unet": 859_520_964, "text_encoder": CLIP_L},
    "stable-diffusion-1-inpainting": {"unet": 859_535_364, "text_encoder": CLIP_L},
    "stable-diffusion-2": {"unet": 865_910_724, "text_encoder": CLIP_H},
    "stable-diffusion-2-base": {"unet": 865_910_724, "text_encoder": CLIP_H},
    "stable-diffusion-2-inpainting": {"unet": 865_925_124, "text_encoder": CLIP_H},
    "stable-diffusion-xl": {"unet": 2_567_463_684, **XL_TEXTS},
    "stable-diffusion-xl-inpainting": {"unet": 2_567_478_084, **XL_TEXTS},
    "stable-diffusion-xl-refiner": {"unet": 2_259_526_660, "text_encoder_2": BIG_G},
}
"""Parameters. The sums are the sizes of the published files in float16 or float32, less headers."""

PUBLISHED_BYTES = {
    "stable-diffusion-1": (4_265_146_304, 4),
    "stable-diffusion-xl": (6_938_078_334, 2),
    "stable-diffusion-xl-refiner": (6_075_981_930, 2),
}
"""v1-5-pruned-emaonly, sd_xl_base_1.0 and sd_xl_refiner_1.0, and the bytes of a weight."""

MAX_HEADER_BYTES = 450_000


def meta(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def test_every_directory_is_used() -> None:
    assert sorted(path.name for path in FOLDER.glob("*/")) == sorted({*NAMES} | caches())
    assert set(SIZES) == set(NAMES)


def caches() -> set[str]:
    return {path.name for path in FOLDER.glob("__pycache__")}


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_have_the_published_sizes(name: str) -> None:
    expected = {"vae": VAE, **SIZES[name]}
    networks = {part: shipped_networks.network(name, part) for part in shipped_networks.NETWORKS}
    sizes = {
        part: sum(weight.numel() for weight in network.parameters())
        for part, network in networks.items()
        if network is not None
    }
    assert sizes == expected
    if name in PUBLISHED_BYTES:
        size, width = PUBLISHED_BYTES[name]
        assert 0 < size - width * sum(sizes.values()) < MAX_HEADER_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_the_original_layout_fits_its_configuration(name: str) -> None:
    weights = meta(shipped_networks.shapes(name))
    kind = single_file_utils.infer_diffusers_model_type(weights)
    base = "stable-diffusion-2" if name.endswith("2-base") else name
    assert SHIPPED_CONFIGURATIONS[kind] == base
    for part, convert in (
        ("unet", single_file_utils.convert_ldm_unet_checkpoint),
        ("vae", single_file_utils.convert_ldm_vae_checkpoint),
    ):
        network = shipped_networks.network(name, part)
        converted = convert(dict(weights), config=dict(network.config))
        assert shapes_of(converted) == shapes_of(network.state_dict())


PADDED = {"tokenizer": 49407, "tokenizer_2": 0}
CAT = [49406, 320, 1125, 539, 320, 2368, 49407]
EPSILON = {"prediction_type": "epsilon"}
VELOCITY_AND_ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("name", "keys", "bias", "scheduler"),
    [
        ("stable-diffusion-1", (), False, {"class": "PNDMScheduler", **EPSILON}),
        (
            "stable-diffusion-2",
            (),
            True,
            {"class": "DDIMScheduler", "prediction_type": "v_prediction"},
        ),
        (
            "stable-diffusion-xl",
            ("v_pred", "ztsnr"),
            False,
            {"class": "EulerDiscreteScheduler", **VELOCITY_AND_ZERO_SNR},
        ),
    ],
)
def test_a_file_of_full_size_loads_without_a_network(
    tmp_path: Path, name: str, keys: tuple[str, ...], bias: bool, scheduler: dict[str, Any]
) -> None:
    file = tmp_path / "models" / "it.safetensors"
    values = {original_layout.VELOCITY_BIAS: torch.linspace(-0.3, 0.3, 320)} if bias else {}
    shipped_networks.write(name, file, *keys, values=values)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.load_model", str(tmp_path), file.name],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    file.unlink()
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded["networks"] == {"vae": VAE, **SIZES[name]}
    assert loaded["on_meta"] == []
    assert {key: loaded["scheduler"][key] for key in scheduler} == scheduler
    padding = {"tokenizer": 0} if name == "stable-diffusion-2" else PADDED
    assert loaded["tokens"]
    for part, tokens in loaded["tokens"].items():
        assert tokens == [*CAT, padding[part], padding[part]]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_described_by_its_configuration(tmp_path: Path, name: str) -> None:
    """Refiners are models too; a file of 2 without a velocity model's bias is a base model."""
    metadata = {"modelspec.prediction_type": "v"} if name == "stable-diffusion-2" else None
    shipped_networks.write(name, tmp_path / "models" / "it.safetensors", metadata=metadata)
    write_library(tmp_path, models={"it": {"source": "it.safetensors"}})
    described = pipeline.load(settings(tmp_path)).describe().models["it"]
    index = json.loads((FOLDER / name / "model_index.json").read_text())
    assert described.error is None and described.pipeline == index["_class_name"]
    assert described.defaults is not None
    assert described.defaults.scheduler == index["scheduler"][1]
    assert ("inpaint" in name) == (described.modes == ["inpaint"])


def test_a_refiners_unet_is_taken_from_its_single_file(tmp_path: Path) -> None:
    shipped_networks.write("stable-diffusion-xl-refiner", tmp_path / "models" / "it.safetensors")
    write_library(tmp_path, refiners={"it": {"source": "it.safetensors"}})
    described = pipeline.load(settings(tmp_path)).describe()
    assert described.errors == {} and described.refiners == ["it"]


def test_a_model_of_another_size_is_refused_before_any_job(tmp_path: Path) -> None:
    file = tmp_path / "models" / "it.safetensors"
    shapes = shipped_networks.shapes("stable-diffusion-1")
    narrow = shapes | {original_layout.FIRST_UNET_WEIGHT: torch.Size([192, 4, 3, 3])}
    file.parent.mkdir()
    original_layout.write_sparse(file, narrow, None, {})
    write_library(tmp_path, models={"it": {"source": "it.safetensors"}})
    ours = pipeline.load(settings(tmp_path))
    sentence = "it.safetensors: is of another size than stable-diffusion-1; put its configuration"
    assert str(ours.describe().models["it"].error).startswith(sentence)
    with pytest.raises(ModelsError, match="is of another size than stable-diffusion-1"):
        ours.generate(job(model="it"), lambda *_: None)


def test_the_vocabulary_is_clips() -> None:
    """Ids as OpenAI's tokenizer gives them."""
    tokenizer = clip_tokenizer.build({"model_max_length": 77})
    assert len(tokenizer) == 49408 and tokenizer.pad_token_id == 49407
    for text, tokens in {
        "a photo of a cat": CAT,
        "hello world!": [49406, 3306, 1002, 256, 49407],
        "A  Dog,\nisn't": [49406, 320, 1929, 267, 2923, 713, 49407],
        "": [49406, 49407],
    }.items():
        assert tokenizer(text).input_ids == tokens
    lines = clip_tokenizer.MERGES.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["#version: 0.2", "i n"] and len(lines) == 48895
    digest = hashlib.sha256(clip_tokenizer.MERGES.read_bytes()).hexdigest()
    assert digest == "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"


def test_the_recipe_refuses_another_vocabulary(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as package:
        package.writestr(clip_tokenizer.SOURCE, b"x")
    with pytest.raises(ValueError, match=r"x\.whl: .* is not the vocabulary of CLIP"):
        clip_tokenizer.merges_file(tmp_path / "x.whl")
