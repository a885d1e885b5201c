"""POST /image/upscale through the service: a stored picture made larger."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import requests
import torch
from PIL import Image

from gpu_worker.pipeline.upscaling import upscale
from gpu_worker.store import record_line
from tests.support.builders import tiny_upscalers
from tests.support.command import sde
from tests.support.service import running

NEVER = "00000000-0000-4000-8000-000000000000"


def picture(record: dict[str, str]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(record["data"])))


def test_a_stored_picture_is_made_larger(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "large.png"
    models = folder / "models"
    model = tiny_upscalers.esrgan(models / "sharp.safetensors")
    (models / "models.toml").write_text('[upscalers.sharp]\nsource = "sharp.safetensors"\n')
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="gpu_worker.pipeline:load", SDE_DEVICE="cpu"
    ) as service:

        def ask(**body: object) -> requests.Response:
            return requests.post(f"{service.url}/image/upscale", json=body, timeout=30)

        first = service.submit("a red apple", num_inference_steps=2, num_images_per_prompt=2)
        small = picture(service.results(first)[1])
        service.wait_available()
        reply = ask(generation_uuid=first, image_index=1, scale=3.0)
        assert reply.status_code == 200, reply.text
        record = service.result(reply.json()["generation_uuid"])
        expected = small.convert("RGB").resize((288, 288), Image.Resampling.LANCZOS)
        assert picture(record).tobytes() == expected.tobytes()
        assert record["prompt"] == "a red apple" and record["width"] == 288
        service.wait_available()
        reply = ask(generation_uuid=first, image_index=1, scale=4.0, upscaler="sharp")
        assert reply.status_code == 200, reply.text
        record = service.result(reply.json()["generation_uuid"])
        with torch.no_grad():
            made = model(upscale._to_tensor(small.convert("RGB")))
        found = upscale._to_tensor(picture(record))
        assert found.shape == made.shape
        assert (found - made.clamp(0, 1)).abs().max() < 1.5 / 255, "rounding alone"
        digest = hashlib.sha256((models / "sharp.safetensors").read_bytes()).hexdigest()
        assert record["parts_sha256"] == {"upscalers/sharp": digest}
        assert record["spandrel"] and record["source"] == {"uuid": first, "image_index": 1}
        service.wait_available()
        done = sde(service.url, "upscale", first, "--scale", "2", "--image", "2", "-o", str(target))
        assert done.returncode == 0, done.stderr
        assert "None" not in done.stderr + done.stdout and done.stdout.split("\t")[2] == ""
        with Image.open(target) as large:
            assert large.size == (192, 192)
        refused = sde(service.url, "upscale", NEVER)
        assert refused.returncode == 1 or "no " in refused.stderr
        service.wait_available()
        for status, body in (
            (404, {"generation_uuid": NEVER}),
            (404, {"generation_uuid": first, "image_index": 2}),
            (400, {"generation_uuid": "x"}),
            (422, {"generation_uuid": first, "scale": 99.0}),
            (422, {"generation_uuid": first, "upscaler": "esrgan"}),
            (422, {"generation_uuid": first, "more": 1}),
            (422, {}),
        ):
            refused = ask(**body)
            assert refused.status_code == status, refused.text
            assert refused.headers["Content-Type"] == "application/problem+json"


def test_a_prompt_that_an_older_version_took_is_refused_by_name(folder: Path) -> None:
    (folder / "disk_backups").mkdir()
    record = {
        "uuid": NEVER,
        "prompt": "a\x9b31m",
        "created_time": "2026-01-01T00:00:00.000+00:00",
        "errors": [],
        "data": base64.b64encode(b"\x89PNG").decode(),
        "state": "succeeded",
        "sequence": 1,
    }
    (folder / "disk_backups" / "gpu-0.00000001.jsonl").write_bytes(record_line.encode(record))
    with running(folder, "gateway") as service:
        body = {"generation_uuid": NEVER}
        reply = requests.post(f"{service.url}/image/upscale", json=body, timeout=30)
    assert reply.status_code == 422, reply.text
    assert "prompt: must not contain the control character U+009B" in reply.json()["detail"]
