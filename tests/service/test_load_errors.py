"""Why a model cannot be loaded is told where people look, and stays there over restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpu_worker.control.load_error import LoadError
from tests.support.command import sde
from tests.support.service import DEADLINE_S, eventually, run_module, running

REAL = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
BROKEN = {"SDE_MODEL": "broken"}


def break_a_model(folder: Path) -> None:
    """A model that looks complete before the start, and cannot be loaded."""
    weights = folder / "models" / "broken" / "unet"
    weights.mkdir(parents=True)
    parts = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (weights.parent / "model_index.json").write_text(json.dumps(parts))
    (weights / "config.json").write_text("{}")
    (weights / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    (folder / "models" / "models.toml").write_text('[models.broken]\nsource = "broken"\n')


def test_the_reason_is_in_status_answer_and_command_until_the_next_attempt(folder: Path) -> None:
    break_a_model(folder)
    with running(folder, **REAL, **BROKEN) as service:
        service.start("supervisor")
        service.wait_answering()

        def load_error() -> str:
            (worker,) = service.get("/server/workers").json()
            return worker.get("load_error") or ""

        reason = eventually(load_error, "the status names the error")
        assert reason.startswith("broken: ") and str(folder) not in reason
        refused = service.post({"prompt": "a"})
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 5
        assert "no worker could load its model: broken" in refused.json()["detail"]
        status = sde(service.url, "status")
        assert status.returncode == 1 and "gpu-0: cannot load broken" in status.stdout
        shown = folder / "supervisor.out"
        eventually(
            lambda: "The model cannot be loaded: broken" in shown.read_text(),
            "the terminal names it",
        )
        (worker,) = service.processes("gpu_worker")
        worker.kill()
        eventually(lambda: service.processes("gpu_worker") not in ([], [worker]), "a new worker")
        assert eventually(load_error, "the new one names it too").startswith("broken")
    # Another service with the same error shows it in its own terminal, too.
    with running(folder, **REAL, **BROKEN) as service:
        before = shown.stat().st_size
        service.start("supervisor")
        eventually(
            lambda: b"The model cannot be loaded: broken" in shown.read_bytes()[before:],
            "the terminal names it again",
        )


def test_the_reason_is_kept_for_its_own_model_until_it_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.load_error"
    reason = LoadError(path, "one").write(ValueError(f"cannot read {tmp_path}/a.safetensors"))
    assert reason == "one: cannot read a.safetensors"
    assert LoadError(path, "one").read() == reason
    assert LoadError(path, "other").read() is None
    LoadError(path, "one").clear()
    assert LoadError(path, "one").read() is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("/no/such/folder", "is not demo, a name in models.toml"),
        ("model.safetensors", "the file does not exist"),
        ("model.ckpt", "is not demo"),
        ("a word", "is not demo"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(
    tmp_path: Path, model: str, reason: str
) -> None:
    done = run_module(
        tmp_path, "gpu_worker", "--check", timeout_s=DEADLINE_S, SDE_MODEL=model, **REAL
    )
    assert done.returncode == 78 and f"SDE_MODEL={model}: {reason}" in done.stderr
