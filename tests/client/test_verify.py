"""Whether a picture can be made again: the real service, the built-in model, the `sde` command."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sde_client import Client, NoImage, NotComparable, Result, comparison
from sde_client.request_body import to_request

from gpu_worker.store import record_line
from tests.support.command import NEVER, sde
from tests.support.service import Service, running

REAL = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
ASKED: dict[str, Any] = {
    "prompt": "a large red apple on a blue background",
    "negative_prompt": "blurry",
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "seed": 7,
    "step_log": True,
}


@pytest.fixture(scope="module")
def real() -> Iterator[Service]:
    """Gateway and worker with the built-in model."""
    path = Path(tempfile.mkdtemp(prefix="sde-"))
    with running(path, "gateway", "gpu_worker", MACHINE_SIZE="big", **REAL) as started:
        yield started
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def remote(real: Service) -> Iterator[Client]:
    real.wait_available()
    with Client(real.url) as opened:
        yield opened


def made(remote: Client, **asked: Any) -> Result:
    (result,) = remote.generate(**{**ASKED, **asked})
    return result


def test_the_record_says_what_made_the_picture(remote: Client) -> None:
    extra = made(remote).extra
    for name in ("torch", "diffusers", "transformers", "attention", "weights_sha256", "dtype"):
        assert extra[name], name
    assert (extra["rng"], extra["machine_size"], extra["device"]) == ("cpu", "big", "cpu")
    assert extra["seconds"] > 0 and extra["peak_memory_bytes"] > 1 << 20
    assert extra["request"] == {k: v for k, v in ASKED.items() if "prompt" not in k}
    assert len(extra["steps_log"]) == 3


def test_a_repeat_is_identical_and_leaves_nothing(remote: Client, real: Service) -> None:
    uuid = made(remote).uuid
    before = len(list(remote.results(data=False)))
    done = sde(real.url, "verify", uuid)
    assert (done.returncode, done.stdout) == (0, "identical\n"), done
    assert len(list(remote.results(data=False))) == before
    kept = sde(real.url, "verify", uuid, "--keep")
    assert kept.returncode == 0
    again = kept.stderr.split()[-1]
    assert len(list(remote.results(data=False))) == before + 1
    compared = sde(real.url, "diff", uuid, again)
    assert compared.returncode == 0
    assert compared.stdout == "no step differs\nthe pixels are identical\n"


def test_like_makes_the_same_but_for_what_is_said(
    remote: Client, real: Service, tmp_path: Path
) -> None:
    first = made(remote)
    like = ("generate", "--like", first.uuid)
    same = sde(real.url, *like, cwd=tmp_path)
    assert same.returncode == 0, same
    other = sde(real.url, *like, "--seed", "8", "--guidance", "5", cwd=tmp_path)
    assert other.returncode == 0, other
    found = [next(remote.results(done.stdout.split("\t")[1])) for done in (same, other)]
    assert found[0].extra["pixels_sha256"] == first.extra["pixels_sha256"]
    assert found[1].extra["pixels_sha256"] != first.extra["pixels_sha256"]
    assert (found[1].prompt, found[1].seed) == (first.prompt, 8)
    assert found[1].extra["num_inference_steps"] == 3
    apart = sde(real.url, "diff", first.uuid, found[1].uuid)
    assert apart.returncode == 1
    assert "seed: 7 -> 8\n" in apart.stdout and "guidance_scale: 4.0 -> 5.0\n" in apart.stdout
    assert "they diverge at step 1: the latents differ at timestep " in apart.stdout
    assert "PSNR" in apart.stdout


def test_a_second_pass_by_default_is_made_again(remote: Client, real: Service) -> None:
    first = made(remote, hires={}, step_log=None, num_inference_steps=2)
    assert first.extra["request"]["hires"] == {} and first.extra["width"] == 192
    done = sde(real.url, "verify", first.uuid)
    assert (done.returncode, done.stdout) == (0, "identical\n"), done


def test_a_picture_made_larger_is_made_again_and_says_of_what(
    remote: Client, real: Service, tmp_path: Path
) -> None:
    parent = remote.generate(**ASKED, num_images_per_prompt=2)[1]
    real.wait_available()
    (larger,) = remote.wait(remote.upscale(parent.uuid, image_index=1))
    said = larger.extra
    assert said["source"] == {"uuid": parent.uuid, "image_index": 1}
    assert said["upscale"] == {"scale": 2.0, "upscaler": "lanczos"}
    assert (larger.prompt, said["width"], said["height"]) == (parent.prompt, 192, 192)
    assert said["request"] == {"image": said["image"], "upscale": {}}
    for name in ("torch", "pillow", "device", "cpu_threads", "peak_memory_bytes", "seconds"):
        assert said[name], name
    for name in ("model", "pipeline", "scheduler", "dtype", "num_inference_steps", "attention"):
        assert name not in said, name
    assert larger.seed is None
    texts = [Image.open(io.BytesIO(each.png or b"")).text for each in (parent, larger)]  # type: ignore[attr-defined]
    assert "Size: 96x96, " in texts[0]["parameters"]
    assert texts[1]["parameters"] == texts[0]["parameters"].replace("96x96", "192x192")
    real.wait_available()
    done = sde(real.url, "verify", larger.uuid)
    assert (done.returncode, done.stdout) == (0, "identical\n"), done
    real.wait_available()
    again = sde(real.url, "generate", "--like", larger.uuid, "-o", "again.png", cwd=tmp_path)
    assert again.returncode == 0, again
    real.wait_available()
    own = sde(real.url, "upscale", "again.png", "--scale", "1.5", "-o", "own.png", cwd=tmp_path)
    assert own.returncode == 0, own
    (found,) = (each for each in remote.results(limit=1))
    assert (found.prompt, found.extra["width"]) == ("again.png", 288)
    assert "source" not in found.extra
    text = Image.open(tmp_path / "own.png").text["parameters"]  # type: ignore[attr-defined]
    assert text == texts[0]["parameters"].replace("96x96", "288x288")


def test_what_cannot_be_compared_is_told(remote: Client, real: Service) -> None:
    assert sde(real.url, "verify", NEVER).returncode == 66
    assert sde(real.url, "generate").returncode == 2
    uuid = made(remote, step_log=None).uuid
    assert sde(real.url, "verify", uuid, "--image", "2").returncode == 66
    done = sde(real.url, "diff", uuid, uuid)
    assert done.returncode == 0 and "has no step log" in done.stderr
    failed = dataclasses.replace(next(remote.results(uuid)), png=None)
    with pytest.raises(NoImage):
        remote.verify(failed)


def test_another_environment_is_named_and_measured(folder: Path) -> None:
    started = running(folder, "gateway", "gpu_worker", MACHINE_SIZE="big", **REAL)
    with started as service, Client(service.url) as remote:
        uuid = made(remote).uuid
    (log,) = (folder / "disk_backups").glob("gpu-0.*.jsonl")
    record = json.loads(log.read_bytes())
    # As if it had been made elsewhere: another model, whose picture of this seed is another.
    record |= {"seed": 8, "weights_sha256": "0" * 64, "torch": "1.0"}
    record |= {"attention": "SlicedAttnProcessor", "scheduler_config": {"beta_end": 0.5}}
    del record["crc32"], record["format"]
    log.write_bytes(record_line.encode(record))
    for cache in (folder / "disk_backups").glob("index.sqlite*"):
        cache.unlink()
    with running(folder, "gateway", "gpu_worker", MACHINE_SIZE="tiny", **REAL) as service:
        done = sde(service.url, "verify", uuid)
    assert done.returncode == 1, done
    said = done.stdout.splitlines()
    assert said[0] == "differs"
    assert f"weights_sha256: {'0' * 64} -> " in done.stdout
    assert "machine_size: big -> tiny" in said
    assert "attention: SlicedAttnProcessor -> AttnProcessor2_0" in said
    assert any(row.startswith("torch: 1.0 -> ") for row in said)
    assert any(row.startswith("scheduler_config.beta_end: 0.5 -> ") for row in said)
    assert said[-2].startswith("they diverge at step 1: the latents differ at timestep ")
    assert "the pixels differ: PSNR " in said[-1] and said[-1].endswith(" of 255")


def test_a_stored_picture_that_was_exchanged_is_found(remote: Client) -> None:
    first, other = made(remote), made(remote, seed=9)
    forged = dataclasses.replace(first, png=other.png)
    compared = remote.verify(forged)
    assert not compared.identical and compared.distance is not None
    assert compared.differences[0][0] == "pixels_sha256 of the stored image"


def result(**extra: Any) -> Result:
    """A record without a picture."""
    return Result(
        uuid=NEVER,
        prompt="x",
        created_time=None,  # type: ignore[arg-type]
        errors=[],
        png=None,
        seed=5,
        state="succeeded",
        extra=extra,
    )


def test_two_logs_part_where_they_first_differ() -> None:
    rows = [{"step": n, "timestep": 9 - n, "latents_sha256": str(n), "seconds": n} for n in (1, 2)]
    other = [rows[0] | {"seconds": 7}, rows[1] | {"latents_sha256": "another"}]
    assert comparison.divergence(result(steps_log=rows), result(steps_log=rows)) is None
    found = comparison.divergence(result(steps_log=rows), result(steps_log=other))
    assert found is not None and (found.step, found.first) == (2, rows[1])
    shorter = comparison.divergence(result(steps_log=rows), result(steps_log=rows[:1]))
    assert shorter is not None and (shorter.step, shorter.second) == (2, None)


def test_a_record_that_says_nothing_of_its_pixels_is_not_called_identical() -> None:
    with pytest.raises(NotComparable):
        comparison.compare(result(), result())


def test_a_record_becomes_its_request() -> None:
    digest = "sha256:" + "0" * 64
    kept = {
        "negative_prompt": "",
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "width": 64,
        "height": 72,
        "scheduler": "DDIMScheduler",
        "model": "demo",
        "num_images": 3,
        "device": "cpu",
    }
    text = {"prompt": "x", "seed": 5, "num_inference_steps": 50, "guidance_scale": 7.5}
    size = {"width": 64, "height": 72}
    assert to_request(result(**kept)) == text | size
    asked = {"seed": 3, "num_images_per_prompt": 3, "model": "xl", "clip_skip": 2}
    found = to_request(result(**kept, request=asked))
    assert found == text | size | {"model": "xl", "clip_skip": 2}
    for further in (
        {"image": digest, "strength": 0.5},
        {"hires": {"scale": 2.0}},
        {"hires": {}},
        {"image": digest, "upscale": {}},
    ):
        assert to_request(result(**kept, request=further)) == text | further
