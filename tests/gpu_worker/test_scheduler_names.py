"""Friendly names of schedulers: what each stands for exists, and is found however it is written."""

from __future__ import annotations

import diffusers
import pytest
from pydantic import ValidationError

from gpu_worker.assets.model_library import Defaults
from gpu_worker.contract.fields import scheduler_names
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.schedulers import catalog


@pytest.mark.parametrize("name", scheduler_names.ALIASES)
def test_each_name_stands_for_a_class_and_its_options(name: str) -> None:
    named = scheduler_names.ALIASES[name]
    cls = catalog.by_name(named.scheduler)
    if cls is None:  # a library that it needs is missing here
        assert hasattr(diffusers, named.scheduler)
        return
    for option, value in named.scheduler_options.items():
        assert option in catalog.options(cls)
        assert catalog.option_error(cls, option, value) is None


@pytest.mark.parametrize("name", ["Euler a", "euler a", "euler_a", "EULER-A", "euler_ancestral"])
def test_a_name_may_be_written_in_many_ways(name: str) -> None:
    request = GenerationRequest(prompt="x", scheduler=name)
    assert request.scheduler == "EulerAncestralDiscreteScheduler"
    assert request.scheduler_options == {}


def test_options_of_the_request_come_before_those_of_the_name() -> None:
    options = {"use_karras_sigmas": False, "solver_order": 3}
    request = GenerationRequest(
        prompt="x", scheduler="dpmpp_2m_sde_karras", scheduler_options=options
    )
    assert request.scheduler == "DPMSolverMultistepScheduler"
    assert request.scheduler_options == options | {"algorithm_type": "sde-dpmsolver++"}


def test_models_toml_takes_them_too() -> None:
    defaults = Defaults.model_validate({"scheduler": "DPM++ 2M Karras"})
    assert defaults.scheduler == "DPMSolverMultistepScheduler"
    assert defaults.scheduler_options == {"use_karras_sigmas": True}


@pytest.mark.parametrize("name", ["Euler b", "", "DPM++", 5])
def test_another_name_is_refused(name: object) -> None:
    with pytest.raises(ValidationError):
        GenerationRequest.model_validate({"prompt": "x", "scheduler": name})


def test_only_names_of_these_classes_are_listed() -> None:
    aliases = scheduler_names.aliases_for(["DDIMScheduler", "LMSDiscreteScheduler"])
    assert list(aliases) == ["LMS", "LMS Karras", "DDIM"]
    assert aliases["LMS Karras"]["scheduler_options"] == {"use_karras_sigmas": True}
