"""ControlNets, VAEs and refiners whose weights exist in some variants only."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_bench import Bench, write_library
from tests.support.pipeline_jobs import settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def as_fp16(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("variants")
    models = path / "models"
    for name, pipe in (("sd", tiny_models.build()), ("xl", tiny_adapters.build_xl())):
        pipe.save_pretrained(models / name)
    for name in ("plain", "half"):
        tiny_adapters.save_controlnet(tiny_models.build(), models / "nets" / name)
        tiny_adapters.save_vae(models / "vaes" / name)
        tiny_adapters.build_refiner().save_pretrained(models / "refiners" / name)
    for kind in ("nets", "vaes", "refiners"):
        as_fp16(models / kind / "half")
    return path


SOURCES = {"controlnets": "nets", "vaes": "vaes", "refiners": "refiners"}


def entry(kind: str, name: str, variant: str | None = None) -> dict[str, dict[str, dict[str, str]]]:
    source = {"source": f"{SOURCES[kind]}/{name}"}
    return {kind: {"it": source | ({"variant": variant} if variant else {})}}


def fields(bench: Bench, kind: str) -> dict[str, object]:
    edges = tiny_adapters.drawing()
    return {
        "controlnets": {"controlnets": [{"name": "it", "image": bench.put(edges)}]},
        "vaes": {"vae": "it"},
        "refiners": {"refiner": {"name": "it"}},
    }[kind]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_variant_is_loaded_as_the_same_weights_are(folder: Path, kind: str) -> None:
    model = "xl" if kind == "refiners" else "sd"
    images = []
    for name, variant in (("plain", None), ("half", "fp16"), ("plain", "fp16")):
        write_library(folder, **entry(kind, name, variant))
        bench = Bench(folder, model)
        images.append(bench.pixels(**fields(bench, kind)))
    assert images[0] == images[1] == images[2] != bench.pixels()


@pytest.mark.parametrize("kind", SOURCES)
def test_weights_in_one_variant_alone_are_reported_with_the_key(folder: Path, kind: str) -> None:
    write_library(folder, **entry(kind, "half"))
    reasons = pipeline.load(settings(folder)).describe().errors[kind]
    bench = Bench(folder, "xl" if kind == "refiners" else "sd")
    with pytest.raises(ModelsError) as error:
        bench.make(**fields(bench, kind))
    for text in (reasons["it"], str(error.value)):
        assert text.startswith(f"{kind}.it") and str(folder) not in text
        assert text.endswith('has only fp16 weights; set variant = "fp16" in models.toml')
