"""Models, options and lists of AUTOMATIC1111's API, and the end of a job on request."""

from __future__ import annotations

import base64
import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import webuiapi
from PIL import Image

from tests.pipelines.describes import asked
from tests.support.service import Service, eventually, running

DESCRIBES = "tests.pipelines.describes:load"

OWN, OTHER = "the-own-key-of-this-test", "the-other-key-of-this-test"

LISTS = {
    "hypernetworks": list,
    "face-restorers": list,
    "realesrgan-models": list,
    "prompt-styles": list,
    "extensions": list,
    "script-info": list,
    "cmd-flags": dict,
    "embeddings": dict,
    "memory": dict,
    "scripts": dict,
    "sd-modules": list,
}


def client(service: Service, **options: Any) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(baseurl=f"{service.url}/sdapi/v1", steps=2, **options)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("d")
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        yield service


def test_the_model_is_switched_for_everybody(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        api = client(service)
        assert api.util_get_model_names() == ["broken", "demo", "plain", "slow"]
        assert api.util_get_current_model() == "demo"
        options = api.get_options()
        assert "forge_preset" not in options and api.set_options(options) is None
        api.util_set_model("plain")
        assert api.util_get_current_model() == "plain"
        eventually(lambda: asked(folder) == ["load plain"], "the model is loaded")
        service.wait_available()
        answer = client(service).txt2img(prompt="x", negative_prompt="y", width=64, height=64)
        assert answer.info["sd_model_name"] == "plain"
        notes = " ".join(answer.info["sde_notes"])
        record = service.results(answer.info["sde_uuid"])[0]
        assert record["warnings"] == answer.info["sde_notes"]
        assert "negative_prompt: the model does not take it" in notes
        assert "does not run with Euler a" in notes
        override = {"sd_model_checkpoint": "Demo.safetensors [0123456789]"}
        answer = api.txt2img(prompt="x", width=64, height=64, override_settings=override)
        assert answer.info["sd_model_name"] == "demo"
        assert api.util_get_current_model() == "plain"
        reply = requests.post(
            f"{service.url}/sdapi/v1/options", json={"sd_model_checkpoint": "none"}, timeout=30
        )
        assert reply.status_code == 404 and "demo" in reply.json()["detail"]
        api.set_options({"CLIP_stop_at_last_layers": 3, "sd_vae": "sharp", "unknown": [1]})
        assert api.get_options()["CLIP_stop_at_last_layers"] == 3
        before = api.get_options()
        service.kill("gateway", signal.SIGKILL)
        service.start("gateway")
        service.wait_answering()
        service.wait_available()
        assert api.get_options() == before
        answer = api.txt2img(prompt="x", width=64, height=64, override_settings=override)
        request = service.result(answer.info["sde_uuid"])["request"]
        assert (request["clip_skip"], request["vae"]) == (2, "sharp")
        for name in ("unload-checkpoint", "reload-checkpoint"):
            service.wait_available()
            assert requests.post(f"{service.url}/sdapi/v1/{name}", timeout=30).json() == {}
        eventually(lambda: asked(folder)[-1] == "load plain", "the model is loaded again")
        assert "unload" in asked(folder)


def test_each_list_is_there(described: Service) -> None:
    api = client(described)
    assert [each["name"] for each in api.get_samplers()] == ["Euler", "DDIM", "DDIM trailing"]
    assert api.util_get_scheduler_names()[0] == "automatic"
    assert api.get_upscalers()[0]["name"] == "None"
    assert [each["name"] for each in api.get_upscalers()] == ["None", "Lanczos", "esrgan"]
    assert api.get_latent_upscale_modes() == [{"name": "Latent"}]
    assert [each["model_name"] for each in api.get_sd_vae()] == ["sharp"]
    assert [each["name"] for each in api.get_loras()] == ["pixel", "ink"]
    assert api.controlnet_model_list() == ["canny"] and api.controlnet_version() == 2
    assert api.controlnet_module_list() == ["none"]
    for name, kind in LISTS.items():
        reply = requests.get(f"{described.url}/sdapi/v1/{name}?anything=1", timeout=30)
        assert reply.status_code == 200 and isinstance(reply.json(), kind), name
    assert requests.get(f"{described.url}/queue/status", timeout=30).status_code == 200
    for name in ("refresh-checkpoints", "refresh-vae", "refresh-loras", "skip"):
        reply = requests.post(f"{described.url}/sdapi/v1/{name}", timeout=30)
        assert reply.status_code == 200 and reply.json() is None, name
        reply = requests.get(f"{described.url}/sdapi/v1/{name}", timeout=30)
        assert reply.status_code == 405, name
    for method in ("GET", "POST"):
        url = f"{described.url}/sdapi/v1/interrogate"
        reply = requests.request(method, url, json={}, timeout=30)
        assert reply.status_code == 404 and "interrogate" in reply.json()["detail"]


def test_the_parts_of_a_request_reach_the_job(described: Service) -> None:
    """Of hires, LoRAs, VAE, layers, refiner and ControlNet."""
    image = Image.new("RGB", (64, 64), (1, 2, 3))
    unit = webuiapi.ControlNetUnit(image=image, model="canny [0123456789]", weight=0.5)
    answer = client(described).txt2img(
        prompt="a (cat) <lora:Ink:0.7>",
        negative_prompt="bad",
        width=64,
        height=64,
        enable_hr=True,
        hr_scale=2,
        hr_second_pass_steps=3,
        denoising_strength=0.5,
        sampler_name="euler karras",
        controlnet_units=[unit],
        alwayson_scripts={},  # else webuiapi remembers the unit for all later calls
        override_settings={"sd_vae": "sharp.safetensors", "CLIP_stop_at_last_layers": "2"},
    )
    request = described.result(answer.info["sde_uuid"])["request"]
    assert request["loras"] == [{"name": "ink", "weight": 0.7}]
    assert request["hires"] == {"strength": 0.5, "num_inference_steps": 3}
    assert request["vae"] == "sharp" and request["clip_skip"] == 1
    assert request["controlnets"][0]["conditioning_scale"] == 0.5
    assert request["scheduler"] == "EulerDiscreteScheduler"
    record = described.result(answer.info["sde_uuid"])
    assert record["prompt"] == "a (cat:1.1)"
    assert answer.info["clip_skip"] == 2 and answer.info["prompt"] == "a (cat) <lora:Ink:0.7>"
    assert answer.parameters["override_settings"]["sd_vae"] == "sharp.safetensors"


@pytest.mark.parametrize("command", ["interrupt", "skip"])
def test_a_job_ends_on_request_and_its_caller_is_answered(folder: Path, command: str) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.held:load"
    ) as service:
        api = client(service)
        assert api.interrupt() == {}
        idle = api.get_progress()
        assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
        answers: list[webuiapi.WebUIApiResult] = []
        caller = threading.Thread(
            target=lambda: answers.append(client(service).txt2img(prompt="x", width=64, height=64))
        )
        caller.start()
        busy = eventually(
            lambda: (now := api.get_progress())["state"]["sampling_step"] and now, "a step"
        )
        assert 0 < busy["progress"] <= 1 and busy["state"]["job_count"] == 1
        url = f"{service.url}/sdapi/v1/progress?skip_current_image=true"
        assert requests.get(url, timeout=30).json()["current_image"] is None
        folder_of_previews = folder / "run" / "previews"
        folder_of_previews.mkdir(exist_ok=True)
        (folder_of_previews / f"gpu-0.{busy['current_task']}.jpg").write_bytes(b"a preview")
        current = api.get_progress()["current_image"]
        assert base64.b64decode(current) == b"a preview"
        assert getattr(api, command)() == ({} if command == "interrupt" else None)
        caller.join(60)
        assert answers[0].images == [] and answers[0].info["sde_state"] == "canceled"
        assert len(answers[0].info["all_seeds"]) == 1
        idle = api.get_progress()
        assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)


def test_the_jobs_of_other_doors_go_on(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.held:load"
    ) as service:
        uuid = service.submit("a job of the page")
        service.wait_step(uuid)
        api = client(service)
        assert api.get_progress()["state"]["job_count"] == 0
        assert api.interrupt() == {}
        answers: list[webuiapi.WebUIApiResult] = []
        caller = threading.Thread(
            target=lambda: answers.append(client(service).txt2img(prompt="x", width=64, height=64))
        )
        caller.start()
        eventually(lambda: api.get_progress()["state"]["job_count"], "it waits")
        assert api.get_progress()["textinfo"].startswith("In queue")
        assert api.interrupt() == {}
        caller.join(60)
        assert answers[0].images == [] and service.job(uuid)["state"] == "running"
        service.release()
        assert service.result(uuid)["state"] == "succeeded"


def test_calls_wait_for_their_turn_and_a_task_has_progress(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.held:load"
    ) as service:
        replies: list[requests.Response] = []

        def call(task: str) -> None:
            body = {"prompt": "x", "width": 64, "height": 64, "steps": 2, "force_task_id": task}
            url = f"{service.url}/sdapi/v1/txt2img"
            replies.append(requests.post(url, json=body, timeout=60))

        def progress(task: str) -> dict[str, Any]:
            url = f"{service.url}/internal/progress"
            found: dict[str, Any] = requests.post(url, json={"id_task": task}, timeout=30).json()
            return found

        callers = [threading.Thread(target=call, args=(f"task({n})",)) for n in range(3)]
        for caller in callers:
            caller.start()
        eventually(
            lambda: (
                sorted(progress(f"task({n})")["queued"] for n in range(3)) == [False, True, True]
            ),
            "two wait",
        )
        assert progress("none") == {
            "active": False,
            "queued": False,
            "completed": False,
            "progress": None,
            "eta": None,
            "live_preview": None,
            "id_live_preview": -1,
            "textinfo": None,
        }
        service.release()
        for caller in callers:
            caller.join(60)
        assert [reply.status_code for reply in replies] == [200] * 3
        assert all(progress(f"task({n})")["completed"] for n in range(3))


def test_a_key_is_the_password_of_any_user(folder: Path) -> None:
    keys = f"own:{OWN}, other:{OTHER}:generate"
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES, SDE_KEYS=keys, SDE_KEY=OWN
    ) as service:
        url = f"{service.url}/sdapi/v1/options"
        for auth in (None, ("user", "wrong")):
            reply = requests.get(url, auth=auth, timeout=30)
            assert reply.status_code == 401 and reply.json()["error"] == "HTTPException"
            assert reply.headers["WWW-Authenticate"].startswith("Basic")
        assert requests.options(url, timeout=30).ok
        api = client(service, username="anybody", password=OTHER)
        answer = api.txt2img(prompt="x", width=64, height=64)
        assert service.result(answer.info["sde_uuid"])["owner"] == "other"
        reply = requests.post(
            url, json={"sd_model_checkpoint": "plain"}, auth=("a", OTHER), timeout=30
        )
        assert reply.status_code == 403 and api.util_get_current_model() == "demo"
        reply = requests.post(url, json=api.get_options(), auth=("a", OTHER), timeout=30)
        assert reply.status_code == 200, "nothing is changed"
        client(service, username="admin", password=OWN).util_set_model("plain")
        assert api.util_get_current_model() == "plain"


def test_an_empty_password_is_none(service: Service) -> None:
    for header in ("Basic ", "Basic Og==", ""):
        reply = requests.get(
            f"{service.url}/sdapi/v1/options", headers={"Authorization": header}, timeout=30
        )
        assert reply.status_code == 200, header


def test_texts_of_images_are_read_back(service: Service) -> None:
    answer = client(service).txt2img(
        prompt="a cat, sat", negative_prompt="dog", seed=3, width=64, height=64
    )
    read = client(service).png_info(answer.image)
    assert read.info == answer.info["infotexts"][0]
    assert read.parameters["Prompt"] == "a cat, sat"
    assert read.parameters["Negative prompt"] == "dog"
    assert read.parameters["Seed"] == "3" and read.parameters["Size-1"] == "64"
    theirs = (
        "a cat\nNegative prompt: dog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, "
        'CFG scale: 7, Seed: 1, Size: 512x768, Lora hashes: "a: 12, b: 34", Version: v1.10.1'
    )
    content = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + theirs.encode("utf-16-be")
    Image.new("RGB", (64, 64)).save(content, format="JPEG", exif=exif)
    text = base64.b64encode(content.getvalue()).decode()
    reply = requests.post(f"{service.url}/sdapi/v1/png-info", json={"image": text}, timeout=30)
    assert reply.json()["info"] == theirs
    assert reply.json()["parameters"]["Lora hashes"] == "a: 12, b: 34"
    assert reply.json()["parameters"]["Size-2"] == "768"
    plain = client(service).png_info(Image.new("RGB", (64, 64)))
    assert plain.info == "" and plain.parameters == {}
    reply = requests.post(f"{service.url}/sdapi/v1/png-info", json={"image": "x"}, timeout=30)
    assert reply.status_code == 422
