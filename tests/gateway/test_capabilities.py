"""What the worker says that it can do, and what is told to who asks for more."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.admission.capabilities import WorkerCapabilities
from gateway.errors import NotDescribed, UnknownModel
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.protocol import WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported
from tests.pipelines.describes import FULL, PLAIN
from tests.support.input_images import GOOD
from tests.support.service import Service, eventually, running

DESCRIBES = "tests.pipelines.describes:load"


@pytest.fixture(scope="module")
def describing() -> Iterator[Service]:
    path = Path(tempfile.mkdtemp(prefix="sde-"))
    with running(path, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as started:
        yield started
    shutil.rmtree(path, ignore_errors=True)


NET = {"name": "canny", "image": GOOD}

REFUSED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"model": "other"}, "model", ["demo", "plain", "slow", "'other'"]),
    ({"model": "absent"}, "model", ["not in the models folder"]),
    ({"scheduler": "LCMScheduler"}, "scheduler", ["StableDiffusionPipeline", "DDIMScheduler"]),
    ({"model": "plain", "negative_prompt": "x"}, "negative_prompt", ["FluxPipeline", "takes"]),
    ({"model": "plain", "clip_skip": 2}, "clip_skip", ["FluxPipeline", "guidance_scale"]),
    ({"model": "plain", "scheduler": "DDIMScheduler"}, "scheduler", ["FlowMatchEuler"]),
    ({"model": "plain", "image": GOOD}, "image", ["FluxPipeline", "txt2img"]),
    ({"model": "plain", "image": GOOD, "mask_image": GOOD}, "mask_image", ["inpaint"]),
    ({"model": "plain", "vae": "sharp"}, "vae", ["FluxPipeline", "takes guidance_scale"]),
    ({"eta": 0.5}, "eta", ["StableDiffusionPipeline", "takes"]),
    ({"loras": [{"name": "ink"}, {"name": "nope"}]}, "loras.1.name", ["pixel, ink", "'nope'"]),
    ({"embeddings": ["nope"]}, "embeddings.0", ["bad-hands"]),
    ({"controlnets": [{**NET, "name": "nope"}]}, "controlnets.0.name", ["canny"]),
    ({"ip_adapter": {"name": "nope", "image": GOOD}}, "ip_adapter.name", ["face"]),
    ({"vae": "nope"}, "vae", ["sharp"]),
    ({"refiner": {"name": "nope"}}, "refiner.name", ["the names are: xl", "'nope'"]),
    ({"model": "plain", "refiner": {"name": "xl"}}, "refiner", ["FluxPipeline", "takes"]),
    ({"refiner": {"name": "xl", "switch_at": 1.0}}, "refiner.switch_at", ["less than 1", "1.0"]),
    ({"refiner": {"name": "xl", "switch_at": 0}}, "refiner.switch_at", ["greater than 0", "0"]),
    ({"refiner": {"switch_at": 0.5}}, "refiner.name", ["required"]),
    (
        {"hires": {"upscaler": "nope"}},
        "hires.upscaler",
        ["the names are: latent, lanczos, esrgan (got"],
    ),
    (
        {"image": GOOD, "upscale": {"upscaler": "nope"}},
        "upscale.upscaler",
        ["the names are: lanczos, esrgan (got"],
    ),
]


@pytest.mark.parametrize(("fields", "field", "said"), REFUSED, ids=lambda v: ascii(v)[:40])
def test_what_no_worker_can_do_is_refused_and_says_what_it_can(
    describing: Service, fields: dict[str, Any], field: str, said: list[str]
) -> None:
    reply = describing.post({"prompt": "a", **fields})
    assert reply.status_code == 422, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = reply.json()
    assert [fault["field"] for fault in problem["errors"]] == [field]
    assert all(word in problem["detail"] for word in said), problem["detail"]


TAKEN: list[dict[str, Any]] = [
    {"model": "plain"},
    {"model": "plain", "negative_prompt": "", "clip_skip": None, "loras": [], "step_log": True},
    {"model": "plain", "guidance_scale": 2.0, "num_images_per_prompt": 2, "seed": 1, "width": 64},
    {"image": GOOD, "strength": 0.4, "scheduler": "DDIMScheduler", "vae": "sharp"},
    {"image": GOOD, "mask_image": GOOD, "loras": [{"name": "ink"}], "embeddings": ["bad-hands"]},
    {"hires": {"upscaler": "latent"}},
    {"refiner": {"name": "xl", "switch_at": 0.5}},
    {"hires": {"upscaler": "esrgan"}, "controlnets": [NET]},
]


@pytest.mark.parametrize("fields", TAKEN, ids=lambda v: ascii(v)[:40])
def test_what_it_can_do_is_taken(describing: Service, fields: dict[str, Any]) -> None:
    describing.wait_available()
    uuid = describing.submit(num_inference_steps=3, **fields)
    eventually(lambda: describing.job(uuid)["state"] == "succeeded", "it has succeeded")


@pytest.mark.parametrize("model", ["mute", "speechless"])
def test_a_worker_that_says_nothing_refuses_nothing(folder: Path, model: str) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES, SDE_MODEL=model
    ) as service:
        uuid = service.submit(model="anything", scheduler="Whatever", num_inference_steps=1)
        assert service.result(uuid)["errors"] == []
        assert service.get("/server/models").status_code == 503


def test_the_worker_is_asked_again_after_its_restart(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES, SDE_MODEL="mute"
    ) as service:
        service.kill("gpu_worker")
        service.settings["SDE_MODEL"] = "demo"
        service.start("gpu_worker")
        eventually(lambda: service.get("/server/models").ok, "the new one has said it")
        assert service.post({"prompt": "a", "model": "other"}).status_code == 422


# ---- without a service ----------------------------------------------------------------------


def status(boot_id: str = "a", described: int = 1) -> WorkerStatus:
    return WorkerStatus(
        state=WorkerState.IDLE, boot_id=boot_id, log="", committed=0, described=described
    )


def test_it_is_asked_once_a_boot_and_a_change() -> None:
    capabilities = WorkerCapabilities()
    assert not capabilities.is_outdated("gpu-0", status(described=0))
    assert capabilities.is_outdated("gpu-0", status())
    capabilities.update("gpu-0", status(), None)
    assert not capabilities.is_outdated("gpu-0", status())
    assert capabilities.is_outdated("gpu-0", status(described=2))
    assert capabilities.is_outdated("gpu-0", status(boot_id="b"))
    assert capabilities.is_outdated("gpu-1", status())


def test_one_worker_that_can_is_enough() -> None:
    capabilities = WorkerCapabilities()
    plain = {"default": "plain", "models": {"plain": PLAIN}}
    capabilities.update("gpu-0", status(), Capabilities.model_validate(plain))
    request = GenerationRequest(prompt="a", clip_skip=2)
    with pytest.raises(Unsupported, match="FluxPipeline"):
        capabilities.check(request)
    full = {"default": "demo", "models": {"demo": FULL}}
    capabilities.update("gpu-1", status(), Capabilities.model_validate(full))
    capabilities.check(request)
    assert capabilities.workers_of("demo") == ["gpu-1"]
    with pytest.raises(UnknownModel, match="plain, demo"):
        capabilities.workers_of("other")


def test_nothing_said_is_not_nothing_there() -> None:
    capabilities = WorkerCapabilities()
    capabilities.check(GenerationRequest(prompt="a", model="other"))
    with pytest.raises(NotDescribed):
        capabilities.description()
    with pytest.raises(NotDescribed):
        capabilities.workers_of("other")
