"""What the machine or the container of a worker can still give, read from trees of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpu_worker import host_memory

MIB = 1 << 20
MEMINFO = "MemTotal:  8192000 kB\nMemFree:  20480 kB\nMemAvailable:  4096000 kB\n"
AVAILABLE = 4000 * MIB


def machine(root: Path, **files: str) -> Path:
    """A tree with these files; `__` in a name stands for a slash."""
    for name, text in {"proc__meminfo": MEMINFO, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def limits(folder: str, limit: str, usage: str, stat: str = "", version: int = 2) -> dict[str, str]:
    names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    files = zip(
        (*(f"memory.{name}" for name in names), "memory.stat"), (limit, usage, stat), strict=True
    )
    return {f"sys__fs__cgroup__{folder}{name}": text + "\n" for name, text in files}


def test_cached_files_count_as_free(tmp_path: Path) -> None:
    """MemFree is small on a machine that has read its models."""
    assert host_memory.available_bytes(machine(tmp_path)) == AVAILABLE


@pytest.mark.parametrize("path", ["/", "/outside/this/container"])
def test_a_container_has_its_own_limit(tmp_path: Path, path: str) -> None:
    """A path may be that of the host, which the container does not see."""
    own = limits("", str(900 * MIB), str(500 * MIB), f"inactive_file {100 * MIB}\nanon 7")
    root = machine(tmp_path, proc__self__cgroup=f"0::{path}\n", **own)
    assert host_memory.available_bytes(root) == 500 * MIB


def test_the_narrowest_limit_above_a_service_counts(tmp_path: Path) -> None:
    own = limits("system.slice__sde.service__", "max", "5")
    outer = limits("system.slice__", str(300 * MIB), str(100 * MIB))
    root = machine(tmp_path, proc__self__cgroup="0::/system.slice/sde.service\n", **own, **outer)
    assert host_memory.available_bytes(root) == 200 * MIB


def test_the_first_version_of_cgroups_is_read_too(tmp_path: Path) -> None:
    stat = f"total_inactive_file {10 * MIB}\ntotal_active_file {20 * MIB}"
    own = limits("memory__docker__1__", str(300 * MIB), str(250 * MIB), stat, version=1)
    without = limits("memory__", str(2**63 - 4096), "7", version=1)
    lines = "12:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/docker/1\n0::/\n"
    root = machine(tmp_path, proc__self__cgroup=lines, **own, **without)
    assert host_memory.available_bytes(root) == 80 * MIB


def test_a_machine_without_limits_or_without_the_files(tmp_path: Path) -> None:
    unlimited = limits("", "max", str(MIB))
    root = machine(tmp_path / "free", proc__self__cgroup="0::/\n", **unlimited)
    assert host_memory.available_bytes(root) == AVAILABLE
    exceeded = limits("", "1", str(MIB))
    root = machine(tmp_path / "full", proc__self__cgroup="0::/\n", **exceeded)
    assert host_memory.available_bytes(root) == 0
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < host_memory.available_bytes(tmp_path / "empty") < total


def test_the_limit_of_a_container_is_its_memory(tmp_path: Path) -> None:
    own = limits("", str(900 * MIB), str(500 * MIB))
    root = machine(tmp_path, proc__self__cgroup="0::/\n", **own)
    assert host_memory.total_bytes(root) == 900 * MIB
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host_memory.total_bytes(tmp_path / "empty") == total
