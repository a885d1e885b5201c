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

from gpu_worker.assets import model_library, pull
from tests.support.builders import tiny_models
from tests.support.service import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LARGE = "large/model.safetensors"
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
    (folder / "large").mkdir()
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
        (("owner/tiny", "--variant", "int4"), 65, ""),
    ):
        done = sde_pull(hub, tmp_path, *given)
        if said:
            assert done.returncode == code and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    nowhere = "http://no-such-host.invalid"
    done = sde_pull(nowhere, tmp_path, "owner/tiny")
    assert done.returncode == 69, done.stderr
    assert done.stderr.startswith(f"sde: owner/tiny: the hub at {nowhere} cannot be used: ")


def test_the_files_of_a_pipeline_are_chosen() -> None:
    files = ["model_index.json", "unet/a.safetensors", "unet/a.fp16.safetensors", "unet/x.bin"]
    files += ["vae/b.safetensors", "tokenizer/vocab.json", "big.safetensors", "run.py"]
    plain = ["model_index.json", "tokenizer/vocab.json", "unet/a.safetensors", "vae/b.safetensors"]
    assert pull.select_files(files, None) == plain
    assert "unet/a.fp16.safetensors" in pull.select_files(files, "fp16")
    assert "unet/a.safetensors" not in pull.select_files(files, "fp16")
    with pytest.raises(pull.NoModelFound, match=r"no model_index\.json"):
        pull.select_files(["a.safetensors"], None)
    with pytest.raises(pull.NoModelFound, match=r"no \.safetensors weights"):
        pull.select_files(["model_index.json", "unet/x.bin"], None)
