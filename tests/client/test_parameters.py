"""What `sde generate` and Client.generate send, as a server receives it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from sde_client import Client, UnreadableFile
from sde_client.commands import generate, option_parsers
from sde_client.request_body import body, parse_digest, with_images

from tests.support.command import NEVER, sde
from tests.support.stub_gateway import Reply, answering

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / f"{name}.png" for name in ("photo", "mask", "edges", "face")}
    for name, path in found.items():
        path.write_bytes(name.encode())
    return found


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_pictures_are_read_wherever_they_stand(pictures: dict[str, Path]) -> None:
    sent = body(
        "x",
        {
            "image": str(pictures["photo"]),
            "mask_image": b"mask",
            "controlnets": [{"name": "canny", "image": pictures["edges"]}],
            "ip_adapter": {"name": "f", "image": pictures["face"], "scale": 0.5},
            "seed": None,
            "strength": 0.5,
        },
    )
    assert sent == {
        "prompt": "x",
        "image": coded("photo"),
        "mask_image": coded("mask"),
        "controlnets": [{"name": "canny", "image": coded("edges")}],
        "ip_adapter": {"name": "f", "image": coded("face"), "scale": 0.5},
        "strength": 0.5,
    }
    with pytest.raises(UnreadableFile, match=r"nowhere\.png: No such file"):
        body("x", {"image": "nowhere.png"})


def test_digests_of_a_record_are_known_for_what_they_are() -> None:
    digest = "a1" * 32
    assert parse_digest(f"sha256:{digest}") == digest
    assert parse_digest("sha256:../../etc/passwd") is parse_digest(b"sha256:") is None
    given = {"image": f"sha256:{digest}", "controlnets": [{"name": "n", "image": b"as it is"}]}
    fetched = with_images(given, lambda each: b"!" if parse_digest(each) else each)
    assert fetched == {"image": b"!", "controlnets": [{"name": "n", "image": b"as it is"}]}
    assert given["image"] == f"sha256:{digest}", "the caller's own is left alone"


def test_every_option_becomes_a_field(pictures: dict[str, Path]) -> None:
    received: list[dict[str, Any]] = []
    replies: dict[str, Reply] = {
        "POST /image/generate": (200, JSON, json.dumps({"generation_uuid": NEVER}).encode())
    }
    with answering(replies, received) as url:
        done = sde(
            url,
            *("generate", "a fox", "--no-wait", "--negative", "blurry", "--model", "xl"),
            *("--steps", "9", "--guidance", "5.5", "--size", "64x72", "--seed", "3", "-n", "2"),
            *("--scheduler", "DDIMScheduler", "--scheduler-option", "use_karras_sigmas=true"),
            *("--scheduler-option", "solver_order=3", "--scheduler-option", "timestep_spacing=x"),
            *("--clip-skip", "1", "--eta", "0.5", "--guidance-rescale", "0.7"),
            *("--image", str(pictures["photo"]), "--mask", str(pictures["mask"])),
            *("--strength", "0.4", "--lora", "pixel:0.8", "--lora", "ink"),
            *("--controlnet", f"canny:{pictures['edges']}:0.9:start=0.1:end=0.8"),
            *("--ip-adapter", f"face:{pictures['face']}", "--embedding", "bad", "--vae", "sharp"),
            *("--hires", "1.5:esrgan:strength=0.4:steps=7", "--refiner", "xl:0.7", "--step-log"),
        )
        bare = sde(url, "generate", "a fox", "--no-wait", "--hires", "2")
    assert (done.returncode, done.stdout) == (0, f"{NEVER}\n"), done
    assert bare.returncode == 0
    assert received == [
        {
            "prompt": "a fox",
            "negative_prompt": "blurry",
            "model": "xl",
            "num_inference_steps": 9,
            "guidance_scale": 5.5,
            "width": 64,
            "height": 72,
            "seed": 3,
            "num_images_per_prompt": 2,
            "scheduler": "DDIMScheduler",
            "scheduler_options": {
                "use_karras_sigmas": True,
                "solver_order": 3,
                "timestep_spacing": "x",
            },
            "clip_skip": 1,
            "eta": 0.5,
            "guidance_rescale": 0.7,
            "image": coded("photo"),
            "mask_image": coded("mask"),
            "strength": 0.4,
            "loras": [{"name": "pixel", "weight": 0.8}, {"name": "ink"}],
            "controlnets": [
                {
                    "name": "canny",
                    "image": coded("edges"),
                    "conditioning_scale": 0.9,
                    "guidance_start": 0.1,
                    "guidance_end": 0.8,
                }
            ],
            "ip_adapter": {"name": "face", "image": coded("face")},
            "embeddings": ["bad"],
            "vae": "sharp",
            "hires": {
                "scale": 1.5,
                "upscaler": "esrgan",
                "strength": 0.4,
                "num_inference_steps": 7,
            },
            "refiner": {"name": "xl", "switch_at": 0.7},
            "step_log": True,
            "queue": True,
        },
        {"prompt": "a fox", "hires": {"scale": 2.0}, "queue": True},
    ]


def test_a_file_of_ones_own_is_made_larger(pictures: dict[str, Path]) -> None:
    received: list[dict[str, Any]] = []
    taken: Reply = (200, JSON, json.dumps({"generation_uuid": NEVER}).encode())
    replies = {"POST /image/generate": taken, "POST /image/upscale": taken}
    with answering(replies, received) as url:
        sde(url, "upscale", str(pictures["photo"]), "--upscaler", "sharp")
        sde(url, "upscale", NEVER, "--image", "2", "--scale", "3")
        gone = sde(url, "upscale", str(pictures["photo"].with_name("gone.png")))
        wrong = sde(url, "upscale", str(pictures["photo"]), "--image", "2")
    assert gone.returncode == 66 and "gone.png: No such file" in gone.stderr
    assert wrong.returncode == 2 and "--image needs a job" in wrong.stderr
    how = {"scale": 2.0, "upscaler": "sharp"}
    assert received == [
        {"prompt": "photo.png", "image": coded("photo"), "upscale": how, "queue": True},
        {
            "generation_uuid": NEVER,
            "image_index": 1,
            "scale": 3.0,
            "upscaler": "lanczos",
            "queue": True,
        },
    ]


def test_several_pictures_are_numbered(tmp_path: Path) -> None:
    common = {"uuid": NEVER, "created_time": "2026-01-01T00:00:00Z", "errors": []}
    job = {**common, "state": "succeeded", "step": 2, "steps": 2}
    lines = [
        json.dumps(
            {**common, "prompt": "x", "data": coded(text), "image_index": place, "num_images": 2}
        )
        for place, text in enumerate(("one", "two"))
    ]
    replies: dict[str, Reply] = {
        f"GET /image/jobs/{NEVER}": (200, JSON, json.dumps(job).encode()),
        "GET /image/generate": (200, JSON, f"[{','.join(lines)}]".encode()),
    }
    with answering(replies) as url:
        done = sde(url, "save", NEVER, "-o", "picture.png", cwd=tmp_path)
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert names == ["picture-1.png", "picture-2.png"], done
    assert (tmp_path / "picture-2.png").read_text() == "two"


def test_models_are_listed_loaded_and_let_go() -> None:
    description = {
        "default": "demo",
        "models": {
            "demo": {
                "pipeline": "StableDiffusionPipeline",
                "modes": ["txt2img", "img2img"],
                "loaded": True,
            },
            "gone": {"error": "is not there"},
        },
        "loras": ["pixel", "ink"],
        "vaes": [],
        "errors": {"loras": {"old": "loras.old: old.ckpt: only .safetensors files are loaded"}},
    }
    replies: dict[str, Reply] = {
        "GET /server/models": (200, JSON, json.dumps(description).encode()),
        "POST /server/models/xl/load": (202, JSON, b"{}"),
        "POST /server/models/demo/unload": (202, JSON, b"{}"),
        "POST /server/models/no/load": (404, JSON, b'{"detail": "no model is called so"}'),
    }
    with answering(replies) as url:
        listed = sde(url, "models").stdout.splitlines()
        assert listed[0].split("\t")[:3] == ["demo", "StableDiffusionPipeline", "txt2img, img2img"]
        assert listed[0].endswith("default, loaded")
        assert listed[1].endswith("cannot be loaded: is not there")
        assert listed[2:] == [
            "loras: pixel, ink",
            "cannot be used: loras.old: old.ckpt: only .safetensors files are loaded",
        ]
        assert json.loads(sde(url, "models", "--json").stdout) == description
        assert sde(url, "load", "xl").returncode == 0
        assert sde(url, "unload").stdout == "demo is being unloaded\n"
        refused = sde(url, "load", "no")
        assert refused.returncode == 66 and "no model is called so" in refused.stderr
        with Client(url) as remote:
            assert remote.models() == description


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (generate.LORA, "a:b"),
        (generate.CONTROLNET, "canny"),
        (generate.CONTROLNET, "canny:edges.png:much"),
        (generate.CONTROLNET, "canny:edges.png:end=late"),
        (generate.HIRES, "big"),
        (generate.HIRES, "2:latent:lanczos"),
        (generate.HIRES, "2:steps=few"),
        (generate.HIRES, "2:strenght=0.5"),
        (generate.REFINER, "xl:late"),
        (option_parsers.scheduler_option, "karras"),
        (option_parsers.size, "12"),
    ],
)
def test_an_option_that_makes_no_sense_is_told(parse: Any, text: str) -> None:
    with pytest.raises(typer.BadParameter, match=text):
        parse(text)


def test_a_colon_in_a_files_name_is_no_scale(tmp_path: Path) -> None:
    odd = tmp_path / "a:1"
    odd.write_bytes(b"")
    assert generate.CONTROLNET(f"canny:{odd}") == {"name": "canny", "image": odd}
    shares = {"guidance_start": 0.2, "guidance_end": 0.7}
    asked = generate.CONTROLNET(f"canny:{odd}:end=0.7:start=0.2")
    assert asked == {"name": "canny", "image": odd} | shares
    share = tmp_path / "a:end=1"
    share.write_bytes(b"")
    assert generate.CONTROLNET(f"canny:{share}") == {"name": "canny", "image": share}
    assert generate.HIRES("2:strength=0.5") == {"scale": 2.0, "strength": 0.5}
    assert generate.REFINER("xl") == {"name": "xl"}
    assert generate.REFINER("xl:0.7") == {"name": "xl", "switch_at": 0.7}
    assert generate.IP_ADAPTER(f"face:{odd}:0.5") == {
        "name": "face",
        "image": odd,
        "scale": 0.5,
    }
