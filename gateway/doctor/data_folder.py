"""Checks the data folder: its disk, whether it can be written, and who can read it.

It creates nothing but one temporary file, which it removes.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.doctor.finding import Finding, ok, problem, warning
from gateway.settings import GatewaySettings

SPEED_MIB = 16
"""The size of the file whose writing is timed."""

MIN_FREE_GIB = 5
"""Room for a model of the smaller families, or some thousand images."""

SLOW_MIB_S = 20

MAX_ENTRIES = 20_000
"""Entries that are looked at; the inputs of many jobs may be more."""

MAX_NAMES = 3


def check(settings: GatewaySettings) -> Iterator[Finding]:
    """Yield findings on SDE_DATA_DIR."""
    folder = settings.data_dir
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not folder.exists():
        yield ok("data folder", f"{folder} does not exist yet and will be created")
    elif not folder.is_dir():
        yield problem("data folder", f"{folder} is no directory: choose another SDE_DATA_DIR")
        return
    elif folder.is_symlink():
        yield warning("data folder", f"{folder} is a link: name its target in SDE_DATA_DIR")
    yield from _disk(place, settings.min_free_mib)
    if folder.is_dir():
        yield from _access(folder, settings.models_dir)


def _disk(place: Path, min_free_mib: int) -> Iterator[Finding]:
    free_gib = shutil.disk_usage(place).free / 2**30
    if free_gib * 1024 < min_free_mib:
        text = f"{free_gib:.1f} GiB are free, less than SDE_MIN_FREE_MIB={min_free_mib}"
        yield problem("disk", f"{text}: free some space, because no job is accepted")
        return
    try:
        speed = _write_speed_mib_s(place) if free_gib > 1 else None
    except OSError as error:
        reason = error.strerror or error
        yield problem("disk", f"{place} cannot be written ({reason}): mend that, or SDE_DATA_DIR")
        return
    text = f"{free_gib:.1f} GiB are free"
    text += "" if speed is None else f", and a synced write runs at {speed:.0f} MiB/s"
    if free_gib < MIN_FREE_GIB:
        yield warning("disk", f"{text}: that is little for models and images")
    elif speed is not None and speed < SLOW_MIB_S:
        yield warning("disk", f"{text}: each image waits for the disk; use a faster one")
    else:
        yield ok("disk", text)


def _write_speed_mib_s(place: Path) -> float:
    """Return the speed of one write and its fsync. Raises OSError."""
    content = bytes(1 << 20)
    with tempfile.TemporaryFile(dir=place) as file:
        start = time.monotonic()
        for _ in range(SPEED_MIB):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return SPEED_MIB / (time.monotonic() - start)


def _access(folder: Path, models_dir: Path) -> Iterator[Finding]:
    """Compare owner and mode of the folder and all in it, except models, with 0700 and 0600."""
    foreign, readable, links = [], [], []
    for path in _entries(folder, models_dir):
        try:
            status = path.lstat()
        except OSError:  # it has just been removed
            continue
        if stat.S_ISLNK(status.st_mode):
            links.append(path)
        elif status.st_uid != os.geteuid():
            foreign.append(path)
        elif stat.S_IMODE(status.st_mode) & 0o077:
            readable.append(path)
    if foreign:
        text = f"another user owns {_listed(foreign)}: chown -R {os.geteuid()} '{folder}'"
        yield problem("permissions", text)
    if readable:
        text = f"other users may use {_listed(readable)}: chmod -R go= '{folder}'"
        yield warning("permissions", text)
    if links:
        text = f"these are links, which the service does not need: {_listed(links)}"
        yield warning("permissions", f"{text}; replace them by what they point to")
    if not (foreign or readable or links):
        yield ok("permissions", f"{folder} is this user's alone")


def _entries(folder: Path, models_dir: Path) -> Iterator[Path]:
    yield folder
    count = 0
    for root, directories, files in os.walk(folder):
        here = Path(root)
        # Models hold no secret, and their downloads consist of links.
        directories[:] = [
            name
            for name in directories
            if here / name != models_dir and not (here == folder and name == "model_cache")
        ]
        for name in (*directories, *files):
            yield here / name
            count += 1
            if count >= MAX_ENTRIES:
                return


def _listed(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:MAX_NAMES])
    return names if len(paths) <= MAX_NAMES else f"{names} and {len(paths) - MAX_NAMES} more"
