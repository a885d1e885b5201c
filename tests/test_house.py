"""The laws that a file's imports and size can break, and documents that must name what is there."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sde_client import request_body
from sde_client.commands import console

from gateway.settings import GatewaySettings
from gpu_worker.contract.request import (
    ControlNet,
    GenerationRequest,
    IPAdapter,
    metadata_of,
)
from gpu_worker.settings import NAMES, WorkerSettings
from tests.support.service import ROOT
from tests.support.source_tree import PACKAGES

SOURCES = sorted(
    path for package, root in PACKAGES.items() for path in (root / package).rglob("*.py")
)

REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ImportError("refused by the test: " + name)
sys.meta_path.insert(0, Refuse())
import {modules}
"""


def imports_without(modules: str, refused: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = REFUSE.format(modules=modules, refused=refused)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


HEAVY = ("torch", "diffusers", "transformers", "accelerate", "numpy")


def test_the_gateway_needs_no_torch() -> None:
    done = imports_without("gateway.__main__", HEAVY)
    assert done.returncode == 0, done.stderr


def test_the_refusal_itself_works() -> None:
    done = imports_without("gpu_worker.pipeline", HEAVY)
    assert done.returncode == 1 and "refused by the test" in done.stderr


def test_the_client_needs_neither_server_nor_torch() -> None:
    refused = (*HEAVY, "PIL", "gateway", "gpu_worker", "zmq", "falcon", "pydantic", "orjson")
    done = imports_without("sde_client.commands.app", refused)
    assert done.returncode == 0, done.stderr


def test_the_workers_control_side_needs_no_torch() -> None:
    done = imports_without("gpu_worker.__main__", ("torch", "diffusers", "transformers"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*NAMES, "MACHINE_SIZE"])
def test_each_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs/operations.md").read_text()


def test_the_names_are_those_of_the_tables() -> None:
    fields = [*WorkerSettings.model_fields.values(), *GatewaySettings.model_fields.values()]
    known = {str(field.alias) for field in fields} | {"SDE_KEY", "SDE_URL", "SDE_PYTHON"}
    assert known == {
        *NAMES,
        "MACHINE_SIZE",
        "HF_HOME",
        "MKL_CBWR",
        "MKL_ENABLE_INSTRUCTIONS",
        "ONEDNN_MAX_CPU_ISA",
    }


def routes() -> list[str]:
    """Every path that the gateway adds, however the call is wrapped."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "gateway/app.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_route"
    ]
    return [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]


def test_each_route_is_documented() -> None:
    documented = (ROOT / "docs/http-api.md").read_text()
    assert len(routes()) >= 15 and "/image/jobs/{uuid}/inputs/{sha256}" in routes()
    assert [route for route in routes() if route not in documented] == []


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_a_page_has_short_lines_and_free_headings(path: Path) -> None:
    """The list of tests in security.md alone is wider, because their names are."""
    lines = path.read_text().splitlines()
    wide = [line for line in lines if len(line) > 120]
    assert [line for line in wide if path.name != "security.md" or "`tests/" not in line] == []
    before = itertools.pairwise(lines)
    assert [line for above, line in before if re.match("#+ ", line) and above] == []


def test_each_exit_code_of_the_command_is_documented() -> None:
    table = (ROOT / "docs/operations.md").read_text().partition("| exit code of `sde` |")[2]
    codes = set(re.findall(r"(?m)^\| (\d+) \|", table))
    own = {*console.EXIT_CODES.values(), console.INTERRUPTED, console.BROKEN_PIPE}
    assert {str(code) for code in (*own, console.CANNOT_WRITE, 0, 1, 2)} == codes


BANNED = frozenset(
    (
        *("asked", "begun", "done", "drawn", "facts", "found", "fresh", "given", "gone", "heard"),
        "kept",
        *("known", "lost", "made", "meant", "put", "said", "seen", "shown", "taken", "told"),
        *("wanted", "picture", "pictures", "intake", "removal", "ticket", "whereabouts", "wishes"),
    )
)
"""Identifiers that say nothing of the thing they name, or that another word replaced.

The glossary in docs/architecture.md has the words of the house. This list may only grow.
"""


def identifiers(path: Path) -> Iterator[str]:
    """Every name that a file itself gives to something."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.ExceptHandler(name=str(name)):
                yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_says_what_the_thing_is(path: Path) -> None:
    names = {name.lstrip("_").lower() for name in identifiers(path)}
    assert names & BANNED == set()


def imported_names(node: ast.AST) -> set[str]:
    """Every part of the dotted names in an import."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return set()
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    dotted = [module, *(alias.name for alias in node.names)]
    return {part for name in dotted for part in name.split(".")}


def test_no_test_file_imports_another() -> None:
    tests = list((ROOT / "tests").rglob("*.py"))
    importers = [
        str(path.relative_to(ROOT))
        for path in tests
        for node in ast.walk(ast.parse(path.read_text()))
        if any(name.startswith("test_") for name in imported_names(node))
    ]
    assert len(tests) > 80 and importers == []
    for line in (
        "import tests.gateway.test_results",
        "from tests.gateway import test_results",
        "from tests.gateway.test_results import read",
        "from .test_results import read",
    ):
        assert "test_results" in imported_names(ast.parse(line).body[0])


def test_the_client_knows_every_field_of_an_image() -> None:
    models = [GenerationRequest, ControlNet, IPAdapter]
    fields = {name for model in models for name in model.model_fields}
    images = {
        name
        for name in fields
        if any(name in model.model_fields and metadata_of(name, model).image for model in models)
    }
    assert images == set(request_body.IMAGE_FIELDS)
