"""The OpenAPI document: it has every route, and the service does what it says (schemathesis)."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from gateway.openapi.document import document
from gateway.openapi.operations import OPERATIONS
from tests.support.gateway_parts import Parts
from tests.support.service import running

KEY = "the-key-of-schemathesis"
EXCLUDED = (
    "positive_data_acceptance",  # rules between fields, and names that this model does not have
    "ignored_auth",  # ten wrong keys within a minute are answered 429; test_keys.py has the rest
)


def test_the_document_has_every_route_and_no_other(tmp_path: Path) -> None:
    for name in ("disk_backups", "inputs", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    app = Parts(tmp_path).app
    assert set(app.operations()) == set(OPERATIONS)


def test_a_server_that_is_not_installed_has_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    document.cache_clear()
    assert document()["info"]["version"] == "0"
    document.cache_clear()


def test_the_query_of_the_document_is_that_of_the_routes(tmp_path: Path) -> None:
    for name in ("disk_backups", "inputs", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    app = Parts(tmp_path).app
    for (method, path), resource in app.operations().items():
        names = getattr(resource, "query", {}).get(method, ())
        assert set(OPERATIONS[method, path].query) == set(names), f"{method} {path}"
        scope = getattr(resource, "scopes", {}).get(method, "generate")
        assert (OPERATIONS[method, path].scope or "generate") == scope


def test_images_are_base64_and_null_is_not_sent() -> None:
    schemas = document()["components"]["schemas"]
    text = json.dumps(schemas)
    assert "sha256" not in text and "contentEncoding" in text
    width = schemas["GenerationRequest"]["properties"]["width"]
    assert {"type": "null"} in width["anyOf"]
    assert "anyOf" not in schemas["GenerationRequest"]["properties"]["prompt"]


@pytest.mark.timeout(600)
def test_the_service_does_what_the_document_says(folder: Path) -> None:
    settings = {
        "SDE_PIPELINE": "tests.pipelines.describes:load",
        "SDE_QUEUE_SIZE": "64",
        "SDE_KEYS": f"tester:{KEY}",
        "SDE_KEY": KEY,
    }
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        command = [
            str(Path(sys.executable).parent / "schemathesis"),
            *("run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
            *("--checks", "all", "--exclude-checks", ",".join(EXCLUDED)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "25"),
            *("--exclude-path-regex", "events$", "--seed", "1", "--no-color"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
        assert " 500" not in done.stdout and "Traceback" not in service.output()
