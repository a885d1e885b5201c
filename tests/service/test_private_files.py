"""Rows 31, 54 and 58: the folders are their owner's alone, and no link leads out of them."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_worker.store import private_folder, process
from gpu_worker.store.private_folder import UnsafeFolder
from tests.support.service import (
    DEADLINE_S,
    ROOT,
    Service,
    run_module,
    running,
)

PROCESSES = ("gateway", "gpu_worker")


def start_with_umask(service: Service, name: str, mask: str) -> None:
    service.start(name, ["sh", "-c", f"umask {mask}; exec {sys.executable} -m {name}"])


def others_may(folder: Path) -> list[str]:
    """Everything with a right for group or others."""
    paths = [folder, *(path for path in folder.rglob("*") if path.name[-4:] != ".out")]
    return [
        f"{path.relative_to(folder)} {mode:o}"
        for path in paths
        if (mode := stat.S_IMODE(path.lstat().st_mode)) & 0o077
    ]


@pytest.mark.parametrize("mask", ["000", "022", "077"])
def test_all_files_are_the_owners_alone(folder: Path, mask: str) -> None:
    """Row 58: under any umask, after work that makes every kind of file."""
    data = folder / "new" / "data"
    data.parent.mkdir()
    with running(folder / "out") as service:
        service.settings["SDE_DATA_DIR"] = str(data)
        for name in PROCESSES:
            start_with_umask(service, name, mask)
        service.wait_available()
        image = base64.b64encode((ROOT / "docs" / "demo_model.png").read_bytes()).decode()
        service.result(service.submit(image=image, strength=0.5))
        service.wait_available()
        assert others_may(data) == []
        assert {"gpu-0.sock", "gateway.lock"} <= {path.name for path in (data / "run").iterdir()}


def test_the_rights_of_an_older_store_are_taken_away(folder: Path) -> None:
    """Row 58: what others may only read is made private."""
    shutil.copytree(ROOT / "tests" / "golden" / "store-v4", folder, dirs_exist_ok=True)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.chmod(0o755)
    with running(folder, *PROCESSES):
        left = [each for each in others_may(folder) if not each.startswith("inputs/")]
        assert left == []


def run(module: str, folder: Path) -> tuple[int, str]:
    with running(folder) as service:
        service.start(module)
        child = service.children.pop(module)
        return child.wait(DEADLINE_S), (folder / f"{module}.out").read_text()


@pytest.mark.parametrize("module", PROCESSES)
@pytest.mark.parametrize("name", [".", "run", "disk_backups"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_change_is_refused(
    folder: Path, module: str, name: str, mode: int
) -> None:
    """Row 54: the sentence names the folder and what to do; nothing is bound or written."""
    place = folder / name
    place.mkdir(exist_ok=True)
    place.chmod(mode)
    code, said = run(module, folder)
    assert code == os.EX_CANTCREAT and "Traceback" not in said
    assert f"{place} has the mode {mode:04o}" in said and "chmod 700" in said
    assert not list(folder.rglob("*.sock")) and not list(folder.rglob("*.jsonl"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("module", PROCESSES)
@pytest.mark.parametrize("name", ["run", "disk_backups"])
def test_a_folder_of_another_user_is_refused(folder: Path, module: str, name: str) -> None:
    """Rows 31 and 54."""
    place = folder / name
    place.mkdir(mode=0o700)
    os.chown(place, 65534, 65534)
    code, said = run(module, folder)
    assert code == os.EX_CANTCREAT and f"{place} belongs to the user 65534" in said


@pytest.mark.parametrize("module", PROCESSES)
@pytest.mark.parametrize("name", ["run", "disk_backups"])
def test_a_folder_that_is_a_link_is_refused(folder: Path, module: str, name: str) -> None:
    """Row 31."""
    (folder / "elsewhere").mkdir(mode=0o700)
    (folder / name).symlink_to(folder / "elsewhere")
    code, said = run(module, folder)
    assert code == os.EX_CANTCREAT and f"{folder / name} is a symbolic link" in said
    assert list((folder / "elsewhere").iterdir()) == []


def test_the_data_folder_itself_may_be_a_link(folder: Path) -> None:
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    with running(folder / "link", *PROCESSES) as service:
        assert service.result(service.submit())["state"] == "succeeded"


def _make_results(folder: Path) -> Path:
    for name in ("run", "disk_backups", "journal", "inputs"):
        (folder / name).mkdir(mode=0o700)
    victim = folder / "victim"
    victim.write_text("precious\n")
    return victim


LINKS = [
    ("gateway", "run/gateway.lock"),
    ("gpu_worker", "disk_backups/gpu-0.lock"),
    ("gateway", "disk_backups/index.sqlite"),
    ("gateway", "disk_backups/index.sqlite-wal"),
    ("gateway", "disk_backups/gpu-0.00000001.jsonl"),
    ("gpu_worker", "disk_backups/gpu-0.00000001.jsonl"),
    ("gateway", "journal/jobs.jsonl"),
    ("gateway", "journal/deleted.jsonl"),
    (
        "gpu_worker",
        "disk_backups/gpu-0.in_flight.00000000-0000-4000-8000-000000000001.json",
    ),
]


@pytest.mark.parametrize(("module", "name"), LINKS)
def test_a_file_that_is_a_link_is_not_followed(folder: Path, module: str, name: str) -> None:
    """Row 31 (fault 13): the process does not start, and the file behind stays as it is."""
    victim = _make_results(folder)
    (folder / name).symlink_to(victim)
    code, said = run(module, folder)
    assert code in (os.EX_CANTCREAT, os.EX_UNAVAILABLE), said
    assert name.rpartition("/")[2] in said and "Traceback" not in said
    assert victim.read_text() == "precious\n" and (folder / name).is_symlink()


@pytest.mark.parametrize(("module", "name"), LINKS[:2])
def test_a_lock_with_a_second_name_is_not_emptied(folder: Path, module: str, name: str) -> None:
    """Row 31 (fault 13): a hard link."""
    victim = _make_results(folder)
    os.link(victim, folder / name)
    code, said = run(module, folder)
    assert code == os.EX_CANTCREAT and "not a plain file" in said
    assert victim.read_text() == "precious\n"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "lock")
    with pytest.raises(OSError):
        process.lock(tmp_path / "lock", "it")


def test_an_input_that_is_a_link_is_not_read(folder: Path) -> None:
    """Row 31: neither the gateway nor the worker reads through it."""
    with running(folder, "gateway", "gpu_worker") as service:
        image = base64.b64encode((ROOT / "docs" / "demo_model.png").read_bytes()).decode()
        uuid = service.submit(image=image, strength=0.5)
        service.result(uuid)
        (stored,) = (folder / "inputs" / uuid).iterdir()
        (folder / "secret").write_bytes(stored.read_bytes())
        stored.unlink()
        stored.symlink_to(folder / "secret")
        reply = service.get(f"/image/jobs/{uuid}/inputs/{stored.name}")
        assert reply.status_code >= 400
        shutil.rmtree(folder / "inputs" / uuid)
        (folder / "outside").mkdir()
        (folder / "secret").rename(folder / "outside" / stored.name)
        (folder / "inputs" / uuid).symlink_to(folder / "outside")
        reply = service.get(f"/image/jobs/{uuid}/inputs/{stored.name}")
        assert reply.status_code >= 400


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(OSError):
        private_folder.make(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(UnsafeFolder, match="is not a folder"):
        private_folder.make(tmp_path / "link", follow_links=True)


# ---- folders that are not ours ----------------------------------------------------------------

TOOLS = {
    "gateway": ["gateway"],
    "gpu_worker": ["gpu_worker"],
    "a new key": ["gateway.access", "--data-dir", "FOLDER", "add", "me"],
}
FOREIGN = {
    "a home": (".bashrc", "models/", "run/"),
    "the root": ("bin/", "etc/", "run/", "inputs/"),
    "files for all": ("anything",),
}


def tree(folder: Path) -> dict[str, int]:
    paths = (folder, *folder.rglob("*"))
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in paths}


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = folder / name
        path.mkdir(mode=0o755) if name.endswith("/") else path.write_text("theirs")


def use(folder: Path, tool: str) -> subprocess.CompletedProcess[str]:
    words = [word.replace("FOLDER", str(folder)) for word in TOOLS[tool]]
    return run_module(folder, *words, timeout_s=DEADLINE_S)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("a home", mode) for mode in (0o755, 0o700)),
        ("the root", 0o755),
        *(("files for all", mode) for mode in (0o1777, 0o777)),
    ],
)
def test_a_folder_of_others_keeps_its_mode_and_its_files(
    folder: Path, tool: str, kind: str, mode: int
) -> None:
    """SDE_DATA_DIR=/tmp, / or $HOME: nothing is created, and nothing changes."""
    fill(folder, FOREIGN[kind])
    folder.chmod(mode)
    before = tree(folder)
    done = use(folder, tool)
    assert done.returncode == os.EX_CANTCREAT and "Traceback" not in done.stderr
    assert tree(folder) == before
    if tool != "a new key":  # its own sentence is short
        assert f"{folder} is not a folder of this service" in done.stderr
        assert f"such as {folder}/sde" in done.stderr and "chmod" not in done.stderr


@pytest.mark.parametrize("names", [(), ("lost+found/",), ("models/",), ("demo/", "keys.json")])
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_an_empty_folder_and_one_of_ours_become_private(
    tmp_path: Path, names: tuple[str, ...], mode: int
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    fill(place, names)
    place.chmod(mode)
    private_folder.make(place, follow_links=True)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("names", [(), ("disk_backups/",), ("disk_backups/", "others")])
def test_a_folder_of_the_system_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """It is no place for a new store. One that is there goes on, in folders of its own."""
    monkeypatch.setattr(private_folder, "_SHARED_FOLDERS", frozenset({str(tmp_path)}))
    fill(tmp_path, names)
    tmp_path.chmod(0o1777)
    if names:
        private_folder.make(tmp_path, follow_links=True)
    else:
        with pytest.raises(UnsafeFolder, match="a folder of the system"):
            private_folder.make(tmp_path, follow_links=True)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


def test_a_home_with_a_store_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_folder, "_home", lambda: tmp_path)
    fill(tmp_path, ("disk_backups/", ".bashrc"))
    tmp_path.chmod(0o755)
    private_folder.make(tmp_path, follow_links=True)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("place", ["/", "/tmp", "/usr"])
def test_the_systems_own_folders_are_no_store(place: str) -> None:
    with pytest.raises(UnsafeFolder):
        private_folder.check_store(Path(place))


def test_a_cache_behind_a_link_keeps_its_mode(tmp_path: Path) -> None:
    """Other programs use the hub's cache too."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o755)
    (tmp_path / "model_cache").symlink_to(cache)
    private_folder.make_cache(tmp_path / "model_cache")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755
    cache.chmod(0o777)
    with pytest.raises(UnsafeFolder, match="0777"):
        private_folder.make_cache(tmp_path / "model_cache")
    private_folder.make_cache(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_check_changes_nothing(tmp_path: Path, mode: int) -> None:
    with pytest.raises(FileNotFoundError):
        private_folder.check_store(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
    for names in ((), ("journal/", "keys.json")):
        place = tmp_path / f"store{len(names)}"
        place.mkdir()
        fill(place, names)
        place.chmod(mode)
        before = tree(place)
        private_folder.check_store(place)
        assert tree(place) == before
    place.chmod(0o777)
    with pytest.raises(UnsafeFolder, match="0777"):
        private_folder.check_store(place)
