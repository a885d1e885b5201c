"""Models of every family: loaded by name from the models folder, drawn as diffusers draws them."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import gguf
import numpy as np
import psutil
import pytest
import torch

from gpu_worker import pipeline
from gpu_worker.models import ModelsError
from tests import tiny_models
from tests.service import running
from tests.test_pipeline import ignore, job, settings
from tests.tiny_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAMES = {title: f"model-{number}" for number, title in enumerate(FAMILIES)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a model of each family in models/, and models.toml."""
    folder = tmp_path_factory.mktemp("families")
    lines = []
    for title, build in FAMILIES.items():
        name = NAMES[title]
        build().save_pretrained(folder / "models" / name)
        lines += [f"[models.{name}]", f'source = "{name}"']
    tiny_models.save_single_file(tiny_models.build(), folder / "models" / "one.safetensors")
    lines += ["[models.one]", 'source = "one.safetensors"', "[models.turbo]"]
    lines += [f'source = "{NAMES["StableDiffusionXLPipeline"]}"']
    lines += ["defaults = { num_inference_steps = 2, guidance_scale = 0.0 }"]
    (folder / "models" / "models.toml").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def ours(data: Path) -> Iterator[pipeline.DiffusersPipeline]:
    """All of them, one in memory at a time."""
    yield pipeline.load(settings(data))


@pytest.mark.parametrize("title", FAMILIES)
def test_each_family_draws_as_diffusers_does(
    title: str, ours: pipeline.DiffusersPipeline, data: Path
) -> None:
    made = ours.generate(job(model=NAMES[title], num_inference_steps=2), ignore)[0]
    direct = diffusers.DiffusionPipeline.from_pretrained(data / "models" / NAMES[title])
    direct.set_progress_bar_config(disable=True)
    side = made.image.width
    expected = direct(
        job().request.prompt,
        num_inference_steps=2,
        width=side,
        height=side,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert made.image.tobytes() == expected.tobytes()
    said = ours.describe()["models"][NAMES[title]]
    assert said["loaded"] and said["pipeline"] == type(direct).__name__
    assert type(direct.scheduler).__name__ in said["schedulers"]
    assert ours.facts["pipeline"] == type(direct).__name__


@pytest.mark.parametrize("title", FAMILIES)
def test_what_is_said_of_a_family_is_so(title: str, ours: pipeline.DiffusersPipeline) -> None:
    said = ours.describe()["models"][NAMES[title]]
    assert "txt2img" in said["modes"]
    assert {"guidance_scale", "num_inference_steps", "negative_prompt"} <= set(said["takes"])
    takes_lora = not title.startswith("PixArt")
    assert ("loras" in said["takes"]) is takes_lora
    assert ("img2img" in said["modes"]) is takes_lora
    assert ("clip_skip" in said["takes"]) is title.startswith("StableDiffusion")


def test_a_models_own_defaults_hold_unless_a_request_says_otherwise(
    ours: pipeline.DiffusersPipeline,
) -> None:
    turbo = job(model="turbo", num_inference_steps=None)
    made = ours.generate(turbo, ignore)[0]
    assert (made.facts["num_inference_steps"], made.facts["guidance_scale"]) == (2, 0.0)
    assert ours.describe()["models"]["turbo"]["defaults"]["num_inference_steps"] == 2


def test_a_single_file_is_the_directorys_model(ours: pipeline.DiffusersPipeline) -> None:
    title = "StableDiffusionPipeline (1.x)"
    made = [ours.generate(job(model=name), ignore)[0] for name in ("one", NAMES[title])]
    assert made[0].image.tobytes() == made[1].image.tobytes()


def test_a_gguf_transformer_is_used_with_the_rest_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    pipe = FAMILIES["FluxPipeline"]()
    for name in ("whole", "tiny"):
        pipe.save_pretrained(folder / name)
    for weights in (folder / "tiny" / "transformer").glob("*.safetensors"):
        weights.unlink()
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "flux")
    for key, value in pipe.transformer.state_dict().items():
        writer.add_tensor(key, value.float().numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    lines = ["[models.whole]", 'source = "whole"', "[models.tiny]", 'source = "tiny.gguf"']
    (folder / "models.toml").write_text("\n".join(lines))
    ours = pipeline.load(settings(tmp_path))
    made = [
        ours.generate(job(model=name, num_inference_steps=2, width=64, height=64), ignore)[0]
        for name in ("whole", "tiny")
    ]
    pixels = [np.asarray(each.image).astype(int) for each in made]
    assert np.abs(pixels[0] - pixels[1]).max() <= 2, "other kernels round otherwise"


def test_a_name_that_is_not_there_is_told_and_costs_nothing(
    ours: pipeline.DiffusersPipeline,
) -> None:
    ours.load(None)
    with pytest.raises(ModelsError, match=r"no model is called 'nope'; there are: demo, model-0"):
        ours.generate(job(model="nope"), ignore)
    assert ours.loaded == "demo"


def refused(folder: Path, source: str) -> str:
    """What is said of a model folder that must not be loaded."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "models.toml").write_text(f'[models.bad]\nsource = "{source}"\n')
    ours = pipeline.load(settings(folder))
    said = ours.describe()["models"]["bad"].get("error", "")
    with pytest.raises((ModelsError, OSError, ValueError)) as caught:
        ours.load("bad")
    assert ours.generate(job(num_inference_steps=1), ignore), "the next good job works"
    return f"{said} {caught.value}"


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "evil"
    tiny_models.build().save_pretrained(folder)
    mark = tmp_path / "was-run"
    for name in ("pipeline.py", "evil.py", "model.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for change in (
        {"_class_name": "Evil"},
        {"unet": ["evil", "Evil"]},
        {"_class_name": ["evil", "Evil"]},
    ):
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | change))
        assert "evil" in refused(tmp_path, "evil").lower()
        (folder / "model_index.json").write_text(json.dumps(index))
    assert not mark.exists()


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "pickled"
    tiny_models.build().save_pretrained(folder, safe_serialization=False)
    assert not list((folder / "unet").glob("*.safetensors"))
    assert "safetensors" in refused(tmp_path, "pickled")
    (tmp_path / "models" / "one.ckpt").write_bytes(b"x")
    assert "only .safetensors and .gguf" in refused(tmp_path, "one.ckpt")


@pytest.mark.parametrize("source", ["../outside", "/etc", "link"])
def test_a_source_stays_in_the_models_folder(tmp_path: Path, source: str) -> None:
    tiny_models.build().save_pretrained(tmp_path / "outside")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "outside")
    assert "leads out of the models folder" in refused(tmp_path, source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.a]\n", "models.a.source: Field required"),
        ("[models.a]\nsource = 5\n", "models.a.source"),
        ("[models.'../a']\nsource = 'x'\n", "models"),
        ("[modles.a]\nsource = 'x'\n", "modles"),
        ("not toml", "models.toml"),
    ],
)
def test_a_bad_models_toml_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.toml").write_text(text)
    with pytest.raises(ModelsError, match=r"models\.toml") as caught:
        pipeline.load(settings(tmp_path))
    assert said in str(caught.value)


def test_fifty_loads_and_unloads_leave_nothing_behind(
    ours: pipeline.DiffusersPipeline,
) -> None:
    def resident() -> int:
        gc.collect()
        return psutil.Process().memory_info().rss

    def cycle() -> None:
        for name in (NAMES["StableDiffusionPipeline (1.x)"], "demo"):
            ours.load(name)
        ours.unload()

    for _ in range(10):
        cycle()
    before = resident()
    for _ in range(25):
        cycle()
    assert resident() < before * 1.02


@pytest.mark.parametrize("title", ["StableDiffusionXLPipeline", "FluxPipeline"])
def test_a_family_through_the_service(title: str, data: Path, folder: Path) -> None:
    name = NAMES[title]
    with running(
        folder,
        "gateway",
        "gpu_worker",
        SDE_PIPELINE="gpu_worker.pipeline:load",
        SDE_DEVICE="cpu",
        SDE_MODELS_DIR=str(data / "models"),
    ) as service:
        uuid = service.submit("a red circle", model=name, num_inference_steps=2)
        record: dict[str, Any] = service.result(uuid)
        assert record["model"] == name and record["pipeline"] == title
        assert record["weights_sha256"]
        service.wait_available()
        listed = service.get("/server/models").json()["models"]
        assert listed[name]["loaded"] and not listed["demo"]["loaded"]
        refused = service.post({"prompt": "a", "model": "nope"})
        assert refused.status_code == 422 and "there are: demo" in refused.json()["detail"]
