"""Settings: what is wrong stops the process at once, with a sentence that lists what is allowed."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from gpu_worker.contract import protocol
from gpu_worker.settings import Settings, SettingsError, WorkerSettings, load
from tests.support.service import LEAK, run_module


def test_an_empty_environment_gives_the_defaults() -> None:
    worker, gateway = load(WorkerSettings, {}), load(GatewaySettings, {})
    assert (worker.model, worker.device, worker.machine_size, worker.gpus) == (
        "demo",
        "auto",
        None,
        1,
    )
    assert (gateway.host, gateway.port, gateway.queue_size) == ("127.0.0.1", 9090, 64)
    assert worker.data_dir == gateway.data_dir == Path("data").absolute()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MACHINE_SIZE", "huge", "'big', 'medium', 'little' or 'tiny'"),
        ("MACHINE_SIZE", "", "'big', 'medium', 'little' or 'tiny'"),
        ("SDE_DEVICE", "gpu", "'auto', 'cpu', 'cuda' or 'mps'"),
        ("SDE_PIPELINE", "no-colon", "must be a module and a function, as MODULE:NAME"),
        ("SDE_MODEL", "", "must not be empty"),
        ("SDE_STEP_TIMEOUT_S", "0", "greater than 0"),
        ("SDE_STEP_TIMEOUT_S", "nan", "SDE_STEP_TIMEOUT_S"),
        ("SDE_GPUS", "0", "must be at least 1"),
        ("SDE_ALLOW_ANONYMOUS", "yess", "SDE_ALLOW_ANONYMOUS='yess': must be 0 or 1 (1 admits"),
        ("SDE_MAX_MPIX_STEPS", "nan", "SDE_MAX_MPIX_STEPS='nan': must be"),
        ("SDE_MAX_MPIX_STEPS", "inf", "must be a finite number"),
        ("SDE_MAX_MPIX", "many", "must be a number"),
        ("SDE_PATH_PREFIX", "sd", "must be a path of plain words, such as /sd"),
        ("SDE_GPUS", "one", "must be a whole number"),
        ("SDE_GPUS", "2.0", "must be a whole number"),
        ("SDE_GPUS", "1_0", "must be a whole number"),
        ("SDE_PROT", "1", "did you mean SDE_PORT?"),
    ],
)
@pytest.mark.parametrize("module", ["gpu_worker", "gateway"])
def test_a_bad_value_stops_the_process(module: str, name: str, value: str, said: str) -> None:
    table = WorkerSettings if module == "gpu_worker" else GatewaySettings
    aliases = {str(field.alias) for field in table.model_fields.values()}
    if name not in aliases and name != "SDE_PROT":
        assert load(table, {name: value})  # another process's setting is not ours to judge
        return
    with pytest.raises(SettingsError) as caught:
        load(table, {name: value})
    assert name in str(caught.value) and said in str(caught.value)


ODD_VALUES = (
    *("", "x", "yess", "nan", "-inf", "inf", "1e999", "-1", "0", "1.5", "9" * 5000, "x" * 5000),
    *("\udcff", "a b", "tcp://x:1", "..", "*", "é:x", ":", ",", "/" * 300, "true", "none"),
)


@pytest.mark.parametrize(
    "table", [WorkerSettings, GatewaySettings], ids=lambda table: table.__name__
)
def test_each_refusal_is_a_plain_sentence(table: type[Settings]) -> None:
    refused = set()
    for field in table.model_fields.values():
        for value in ODD_VALUES:
            try:
                load(table, {str(field.alias): value})
            except SettingsError as error:
                text = str(error)
                refused.add(field.alias)
                assert text.startswith(f"{field.alias}="), text
                assert not LEAK.search(text) and "nable to" not in text and ": Input" not in text
                assert (
                    re.search(r": (must|is|entry|'.* is not) ?", text)
                    and "1 characters" not in text
                )
                assert text.endswith(f" ({field.description})") and len(text) < 400, text
    assert len(refused) >= len(table.model_fields) - 6


@pytest.mark.parametrize("module", ["gpu_worker", "gateway"])
def test_the_process_says_so_in_one_sentence(module: str, folder: Path) -> None:
    done = run_module(folder, module, timeout_s=30, SDE_QUEUE="5")
    assert done.returncode == 78
    assert "unknown setting SDE_QUEUE (did you mean SDE_QUEUE_SIZE?)" in done.stderr
    assert "Traceback" not in done.stderr


def start(folder: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A process that does not stay; what it says is no traceback."""
    done = run_module(folder, *command, timeout_s=30, **settings)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_port_that_is_taken_is_told(folder: Path, check: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = start(folder, "gateway", *check, SDE_PORT=port)
    assert done.returncode == 69
    assert f"SDE_PORT={port}: Address already in use" in done.stderr


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_host_that_is_not_there_is_told(folder: Path, check: list[str]) -> None:
    done = start(folder, "gateway", *check, SDE_HOST="nope.invalid")
    assert done.returncode == 69
    assert "SDE_HOST=nope.invalid" in done.stderr and "the host name has no address" in done.stderr


def test_a_check_prints_the_address(folder: Path) -> None:
    done = start(folder, "gateway", "--check", SDE_PORT="9191")
    assert (done.returncode, done.stdout) == (0, "http://127.0.0.1:9191\n")
    assert load(GatewaySettings, {"SDE_HOST": "::1"}).url == "http://[::1]:9090"


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.x]", "models.x.source: is required"),
        ('[models.x]\nsource = "a"\nsubfolder = "b"', "models.x.subfolder: is not a known field"),
        ('[models.x]\nsource = "a"\ntoken = "b"', "models.x.token: is not a known field"),
        ('[models.x]\nsource = "a"\nweight_name = "b"', "models.x.weight_name"),
        ('[vaes.x]\nsource = "a"\nweight_name = "b"', "vaes.x.weight_name"),
        ('[upscalers.x]\nsource = "a"\nrevision = "b"', "upscalers.x.revision"),
        (
            '[models.x]\nsource = "a"\ndefaults = { num_inference_steps = "5" }',
            "models.x.defaults.num_inference_steps: must be a whole number (got '5')",
        ),
        (
            '[models.x]\nsource = "a"\ndefaults = { guidance_scale = true }',
            "models.x.defaults.guidance_scale: must be a number (got True)",
        ),
    ],
)
def test_a_bad_models_toml_is_told(folder: Path, text: str, said: str, check: list[str]) -> None:
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "models.toml").write_text(text)
    done = start(folder, "gpu_worker", *check)
    assert done.returncode == 78, done.stderr
    assert f"{folder / 'models' / 'models.toml'}: {said}" in done.stderr


def test_a_folder_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / "run").write_text("in the way")
    done = start(folder, "gateway", "--check")
    assert done.returncode == 73 and f"SDE_DATA_DIR={folder}" in done.stderr


@pytest.mark.parametrize("module", ["nope", "nope.nope", "tests.pipelines.nope"])
def test_a_pipeline_that_is_not_there_is_told(folder: Path, module: str) -> None:
    done = start(folder, "gpu_worker", SDE_PIPELINE=f"{module}:load")
    assert done.returncode == 78
    assert f"SDE_PIPELINE='{module}:load': the module {module} does not exist" in done.stderr


def test_a_socket_path_that_is_too_long_is_told() -> None:
    with pytest.raises(ValueError, match="shorter SDE_DATA_DIR"):
        protocol.endpoint(Path("/" + "x" * 120), 0)


def test_hf_home_is_honoured_when_it_is_set() -> None:
    assert load(WorkerSettings, {"HF_HOME": "/elsewhere"}).cache_dir is None
    for unset in ({}, {"HF_HOME": ""}):
        found = load(WorkerSettings, {"SDE_DATA_DIR": "/data", **unset}).cache_dir
        assert found == "/data/model_cache"
