"""The `sde` command as a person or a script runs it: real processes, exit codes, a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from sde_client import errors, records
from sde_client.commands import saving
from sde_client.commands.console import EXIT_CODES, exit_code
from sde_client.commands.rendering import plain

from tests.support.command import COMMAND, NEVER, options, sde
from tests.support.service import (
    DEADLINE_S,
    ROOT,
    Service,
    eventually,
    free_port,
    running,
    send_until_it_ends,
)
from tests.support.stored import store
from tests.support.stub_gateway import answering

SLOW, HELD = "tests.pipelines.slow:load", "tests.pipelines.held:load"


@pytest.fixture
def url(service: Service) -> str:
    service.wait_available()
    return service.url


def test_generate_saves_the_picture(url: str, tmp_path: Path) -> None:
    target = tmp_path / "fox.png"
    done = sde(url, "generate", "a fox", "--seed", "3", "--size", "128x64", "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{target}\t")
    assert target.read_bytes().startswith(b"\x89PNG")
    assert done.stdout.split("\t")[2] == "3" and "succeeded" in done.stderr


def test_without_a_name_the_file_is_named_by_uuid(url: str, tmp_path: Path) -> None:
    done = sde(url, "generate", "a fox", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (saved,) = tmp_path.iterdir()
    assert done.stdout.startswith(f"{saved.name}\t")
    assert sde(url, "show", saved.stem).returncode == 0


def test_no_wait_prints_the_uuid_and_save_fetches_it(
    url: str, service: Service, tmp_path: Path
) -> None:
    done = sde(url, "generate", "later [bold]not markup[/bold]", "--no-wait", "--steps", "2")
    uuid = done.stdout.strip()
    service.result(uuid)
    saved = sde(url, "save", uuid, "-o", "later.png", cwd=tmp_path)
    assert saved.returncode == 0 and (tmp_path / "later.png").stat().st_size
    shown = json.loads(sde(url, "show", uuid, "--json").stdout)
    assert shown["state"] == "succeeded" and shown["num_inference_steps"] == 2
    assert "prompt: later [bold]not markup[/bold]" in sde(url, "show", uuid).stdout
    line = sde(url, "list", "--limit", "1").stdout.rstrip("\n").split("\t")
    assert line[0] == uuid and line[2] == "succeeded" and line[-1].startswith("later [bold]")
    assert json.loads(sde(url, "list", "--limit", "1", "--json").stdout)[0]["uuid"] == uuid


def test_status_is_an_exit_code(url: str) -> None:
    done = sde(url, "status")
    assert done.returncode == 0
    assert done.stdout == "available\ngpu-0: idle (instant, cpu, tiny)\n"
    status = json.loads(sde(url, "status", "--json").stdout)
    assert status["is_available"] is True and status["workers"][0]["trouble"] is None
    assert status["storage"]["trouble"] is None and status["storage"]["damaged_lines"] == 0


def test_what_is_wrong_is_one_sentence(url: str, tmp_path: Path) -> None:
    cases = [
        (("generate", "a", "--steps", "0"), 64, "num_inference_steps"),
        (("generate", ""), 64, "prompt"),
        (("generate", "a", "--size", "63x64"), 64, "width"),
        (("generate", "a", "--size", "big"), 2, "big"),
        (("generate", "a", "--steps", "many"), 2, "--steps"),
        (("generate", "a", "--guidance", "nan"), 64, "guidance_scale: must be a finite"),
        (("generate", "a", "-o", str(tmp_path / "no" / "a.png")), 73, "does not exist"),
        (("generate", "a", "-o", str(tmp_path)), 73, "it is a directory"),
        (("show", NEVER), 66, NEVER),
        (("save", NEVER), 66, NEVER),
        (("show", "x"), 64, "not a uuid"),
        (("--url", "ftp://x", "status"), 64, "ftp://x"),
        (("--url", f"127.0.0.1:{free_port()}", "status"), 69, "Connection refused"),
        (("no-such-command",), 2, "no-such-command"),
        (("cancel", NEVER), 66, NEVER),
        (("cancel", "x"), 64, "not a uuid"),
        (("cancel",), 2, "Missing argument"),
        (("delete",), 2, "Missing argument"),
    ]
    for arguments, code, said in cases:
        done = sde(url, *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), (arguments, done)
        assert done.stdout == ""


def test_a_folder_that_is_missing_is_told_before_anything_is_accepted(
    url: str, service: Service
) -> None:
    before = len(service.lines())
    sde(url, "generate", "never run", "-o", "/no/such/folder/a.png")
    assert len(service.lines()) == before
    assert service.available()


def test_ctrl_c_leaves_the_job_running(folder: Path, tmp_path: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        child = subprocess.Popen(
            [*COMMAND, "generate", "long", "--steps", "2"],
            cwd=tmp_path,
            env=options(service.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert child.stderr is not None
        said = child.stderr.readline()
        send_until_it_ends(child, signal.SIGINT)
        out, rest = child.communicate()
        assert (child.returncode, out) == (130, "")
        assert "Traceback" not in said + rest
        uuid = rest.split()[-1]
        assert f"sde save {uuid};" in rest and f"sde cancel {uuid}\n" in rest
        assert sde(service.url, "status").returncode == 1
        service.release()
        fetched = sde(service.url, "save", uuid, cwd=tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert (tmp_path / f"{uuid}.png").stat().st_size


def test_busy_is_75_and_retry_waits(folder: Path, tmp_path: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        uuid = service.submit("first", num_inference_steps=2)
        service.wait_step(uuid)
        refused = sde(service.url, "generate", "second", "--no-queue")
        assert refused.returncode == 75 and "try again in" in refused.stderr
        retrying = subprocess.Popen(
            [*COMMAND, "generate", "second", "--no-queue", "--retry", "--steps", "2"],
            cwd=tmp_path,
            env=options(service.url),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert retrying.stderr is not None and "waiting" in retrying.stderr.readline()
        service.release()
        retrying.communicate(timeout=DEADLINE_S)
        assert retrying.returncode == 0
        assert [line["prompt"] for line in service.lines()] == ["first", "second"]


def test_jobs_shows_what_is_live_and_cancel_ends_it(folder: Path, tmp_path: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="5") as service:
        first, second = (service.submit(name, num_inference_steps=400) for name in ("1", "2"))
        service.wait_step(first)
        rows = [row.split("\t") for row in sde(service.url, "jobs").stdout.splitlines()]
        assert [(row[0], row[2], row[3]) for row in rows] == [
            (first, "running", ""),
            (second, "queued", "1"),
        ]
        assert rows[0][4].endswith("/400") and rows[1][5].endswith(" s")
        waiting = subprocess.Popen(
            [*COMMAND, "save", second],
            cwd=tmp_path,
            env=options(service.url),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None and "queued, position 1" in waiting.stderr.readline()
        done = sde(service.url, "cancel", second)
        assert (done.returncode, done.stdout) == (0, f"canceled {second}\n")
        _, said = waiting.communicate(timeout=DEADLINE_S)
        assert waiting.returncode == 70 and f"{second} was canceled" in said
        (listed,) = json.loads(sde(service.url, "jobs", "--json").stdout)
        assert (listed["uuid"], listed["state"]) == (first, "running")
        refused = sde(service.url, "delete", first)
        assert refused.returncode == 65 and "cancel it, or wait" in refused.stderr
        done = sde(service.url, "cancel", first)
        assert done.returncode == 0 and first in done.stdout
        service.result(first)
        assert sde(service.url, "jobs").stdout == ""
        again = sde(service.url, "cancel", first)
        assert (again.returncode, again.stdout) == (0, f"canceled {first}\n")
        states = [row.split("\t")[2] for row in sde(service.url, "list").stdout.splitlines()]
        assert states == ["canceled", "canceled"]


def test_cancel_of_what_is_over_is_65(url: str, service: Service) -> None:
    uuid = service.submit("over", num_inference_steps=1)
    service.result(uuid)
    done = sde(url, "cancel", uuid)
    assert done.returncode == 65 and "has succeeded already" in done.stderr


def test_delete_goes_on_after_what_fails(url: str, service: Service) -> None:
    uuids = []
    for prompt in ("one", "two"):
        service.wait_available()
        uuids.append(service.submit(prompt, num_inference_steps=1))
        service.result(uuids[-1])
    done = sde(url, "delete", uuids[0], NEVER, "x", uuids[1])
    assert done.returncode == 66
    assert done.stdout == f"deleted {uuids[0]}\ndeleted {uuids[1]}\n"
    assert f"{NEVER} was not deleted" in done.stderr and "x was not deleted" in done.stderr
    assert not {*uuids} & {row.split("\t")[0] for row in sde(url, "list").stdout.splitlines()}
    again = sde(url, "delete", *uuids)
    assert again.returncode == 66 and again.stderr.count("has been deleted") == 2
    assert sde(url, "show", uuids[0]).returncode == 66
    away = sde(f"127.0.0.1:{free_port()}", "delete", *uuids)
    assert away.returncode == 69 and away.stderr.count("cannot reach") == 1


def test_the_same_key_is_the_same_job(url: str, service: Service) -> None:
    service.wait_available()
    keyed = ("generate", "keyed", "--steps", "1", "--no-wait", "--key", "nightly 7")
    first = sde(url, *keyed).stdout.strip()
    service.result(first)
    assert sde(url, *keyed).stdout.strip() == first
    refused = sde(url, "generate", "other", "--no-wait", "--key", "nightly 7")
    assert refused.returncode == 65 and first in refused.stderr


def test_a_long_log_lists_its_newest_last_and_its_damage(folder: Path) -> None:
    oldest_first = store(folder, 1100)
    with running(folder, "gateway") as service:
        rows = [row.split("\t") for row in sde(service.url, "list").stdout.splitlines()]
        assert [row[0] for row in rows] == oldest_first[-20:]
        assert {row[2] for row in rows} == {"failed"}
        listed = json.loads(sde(service.url, "list", "--limit", "1050", "--json").stdout)
        assert [metadata["uuid"] for metadata in listed] == oldest_first[-1050:]
        done = sde(service.url, "status")
        assert (
            done.returncode == 1 and "storage: damaged lines that are skipped: 1\n" in done.stdout
        )


def test_a_full_disk_is_74_and_status_says_why(folder: Path) -> None:
    with running(folder, "gateway", SDE_MIN_FREE_MIB=str(1 << 40)) as service:
        refused = sde(service.url, "generate", "a")
        assert refused.returncode == 74 and "SDE_MIN_FREE_MIB" in refused.stderr
        done = sde(service.url, "status")
        assert done.returncode == 1 and "\nstorage: the disk has " in done.stdout


def test_a_failed_job_is_70(folder: Path, tmp_path: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.raises:load"
    ) as service:
        done = sde(service.url, "generate", "raise", cwd=tmp_path)
        assert done.returncode == 70 and "a fault on purpose" in done.stderr
        assert list(tmp_path.iterdir()) == []
        assert "failed" in sde(service.url, "list").stdout


def test_status_waits_for_a_gateway_that_is_not_there_yet(folder: Path) -> None:
    with running(folder) as service:
        child = subprocess.Popen(
            [*COMMAND, "status", "--wait", "60"], env=options(service.url), stdout=subprocess.PIPE
        )
        service.start("gateway")
        service.start("gpu_worker")
        out, _ = child.communicate(timeout=DEADLINE_S)
        assert child.returncode == 0 and out.startswith(b"available")


def test_a_terminal_gets_a_bar(folder: Path, tmp_path: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=SLOW) as service:
        master, slave = pty.openpty()
        child = subprocess.Popen(
            [*COMMAND, "generate", "a", "--steps", "20"],
            cwd=tmp_path,
            env={**options(service.url), "TERM": "xterm-256color", "COLUMNS": "120"},
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        shown = b""

        def ended() -> bool:
            nonlocal shown
            try:
                shown += os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                return True
            return False

        eventually(ended, "the command ends")
        os.close(master)
        assert child.wait(DEADLINE_S) == 0
        text = shown.decode()
        assert "20/20 steps" in text and "s left" in text and "━" in text


def test_a_hostile_server_does_not_steer_the_terminal() -> None:
    problem = b'{"detail": "\\u001b[2Jgone\\u0007"}'
    replies = {"POST /image/generate": (429, {"Content-Type": "application/json"}, problem)}
    with answering(replies) as url:
        done = sde(url, "generate", "a")
    assert done.returncode == 75
    assert "gone" in done.stderr and "\x1b" not in done.stderr and "\x07" not in done.stderr
    assert plain("a\x1b[31m\u202e\nb") == "a [31m  b"


def test_every_error_of_the_client_has_an_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, errors.SdeError)]
    codes = {kind: exit_code(kind.__new__(kind)) for kind in ours if kind is not errors.SdeError}
    assert len(codes) >= 15 and 1 not in codes.values() and len(set(codes.values())) >= 9
    assert codes[errors.GenerationCanceled] == EXIT_CODES[errors.GenerationFailed] == 70


def test_the_version_needs_no_server() -> None:
    assert sde("127.0.0.1:1", "--version").stdout.startswith("sde")


def test_ctrl_c_before_the_answer_says_how_to_ask_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        child = subprocess.Popen(
            [*COMMAND, "generate", "a fox"],
            cwd=ROOT,
            env=options(address),
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            sent = connection.recv(65536).decode()
            send_until_it_ends(child, signal.SIGINT)
            said = child.communicate()[1]
    key = next(line for line in sent.splitlines() if line.lower().startswith("idempotency-key:"))
    assert child.returncode == 130 and "Traceback" not in said
    assert f"--key {key.split(': ')[1]}" in said and "may have accepted the job" in said


def test_the_words_of_the_built_in_model_are_listed() -> None:
    models = {"demo": {"vocabulary": ["cat", "ice cream\x1b"]}, "other": {}}
    body = json.dumps({"default": "demo", "models": models}).encode()
    replies = {"GET /server/models": (200, {"Content-Type": "application/json"}, body)}
    with answering(replies) as url:
        done = sde(url, "models", "--words")
    assert (done.returncode, done.stdout) == (0, "cat\nice cream \n"), done.stderr


def test_a_records_warnings_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    warning = "The built-in model draws emoji. It does not know: lighthouse."
    record = {
        "uuid": "u", "prompt": "p", "created_time": "2026-01-01T00:00:00Z", "errors": [],
        "data": None, "warnings": [warning, "another"],
    }  # fmt: skip
    saving.say_warnings([records.result(record), records.result(record | {"warnings": None})])
    assert capsys.readouterr().err.splitlines() == [f"note: {warning}", "note: another"]
