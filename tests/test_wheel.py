"""What pip installs holds every module: a new folder is never left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.service import ROOT
from tests.support.source_tree import modules

IMPORT_ALL = """
import importlib, sys, warnings
from pathlib import Path
if any(name.startswith("gpu_worker") for name in sys.argv[2:]):
    from gpu_worker import quantization_libraries
    quantization_libraries.hide_unused("none")
warnings.simplefilter("ignore")
for name in sys.argv[2:]:
    found = importlib.import_module(name)
    assert Path(found.__file__).is_relative_to(sys.argv[1]), found.__file__
"""


def wheel_of(folder: Path, source: Path) -> tuple[Path, set[str]]:
    """Build a distribution into `folder`: where its files lie, and its top-level modules."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--quiet", "--wheel-dir", str(folder), str(source)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    inside = folder / "inside"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(inside)
    return inside, {path.name for path in inside.iterdir() if path.suffix != ".dist-info"}


def import_all(inside: Path, *packages: str) -> None:
    """Import every module of the packages from a wheel's files."""
    names = [name for name in modules() if name.startswith(packages)]
    command = [sys.executable, "-c", IMPORT_ALL, str(inside)]
    command += [name for name in names if not name.endswith("__main__")]
    done = subprocess.run(
        command,
        cwd=inside,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(inside)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def copy_source(source: Path, root: Path, *packages: str) -> None:
    """Copy what is built: in the tree itself an old build/ would be packed too."""
    for package in packages:
        shutil.copytree(root / package, source / package)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / file, source / file)


def test_the_servers_wheel_has_every_module(tmp_path: Path) -> None:
    copy_source(tmp_path / "source", ROOT, "gateway", "gpu_worker")
    inside, tops = wheel_of(tmp_path, tmp_path / "source")
    assert tops == {"gateway", "gpu_worker"}
    folders = (
        ROOT / "gateway/web",
        ROOT / "gpu_worker/demo_model",
        ROOT / "gpu_worker/model_configs",
    )
    data = {path.relative_to(ROOT) for folder in folders for path in folder.rglob("*.*")}
    kept = {path for path in data if "__pycache__" not in path.parts}
    assert {path for path in kept if not (inside / path).is_file()} == set()
    import_all(inside, "gateway", "gpu_worker")


def test_the_clients_wheel_has_every_module(tmp_path: Path) -> None:
    copy_source(tmp_path / "source", ROOT / "client", "sde_client")
    inside, tops = wheel_of(tmp_path, tmp_path / "source")
    assert tops == {"sde_client"}
    assert (inside / "sde_client" / "py.typed").is_file()
    import_all(inside, "sde_client")
