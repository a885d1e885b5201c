"""Single files whose weights or noise are not those of an ordinary model: right, or refused by
name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError
from tests.support.builders import tiny_adapters, tiny_dits, tiny_files, tiny_models, tiny_unets
from tests.support.pipeline_bench import Bench, direct, write_library
from tests.support.pipeline_jobs import job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Weights = dict[str, torch.Tensor]
FP8 = torch.float8_e4m3fn


def changed(file: Path, change: Callable[[Weights], Weights], **metadata: str) -> None:
    save_file(change(load_file(file)), file, metadata=metadata or None)


def scaled(ends: str, *more: str) -> Callable[[Weights], Weights]:
    """Weights of matrices in fp8, each with a scale beside it."""

    def change(weights: Weights) -> Weights:
        matrices = [key for key, value in weights.items() if value.ndim == 2 and "." in key]
        halves = {key: weights[key].to(FP8) for key in matrices}
        scales = {key.removesuffix("weight") + ends: torch.ones(1) for key in matrices}
        return weights | halves | scales | {key: torch.zeros(1, dtype=FP8) for key in more}

    return change


SCALES = {
    "scaled_fp8": scaled("scale_weight", "scaled_fp8"),
    "weight_scale": scaled("weight_scale"),
    "input_scale": scaled("input_scale"),
    "comfy_quant": scaled("comfy_quant"),
    "nf4": scaled("weight.absmax"),
    "svdquant": scaled("wscales"),
}
SENTENCE = r"its weights are quantized with scales, such as '\S+', which is not supported; use"


@pytest.mark.parametrize("form", SCALES)
def test_scales_beside_the_weights_are_refused_before_any_job(tmp_path: Path, form: str) -> None:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "one.safetensors"
    tiny_files.sd1(tiny_models.build(), file)
    changed(file, SCALES[form])
    write_library(tmp_path, models={"one": {"source": "one.safetensors"}})
    ours = pipeline.load(settings(tmp_path))
    error = str(ours.describe().models["one"].error)
    assert error.startswith("one: its weights are quantized with scales")
    with pytest.raises(ModelsError, match=SENTENCE):
        ours.generate(job(model="one"), lambda *_: None)


def test_a_transformer_alone_with_scales_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "flux.safetensors"
    tiny_files.transformer(tiny_dits.flux(), file)
    changed(file, SCALES["scaled_fp8"])
    write_library(tmp_path, models={"flux": {"source": "flux.safetensors"}})
    with pytest.raises(ModelsError, match=f"^flux: {SENTENCE}"):
        pipeline.load(settings(tmp_path)).generate(job(model="flux"), lambda *_: None)


@pytest.mark.parametrize("kind", ["vaes", "controlnets", "refiners"])
def test_a_network_with_scales_is_refused(tmp_path: Path, kind: str) -> None:
    models = tmp_path / "models"
    tiny_adapters.save_vae(models / "it")
    (models / "it/diffusion_pytorch_model.safetensors").rename(models / "it.safetensors")
    changed(models / "it.safetensors", SCALES["scaled_fp8"])
    write_library(tmp_path, **{kind: {"it": {"source": "it.safetensors"}}})
    error = pipeline.load(settings(tmp_path)).describe().errors[kind]["it"]
    assert error.startswith(f"{kind}.it: its weights are quantized with scales")


def test_plain_fp8_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "one.safetensors"
    tiny_files.sd1(tiny_models.build(), file)
    changed(file, lambda weights: {key: value.to(FP8) for key, value in weights.items()})
    write_library(tmp_path, models={"one": {"source": "one.safetensors"}})
    assert len(pipeline.load(settings(tmp_path)).generate(job(model="one"), lambda *_: None)) == 1


VELOCITY = {"prediction_type": "v_prediction"}
ZERO_SNR = {"rescale_betas_zero_snr": True}
PREDICTIONS: dict[str, tuple[list[str], dict[str, str], dict[str, Any]]] = {
    "noobai": (["v_pred", "ztsnr"], {}, VELOCITY | ZERO_SNR),
    "v_pred": (["v_pred"], {}, VELOCITY),
    "modelspec": ([], {"modelspec.prediction_type": "v"}, VELOCITY),
    "epsilon": ([], {"modelspec.prediction_type": "epsilon"}, {"prediction_type": "epsilon"}),
    "plain": ([], {"format": "pt"}, {}),
}


@pytest.mark.parametrize("form", PREDICTIONS)
@pytest.mark.parametrize("named", [None, "DPMSolverMultistepScheduler"])
def test_what_a_file_says_of_its_noise_is_applied(
    tmp_path: Path, form: str, named: str | None
) -> None:
    keys, metadata, values = PREDICTIONS[form]
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "xl.safetensors"
    pipe = tiny_unets.xl()
    tiny_files.xl(pipe, file)
    changed(file, lambda weights: weights | {key: torch.zeros(0) for key in keys}, **metadata)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, **values)
    bench = Bench(tmp_path, "xl.safetensors")
    scheduler = bench.pipe.scheduler.config
    assert {key: scheduler[key] for key in values} == values
    if named is None:
        assert bench.pixels() == direct(pipe)
        return
    bench.make(scheduler=named)
    assert bench.pipe.scheduler.config["prediction_type"] == values.get(
        "prediction_type", "epsilon"
    )


def test_velocity_and_noise_differ(tmp_path: Path) -> None:
    """The comparison above can fail."""
    pipe = tiny_unets.xl()
    plain = direct(pipe)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, **VELOCITY)
    velocity = direct(pipe)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, **ZERO_SNR)
    assert len({plain, velocity, direct(pipe)}) == 3


def test_edm_without_its_configuration_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "models" / "kept").mkdir(parents=True)
    file = tmp_path / "models" / "cos.safetensors"
    tiny_files.xl(tiny_unets.xl(), file)
    (tmp_path / "models" / "cos").rename(tmp_path / "models" / "kept" / "cos")
    changed(file, lambda weights: weights | {"edm_vpred.sigma_max": torch.ones(1)})
    write_library(tmp_path, models={"cos": {"source": "cos.safetensors"}})
    error = str(pipeline.load(settings(tmp_path)).describe().models["cos"].error)
    assert error.startswith("cos.safetensors: is a model with EDM's noise (edm_vpred.sigma_max)")
