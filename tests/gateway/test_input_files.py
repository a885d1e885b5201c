"""The pictures of a request, as the gateway hands them out again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sde_client import Client, NoImage

from gpu_worker.store import record_line
from tests.support.service import running

WITH, OTHER, NEVER = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
PNG = b"\x89PNG\r\n\x1a\nof a client"
PAGE = b"<html><script>alert(1)</script>"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def store(folder: Path) -> None:
    """Two results; one request came with pictures, of which one is gone."""
    named = {
        "image": f"sha256:{sha256(PNG)}",
        "controlnets": [{"name": "canny", "image": f"sha256:{sha256(PAGE)}"}],
        "ip_adapter": {"name": "face", "image": f"sha256:{sha256(b'gone')}"},
    }
    lines = [
        record_line.encode(
            {
                "uuid": uuid,
                "prompt": "x",
                "created_time": "2026-01-01T00:00:00.000+00:00",
                "errors": ["it has not run"],
                "data": None,
                "state": "failed",
                "sequence": number,
                **more,
            }
        )
        for number, (uuid, more) in enumerate([(WITH, named | {"request": named}), (OTHER, {})], 1)
    ]
    (folder / "disk_backups").mkdir()
    (folder / "disk_backups" / "gpu-0.00000001.jsonl").write_bytes(b"".join(lines))
    for uuid in (WITH, OTHER):
        (folder / "inputs" / uuid).mkdir(parents=True)
        for content in (PNG, PAGE):
            (folder / "inputs" / uuid / sha256(content)).write_bytes(content)
    (folder / "inputs" / WITH / sha256(b"not named")).write_bytes(b"not named")


def test_a_picture_comes_back_as_it_came_and_nothing_else_does(folder: Path) -> None:
    store(folder)
    with running(folder, "gateway") as service:
        reply = service.get(f"/image/jobs/{WITH}/inputs/{sha256(PNG)}")
        assert (reply.status_code, reply.content) == (200, PNG)
        assert reply.headers["Content-Type"] == "image/png"
        page = service.get(f"/image/jobs/{WITH}/inputs/{sha256(PAGE)}")
        assert (page.status_code, page.content) == (200, PAGE)
        assert page.headers["Content-Type"] == "application/octet-stream"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        refused = {
            (WITH, sha256(b"gone")): (404, "cannot be read"),
            (WITH, sha256(b"not named")): (404, "has no input image"),
            (OTHER, sha256(PNG)): (404, "has no input image"),
            (NEVER, sha256(PNG)): (404, NEVER),
            (WITH, sha256(PNG).upper()): (400, "64 hexadecimal"),
            (WITH, "..%2F..%2Fjournal"): (404, ""),
            ("x", sha256(PNG)): (400, "not a uuid"),
        }
        for (uuid, digest), (status, said) in refused.items():
            reply = service.get(f"/image/jobs/{uuid}/inputs/{digest}")
            assert reply.status_code == status, reply.text
            assert said in reply.json()["detail"]


def test_a_client_gets_them_back_to_ask_again(folder: Path) -> None:
    store(folder)
    with running(folder, "gateway") as service, Client(service.url) as remote:
        (found,) = remote.results(WITH)
        with pytest.raises(NoImage, match="cannot be read"):
            remote.to_request(found)
        (folder / "inputs" / WITH / sha256(b"gone")).write_bytes(b"gone")
        asked = remote.to_request(found)
        assert asked["image"] == PNG
        assert asked["controlnets"] == [{"name": "canny", "image": PAGE}]
        assert asked["ip_adapter"] == {"name": "face", "image": b"gone"}
