"""Pictures in requests: what is taken, what is refused, where they lie and when they go."""

from __future__ import annotations

import hashlib
import io
import signal
import socket
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from gateway.admission.input_images import InputImageReader
from gateway.errors import InvalidRequest
from gateway.store.input_store import InputStore
from tests.support.disk import may_grow_to
from tests.support.input_images import GOOD, picture, text
from tests.support.service import ROOT, Service, environment, eventually, running

HELD = "tests.pipelines.held:load"


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header speaks of more than its few bytes hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    idat = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")
    )


def animation() -> bytes:
    made = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (i, 0, 0)) for i in (1, 200)]
    frames[0].save(made, format="WEBP", save_all=True, append_images=frames[1:])
    return made.getvalue()


def folders(service: Service) -> list[str]:
    return sorted(path.name for path in (service.data_dir / "inputs").iterdir())


def files(service: Service, uuid: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (service.data_dir / "inputs" / uuid).iterdir()}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_a_picture_is_on_disk_under_its_digest(service: Service, kind: str, prefix: str) -> None:
    service.wait_available()
    content = picture(kind)
    uuid = service.submit(image=prefix + text(content), strength=0.5)
    record = service.result(uuid)
    assert record["image"] == f"sha256:{name(content)}"
    assert files(service, uuid) == {name(content): content}
    folder = service.data_dir / "inputs" / uuid
    assert stat.S_IMODE((folder / name(content)).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert text(content) not in (service.data_dir / "journal" / "jobs.jsonl").read_text()


def test_each_place_of_a_picture_is_taken_and_the_same_one_kept_once(service: Service) -> None:
    service.wait_available()
    same, mask, other = picture(), picture(shade=255), picture("JPEG")
    uuid = service.submit(
        image=text(same),
        mask_image=text(mask),
        controlnets=[{"name": "canny", "image": text(same)}],
        ip_adapter={"name": "face", "image": text(other)},
    )
    record = service.result(uuid)
    assert record["controlnets"][0]["image"] == f"sha256:{name(same)}"
    assert record["ip_adapter"]["image"] == f"sha256:{name(other)}"
    assert files(service, uuid) == {name(each): each for each in (same, mask, other)}


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"image": "sha256:" + "0" * 64}, "image", "must be an image in base64"),
    ({"image": ""}, "image", "empty"),
    ({"image": "data:image/png;base64,"}, "image", "empty"),
    ({"image": "%%%%"}, "image", "must be an image in base64"),
    ({"image": "ÄÖ"}, "image", "must be an image in base64"),
    ({"image": GOOD + "="}, "image", "must be an image in base64"),
    ({"image": "https://example.org/a.png"}, "image", "must be an image in base64"),
    ({"image": text(b"hello")}, "image", "is not a PNG, JPEG or WebP"),
    ({"image": text(picture("GIF"))}, "image", "is not a PNG, JPEG or WebP"),
    ({"image": text(picture("BMP"))}, "image", "is not a PNG, JPEG or WebP"),
    ({"image": text(picture()[:60])}, "image", "is a damaged PNG"),
    ({"image": text(picture("JPEG", (512, 512))[:-900])}, "image", "is a damaged JPEG"),
    ({"image": text(bomb(512, 512))}, "image", "is a damaged PNG"),
    ({"image": text(bomb(8000, 8000))}, "image", "8000 x 8000"),
    ({"image": text(bomb(12000, 12000))}, "image", "pixels"),
    ({"image": text(bomb(60000, 60000))}, "image", "pixels"),
    ({"image": text(bomb(9000, 16))}, "image", "each side must have 16 to 8192"),
    ({"image": text(picture(size=(8, 64)))}, "image", "each side must have 16 to 8192"),
    ({"image": text(animation())}, "image", "animation"),
    ({"image": 5}, "image", "string"),
    ({"image": [GOOD]}, "image", "string"),
    ({"mask_image": GOOD}, "mask_image", "needs image"),
    (
        {"strength": 0.5},
        "strength",
        "needs image: strength says how far to depart from it (got 0.5)",
    ),
    ({"upscale": {}}, "upscale", "needs image"),
    ({"loras": [{"name": "ink"}, {"name": "ink"}]}, "loras", "names ink more than once"),
    (
        {"controlnets": [{"name": "a", "image": GOOD, "guidance_start": 1.0}]},
        "controlnets.0.guidance_end",
        "must be greater than guidance_start, which is 1",
    ),
    ({"scheduler_options": {"beta_start": [1]}}, "scheduler_options.beta_start", "a number or a"),
    ({"scheduler_options": {"x": 10**12}}, "scheduler_options.x", "from -1000000 to 1000000"),
    ({"scheduler_options": {"x": "a b"}}, "scheduler_options.x", "letters"),
    ({"image": GOOD, "mask_image": "x"}, "mask_image", "must be an image in base64"),
    (
        {"controlnets": [{"name": "canny", "image": "x"}]},
        "controlnets.0.image",
        "must be an image in base64",
    ),
    ({"controlnets": [{"name": "canny"}]}, "controlnets.0.image", "required"),
    ({"controlnets": "x"}, "controlnets", "list"),
    (
        {"ip_adapter": {"name": "face", "image": "x"}},
        "ip_adapter.image",
        "must be an image in base64",
    ),
    ({"ip_adapter": 1}, "ip_adapter", "must be a JSON object"),
]


@pytest.mark.parametrize(("fields", "field", "said"), BAD, ids=lambda v: ascii(v)[:50])
def test_what_is_no_picture_is_named(
    service: Service, fields: dict[str, Any], field: str, said: str
) -> None:
    before = folders(service)
    reply = service.post({"prompt": "a", **fields})
    assert reply.status_code == 422, reply.text
    problem = reply.json()
    assert [fault["field"] for fault in problem["errors"]] == [field], problem
    assert said in problem["detail"], problem
    assert len(reply.content) < 2000
    assert folders(service) == before


def test_every_fault_is_told_at_once(service: Service) -> None:
    reply = service.post({"prompt": "", "image": "x", "mask_image": "y", "width": 3})
    named = {fault["field"] for fault in reply.json()["errors"]}
    assert named == {"prompt", "image", "mask_image", "width"}


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    reader = InputImageReader(1000)
    with pytest.raises(
        InvalidRequest, match="64 x 64, which is more than the limit of 1000 pixels"
    ):
        reader.request({"prompt": "a", "image": GOOD})


def test_a_replay_writes_nothing_and_another_picture_is_another_request(service: Service) -> None:
    service.wait_available()
    key = {"Idempotency-Key": "pictures"}
    body = {"prompt": "a", "image": GOOD}
    first = service.post(body, headers=key)
    assert first.status_code == 200, first.text
    service.result(first.json()["generation_uuid"])
    before = folders(service)
    with_prefix = {**body, "image": "data:image/png;base64," + GOOD}
    for again in (body, with_prefix):
        assert service.post(again, headers=key).json() == first.json()
    other = service.post({**body, "image": text(picture(shade=1))}, headers=key)
    assert other.status_code == 409
    assert folders(service) == before


def test_pictures_go_with_their_result(service: Service) -> None:
    service.wait_available()
    uuid = service.submit(image=GOOD)
    service.result(uuid)
    assert uuid in folders(service)
    target = f"{service.url}/image/generate?generation_uuid={uuid}&trash=false"
    assert requests.delete(target, timeout=30).status_code == 204
    assert uuid not in folders(service)


def test_retention_takes_the_pictures_too(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        old = service.submit(image=GOOD)
        service.result(old)
        service.wait_available()
        new = service.submit(image=GOOD)
        service.result(new)
        assert folders(service) == sorted([old, new])
        service.kill("gateway", signal.SIGTERM)
        service.settings["SDE_KEEP_RESULTS"] = "1"
        service.start("gateway")
        service.wait_answering()
        eventually(lambda: folders(service) == [new], "the old pictures have gone")


def test_a_start_removes_what_no_job_needs_and_keeps_the_rest(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="2") as service:
        ended = service.submit(image=GOOD, num_inference_steps=1)
        service.release(ended)
        service.result(ended)
        service.wait_available()
        runs = service.submit(image=GOOD, num_inference_steps=2)
        waits = service.submit(image=GOOD, num_inference_steps=1)
        service.wait_step(runs)
        service.kill("gateway")
        stray = folder / "inputs" / "00000000-0000-4000-8000-000000000000"
        stray.mkdir()
        (stray / ("0" * 64)).write_bytes(b"never accepted")
        service.start("gateway")
        service.wait_answering()
        assert folders(service) == sorted([ended, runs, waits])
        service.release()
        for uuid in (runs, waits):
            assert service.result(uuid)["errors"] == []


def test_a_store_with_pictures_is_sound(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        service.result(service.submit(image=GOOD))
        env = environment(folder, service.port)
        command = [sys.executable, "-m", "gateway.fsck"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "inputs" not in done.stdout


def test_a_job_that_is_not_accepted_leaves_no_pictures(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        uuid = service.submit(num_inference_steps=2)
        service.wait_step(uuid)
        assert service.post({"prompt": "a", "image": GOOD}).status_code == 429
        assert folders(service) == []


def test_a_disk_that_refuses_leaves_nothing(folder: Path) -> None:
    inputs = InputStore(folder / "away")
    with pytest.raises(OSError):
        inputs.keep("a", {"sha256:00": b"x"})
    (folder / "here").mkdir()
    inputs = InputStore(folder / "here")
    with pytest.raises(OSError):
        # The second name is too long for any file system: the first one must go, too.
        inputs.keep("a", {"sha256:00": b"x", "sha256:" + "0" * 300: b"y"})
    assert list((folder / "here").iterdir()) == []


def test_a_full_disk_is_507_and_nothing_remains(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        made = io.BytesIO()
        Image.effect_noise((512, 512), 90).save(made, format="PNG")
        large = text(made.getvalue())
        may_grow_to(service, "gateway", 200_000)
        body = {"prompt": "a", "image": GOOD, "mask_image": large}
        reply = service.post(body, headers={"Idempotency-Key": "full"})
        assert reply.status_code == 507, reply.text
        assert "File too large" in reply.json()["detail"]
        assert folders(service) == []
        may_grow_to(service, "gateway", None)
        reply = service.post(body, headers={"Idempotency-Key": "full"})
        assert reply.status_code == 200, reply.text
        uuid = reply.json()["generation_uuid"]
        assert service.result(uuid)["errors"] == []
        assert folders(service) == [uuid]


def test_a_journal_that_refuses_leaves_no_pictures(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        first = service.submit("x" * 4000)
        service.result(first)
        service.wait_available()
        journal = folder / "journal" / "jobs.jsonl"
        may_grow_to(service, "gateway", journal.stat().st_size + 10)
        reply = service.post({"prompt": "a", "image": GOOD})
        assert reply.status_code == 507, reply.text
        assert "the job" in reply.json()["detail"]
        assert folders(service) == []
        may_grow_to(service, "gateway", None)
        assert service.result(service.submit(image=GOOD))["errors"] == []


def headers_only(service: Service, length: int) -> bytes:
    """What is answered to who announces so large a body."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as raw:
        raw.sendall(
            b"POST /image/generate HTTP/1.0\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % length
        )
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_a_body_beyond_the_limit_is_a_problem_document(service: Service) -> None:
    reply = headers_only(service, 100 << 20)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 413 ")
    assert b"application/problem+json" in head
    assert b'"status":413' in body


def test_a_body_just_beyond_the_limit_too(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_MAX_BODY_MIB="1") as service:
        body = b'{"prompt": "' + b"x" * (1 << 20) + b'"}'
        reply = service.post(body)
        assert reply.status_code == 413, reply.text
        assert "1048576" in reply.json()["detail"]


def test_large_pictures_pass_and_large_lists_do_not(service: Service) -> None:
    service.wait_available()
    made = io.BytesIO()
    Image.effect_noise((2048, 2048), 90).save(made, format="PNG")
    content = made.getvalue()
    assert len(content) > 3 << 20
    uuid = service.submit(image=text(content))
    service.result(uuid)
    assert files(service, uuid) == {name(content): content}
    reply = service.post(b'{"prompt": "a", "loras": [' + b"[]," * (1 << 20) + b"[]]}")
    assert reply.status_code == 413
    assert "commas and brackets" in reply.json()["detail"]
