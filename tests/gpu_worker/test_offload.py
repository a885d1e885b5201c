"""Offload of every family's networks: its hooks are there, and how a missing one is noticed."""

from __future__ import annotations

import accelerate
import pytest
import torch

from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.families import denoiser_of
from tests.support.builders.tiny_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CPU = torch.device("cpu")
MODES: tuple[offload.Offload, ...] = ("none", "model", "layers")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_hooks_and_loses_them(family: str) -> None:
    pipe = FAMILIES[family].build()
    for mode in MODES:
        offload.enable(pipe, mode, CPU)
        assert [each for each in MODES if offload.is_in_place(pipe, each)] == [mode]
        offload.disable(pipe)
        assert offload.is_in_place(pipe, "none")


def test_a_single_network_without_its_hook_is_noticed() -> None:
    """Even if the pipeline itself still lists the hook."""
    pipe = FAMILIES["sd1"].build()
    offload.enable(pipe, "model", CPU)
    accelerate.hooks.remove_hook_from_module(pipe.unet, recurse=True)
    assert offload.current(pipe) == "model" and not offload.is_in_place(pipe, "model")
    offload.disable(pipe)
    unet = denoiser_of(pipe)
    pipe.unet = None
    offload.enable(pipe, "layers", CPU)
    pipe.unet = unet
    assert offload.current(pipe) == "layers" and not offload.is_in_place(pipe, "layers")
