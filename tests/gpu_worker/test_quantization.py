"""SDE_QUANTIZATION: real libraries on a CPU, each in its own process, beside plain weights."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.loading import quantization
from tests.support import quantized_images
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.builders.tiny_families import FAMILIES
from tests.support.command import sde
from tests.support.pipeline_bench import write_library
from tests.support.pipeline_jobs import settings
from tests.support.service import ROOT, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PACKAGES = {"torchao-int8": "torchao", "quanto-int8": "optimum-quanto"}
NAMES = {"sd": "sd1", "xl": "xl", "flux": "flux", "sd3": "sd3"}
both = pytest.mark.parametrize("setting", PACKAGES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models in models/, a LoRA and a ControlNet for the first."""
    data = tmp_path_factory.mktemp("quantised")
    for name, family in NAMES.items():
        FAMILIES[family].build().save_pretrained(data / "models" / name)
    small = tiny_models.build()
    tiny_models.save_single_file(small, data / "models" / "one.safetensors")
    tiny_adapters.save_lora(small, data / "models" / "x.safetensors")
    tiny_adapters.save_controlnet(small, data / "models" / "net")
    parts = {"loras": {"x": {"source": "x.safetensors"}}, "controlnets": {"x": {"source": "net"}}}
    write_library(data, **parts)
    return data


@pytest.fixture(scope="module")
def plain(data: Path) -> dict[str, Any]:
    """The same with all bits, in this process."""
    return quantized_images.drawn(data, "none")


@pytest.fixture(scope="module")
def said(data: Path) -> Callable[[str], dict[str, Any]]:
    """What the process of a setting has said; it is started once."""

    @functools.cache
    def run(setting: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.quantized_images", setting, str(data)],
            cwd=ROOT,
            env={**os.environ, "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found | {"stderr": done.stderr}

    return run


def psnr_db(one: Path, other: Path) -> float:
    difference = ImageChops.difference(Image.open(one), Image.open(other))
    counts = difference.histogram()
    squares = sum(count * (place % 256) ** 2 for place, count in enumerate(counts))
    return 10 * math.log10(255**2 * sum(counts) / squares) if squares else math.inf


@both
def test_the_weights_are_a_quarter_and_the_pictures_near(
    setting: str, data: Path, plain: dict[str, Any], said: Callable[[str], dict[str, Any]]
) -> None:
    found = said(setting)
    for model in NAMES:
        (linear, whole), (linear_before, before) = found["bytes"][model], plain["bytes"][model]
        # A byte a number instead of four, and a scale of four bytes a row, of 32 numbers at least.
        assert 0.25 < linear / linear_before < 0.25 + 1 / 32 + 0.01
        # quanto has two numbers more for each layer.
        assert abs((before - whole) - (linear_before - linear)) < before / 100, "nothing else"
    names = [*NAMES, *quantized_images.asks(lambda image: "")]
    names.remove("sd")  # `plain`
    far = {
        name: psnr_db(data / setting / f"{name}.png", data / f"none/{name}.png") for name in names
    }
    assert all(30 < distance < math.inf for distance in far.values()), far


@both
def test_the_estimate_counts_the_bytes_that_are_stored(
    setting: str, plain: dict[str, Any], said: Callable[[str], dict[str, Any]]
) -> None:
    """A quantized tensor reports the dtype it computes in."""
    for each in (said(setting), plain):
        assert each["estimated bytes"] == each["bytes"]["sd"][1]
    assert said(setting)["estimated bytes"] < plain["estimated bytes"]


@both
def test_a_lora_works_on_quantised_weights(
    setting: str, data: Path, plain: dict[str, Any], said: Callable[[str], dict[str, Any]]
) -> None:
    said(setting)
    made, without = data / setting / "lora.png", data / setting / "plain.png"
    assert psnr_db(made, data / "none/lora.png") > psnr_db(made, without) + 10


@both
def test_the_record_says_it_and_the_terminal_is_silent(
    setting: str, plain: dict[str, Any], said: Callable[[str], dict[str, Any]]
) -> None:
    found = said(setting)
    package = PACKAGES[setting]
    version = importlib.metadata.version(package)
    assert found["metadata"]["quantization"] == setting
    assert found["metadata"]["quantization_library"] == f"{package} {version}"
    assert found["metadata"]["attention"] == plain["metadata"]["attention"]
    assert "quantization" not in plain["metadata"]
    assert found["imported"] == [package.replace("optimum-", "optimum.")]
    assert not [name for name in quantized_images.LIBRARIES if sys.modules.get(name) is not None]
    assert found["stderr"] == ""


@both
def test_offload_and_unloading_work_as_with_plain_weights(
    setting: str, plain: dict[str, Any], said: Callable[[str], dict[str, Any]]
) -> None:
    found = said(setting)
    for each in (found, plain):
        assert each["same under offload"] and each["same afterwards"] and each["gone"]
    layers = "model" if setting == "quanto-int8" else "layers"
    sizes = {"big": "none", "medium": "none", "little": "model"}
    assert found["offload"] == {**sizes, "tiny": layers}
    assert plain["offload"] == {**sizes, "tiny": "layers"}


@both
def test_a_single_file_is_told(setting: str, said: Callable[[str], dict[str, Any]]) -> None:
    asked = (
        f"one.safetensors: SDE_QUANTIZATION={setting} needs a model directory, not a single file"
    )
    assert said(setting)["refused"].endswith(f"{asked} (one.safetensors)")


def refused(data: Path, **given: str) -> str:
    with pytest.raises(ModelsError) as caught:
        pipeline.load(settings(data, **given))
    return str(caught.value)


@pytest.mark.parametrize("setting", ["bitsandbytes-4bit", "bitsandbytes-8bit"])
def test_what_a_cpu_cannot_do_is_told_at_start(tmp_path: Path, setting: str) -> None:
    said = refused(tmp_path, SDE_QUANTIZATION=setting)
    assert said.startswith(f"SDE_QUANTIZATION={setting}: diffusers supports bitsandbytes on cuda")
    assert said.endswith("device is cpu, which supports torchao-int8 or quanto-int8")


@both
def test_a_library_that_is_not_there_is_told(tmp_path: Path, setting: str) -> None:
    """To this process they are not: tests/conftest.py."""
    said = refused(tmp_path, SDE_QUANTIZATION=setting)
    extra = setting.removesuffix("-int8")
    assert said.startswith(f"SDE_QUANTIZATION={setting}: {PACKAGES[setting]} is not installed; ")
    assert said.endswith(f"pip install 'stable-diffusion-environment[{extra}]'")


def test_a_model_of_which_nothing_was_quantised_is_told() -> None:
    """Its record would say otherwise."""
    with pytest.raises(ModelsError, match="x: SDE_QUANTIZATION=torchao-int8: StableDiffusionPip"):
        quantization.check_quantized(tiny_models.build(), "x", "torchao-int8")


def test_verify_names_the_quantisation_as_what_differs(folder: Path) -> None:
    real = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
    processes = ("gateway", "gpu_worker")
    with running(folder, *processes, **real, SDE_QUANTIZATION="torchao-int8") as service:
        uuid = service.submit("a red circle", num_inference_steps=2, seed=7)
        assert service.result(uuid)["quantization"] == "torchao-int8"
        service.wait_available()
        again = sde(service.url, "verify", uuid)
        assert (again.returncode, again.stdout) == (0, "identical\n"), again
        log = (folder / "gpu_worker.out").read_text()
        assert not [line for line in log.splitlines() if " INFO gpu_worker" not in line], log
    with running(folder, *processes, **real) as service:
        done = sde(service.url, "verify", uuid)
    assert done.returncode == 1, done
    assert "quantization: torchao-int8 -> (none)" in done.stdout.splitlines(), done
    assert "the pixels differ: PSNR " in done.stdout
