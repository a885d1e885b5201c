"""Several pictures of one request, through the whole service."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import requests

from tests.support.service import Service, running


def test_several_pictures_through_the_service(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        uuid = service.submit("three", num_images_per_prompt=3, seed=7)
        results = service.results(uuid)
        assert [(each["uuid"], each["image_index"], each["seed"]) for each in results] == [
            (uuid, 0, 7),
            (uuid, 1, 8),
            (uuid, 2, 9),
        ]
        single = service.submit("one", seed=9, queue=True)
        assert service.result(single)["pixels_sha256"] == results[2]["pixels_sha256"]
        assert_files(service, uuid, results)
        listed = service.get("/image/generate?data=false").json()
        assert [each["uuid"] for each in listed] == [uuid] * 3 + [single]
        assert service.job(uuid)["state"] == "succeeded"
        gone = requests.delete(f"{service.url}/image/generate?generation_uuid={uuid}", timeout=10)
        assert gone.status_code == 204
        assert service.get(f"/image/generate?generation_uuid={uuid}").json() == []


def assert_files(service: Service, uuid: str, results: list[dict[str, Any]]) -> None:
    for number, each in enumerate(results, start=1):
        reply = service.get(f"/image/files/{uuid}-{number}.png")
        assert reply.content == base64.b64decode(each["data"])
    assert service.get(f"/image/files/{uuid}.png").content == base64.b64decode(results[0]["data"])
    missing = service.get(f"/image/files/{uuid}-4.png")
    assert missing.status_code == 404 and "has no image 4" in missing.json()["detail"]
