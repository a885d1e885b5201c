"""A model's directory is checked against its own index before any request names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError
from tests.support.builders import tiny_models
from tests.support.pipeline_bench import Bench, write_library
from tests.support.pipeline_jobs import job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny_models.build().save_pretrained(folder)
    return folder


def fp16_only(folder: Path) -> None:
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))


def half_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("model-1.safetensors"))
    (folder / "unet" / f"{file.name}.index.json").write_text(json.dumps(index))


def shards_without_index(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))


def torn(folder: Path) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: shutil.rmtree(folder / "vae"), "vae is missing, but model_index.json names it"),
    (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer is missing"),
    (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler is missing"),
    (lambda folder: (folder / "unet" / "config.json").unlink(), "unet has no config.json"),
    (lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(), "has no .safetensors"),
    (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), "is missing"),
    (fp16_only, 'has only fp16 weights; set variant = "fp16" in models.toml'),
    (half_a_shard, "unet lacks 1 of its shards, such as model-2.safetensors"),
    (shards_without_index, "unet has shards without an index"),
    (torn, "is damaged or not safetensors"),
]


@pytest.mark.parametrize(("spoil", "reason"), FAULTS)
def test_what_a_directory_lacks_is_told_before_any_request(
    tmp_path: Path, whole: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    shutil.copytree(whole, tmp_path / "models" / "one")
    spoil(tmp_path / "models" / "one")
    write_library(tmp_path, models={"one": {"source": "one"}})
    ours = pipeline.load(settings(tmp_path))
    error = ours.describe().models["one"].error
    assert error is not None and reason in error and str(tmp_path) not in error


def test_an_index_of_a_variant_that_is_not_there_costs_nothing(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "models" / "one")
    index = tmp_path / "models/one/unet/diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": {"a": "gone.fp16.safetensors"}}))
    assert Bench(tmp_path, "one").make()[0].image.size[0] > 0
    write_library(tmp_path, models={"named": {"source": "one"}})
    assert pipeline.load(settings(tmp_path)).describe().models["named"].error is None


def test_a_variant_of_models_toml_and_of_sde_model_is_loaded(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "models" / "one")
    fp16_only(tmp_path / "models" / "one")
    bench = Bench(tmp_path, "one")
    assert bench.make()[0].image.size[0] > 0
    write_library(tmp_path, models={"named": {"source": "one", "variant": "fp16"}})
    ours = pipeline.load(settings(tmp_path))
    assert ours.describe().models["named"].error is None


def test_a_job_never_waits_for_the_hub(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "one.safetensors"
    tiny_models.save_single_file(tiny_models.build(), file)
    shutil.rmtree(tmp_path / "models" / "one")
    # The key of Playground 2.5, whose configuration only the hub has.
    save_file(load_file(file) | {"edm_mean": torch.zeros(4)}, file)
    write_library(tmp_path, models={"one": {"source": "one.safetensors"}})
    ours = pipeline.load(settings(tmp_path))
    with pytest.raises(ModelsError, match=r"one: its configuration is not on this machine"):
        ours.generate(job(model="one"), lambda *_: None)
