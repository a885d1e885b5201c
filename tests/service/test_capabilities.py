"""What the real worker says that it can do is what it does: one service, tiny models, damaged ones.

Whatever a description can tell is 422 at once; whatever is taken succeeds.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import zeros

from tests.support.builders import tiny_adapters, tiny_models
from tests.support.input_images import GOOD
from tests.support.pipeline_bench import write_library
from tests.support.service import Service, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
STEPS = 4
"""Fewer are too few for PNDM's begin."""

BAD_DEFAULTS: dict[str, dict[str, Any]] = {
    "unknown-scheduler": {"scheduler": "Nonsense"},
    "unknown-option": {"scheduler_options": {"nonsense": 1}},
    "bad-option": {"scheduler_options": {"prediction_type": "foo"}},
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    models = folder / "models"
    tiny_models.build().save_pretrained(models / "sd")
    tiny_adapters.save_controlnet(tiny_models.build(), models / "net")
    tiny_adapters.build_inpainting().save_pretrained(models / "inpaint")
    (models / "fake.safetensors").write_bytes(b"no weights at all, but more than eight bytes")
    shutil.copytree(models / "sd", models / "torn")
    torn = (models / "torn" / WEIGHTS).read_bytes()
    (models / "torn" / WEIGHTS).write_bytes(torn[: len(torn) // 2])
    (models / "old.ckpt").write_bytes(b"\x80")
    save_file({"x": zeros(1)}, models / "fine.safetensors")
    broken = {
        "gone": {"source": "nowhere.safetensors"},
        "old": {"source": "old.ckpt"},
        "fake": {"source": "fake.safetensors"},
    }
    write_library(
        folder,
        models={
            "sd": {"source": "sd"},
            "inpaint": {"source": "inpaint"},
            "fake": {"source": "fake.safetensors"},
            "torn": {"source": "torn"},
            **{name: {"source": "sd", "defaults": own} for name, own in BAD_DEFAULTS.items()},
        },
        loras=broken | {"fine": {"source": "fine.safetensors"}},
        embeddings=broken,
        ip_adapters=broken,
        vaes=broken,
        upscalers=broken,
        refiners=broken,
        controlnets=broken | {"net": {"source": "net"}},
    )
    with running(
        folder,
        "gateway",
        "gpu_worker",
        SDE_PIPELINE="gpu_worker.pipeline:load",
        SDE_DEVICE="cpu",
        SDE_QUEUE_SIZE="40",
    ) as started:
        yield started
    shutil.rmtree(folder, ignore_errors=True)


def said(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.get("/server/models").json()
    return found


def test_a_damaged_model_is_described_and_costs_nothing_else(service: Service) -> None:
    models = said(service)["models"]
    for name, file in (("fake", "fake.safetensors"), ("torn", "diffusion_pytorch_model")):
        assert models[name].keys() == {"loaded", "error"}
        assert name in models[name]["error"] and file in models[name]["error"]
    assert models["demo"]["loaded"] and "error" not in models["sd"]
    reply = service.post({"prompt": "a", "model": "fake"})
    assert reply.status_code == 422 and "fake.safetensors" in reply.json()["detail"]


@pytest.mark.parametrize("name", BAD_DEFAULTS)
def test_defaults_that_cannot_be_are_described(service: Service, name: str) -> None:
    error = said(service)["models"][name]["error"]
    assert error.startswith(f"{name}: defaults.scheduler"), error


def test_parts_that_cannot_be_used_are_not_offered(service: Service) -> None:
    described = said(service)
    for kind in ("loras", "embeddings", "ip_adapters", "vaes", "upscalers", "refiners"):
        names = {"lanczos", "latent", "fine"} if kind in ("upscalers", "loras") else set()
        assert set(described[kind]) <= names
        errors = described["errors"][kind]
        assert set(errors) == {"gone", "old", "fake"}
        assert all(text.startswith(f"{kind}.{name}: ") for name, text in errors.items())
    assert described["controlnets"] == ["net"]
    reply = service.post({"prompt": "a", "loras": [{"name": "old"}]})
    assert reply.status_code == 422 and "old.ckpt" in reply.json()["detail"]


def test_each_scheduler_that_is_listed_draws(service: Service) -> None:
    names = said(service)["models"]["demo"]["schedulers"]
    assert {"DDIMScheduler", "LCMScheduler", "TCDScheduler"} <= set(names)
    asked = {"num_inference_steps": STEPS, "width": 64, "height": 64}
    uuids = {name: service.submit(scheduler=name, **asked) for name in names}
    for name, uuid in uuids.items():
        record = service.result(uuid)
        assert (record["state"], record["scheduler"]) == ("succeeded", name), record["errors"]


NET = {"name": "net", "image": GOOD}
EULER = {"scheduler": "EulerDiscreteScheduler"}
HIRES_STEPS = "strength times num_inference_steps (4) steps"

REFUSED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"eta": 0.5, **EULER}, "eta", ["EulerDiscreteScheduler", "DDIMScheduler", "0.5"]),
    ({"eta": 0.0, **EULER}, "eta", ["StableDiffusionPipeline", "(got 0.0)"]),
    ({"scheduler_options": {"nope": 1}}, "scheduler_options.nope", ["beta_start", "(got 1)"]),
    ({"scheduler": "LMSDiscreteScheduler"}, "scheduler", ["runs with", "TCDScheduler"]),
    ({"guidance_rescale": 0.5, "image": GOOD}, "guidance_rescale", ["for img2img", "clip_skip"]),
    (
        {"guidance_rescale": 0.5, "controlnets": [NET]},
        "guidance_rescale",
        ["with controlnets", "clip_skip"],
    ),
    ({"image": GOOD, "strength": 0}, "strength", ["which is less than one", "(got 0.0)"]),
    ({"image": GOOD, "strength": 0.2}, "strength", ["(4) steps", "(got 0.2)"]),
    ({"image": GOOD, "num_inference_steps": 1}, "strength", ["(1) steps", "(got 0.8)"]),
    ({"hires": {"strength": 0.1}}, "hires.strength", [HIRES_STEPS, "(got 0.1)"]),
    ({"hires": {"num_inference_steps": 1}}, "hires.strength", ["(1) steps", "(got 0.6)"]),
    ({"prompt": "a (red:99) dot"}, "prompt", ["has a weight beyond 10", "(got 99"]),
    ({"negative_prompt": "((a:10):10)"}, "negative_prompt", ["beyond 10", "(got 100"]),
    ({"model": "inpaint"}, "image", ["it supports inpaint: image and mask_image", "(got None)"]),
    ({"model": "inpaint", "image": GOOD}, "mask_image", ["does not support img2img", "(got None)"]),
    (
        {"model": "inpaint", "image": GOOD, "mask_image": GOOD, "hires": {}},
        "hires",
        ["StableDiffusionInpaintPipeline", "it takes"],
    ),
]


@pytest.mark.parametrize(("asked", "field", "words"), REFUSED, ids=lambda v: ascii(v)[:40])
def test_what_the_model_cannot_do_is_refused_at_once(
    service: Service, asked: dict[str, Any], field: str, words: list[str]
) -> None:
    reply = service.post({"prompt": "a", "model": "sd", "num_inference_steps": STEPS, **asked})
    assert reply.status_code == 422, reply.text
    problem = reply.json()
    assert [fault["field"] for fault in problem["errors"]] == [field]
    assert all(word in problem["detail"] for word in words), problem["detail"]


def test_a_model_for_inpainting_says_so(service: Service) -> None:
    models = said(service)["models"]
    assert models["inpaint"]["modes"] == ["inpaint"]
    assert models["sd"]["modes"] == ["txt2img", "img2img", "inpaint"]
    assert set(models["sd"]["takes_by_mode"]) == {
        mode + led for mode in models["sd"]["modes"] for led in ("", "+controlnets")
    }


TAKEN: list[dict[str, Any]] = [
    {"eta": 0.5},
    {"eta": 0.0, "scheduler": "TCDScheduler"},
    {"guidance_rescale": 0.5, "scheduler_options": {"timestep_spacing": "trailing"}},
    {"image": GOOD, "strength": 0.25},
    {"hires": {"strength": 0.25, "scale": 1.5}},
    {"prompt": "a (red:10) dot"},
    {"model": "inpaint", "image": GOOD, "mask_image": GOOD},
    {"controlnets": [NET], "clip_skip": 1},
]


def test_what_it_can_do_succeeds(service: Service) -> None:
    plain = {"prompt": "a", "model": "sd", "num_inference_steps": STEPS}
    uuids = [service.submit(**plain | asked) for asked in TAKEN]
    for asked, uuid in zip(TAKEN, uuids, strict=True):
        record = service.result(uuid)
        assert record["state"] == "succeeded", (asked, record["errors"])
