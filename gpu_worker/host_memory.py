"""Reads how much memory the machine, or the container of this process, can still give.

It imports the standard library alone, so that `sde doctor` can use it. Pinned weights must fit,
because pinned memory cannot be swapped out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_FIELDS_OF_CGROUPS = {
    "": ("memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}
"""By controller in /proc/self/cgroup: the files of limit and usage, and rows of memory.stat.

Those are cgroup v2 and v1 (the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst). The
rows are cached files, which the kernel drops before it refuses memory.
"""

_MOUNTS = {"": ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory": ("sys/fs/cgroup/memory",)}
"""The folders where systemd and container runtimes mount the hierarchies of each controller."""


def available_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still take before the system swaps.

    That is MemAvailable of /proc/meminfo, or what the limits of its cgroups leave if that is less.
    Both count cached files as available. Systems without these files report their free pages.

    Args:
        root: the folder that has `proc` and `sys`.
    """
    available_kib = _rows(root / "proc/meminfo").get("MemAvailable:")
    if available_kib is None:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([available_kib * 1024, *(left for _, left in _cgroups(root))]))


def total_bytes(root: Path = Path("/")) -> int:
    """Return the machine's memory, or the smallest limit of this process's cgroups."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *(limit for limit, _ in _cgroups(root))])


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield each memory limit above this process, and what it leaves, in bytes."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in _FIELDS_OF_CGROUPS.keys() & controllers.split(","):
            for mount in _MOUNTS[controller]:
                yield from _limits_above(root / mount, path, controller)


def _limits_above(mount: Path, path: str, controller: str) -> Iterator[tuple[int, int]]:
    """Yield the limits of a cgroup and of those around it, and what each leaves, in bytes.

    In a container the path may be that of the host. Then only the mount itself exists.
    """
    limit_file, usage_file, cached_rows = _FIELDS_OF_CGROUPS[controller]
    folder = mount / path.lstrip("/")
    for each in (folder, *folder.parents):
        if not each.is_relative_to(mount):
            return
        limit, usage = (_text(each / name).strip() for name in (limit_file, usage_file))
        if limit.isdecimal() and usage.isdecimal():  # the limit of v2 may be `max`
            rows = _rows(each / "memory.stat")
            cached = sum(rows.get(name, 0) for name in cached_rows)
            yield int(limit), int(limit) - int(usage) + cached


def _rows(file: Path) -> dict[str, int]:
    """Return the rows of a file that begin with a name and a number; none without the file."""
    words = [line.split() for line in _text(file).splitlines()]
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdecimal()}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
