"""`sde doctor`: an installation is explained, with what to do, whether the service runs or not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from gateway.access.keyring import Keyring
from gateway.access.principal import Scope
from gateway.doctor import admission, host, worker_probe
from gateway.doctor.finding import Finding, Report
from gateway.settings import GatewaySettings
from gpu_worker import host_memory
from gpu_worker.settings import load
from gpu_worker.store import exit_report
from tests.support.command import COMMAND, options, sde
from tests.support.service import ROOT, environment, eventually, free_port, running
from tests.support.stub_gateway import answering

JSON_TYPE = {"Content-Type": "application/json"}
REAL = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu"}
SECRET = {"HF_TOKEN": "hf_canary_12345678", "MY_PASSWORD": "canary-word"}


def doctor(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command with the settings of a service; it never shows a secret or a traceback."""
    settings = {"SDE_PORT": str(free_port())} | settings
    done = subprocess.run(
        [*COMMAND, "doctor", *arguments],
        cwd=ROOT,
        env={**options(""), **environment(folder, 1), **SECRET, **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "canary" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    return done


def findings(folder: Path, level: str, **settings: str) -> dict[str, str]:
    """The texts of a level, by what they are about; the exit code follows from the problems."""
    done = doctor(folder, "--json", **settings)
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["problems"] else 0), done.stdout
    assert all(each.keys() == {"level", "area", "text"} for each in report["findings"])
    return {each["area"]: each["text"] for each in report["findings"] if each["level"] == level}


def test_a_sound_installation_that_does_not_run(folder: Path) -> None:
    done = doctor(folder, **REAL)
    assert done.returncode == 0, done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert done.stdout.rstrip().splitlines()[-1].startswith("no problems, ")
    for words in ("python: 3.", "torch: torch 2.", "gpu-0: it computes on cpu", "is free, and"):
        assert words in done.stdout
    assert "SDE_MODEL=demo" in done.stdout
    assert list(folder.iterdir()) == []


def test_a_folder_that_does_not_exist_is_not_created(folder: Path) -> None:
    assert "will be created" in findings(folder / "new" / "data", "ok")["data folder"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SDE_PROT": "1"}, "unknown setting SDE_PROT (did you mean SDE_PORT?)"),
        ({"SDE_PORT": "x"}, "SDE_PORT='x': must be a whole number"),
        ({"SDE_GPUS": "0"}, "SDE_GPUS='0'"),
        ({"MACHINE_SIZE": "huge"}, "MACHINE_SIZE='huge'"),
        ({"SDE_LOG_FORMAT": "xml"}, "SDE_LOG_FORMAT='xml'"),
    ],
)
def test_a_wrong_setting(folder: Path, settings: dict[str, str], words: str) -> None:
    assert words in findings(folder, "problem", **settings)["settings"]


def test_a_socket_path_that_is_too_long(folder: Path) -> None:
    found = findings(folder / ("x" * 100), "problem")
    assert "choose a shorter SDE_DATA_DIR" in found["settings"]


def test_a_port_of_another_program(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = findings(folder, "problem", SDE_PORT=str(port))
    assert f"port {port} cannot be used" in found["address"] and "set SDE_PORT" in found["address"]


def test_an_address_that_is_nowhere(folder: Path) -> None:
    found = findings(folder, "problem", SDE_HOST="nope.invalid")
    assert "nope.invalid" in found["address"]
    assert "lets other machines in" in findings(folder, "warning", SDE_HOST="0.0.0.0")["address"]


def test_who_is_let_in(folder: Path) -> None:
    everywhere = {"SDE_HOST": "0.0.0.0"}
    assert "there is no key" in findings(folder, "warning", **everywhere)["address"]
    anonymous = findings(folder, "warning", **everywhere, SDE_ALLOW_ANONYMOUS="1")["address"]
    assert "admits everybody: use keys" in anonymous
    ring = Keyring(folder / "keys.json")
    ring.add("owner", list(Scope))
    fine = findings(folder, "ok", **everywhere)
    assert fine["keys"] == "1 key is valid"
    assert "address" not in findings(folder, "warning", **everywhere)
    assert "lets other machines in" in doctor(folder, **everywhere).stdout
    ring.revoke("owner")
    assert "sde key add NAME --admin" in findings(folder, "warning", **everywhere)["keys"]
    more = f"a:{'x' * 30},b:{'y' * 30}"
    assert findings(folder, "ok", SDE_KEYS=more)["keys"] == "2 keys are valid"


def test_a_name_of_loopback_lets_nobody_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: place)
    settings = load(GatewaySettings, {"SDE_HOST": "my-own-name", "SDE_DATA_DIR": str(folder)})
    assert [each.area for each in admission.check(settings)] == []


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ('{"version": 1, "keys": []}', 0o644, "chmod 600"),
        ('{"version": 1, "keys": [{}]}', 0o600, "is invalid: keys.0.name"),
        ('{"version": 2, "keys": []}', 0o600, "is from a newer version of this program"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used(folder: Path, text: str, mode: int, words: str) -> None:
    (folder / "keys.json").write_text(text)
    (folder / "keys.json").chmod(mode)
    text = findings(folder, "problem")["keys"]
    assert words in text and str(folder / "keys.json") in text and "no gateway starts" in text


def test_a_container_has_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "total_bytes", lambda: 2 << 30)
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 1 << 30)
    (found,) = [each for each in host.check() if each.area == "memory"]
    assert found.level == "warning" and "2.0 GiB of RAM, 1.0 GiB of it" in found.text


def test_a_file_in_place_of_the_folder(folder: Path) -> None:
    (folder / "data").write_text("")
    assert "is no directory" in findings(folder / "data", "problem")["data folder"]


def test_too_little_room(folder: Path) -> None:
    found = findings(folder, "problem", SDE_MIN_FREE_MIB="999999999")
    assert "free some space" in found["disk"]


def test_files_that_others_may_use(folder: Path) -> None:
    (folder / "journal").mkdir(mode=0o700)
    (folder / "journal" / "jobs.jsonl").touch(0o600)
    assert "this user's alone" in findings(folder, "ok")["permissions"]
    (folder / "journal" / "jobs.jsonl").chmod(0o644)
    found = findings(folder, "warning")["permissions"]
    assert "jobs.jsonl" in found and f"chmod -R go= '{folder}'" in found
    (folder / "models").mkdir()
    (folder / "models" / "open").touch(0o666)
    (folder / "journal" / "jobs.jsonl").chmod(0o600)
    (folder / "models").chmod(0o700)
    assert "permissions" not in findings(folder, "warning")
    (folder / "journal" / "link").symlink_to("jobs.jsonl")
    assert "link" in findings(folder, "warning")["permissions"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user(folder: Path) -> None:
    (folder / "jobs").touch(0o600)
    os.chown(folder / "jobs", 65534, 65534)
    assert "another user owns jobs" in findings(folder, "problem")["permissions"]


# ---- torch, GPU and models --------------------------------------------------------------------


def test_models_that_cannot_be_used(folder: Path) -> None:
    models = folder / "models"
    models.mkdir(mode=0o700)
    (models / "broken.safetensors").write_bytes(b"not weights")
    (models / "models.toml").write_text(
        '[models.one]\nsource = "broken.safetensors"\n'
        '[models.two]\nsource = "gone.safetensors"\n'
        '[loras.ink]\nsource = "ink.ckpt"\n'
    )
    done = doctor(folder, "--json", **REAL, SDE_MODEL="one")
    texts = {
        (each["level"], each["area"], each["text"]) for each in json.loads(done.stdout)["findings"]
    }
    assert done.returncode == 1
    for level, area, words in [
        ("problem", "model", "broken.safetensors"),
        ("warning", "model", "gone.safetensors"),
        ("warning", "models.toml", "ink"),
    ]:
        assert any(each[:2] == (level, area) and words in each[2] for each in texts), texts


def test_a_table_that_is_no_table_and_a_gpu_that_is_not_there(folder: Path) -> None:
    (folder / "models").mkdir(mode=0o700)
    (folder / "models" / "models.toml").write_text("[models")
    found = findings(folder, "problem", **{**REAL, "SDE_DEVICE": "cuda"})
    assert "correct the file" in found["models.toml"]
    assert "SDE_DEVICE=cuda" in found["gpu-0"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13"),
        ("import os; os.abort()", "ended by signal 6"),
        ("raise SystemExit(3)", "the check of torch and the GPU failed"),
        ("import time; time.sleep(600)", "has not ended in"),
    ],
)
def test_a_torch_that_cannot_be_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(source)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(worker_probe, "TIMEOUT_S", 2.0 if "sleep" in source else 60.0)
    environ = {**environment(folder, 1), **REAL, "PYTHONPATH": str(folder)}
    (found,) = worker_probe.check(environ, 1)
    assert (found.level, found.area) == ("problem", "torch") and words in found.text


def test_a_package_that_is_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"falcon": None, "orjson": "3.9.99", "diffusers": "0.42.1.dev0+x"}

    def version(name: str) -> str:
        if versions.get(name, "99") is None:
            raise metadata.PackageNotFoundError(name)
        return str(versions.get(name, "99"))

    monkeypatch.setattr(metadata, "version", version)
    found = [each.text for each in host.check() if each.level == "problem"]
    assert len(found) == 2 and host.lacks_packages()
    assert any(text.startswith("falcon is missing: pip install") for text in found)
    assert any(text.startswith("orjson 3.9.99 is older than 3.10") for text in found)


def test_a_server_and_a_client_of_two_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2" if name == "sde-client" else "99")
    assert any("install both from one release" in each.text for each in host.check())


def test_a_line_has_eighty_columns_and_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(str.upper, as_json=False)
    report.add([Finding("problem", "area", "a long sentence " * 20 + "/" + "x" * 200)])
    assert report.close() == 1
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines()) and "1 problem, no warn" in shown
    assert "A LONG SENTENCE" in shown


# ---- beside a service -------------------------------------------------------------------------


def test_a_service_that_runs_fails_and_stops(folder: Path) -> None:
    settings = {"SDE_PIPELINE": "tests.pipelines.cannot_start:load"}
    with running(folder, "supervisor", **settings) as service:
        port = {"SDE_PORT": str(service.port)}
        fine = findings(folder, "ok", **settings, **port)
        assert fine["gateway"].startswith(f"it answers at {service.url} (process ")
        assert fine["gpu-0"] == "idle" and "ING (" in fine["supervisord"]
        assert "problem" not in doctor(folder, **settings, **port).stdout.split("\n\n")[0]
        (folder / "vice").write_text("exit")
        service.processes("gpu_worker")[0].kill()
        eventually(
            lambda: service.get("/server/workers").json()[0]["state"] == "failed", "it failed"
        )
        found = findings(folder, "problem", **settings, **port)
        assert "libcuda.so.1" in found["gpu-0"] and "`sde logs gpu-0`" in found["gpu-0"]
        other = findings(folder, "warning", **settings)
        assert "runs and does not listen on" in other["address"]
        service.kill("supervisor", signal.SIGKILL)
        eventually(lambda: not service.processes(), "all have left")
        assert "does not run" in findings(folder, "ok", **settings, **port)["supervisord"]


def test_a_service_with_keys_is_no_blind_spot(folder: Path) -> None:
    """The reasons are in files, and with SDE_KEY the service itself is asked."""
    secret = Keyring(folder / "keys.json").add("owner", list(Scope))
    settings = {"SDE_PIPELINE": "tests.pipelines.fails_to_load:load"}
    with running(folder, "gateway", **settings) as service:
        service.start("gpu_worker")
        eventually((folder / "run" / "gpu-0.load_error").exists, "the reason is written")
        port = {"SDE_PORT": str(service.port)}
        assert "it cannot load" in findings(folder, "problem", **port)["gpu-0"]
        assert "needs a key" in findings(folder, "ok", **port)["gateway"]
        named = {**port, "SDE_KEY": secret}
        assert "answers at" in findings(folder, "ok", **named)["gateway"]
        assert "no such model, on purpose" in findings(folder, "problem", **named)["gpu-0"]
        for wrong in ("wrong" * 10, "canary-word"):
            found = findings(folder, "warning", **port, SDE_KEY=wrong)
            assert "refuses the key of SDE_KEY" in found["gateway"]
        (folder / "keys.json").write_text("{")
        found = findings(folder, "problem", **named)
        assert "is invalid" in found["keys"] and "it cannot load" in found["gpu-0"]
    (folder / "keys.json").unlink()
    assert "it cannot load" in findings(folder, "warning", **port)["gpu-0"]


def test_a_worker_that_ended_is_read_from_its_report(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    file = exit_report.path(folder / "run", "gpu-0")
    exit_report.write(file, exit_report.ExitReport("libcuda.so.1 is missing", code=1, failures=5))
    file.chmod(0o600)
    assert "libcuda.so.1 is missing" in findings(folder, "warning")["gpu-0"]
    Keyring(folder / "keys.json").add("owner", list(Scope))
    with running(folder, "gateway") as service:
        found = findings(folder, "problem", SDE_PORT=str(service.port))
    assert "libcuda.so.1 is missing" in found["gpu-0"]


def test_a_gateway_that_does_not_answer(folder: Path) -> None:
    with running(folder, "gateway") as service:
        service.children["gateway"].send_signal(signal.SIGSTOP)
        found = findings(folder, "problem", SDE_PORT=str(service.port))
        service.children["gateway"].send_signal(signal.SIGCONT)
        assert "does not answer at" in found["gateway"]


@pytest.mark.parametrize("path", ["/server/workers", "/server/storage"])
def test_a_gateway_that_answers_with_something_else(folder: Path, path: str) -> None:
    paths = ("/server/workers", "/server/storage")
    replies = {f"GET {each}": (200, JSON_TYPE, b"[]") for each in paths}
    replies[f"GET {path}"] = (200, JSON_TYPE, b"<html>")
    (folder / "run").mkdir(mode=0o700)
    (folder / "run" / "gateway.lock").write_text(f"{os.getpid()}\n")
    with answering(replies) as url:
        found = findings(folder, "problem", SDE_PORT=url.rpartition(":")[2])
    assert "does not answer at" in found["gateway"]


def test_the_command_needs_the_server() -> None:
    shown = sde("http://127.0.0.1:9", "doctor", "--help")
    assert shown.returncode == 0 and "--json" in shown.stdout
