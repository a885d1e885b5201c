"""Row 57: a secret of the environment is in no log, file, answer, picture or command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.access import keys
from gpu_worker.store.log_format import SecretFilter
from tests.support.command import sde
from tests.support.service import ROOT, Service, environment, eventually, running

CANARY = "canary-7f3a9c-secret"
SECRETS = {
    "HF_TOKEN": f"hf_{CANARY}",
    "HUGGING_FACE_HUB_TOKEN": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "DATABASE_PASSWORD": CANARY,
    "HTTPS_PROXY": f"http://user:{CANARY}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}
ROUTES = (
    *("/server/status", "/server/workers", "/server/storage", "/server/models", "/metrics"),
    *("/healthz", "/readyz", "/image/jobs", "/image/generate", "/nowhere"),
)


def assert_nowhere(service: Service, *texts: str) -> None:
    """The canary is in no file below the data folder, no answer and no command line."""
    for path in service.data_dir.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    for route in ROUTES:
        reply = service.get(route)
        assert CANARY not in reply.text + str(reply.headers), route
    for process in service.processes():
        assert CANARY not in " ".join(process.cmdline())
    assert all(CANARY not in text for text in texts)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_service_with_its_jobs(folder: Path, form: str) -> None:
    settings = {"SDE_PIPELINE": "tests.pipelines.raises:load", "SDE_LOG_FORMAT": form}
    with running(folder, "supervisor", **SECRETS, **settings) as service:
        service.result(service.submit("raise"))
        service.wait_available()
        uuid = service.submit("fine")
        service.result(uuid)
        headers = {"Authorization": f"Bearer {CANARY}", "Cookie": f"key={CANARY}"}
        refused = service.post({"prompt": "a", "width": 3}, headers=headers)
        picture = service.get(f"/image/files/{uuid}.png").content
        assert CANARY.encode() not in picture
        service.processes("gpu_worker")[0].kill()
        eventually(lambda: "starts again" in service.output(), "the launcher's line")
        assert_nowhere(service, refused.text, service.output())


def test_a_worker_whose_end_shows_the_secret(folder: Path) -> None:
    """A library may print anything. Its last words become the reason of the worker's end."""
    with running(folder, SDE_PIPELINE="tests.pipelines.prints_token:load", **SECRETS) as service:
        service.start("supervisor")
        service.wait_answering()
        eventually(
            lambda: service.get("/server/workers").json()[0]["state"] == "failed", "it failed"
        )
        (worker,) = service.get("/server/workers").json()
        assert "the token is ***" in worker["last_error"]
        assert_nowhere(service, sde(service.url, "status").stdout, service.output())


def test_supervisord_shows_names_of_the_environment_at_most(folder: Path) -> None:
    """It prints what it could expand when a variable of its file is missing."""
    (folder / "run").mkdir()
    environ = {**environment(folder, 1), **SECRETS}
    environ.pop("SDE_GPUS", None)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "supervisor.supervisord",
            "-n",
            "-c",
            str(ROOT / "supervisord.conf"),
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0 and "SDE_GPUS" in done.stderr + done.stdout
    assert CANARY not in done.stderr + done.stdout


@pytest.mark.parametrize("module", ["gateway", "gpu_worker", "gateway.doctor"])
def test_an_invalid_setting_shows_no_secret(folder: Path, module: str) -> None:
    environ = {**environment(folder, 1), **SECRETS, "SDE_PORT": CANARY, "SDE_GPUS": f"x{CANARY}"}
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (1, os.EX_CONFIG) and "SDE_GPUS=" in done.stderr + done.stdout
    assert CANARY not in done.stderr + done.stdout


# ---- what a worker prints ---------------------------------------------------------------------

KEY = "sde_" + "Kj8-_x" * 7
RING = f"me:{CANARY}-of-the-first-key,phone:{CANARY}-of-the-second:generate, tv : {CANARY}-third"
PEM = f"-----BEGIN KEY-----\n{CANARY}-line-1\n{CANARY}-line-2\n-----END KEY-----"

LAUNCH = """
import os, signal, sys
from pathlib import Path
from gpu_worker.launcher import Launcher
launcher = Launcher([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), os.environ)
os.set_blocking(launcher._wake_writer, False)
signal.set_wakeup_fd(launcher._wake_writer)
signal.signal(signal.SIGCHLD, lambda *_: None)
sys.stdout.write(launcher._run_child().decode())
"""


def printed(folder: Path, code: str, **secrets: str) -> str:
    """All that the launcher forwards of a worker that runs this code, and its tail."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, f"import os, sys\n{code}", str(folder / "report")],
        cwd=ROOT,
        env={**environment(folder, 1), **SECRETS, **secrets},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_secret_that_a_worker_prints_is_hidden(folder: Path, stream: str) -> None:
    """A pipeline's print() goes to stdout, and both are in gpu-N.log."""
    text = printed(folder, f"print('the token', os.environ['HF_TOKEN'], 'ends', file=sys.{stream})")
    assert "the token *** ends" in text and CANARY not in text


def test_what_a_worker_prints_to_stdout_is_not_why_it_ended(folder: Path) -> None:
    code = "print('loaded')\nsys.exit('the driver is too old')"
    text = printed(folder, code)
    assert "loaded" in text
    assert text.startswith("the driver is too old")


@pytest.mark.parametrize("before", [8192 - 5, 8192, 20_000])
@pytest.mark.parametrize("pause", [0, 10])
@pytest.mark.parametrize("secret", ["os.environ['HUGGING_FACE_HUB_TOKEN']", repr(KEY)])
def test_a_long_line_is_not_cut_in_a_secret(
    folder: Path, before: int, pause: int, secret: str
) -> None:
    """It is forwarded in parts, and the second part of a secret has no form."""
    code = f"""
import time
def write(text):
    sys.stderr.write(text)
    sys.stderr.flush()
    time.sleep(0.1)
secret = {secret}
write("x" * {before} + " " + secret[:{pause}])
write(secret[{pause}:] + " after")
write("y" * 9000)
"""
    text = printed(folder, code)
    assert text.count("x" * before) >= 1 and " after" in text
    for begin in range(len(CANARY) - 8):
        assert CANARY[begin : begin + 8] not in text
    assert KEY[20:30] not in text and KEY[-10:] not in text


def test_a_long_line_without_secrets_comes_through(folder: Path) -> None:
    text = printed(folder, "sys.stderr.write('\u00e9' * 100_000)")
    assert text.count("\u00e9") >= 100_000


def test_a_worker_has_no_keys_of_the_service(folder: Path) -> None:
    code = "print(sorted(name for name in os.environ if name.startswith('SDE_KEY')), 'are there')"
    assert "[] are there" in printed(folder, code, SDE_KEYS=RING, SDE_KEY=KEY)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"SDE_KEYS": RING}, RING),
        *(
            ({"SDE_KEYS": RING}, f"the key {CANARY}{end}")
            for end in ("-of-the-first-key", "-third")
        ),
        ({"SDE_KEYS": RING}, f"Key({CANARY}-of-the-second)"),
        ({}, f"a key {KEY}, new"),
        ({}, f"'line\\n{KEY}'"),
        ({"SSH_KEY": PEM}, PEM),
        *(({"SSH_KEY": PEM}, line) for line in PEM.splitlines()),
    ],
)
def test_each_secret_of_a_list_is_hidden(environ: dict[str, str], text: str) -> None:
    hidden = SecretFilter(environ)(text)
    assert CANARY not in hidden and KEY not in hidden and "***" in hidden


def test_a_log_of_the_service_hides_its_own_keys() -> None:
    """The names of its tables, files and folders have another form, and its key is no word."""
    hide = SecretFilter({"SDE_KEYS": RING})
    assert hide("me and phone: sde_client, sde-4f7x, sde_results") == (
        "me and phone: sde_client, sde-4f7x, sde_results"
    )
    assert hide(keys.new_secret()) == "***"
