"""What is loaded from a models folder, and what is refused there."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import psutil
import pytest

from gpu_worker import pipeline
from gpu_worker.assets.library_file import LibraryFile
from gpu_worker.assets.model_library import ModelsError
from tests.support.builders import tiny_models
from tests.support.pipeline_bench import write_library
from tests.support.pipeline_jobs import ignore, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> pipeline.DiffusersPipeline:
    """A worker's pipeline with one model beside the built-in one."""
    folder = tmp_path_factory.mktemp("families")
    tiny_models.build().save_pretrained(folder / "models" / "sd1")
    write_library(folder, models={"sd1": {"source": "sd1"}})
    return pipeline.load(settings(folder))


def test_a_name_that_is_not_there_is_told_and_costs_nothing(
    ours: pipeline.DiffusersPipeline,
) -> None:
    ours.load(None)
    with pytest.raises(
        ModelsError, match=r"no model has the name 'nope'; the names are: demo, sd1"
    ):
        ours.generate(job(model="nope"), ignore)
    assert ours.loaded == "demo"


def refused(folder: Path, source: str) -> str:
    """What is said of a model folder that must not be loaded."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "models.toml").write_text(f'[models.bad]\nsource = "{source}"\n')
    ours = pipeline.load(settings(folder))
    said = ours.describe().model_dump()["models"]["bad"].get("error", "")
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


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("StableVideoDiffusionPipeline", "takes no prompt"),
        ("TextToVideoSDPipeline", "generates video or sound"),
        ("StableAudioPipeline", "generates video or sound"),
        ("StableDiffusionControlNetPipeline", "name the model and the ControlNet separately"),
        ("UnCLIPPipeline", "has no num_inference_steps"),
    ],
)
def test_what_draws_no_pictures_from_words_is_refused(tmp_path: Path, kind: str, why: str) -> None:
    (tmp_path / "models" / "bad").mkdir(parents=True)
    index = {"_class_name": kind, "scheduler": ["diffusers", "DDIMScheduler"]}
    (tmp_path / "models" / "bad" / "model_index.json").write_text(json.dumps(index))
    ours = pipeline.DiffusersPipeline(settings(tmp_path), library(tmp_path))
    with pytest.raises(ModelsError, match=f"bad: is not supported: {kind}.*{why}"):
        ours.load("bad")
    ours.load("demo")
    assert why in ours.describe().model_dump()["models"]["bad"]["error"]


def library(folder: Path) -> LibraryFile:
    write_library(folder, models={"bad": {"source": "bad"}})
    return LibraryFile(folder / "models" / "models.toml")


@pytest.mark.parametrize("source", ["../outside", "/etc", "link"])
def test_a_source_stays_in_the_models_folder(tmp_path: Path, source: str) -> None:
    tiny_models.build().save_pretrained(tmp_path / "outside")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "outside")
    assert "leads out of the models folder" in refused(tmp_path, source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.a]\n", "models.a.source: is required"),
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
        for name in ("sd1", "demo"):
            ours.load(name)
        ours.unload()

    for _ in range(10):
        cycle()
    before = resident()
    for _ in range(25):
        cycle()
    assert resident() < before * 1.02
