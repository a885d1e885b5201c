"""What pip installs holds every module: a new folder is never left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.service import ROOT
from tests.support.source_tree import PACKAGES, modules

IMPORT_ALL = """
import importlib, sys, warnings
from pathlib import Path
from gpu_worker import quantizers
quantizers.prepare("none")
warnings.simplefilter("ignore")
for name in sys.argv[2:]:
    found = importlib.import_module(name)
    assert Path(found.__file__).is_relative_to(sys.argv[1]), found.__file__
"""


def test_the_wheel_has_every_module(tmp_path: Path) -> None:
    source = tmp_path / "source"  # in the tree itself an old build/ would be packed too
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--quiet", "--wheel-dir", str(tmp_path), str(source)]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = tmp_path / "inside"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(inside)
    tops = {path.name for path in inside.iterdir() if path.suffix != ".dist-info"}
    assert tops == set(PACKAGES)
    data = {path.relative_to(ROOT) for path in (ROOT / "gpu_worker/demo_model").rglob("*.*")}
    kept = {path for path in data if "__pycache__" not in path.parts}
    assert {path for path in kept if not (inside / path).is_file()} == set()
    names = [name for name in modules() if not name.endswith("__main__")]
    tried = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(inside), *names],
        cwd=inside,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(inside)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 0, tried.stderr
