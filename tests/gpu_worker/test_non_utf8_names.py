"""Names that are no UTF-8, sources that are no names, words of an error: they end no worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gpu_worker import pipeline
from gpu_worker.assets.model_library import ModelsError, locate, read
from gpu_worker.contract.validation_errors import Unsupported, error_text
from gpu_worker.pipeline.execution.device_errors import Fault, classify
from tests.support.builders import tiny_dits, tiny_models
from tests.support.pipeline_bench import Bench, write_library
from tests.support.pipeline_jobs import ignore, job, settings
from tests.support.service import running

CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_words_that_are_no_utf8_can_be_sent() -> None:
    assert error_text(ValueError("a\udcff")) == "a\\udcff"


def test_a_file_whose_name_is_no_utf8_costs_the_worker_nothing(folder: Path) -> None:
    lora = folder / "models" / "odd"
    lora.mkdir(parents=True)
    for name in (b"a\xff.safetensors", b"b.safetensors"):
        (Path(os.fsdecode(os.fsencode(lora) + b"/" + name))).write_bytes(b"x")
    write_library(folder, loras={"odd": {"source": "odd"}})
    real = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
    with running(folder, "gateway", "gpu_worker", **real) as service:
        said = service.get("/server/models").json()
        assert said["loras"] == [] and "\\udcff" in said["errors"]["loras"]["odd"]
        record = service.result(service.submit("a red circle", num_inference_steps=1))
        assert record["errors"] == []


def test_a_source_that_is_no_name_is_told_and_what_was_goes_on(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    ours = pipeline.load(settings(tmp_path))
    write_library(tmp_path, loras={"nul": {"source": "a\u0000b"}})
    ours.refresh()
    assert "is not a file name" in ours.describe().model_dump()["errors"]["loras"]["nul"]
    (tmp_path / "models" / "models.toml").write_text("x = " + "[" * 100_000)
    ours.refresh()
    assert "models.toml" in ours.describe().model_dump()["models_error"]
    assert ours.generate(job(num_inference_steps=1), ignore)
    with pytest.raises(ModelsError, match="is not a file name"):
        locate(tmp_path, "a\0b")
    with pytest.raises(ModelsError):
        read(tmp_path / "models" / "models.toml")


def test_a_clients_words_do_not_make_a_lost_device() -> None:
    words = "could not create a primitive"
    ours = ValueError(f"negative_prompt: is not known (got {words!r})")
    assert classify(ours, CPU) is Fault.JOB
    wrapped = ModelsError("demo: cannot be loaded")
    wrapped.__cause__ = RuntimeError(words)
    assert classify(wrapped, CPU) is Fault.DEVICE


def test_a_family_without_strength_has_no_second_pass(tmp_path: Path) -> None:
    tiny_dits.kontext().save_pretrained(tmp_path / "models" / "kontext")
    bench = Bench(tmp_path, "kontext")
    seen: list[int] = []
    with pytest.raises(Unsupported, match=r"hires: .* does not take it"):
        bench.make(lambda step, *_: seen.append(step), hires={"upscaler": "lanczos"})
    assert seen == [], "nothing was drawn in vain"
    (said,) = [
        each for each in bench.ours.describe().model_dump()["models"].values() if each["loaded"]
    ]
    assert all("hires" not in fields for fields in said["takes_by_mode"].values())


def test_an_entry_that_changed_is_described_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny_models.build().save_pretrained(tmp_path / "models" / name)
    write_library(tmp_path, models={"a": {"source": "one"}})
    ours = pipeline.load(settings(tmp_path))
    ours.load("a")
    before = ours.described
    write_library(tmp_path, models={"a": {"source": "two"}})
    ours.refresh()
    assert (ours.loaded, ours.described) == (None, before + 1)
