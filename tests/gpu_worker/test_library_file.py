"""models.toml changes while the worker runs: what it names is there, what is wrong is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpu_worker import pipeline
from gpu_worker.assets.library_file import LibraryFile
from gpu_worker.assets.model_library import ModelsError
from tests.support.builders import tiny_models
from tests.support.command import sde
from tests.support.pipeline_jobs import ignore, job, settings
from tests.support.service import Service, eventually, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def write(path: Path, text: str) -> None:
    """As `sde pull` does: whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_it_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    file = LibraryFile(path)
    assert not file.reread() and file.library.models == {}
    write(path, '[models.a]\nsource = "a"\n')
    assert file.reread() and set(file.library.models) == {"a"}
    assert not file.reread()
    path.unlink()
    assert file.reread() and file.library.models == {}


def test_a_wrong_change_is_told_once_and_what_was_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    write(path, '[models.a]\nsource = "a"\n')
    file = LibraryFile(path)
    write(path, "[models.b]\n")
    assert file.reread() and not file.reread()
    assert set(file.library.models) == {"a"} and "models.b.source" in str(file.error)
    write(path, '[models.b]\nsource = "b"\n')
    assert file.reread() and (set(file.library.models), file.error) == ({"b"}, None)


def test_at_the_start_a_wrong_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.b]\n")
    with pytest.raises(ModelsError, match=r"models\.b\.source"):
        LibraryFile(tmp_path / "models.toml")


def test_a_load_that_fails_leaves_no_model_and_the_description_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for name in ("one", "two"):
        tiny_models.build().save_pretrained(folder / name)
    (folder / "two" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    write(folder / "models.toml", '[models.a]\nsource = "one"\n[models.b]\nsource = "two"\n')
    ours = pipeline.load(settings(tmp_path, SDE_MODEL="a"))
    assert ours.describe().models["a"].loaded
    before = ours.described
    with pytest.raises(ModelsError, match="b: cannot be loaded"):
        ours.load("b")
    assert ours.loaded is None and ours.described > before
    assert not any(model.loaded for model in ours.describe().models.values())


def test_a_name_that_is_another_models_now_lets_go_of_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for seed, name in enumerate(("one", "two")):
        tiny_models.build(seed=seed).save_pretrained(folder / name)
    write(folder / "models.toml", '[models.a]\nsource = "one"\n')
    ours = pipeline.load(settings(tmp_path))
    first = ours.generate(job(model="a"), ignore)[0].image.tobytes()
    before = ours.described
    ours.refresh()
    assert (ours.loaded, ours.described) == ("a", before)
    write(folder / "models.toml", '[models.a]\nsource = "two"\n')
    ours.refresh()
    assert ours.loaded is None and ours.described > before
    made = ours.generate(job(model="a"), ignore)[0]
    assert made.image.tobytes() != first
    write(folder / "models.toml", '[models.a]\nsource = "two"\n[models.b]\nsource = "one"\n')
    ours.refresh()
    assert ours.loaded == "a", "it has not changed itself"


def listed(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.get("/server/models").json()
    return found


def test_a_running_service_knows_what_was_added(folder: Path) -> None:
    tiny_models.build().save_pretrained(folder / "models" / "tiny")
    path = folder / "models" / "models.toml"
    real = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
    with running(folder, "gateway", "gpu_worker", **real) as service:
        assert service.post({"prompt": "a", "model": "new"}).status_code == 422
        write(path, '[models.new]\nsource = "tiny"\n')
        eventually(lambda: "new" in listed(service)["models"], "the new model is there")
        record = service.result(service.submit("a red circle", model="new", num_inference_steps=1))
        assert (record["model"], record["errors"]) == ("new", [])
        write(path, "[models.other]\n")
        eventually(lambda: listed(service)["models_error"], "what is wrong is told")
        assert "models.other.source" in listed(service)["models_error"]
        assert "new" in listed(service)["models"]
        assert "models.other.source" in sde(service.url, "models").stderr
