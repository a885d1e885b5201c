"""Compares the index with the segments. It changes neither.

The gateway replaces a missing index and updates a stale one at its start, so both are information.
An index with wrong entries is a fault.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from gateway.fsck.report import Kind, Report
from gateway.store import index_db
from gateway.store.index_db import COLUMNS, Entry
from gateway.store.index_file import INDEX_NAME

# Segments that the gateway would read again are not compared.
_MISLEADING = f"""
SELECT {COLUMNS} FROM seen.results WHERE uuid NOT IN (SELECT uuid FROM deleted)
AND (uuid, image_index) NOT IN (SELECT uuid, image_index FROM parts WHERE uuid IS NOT NULL)
AND segment NOT IN (
    SELECT name FROM seen.segments WHERE name NOT IN (SELECT name FROM trusted)
)
EXCEPT SELECT {COLUMNS} FROM main.results LIMIT 1
"""
_LACKING = """
SELECT uuid, segment, offset FROM main.results JOIN trusted ON name = segment
WHERE offset < read_to AND uuid NOT IN (SELECT uuid FROM deleted)
AND (uuid, image_index) NOT IN (SELECT uuid, image_index FROM seen.results)
AND (uuid, image_index) NOT IN (SELECT uuid, image_index FROM deleted_images) LIMIT 1
"""
_TOMBSTONES = "SELECT uuid FROM seen.deletions EXCEPT SELECT uuid FROM deleted LIMIT 1"


def index(folder: Path, report: Report) -> None:
    """Check the index of a folder whose segments and journal are in the report already.

    Raises:
        OSError: the disk has no room for a copy of the index.
    """
    path = folder / INDEX_NAME
    if report.is_live("gateway"):
        reason = "not compared, because the gateway is writing it"
        report.find(Kind.INDEX, path, None, reason, is_fault=False)
    elif path.exists():
        _check(path, report)
    elif any(part.exists() for part in index_db.files(path)):
        _fault(path, report, "is missing, but its companion files exist")
    else:
        reason = "is missing; the gateway creates it at its start"
        report.find(Kind.MISSING, path, None, reason, is_fault=False)


def _fault(path: Path, report: Report, reason: str) -> None:
    report.find(Kind.INDEX, path, None, reason)
    report.index_is_bad = True


def _check(path: Path, report: Report) -> None:
    # In WAL mode SQLite writes beside a database even when it only reads. So a copy is read.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for part in index_db.files(path)[:2]:  # SQLite creates the third from the second
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(part, copy.with_name(part.name))
        try:
            report.query("ATTACH ? AS seen", [str(copy)])
            try:
                _compare(path, report)
            finally:
                report.query("DETACH seen")
        except sqlite3.DatabaseError as error:
            _fault(path, report, f"damaged: {error}")


def _compare(path: Path, report: Report) -> None:
    """Raises sqlite3.DatabaseError."""
    (version,) = report.query("PRAGMA seen.user_version")[0]
    if version == 0 and not report.query("SELECT 1 FROM seen.sqlite_schema"):
        reason = "is empty; the gateway fills it at its start"
        report.find(Kind.INDEX, path, None, reason, is_fault=False)
        return
    if version != index_db.VERSION:
        _fault(path, report, f"has version {version}, not {index_db.VERSION}")
        return
    for (reason,) in report.query("PRAGMA seen.integrity_check(1)"):
        if reason != "ok":
            raise sqlite3.DatabaseError(" ".join(reason.split()))
    _report_stale(path, report)
    for row in report.query(_MISLEADING):
        entry = Entry._make(row)
        reason = f"is wrong: {entry.uuid} is not in {entry.segment} at {entry.offset}"
        _fault(path, report, reason)
    for (uuid,) in report.query(_TOMBSTONES):
        _fault(path, report, f"is wrong: {uuid} was never deleted")
    for uuid, segment, offset in report.query(_LACKING):
        _fault(path, report, f"is wrong: it lacks {uuid}, which is in {segment} at {offset}")


def _report_stale(path: Path, report: Report) -> None:
    """Raises sqlite3.DatabaseError."""
    indexed = dict(report.query("SELECT name, read_to FROM seen.segments"))
    report.query("CREATE TEMP TABLE trusted (name TEXT PRIMARY KEY, read_to INTEGER)")
    for name in sorted(indexed.keys() | report.sizes.keys()):
        size, read_to = report.sizes.get(name), indexed.get(name)
        if size is not None and read_to is not None and read_to <= size:
            report.query("INSERT INTO trusted VALUES (?, ?)", (name, read_to))
        if size != read_to:
            segment = "is missing" if size is None else f"has {size} bytes"
            progress = "none" if read_to is None else str(read_to)
            reason = (
                f"stale: {name} {segment} and the index has read {progress}; "
                "the gateway reads the rest at its start"
            )
            report.find(Kind.INDEX, path, None, reason, is_fault=False)
