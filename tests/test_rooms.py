"""The rooms of the house, read from the syntax trees: which folder may import from which."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.source_tree import modules

ARROWS: dict[str, set[str]] = {
    "gateway": {
        "gateway.access",
        "gateway.admission",
        "gateway.dialects",
        "gateway.dialects.openai",
        "gateway.events",
        "gateway.http",
        "gateway.http.server",
        "gateway.jobs",
        "gateway.monitoring",
        "gateway.openapi",
        "gateway.routes",
        "gateway.routes.gallery",
        "gateway.store",
        "gateway.store.gallery",
        "gateway.workers",
        "gpu_worker",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.access": {"gateway", "gpu_worker", "gpu_worker.store"},
    "gateway.admission": {
        "gateway",
        "gateway.store",
        "gpu_worker.contract",
        "gpu_worker.contract.fields",
    },
    "gateway.dialects": {
        "gateway",
        "gateway.dialects.automatic1111",
        "gateway.dialects.openai",
        "gateway.http",
        "gateway.jobs",
        "gpu_worker.store",
    },
    "gateway.dialects.automatic1111": {
        "gateway",
        "gateway.access",
        "gateway.admission",
        "gateway.dialects",
        "gateway.dialects.automatic1111.translation",
        "gateway.http",
        "gateway.jobs",
        "gateway.store",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.dialects.automatic1111.translation": {"gateway", "gpu_worker.contract"},
    "gateway.dialects.openai": {
        "gateway",
        "gateway.admission",
        "gateway.dialects",
        "gateway.dialects.openai.input",
        "gateway.http",
        "gateway.jobs",
        "gateway.routes",
        "gateway.store",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.dialects.openai.input": {
        "gateway",
        "gateway.admission",
        "gateway.http",
        "gateway.store",
        "gpu_worker.contract",
    },
    "gateway.doctor": {
        "gateway",
        "gateway.access",
        "gpu_worker",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.events": {"gateway.jobs", "gateway.store", "gpu_worker.store"},
    "gateway.fsck": {
        "gateway.store",
        "gateway.store.gallery",
        "gpu_worker",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.http": {
        "gateway",
        "gateway.access",
        "gateway.jobs",
        "gateway.store",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.http.server": {
        "gateway",
        "gateway.access",
        "gateway.http",
        "gateway.store",
        "gpu_worker.store",
    },
    "gateway.jobs": {
        "gateway",
        "gateway.admission",
        "gateway.store",
        "gateway.store.gallery",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.monitoring": {
        "gateway.jobs",
        "gateway.store",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.openapi": {
        "gateway",
        "gateway.admission",
        "gateway.http",
        "gateway.routes",
        "gateway.routes.gallery",
        "gateway.store.gallery",
        "gpu_worker.contract",
    },
    "gateway.routes": {
        "gateway",
        "gateway.access",
        "gateway.admission",
        "gateway.http",
        "gateway.jobs",
        "gateway.routes.gallery",
        "gateway.store",
        "gateway.store.gallery",
        "gateway.workers",
        "gpu_worker.contract",
        "gpu_worker.contract.fields",
        "gpu_worker.store",
    },
    "gateway.routes.gallery": {
        "gateway",
        "gateway.access",
        "gateway.events",
        "gateway.http",
        "gateway.jobs",
        "gateway.store",
        "gateway.store.gallery",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.store": {
        "gateway",
        "gateway.store.gallery",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gateway.store.gallery": {"gpu_worker.store"},
    "gateway.workers": {
        "gateway",
        "gateway.admission",
        "gateway.jobs",
        "gateway.store",
        "gpu_worker.contract",
        "gpu_worker.store",
    },
    "gpu_worker": {
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.control",
        "gpu_worker.output",
        "gpu_worker.store",
    },
    "gpu_worker.assets": {
        "gpu_worker",
        "gpu_worker.contract",
        "gpu_worker.contract.fields",
        "gpu_worker.store",
    },
    "gpu_worker.contract": {"gpu_worker.contract.fields"},
    "gpu_worker.contract.fields": {"gpu_worker.contract"},
    "gpu_worker.control": {
        "gpu_worker",
        "gpu_worker.contract",
        "gpu_worker.output",
        "gpu_worker.store",
    },
    "gpu_worker.demo_model": set(),
    "gpu_worker.model_configs": set(),
    "gpu_worker.output": {"gpu_worker", "gpu_worker.contract", "gpu_worker.store"},
    "gpu_worker.pipeline": {
        "gpu_worker",
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.output",
        "gpu_worker.pipeline.adapters",
        "gpu_worker.pipeline.capabilities",
        "gpu_worker.pipeline.execution",
        "gpu_worker.pipeline.inputs",
        "gpu_worker.pipeline.loading",
        "gpu_worker.pipeline.sampling",
        "gpu_worker.pipeline.schedulers",
        "gpu_worker.pipeline.upscaling",
    },
    "gpu_worker.pipeline.adapters": {
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.pipeline",
        "gpu_worker.pipeline.execution",
        "gpu_worker.pipeline.inputs",
        "gpu_worker.pipeline.loading",
    },
    "gpu_worker.pipeline.capabilities": {
        "gpu_worker",
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.contract.fields",
        "gpu_worker.pipeline",
        "gpu_worker.pipeline.execution",
        "gpu_worker.pipeline.loading",
        "gpu_worker.pipeline.schedulers",
    },
    "gpu_worker.pipeline.execution": {
        "gpu_worker",
        "gpu_worker.contract",
        "gpu_worker.contract.fields",
        "gpu_worker.pipeline",
    },
    "gpu_worker.pipeline.inputs": {
        "gpu_worker.contract",
        "gpu_worker.pipeline.loading",
        "gpu_worker.store",
    },
    "gpu_worker.pipeline.integrity": {"gpu_worker.contract", "gpu_worker.pipeline.execution"},
    "gpu_worker.pipeline.loading": {
        "gpu_worker",
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.model_configs",
        "gpu_worker.pipeline",
        "gpu_worker.pipeline.execution",
    },
    "gpu_worker.pipeline.sampling": {
        "gpu_worker",
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.pipeline",
        "gpu_worker.pipeline.execution",
        "gpu_worker.pipeline.inputs",
        "gpu_worker.pipeline.integrity",
        "gpu_worker.pipeline.loading",
    },
    "gpu_worker.pipeline.schedulers": {
        "gpu_worker.contract",
        "gpu_worker.pipeline",
        "gpu_worker.pipeline.inputs",
        "gpu_worker.pipeline.loading",
    },
    "gpu_worker.pipeline.upscaling": {
        "gpu_worker.assets",
        "gpu_worker.contract",
        "gpu_worker.pipeline.execution",
        "gpu_worker.pipeline.loading",
    },
    "gpu_worker.store": {"gpu_worker.contract"},
    "recipe": {"recipe.model", "recipe.training"},
    "recipe.images": set(),
    "recipe.model": {"recipe.images"},
    "recipe.training": {"recipe.images", "recipe.model"},
    "sde_client": {"sde_client.commands"},
    "sde_client.commands": {"sde_client", "sde_client.commands.service"},
    "sde_client.commands.service": {"sde_client", "sde_client.commands"},
}
"""A room, and the rooms of ours that its files import from, beside itself."""

MAX_FILES, MAX_FILE_LINES, MAX_BODY_LINES = 14, 350, 40


def room_of(module: str) -> str:
    """The folder that a module lies in."""
    return module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]


def imports_of(path: Path) -> Iterator[str]:
    """Our modules that a file imports, anywhere in it."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known:
                    yield inner
                elif node.module in known:
                    yield str(node.module)


@cache
def arrows() -> dict[str, set[str]]:
    """By module, the modules that it imports."""
    return {name: set(imports_of(path)) - {name} for name, path in modules().items()}


def test_each_room_is_in_the_table() -> None:
    assert {room_of(name) for name in modules()} == set(ARROWS)


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_from_its_own_neighbours_alone(room: str) -> None:
    found = {
        room_of(target)
        for name, targets in arrows().items()
        if room_of(name) == room
        for target in targets
    }
    assert found - {room} == ARROWS[room]


def test_the_gateway_knows_of_the_worker_what_both_share() -> None:
    shared = (
        *("gpu_worker.contract", "gpu_worker.store", "gpu_worker.settings"),
        "gpu_worker.host_memory",
    )
    foreign = {
        f"{name} -> {target}"
        for name, targets in arrows().items()
        for target in targets
        if name.startswith("gateway") and target.startswith("gpu_worker")
        if not target.startswith(shared)
    }
    assert foreign == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in sorted(arrows()[name]):
                visit(target, (*way, name))
            done.add(name)

    for name in modules():
        visit(name, ())


def test_no_room_is_crowded() -> None:
    rooms = itertools.groupby(sorted(modules(), key=room_of), key=room_of)
    crowded = {room: len(list(files)) for room, files in rooms}
    assert {room: count for room, count in crowded.items() if count > MAX_FILES} == {}


@pytest.mark.parametrize("name", modules())
def test_a_file_has_one_duty_and_says_it(name: str) -> None:
    path = modules()[name]
    text = path.read_text()
    assert text.startswith('"""') and len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            begins_with_words = ast.get_docstring(node) is not None
            body = node.body[1:] if begins_with_words else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= MAX_BODY_LINES, f"{path.name}: {node.name} has {lines} lines"
