"""`sde pull` against a small server that speaks the hub's API: what is fetched and recorded."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpu_worker import pipeline
from gpu_worker.assets import model_library
from tests.support.builders import tiny_models
from tests.support.pipeline_jobs import job, settings
from tests.support.service import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LARGE = "tokenizer/large.jinja"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPERATORS_OWN = '# mine\n[loras.ink]   # keep\nsource = "ink.safetensors"\n'


class Hub(ThreadingHTTPServer):
    """One repository, `owner/tiny`. `breaks`: file names whose first download is broken off."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        self.breaks: set[str] = set()
        self.ranges: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._file(with_body=False)

    def do_GET(self) -> None:
        if not self.path.startswith("/api/models/"):
            self._file(with_body=True)
            return
        if not self.path.startswith("/api/models/owner/tiny"):
            self._say(404, b'{"error": "no such repository"}', {})
            return
        if "/tree/" in self.path:
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for name, content in self.server.files.items()
            ]
            self._say(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
            return
        siblings = [{"rfilename": name} for name in self.server.files]
        about = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
        self._say(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _file(self, with_body: bool) -> None:
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        content = self.server.files.get(name)
        if content is None:
            self._say(404, b"", {})
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        begin = 0
        if asked := self.headers.get("Range"):
            self.server.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        body = content[begin:] if with_body else b""
        breaks = with_body and name in self.server.breaks
        self._say(206 if begin else 200, body, headers, len(content) - begin, breaks)
        self.server.breaks -= {name} if breaks else set()

    def _say(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        length: int | None = None,
        breaks: bool = False,
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if breaks else body)
        if breaks:
            self.close_connection = True


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as people upload it: with pickles, code and other variants beside it."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    tiny_models.build().save_pretrained(folder)
    for name in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ):
        (folder / name).write_bytes(b"x")
    for name in ("pipeline.py", "v1-5.ckpt", "v1-5.safetensors", "README.md"):
        (folder / name).write_bytes(b"x")
    # The library writes 10 MB at a time: less than that is never half there.
    (folder / "vae_of_old").mkdir()
    (folder / "vae_of_old" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    (folder / LARGE).write_bytes(bytes(range(256)) * (36 << 12))
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with Hub(repository) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def sde_pull(hub: Hub | str, data: Path, *given: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SDE_", "HF_"))}
    return subprocess.run(
        [sys.executable, "-m", "sde_client", "pull", *given],
        env={
            **kept,
            "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
            "SDE_DATA_DIR": str(data),
            "HF_HOME": str(data / "hf"),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_model_is_fetched_pinned_and_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.toml").write_text(OPERATORS_OWN)
    done = sde_pull(hub, tmp_path, "owner/tiny", "--revision", "main")
    assert done.returncode == 0, done.stderr
    assert COMMIT in done.stdout
    folder = tmp_path / "models" / "tiny"
    fetched = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    fetched = {name for name in fetched if not name.startswith(".cache")}
    assert "unet/diffusion_pytorch_model.safetensors" in fetched
    assert not [name for name in fetched if name.endswith((".bin", ".py", ".ckpt", ".md"))]
    assert not [name for name in fetched if "fp16" in name or name == "v1-5.safetensors"]
    assert not [name for name in fetched if name.startswith("vae_of_old")], "no part of the index"
    text = (tmp_path / "models" / "models.toml").read_text()
    assert text.startswith(OPERATORS_OWN)
    found = model_library.read(tmp_path / "models" / "models.toml").models["tiny"]
    assert (found.source, found.revision) == ("tiny", COMMIT)
    again = sde_pull(hub, tmp_path, "owner/tiny", "--name", "other")
    assert again.returncode == 0
    assert set(model_library.read(tmp_path / "models" / "models.toml").models) == {"tiny", "other"}


def test_a_download_that_broke_off_goes_on(hub: Hub, tmp_path: Path, repository: Path) -> None:
    hub.breaks = {LARGE}
    first = sde_pull(hub, tmp_path, "owner/tiny")
    if first.returncode:
        assert not (tmp_path / "models" / "models.toml").exists(), "named only when it is whole"
        second = sde_pull(hub, tmp_path, "owner/tiny")
        assert second.returncode == 0, second.stderr
    assert any(not asked.startswith("bytes=0-") for asked in hub.ranges), "resumed, not begun anew"
    fetched = (tmp_path / "models" / "tiny" / LARGE).read_bytes()
    assert fetched == (repository / LARGE).read_bytes()


def test_what_cannot_be_pulled_is_a_sentence(hub: Hub, tmp_path: Path) -> None:
    for given, code, said in (
        (("owner/other",), 69, "owner/other"),
        (("no-id",), 65, "is not a hub id"),
        (("owner/tiny", "--name", "../x"), 65, "--name"),
        (("owner/tiny", "--variant", "int4"), 65, "has no .safetensors weights of int4"),
    ):
        done = sde_pull(hub, tmp_path, *given)
        assert done.returncode == code and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists(), "a refusal leaves nothing"


def test_a_part_in_fp16_alone_is_fetched_and_loads(hub: Hub, tmp_path: Path) -> None:
    plain = "unet/diffusion_pytorch_model.safetensors"
    hub.files[plain.replace(".safetensors", ".fp16.safetensors")] = hub.files.pop(plain)
    done = sde_pull(hub, tmp_path, "owner/tiny")
    assert done.returncode == 0, done.stderr
    entry = model_library.read(tmp_path / "models" / "models.toml").models["tiny"]
    assert entry.variant == "fp16"
    ours = pipeline.load(settings(tmp_path))
    assert ours.describe().models["tiny"].error is None
    assert len(ours.generate(job(model="tiny"), lambda *_: None)) == 1


def test_a_part_without_weights_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    del hub.files["vae/diffusion_pytorch_model.safetensors"]
    done = sde_pull(hub, tmp_path, "owner/tiny")
    assert done.returncode == 65 and "its vae has no .safetensors weights" in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    nowhere = "http://no-such-host.invalid"
    done = sde_pull(nowhere, tmp_path, "owner/tiny")
    assert done.returncode == 69, done.stderr
    assert done.stderr.startswith(f"sde: owner/tiny: the hub at {nowhere} cannot be used: ")


def test_a_worker_does_not_ask_the_hub_and_names_the_command(hub: Hub, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.load_model", str(tmp_path), "owner/tiny"],
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "a worker downloads nothing: run `sde pull owner/tiny`" in done.stderr
