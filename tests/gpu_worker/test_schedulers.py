"""Schedulers by diffusers' class names, for one job each: against diffusers called by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.schedulers import catalog, dry_run
from gpu_worker.pipeline.schedulers.dry_run import Pass
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_bench import Bench, direct, reference

UNIPC = "UniPCMultistepScheduler"
SD = "StableDiffusionPipeline"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schedulers")
    tiny_models.build().save_pretrained(path / "models" / "sd")
    tiny_adapters.build_xl().save_pretrained(path / "models" / "xl")
    return path


@pytest.fixture(scope="module")
def sd(folder: Path) -> Bench:
    return Bench(folder, "sd")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("EulerDiscreteScheduler", {}),
        ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 3}),
        ("UniPCMultistepScheduler", {}),
        ("HeunDiscreteScheduler", {}),
        ("LCMScheduler", {}),
        (None, {"timestep_spacing": "trailing", "beta_end": 0.015}),
    ],
)
def test_a_scheduler_gives_the_picture_that_it_gives_in_diffusers(
    sd: Bench, name: str | None, options: dict[str, Any]
) -> None:
    made = sd.make(scheduler=name, scheduler_options=options)[0]
    pipe = reference(sd, "StableDiffusionPipeline")
    cls = getattr(diffusers, name or "DDIMScheduler")
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **options)
    assert made.image.tobytes() == direct(pipe)
    assert made.metadata["scheduler"] == cls.__name__
    said = made.metadata["scheduler_config"]
    assert all(said[option] == value for option, value in options.items())
    assert not [key for key in said if key.startswith("_")]
    assert json.loads(json.dumps(said, allow_nan=False)) == said


def test_the_models_own_is_back_after_the_job_and_after_its_failure(folder: Path) -> None:
    xl = Bench(folder, "xl")
    own, before = xl.pipe.scheduler, xl.pixels()
    config = dict(own.config)
    xl.make(scheduler="DDIMScheduler", scheduler_options={"steps_offset": 3})
    xl.halted(scheduler="LCMScheduler")
    with pytest.raises(Unsupported):
        xl.make(scheduler_options={"no_such": 1})
    assert xl.pipe.scheduler is own and dict(own.config) == config
    assert xl.pipe.config["scheduler"][1] == "EulerDiscreteScheduler"
    assert xl.ours.metadata["scheduler"] == "EulerDiscreteScheduler"
    assert xl.pixels() == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"scheduler": "NoSuchScheduler"}, "^scheduler: .* runs with DDIMScheduler, "),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "^scheduler: .* runs with"),
        ({"scheduler": "StableDiffusionPipeline"}, "^scheduler: .* runs with"),
        (
            {"scheduler": "PNDMScheduler", "scheduler_options": {"use_karras_sigmas": True}},
            "^scheduler_options.use_karras_sigmas: .* PNDMScheduler, which takes .*skip_prk_steps",
        ),
        ({"scheduler_options": {"self": 1}}, r"^scheduler_options\.self: "),
        ({"scheduler_options": {"kwargs": 1}}, r"^scheduler_options\.kwargs: "),
        (
            {
                "scheduler": "DPMSolverMultistepScheduler",
                "scheduler_options": {"algorithm_type": "magic", "solver_order": 2},
            },
            r"^scheduler_options.algorithm_type: .* cannot create .* \(got 'magic'\)",
        ),
        (
            {"scheduler_options": {"timestep_spacing": "wide"}},
            "^scheduler_options.timestep_spacing",
        ),
        ({"scheduler_options": {"beta_start": "small"}}, "^scheduler_options.beta_start"),
        ({"scheduler_options": {"num_train_timesteps": 1}}, "^scheduler_options.num_train_timest"),
        ({"scheduler_options": {"prediction_type": "foo"}}, r"^scheduler_options\.prediction_type"),
        ({"scheduler_options": {"steps_offset": 999}}, r"^scheduler_options.steps_offset.* 999\)"),
        (
            {"scheduler_options": {"steps_offset": -500}},
            "^scheduler_options.steps_offset.*are outside 0 to",
        ),
        ({"scheduler_options": {"trained_betas": 3}}, "^scheduler_options.trained_betas.* list"),
        (
            {"scheduler_options": {"beta_start": 5.0}},
            "^scheduler_options.beta_start.*outside 0 to 1",
        ),
        (
            {"scheduler_options": {"clip_sample": 1}},
            "^scheduler_options.clip_sample: .*must be true or false",
        ),
        (
            {"scheduler": UNIPC, "scheduler_options": {"disable_corrector": 1}},
            "^scheduler_options.disable_corrector: .* list",
        ),
        *(
            ({"scheduler": UNIPC, "scheduler_options": {"solver_order": order}}, "orders 1 to 3")
            for order in (0, 99)
        ),
        (
            {"scheduler": "EulerDiscreteScheduler", "scheduler_options": {"prediction_type": "x"}},
            "^scheduler_options.prediction_type: .*must be one of",
        ),
        (
            {"scheduler": "DDPMScheduler", "scheduler_options": {"variance_type": "learned"}},
            "^scheduler_options.variance_type: .*cannot create DDPMScheduler",
        ),
        ({"scheduler": "PNDMScheduler", "num_inference_steps": 1}, "^scheduler: .* for 1 steps"),
    ],
)
def test_what_cannot_be_is_told(sd: Bench, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        sd.make(**asked)


LATE = {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("request_fields", "sentence"),
    [
        ({"num_inference_steps": 20}, r"it fails at step 20 of 20 \("),
        ({"num_inference_steps": 7}, r"it fails at step 7 of 7 \("),
        (
            {"num_inference_steps": 2, "hires": {"strength": 1.0, "num_inference_steps": 12}},
            r"it fails at step 12 of 12 \(",
        ),
    ],
)
def test_a_late_fault_is_refused_before_the_first_step(
    sd: Bench, request_fields: dict[str, Any], sentence: str
) -> None:
    steps: list[int] = []
    late = {"scheduler": "DPMSolverMultistepScheduler", "scheduler_options": LATE}
    fields = r"^scheduler_options\.beta_schedule, scheduler_options\.use_karras_sigmas: "
    with pytest.raises(Unsupported, match=f"{fields}.*{sentence}"):
        sd.make(on_step=lambda step, *_: steps.append(step), **late, **request_fields)
    assert steps == []


def test_a_pass_begins_where_its_strength_says() -> None:
    own = diffusers.DDIMScheduler()
    for name in ("DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "PNDMScheduler"):
        for strength in (0.0, 0.3, 1.0):
            passes = [Pass(10), Pass(6, strength)]
            assert type(dry_run.build(own, SD, name, {}, passes)).__name__ == name
    with pytest.raises(Unsupported, match=r"step 11 of 11 \("):
        dry_run.build(own, SD, "DPMSolverMultistepScheduler", LATE, [Pass(11), Pass(6, 0.5)])


def test_flow_matching_keeps_to_its_own() -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler
    heun, lcm = "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"
    kinds = {
        "StableDiffusion3Pipeline": {own.__name__, heun, lcm},
        "FluxPipeline": {own.__name__, lcm},  # hands sigmas over, which Heun's does not take
    }
    for kind, names in kinds.items():
        assert set(catalog.names_for(own, kind)) == names
    assert "shift" in catalog.options(own)


def test_what_its_libraries_lack_for_is_not_offered() -> None:
    names = catalog.names_for(diffusers.DDIMScheduler, SD)
    assert {"LCMScheduler", "TCDScheduler", "PNDMScheduler"} <= set(names)
    for name in ("LMSDiscreteScheduler", "DPMSolverSDEScheduler"):
        assert (name in names) is not hasattr(getattr(diffusers, name), "_backends")


def test_infinite_numbers_can_be_recorded(sd: Bench) -> None:
    metadata = sd.make(scheduler="DPMSolverMultistepScheduler")[0].metadata
    assert metadata["scheduler_config"]["lambda_min_clipped"] == "-inf"


def test_an_option_whose_library_is_missing_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = diffusers.EulerDiscreteScheduler
    listed = {}
    for is_there in (True, False):
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_euler_discrete.is_scipy_available",
            lambda is_there=is_there: is_there,
        )
        catalog.options.cache_clear()
        listed[is_there] = catalog.options(cls)
    catalog.options.cache_clear()
    assert "use_beta_sigmas" in listed[True] and "use_karras_sigmas" in listed[False]
    assert set(listed[True]) - set(listed[False]) == {"use_beta_sigmas"}
