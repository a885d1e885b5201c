"""What is installed: pins with hashes, licences that are listed, and safe versions (row 61)."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import licenses
from tests.support.service import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SAFE = {"waitress": "3.0.2", "pillow": "12", "pyzmq": "26", "requests": "2.32.4"}
"""The first versions without the faults that reliability depends on."""


def locked() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in licenses.pins()}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_lock_and_the_constraints_agree() -> None:
    lock, pins = locked(), constraints()
    assert {name for name in lock.keys() & pins.keys() if lock[name] != pins[name]} == set()


def test_the_lock_has_all_that_gateway_and_worker_need() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = {canonicalize_name(Requirement(each).name) for each in extras["gateway"]}
    needed |= {canonicalize_name(Requirement(each).name) for each in extras["worker"]}
    assert needed - {"torch"} <= locked().keys()


def test_each_package_of_the_lock_has_a_hash() -> None:
    text = (ROOT / "requirements.lock").read_text()
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", text):
        if "==" in block.partition("\n")[0]:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block


def test_known_faults_are_behind_us() -> None:
    lock = locked()
    assert [name for name, least in SAFE.items() if Version(lock[name]) < Version(least)] == []
    assert Version(constraints()["torch"]) >= Version("2.10")


def test_the_licences_are_listed() -> None:
    page = licenses.PAGE.read_text()
    for name, version in licenses.pins():
        assert f"| {name} | {version} |" in page, f"{name}: run `make lock`"
    assert "not declared" not in page


def test_what_is_installed_is_what_is_locked() -> None:
    differing = {
        name: (metadata.version(name), version)
        for name, version in locked().items()
        if name in constraints() and metadata.version(name) != version
    }
    assert differing == {}
