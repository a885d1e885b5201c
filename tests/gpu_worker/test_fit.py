"""What a model needs of a GPU's memory, which is estimated before it is placed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.execution import fit, machine_size, offload
from gpu_worker.pipeline.execution.fit import Demand, Fits
from gpu_worker.pipeline.execution.machine_size import SIZES, Size
from tests.support.builders import tiny_dits, tiny_unets
from tests.support.builders.tiny_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CUDA = torch.device("cuda")
SIDE_PX = 512
USUAL = Demand(SIDE_PX**2)


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def fits(base: Size = "big") -> tuple[Fits, Clock]:
    """The fits of a worker with MACHINE_SIZE, so that no device is read."""
    clock = Clock()
    return Fits(base, CUDA, is_fixed=True, clock=clock), clock


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_needs_can_be_estimated(name: str) -> None:
    """Whatever its configuration has: HunyuanImage's patch size is a list, aMUSEd has no VAE."""
    pipe = FAMILIES[name].build()
    needs = [fit.needed_bytes(pipe, size, 512) for size in ("big", "little", "tiny")]
    assert needs == sorted(needs, reverse=True) and needs[0] > 0
    for part in ("vae", "vqvae", "movq"):
        machine_size.enable_vae_savings(getattr(pipe, part, None), "tiny")


def test_a_job_never_gets_a_larger_size_than_its_model_began_with() -> None:
    ours, _ = fits("tiny")
    ours.note("xl", USUAL, "little")
    assert ours.of_job("xl", USUAL) == "tiny"


def test_a_need_at_the_load_is_forgotten_like_any_other() -> None:
    ours, clock = fits()
    ours.note("xl", USUAL, "little")
    assert ours.first("xl", None, SIDE_PX) == "little"
    clock.now = fit.FORGET_S + 1
    assert ours.of_job("xl", USUAL) == "big"


def test_what_the_weights_alone_need_holds_for_the_smallest_job() -> None:
    ours, clock = fits()
    ours.note_placement("xl", "little")
    assert ours.of_job("xl", Demand(1)) == "little" and ours.of_job("sd", Demand(1)) == "big"
    clock.now = fit.FORGET_S + 1
    assert ours.of_job("xl", Demand(1)) == "big"


def test_a_model_that_did_not_fit_at_its_load_stays_where_it_was_placed() -> None:
    ours, clock = fits()
    ours.first("xl", None, SIDE_PX)
    ours.correct("xl", "tiny")
    clock.now = fit.FORGET_S + 1
    assert ours.of_job("xl", USUAL) == "tiny"
    assert ours.first("xl", None, SIDE_PX) == "big", "a load tries again"


def test_further_networks_push_no_plain_job_down() -> None:
    ours, _ = fits()
    with_net = Demand(USUAL.pixels, frozenset({"controlnets/canny"}))
    ours.note("xl", with_net, "little")
    both = Demand(USUAL.pixels, with_net.networks | {"refiners/xl"})
    other = Demand(2 * USUAL.pixels, frozenset({"controlnets/depth"}))
    sizes = [ours.of_job("xl", each) for each in (USUAL, with_net, both, other)]
    assert sizes == ["big", "little", "little", "big"]


def demand(**fields: Any) -> Demand:
    request = GenerationRequest.model_validate({"prompt": "a cat", **fields})
    return Demand.of_request(request, (96, 64), 8)


def test_a_demand_is_of_the_largest_image_and_of_further_networks() -> None:
    assert demand() == Demand(96 * 64)
    assert demand(hires={"scale": 1.5, "upscaler": "latent"}) == Demand(144 * 96)
    enlarged = demand(hires={"scale": 2.0, "upscaler": "sharp"})
    assert enlarged == Demand(192 * 128, frozenset({"upscalers/sharp"}))
    image = "sha256:" + 64 * "0"
    networks = demand(
        controlnets=[{"name": "canny", "image": image}],
        ip_adapter={"name": "plus", "image": image},
        refiner={"name": "fine", "switch_at": 0.8},
        loras=[{"name": "small", "weight": 1.0}],
    ).networks
    assert networks == {"controlnets/canny", "ip_adapters/plus", "refiners/fine"}


def test_a_size_that_moves_no_more_weights_is_left_out() -> None:
    """HunyuanDiT's layers cannot be offloaded one by one, so tiny is no smaller than little."""
    plain, whole = tiny_unets.sd1(), tiny_dits.hunyuan()
    next_of = machine_size.next_smaller
    assert [next_of(plain, size, CUDA) for size in SIZES] == ["little", "little", "tiny", None]
    assert [next_of(whole, size, CUDA) for size in SIZES] == ["little", "little", None, None]
    largest = max(map(offload.weight_bytes, offload.modules(whole)))
    assert fit.needed_bytes(whole, "tiny", SIDE_PX) > largest
    assert fit.needed_bytes(plain, "tiny", SIDE_PX) < fit.needed_bytes(plain, "little", SIDE_PX)


def test_weights_on_the_device_are_counted_apart() -> None:
    """bitsandbytes loads its weights there, so the free memory lacks them already."""
    pipe = tiny_unets.sd1()
    cpu, everything = torch.device("cpu"), sum(map(offload.weight_bytes, offload.modules(pipe)))
    assert offload.resident_bytes(pipe, cpu) == everything
    assert offload.resident_bytes(pipe, CUDA) == 0
