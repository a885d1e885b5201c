"""Compares the index with what a fresh look at the segments has found. Changes neither. A leaf.

What the gateway makes up for at its start (an index that is missing, or has not read everything)
is information; what would mislead it is a fault.
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

# Of what the gateway would read anew anyway, nothing is compared.
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
AND (uuid, image_index) NOT IN (SELECT uuid, image_index FROM seen.results) LIMIT 1
"""
_TOMBSTONES = "SELECT uuid FROM seen.deletions EXCEPT SELECT uuid FROM deleted LIMIT 1"


def index(folder: Path, survey: Report) -> None:
    """Examine the index of a folder whose segments and journal the survey has seen.

    Raises:
        OSError: there is no room for a copy of it.
    """
    path = folder / INDEX_NAME
    if survey.is_live("gateway"):
        reason = "not compared: the gateway is writing it"
        survey.find(Kind.INDEX, path, None, reason, is_fault=False)
    elif path.exists():
        _check(path, survey)
    elif any(part.exists() for part in index_db.files(path)):
        _fault(path, survey, "is gone, but not the files that belong to it")
    else:
        reason = "there is none: the gateway makes it anew at its start"
        survey.find(Kind.MISSING, path, None, reason, is_fault=False)


def _fault(path: Path, survey: Report, reason: str) -> None:
    survey.find(Kind.INDEX, path, None, reason)
    survey.index_is_bad = True


def _check(path: Path, survey: Report) -> None:
    # A copy: SQLite writes beside a database in WAL mode even when it only reads.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for part in index_db.files(path)[:2]:  # SQLite makes the third from the second
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(part, copy.with_name(part.name))
        try:
            survey.query("ATTACH ? AS seen", [str(copy)])
            try:
                _compare(path, survey)
            finally:
                survey.query("DETACH seen")
        except sqlite3.DatabaseError as error:
            _fault(path, survey, f"damaged: {error}")


def _compare(path: Path, survey: Report) -> None:
    """Raises sqlite3.DatabaseError."""
    (version,) = survey.query("PRAGMA seen.user_version")[0]
    if version == 0 and not survey.query("SELECT 1 FROM seen.sqlite_schema"):
        reason = "is empty: the gateway fills it at its start"
        survey.find(Kind.INDEX, path, None, reason, is_fault=False)
        return
    if version != index_db.VERSION:
        _fault(path, survey, f"is of version {version}, not {index_db.VERSION}")
        return
    for (reason,) in survey.query("PRAGMA seen.integrity_check(1)"):
        if reason != "ok":
            raise sqlite3.DatabaseError(" ".join(reason.split()))
    _report_stale(path, survey)
    for row in survey.query(_MISLEADING):
        entry = Entry._make(row)
        reason = f"misleads: {entry.uuid} is not in {entry.segment} at {entry.offset} as it says"
        _fault(path, survey, reason)
    for (uuid,) in survey.query(_TOMBSTONES):
        _fault(path, survey, f"misleads: {uuid} was never deleted")
    for uuid, segment, offset in survey.query(_LACKING):
        _fault(path, survey, f"lacks {uuid}, which is in {segment} at {offset}")


def _report_stale(path: Path, survey: Report) -> None:
    """Raises sqlite3.DatabaseError."""
    indexed = dict(survey.query("SELECT name, read_to FROM seen.segments"))
    survey.query("CREATE TEMP TABLE trusted (name TEXT PRIMARY KEY, read_to INTEGER)")
    for name in sorted(indexed.keys() | survey.sizes.keys()):
        size, read_to = survey.sizes.get(name), indexed.get(name)
        if size is not None and read_to is not None and read_to <= size:
            survey.query("INSERT INTO trusted VALUES (?, ?)", (name, read_to))
        if size != read_to:
            there = "is not there" if size is None else f"has {size} bytes"
            progress = "has not read it" if read_to is None else f"has read {read_to} of it"
            reason = (
                f"stale: {name} {there}, the index {progress}; the gateway reads on at its start"
            )
            survey.find(Kind.INDEX, path, None, reason, is_fault=False)
