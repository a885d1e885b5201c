"""Reads a file of lines and reports the damaged and torn ones. It knows nothing of their content.

Memory stays flat, because no line beyond the limit of a scan is held.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gateway.fsck.report import Kind, Part, Report
from gpu_worker.contract import output_size
from gpu_worker.store import durable, scan


def check_lines(path: Path, writer: str, report: Report) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and text of each line with a correct checksum.

    All other lines, and the end of the last whole line, go into the report.
    """
    try:
        with durable.open_plain(path, scan.CHUNK_BYTES) as file:
            end, size = 0, os.fstat(file.fileno()).st_size
            for offset, length, text in scan.whole_lines(file, end=size):
                end = offset + length
                reason = _damage(text)
                if reason:
                    report.find(Kind.DAMAGED, path, offset, f"{length} bytes: the line {reason}")
                    report.take_out(path, Part(offset, length))
                elif text is not None:
                    yield offset, text
            report.read_to[path] = end
            if end < size:
                _torn(path, writer, report, Part(end, size - end))
    except FileNotFoundError as error:
        if not report.is_live("gateway"):
            cannot_read(path, error, report)
            return
        reason = "has been merged by the gateway during the check"
        report.find(Kind.MISSING, path, None, reason, is_fault=False)
    except OSError as error:
        cannot_read(path, error, report)


def cannot_read(path: Path, error: OSError, report: Report) -> None:
    """Report a file that cannot be read, which fsck cannot repair."""
    report.find(Kind.UNREADABLE, path, None, error.strerror or str(error))


def foreign_line(path: Path, offset: int, error: durable.DamagedLine, report: Report) -> None:
    """Report a line that another version wrote, and may still read."""
    reason = f"its checksum is correct, but it {error}"
    report.find(Kind.FOREIGN, path, offset, reason, is_fault=False)


def _damage(text: bytes | None) -> str:
    if text is None:
        return f"is longer than {output_size.MAX_LINE_BYTES} bytes"
    try:
        durable.verify_checksum(text)
    except durable.DamagedLine as error:
        return str(error)
    return ""


def _torn(path: Path, writer: str, report: Report, part: Part) -> None:
    if report.is_live(writer):
        reason = f"{part.length} bytes: {writer} is appending a line"
        report.find(Kind.TORN, path, part.offset, reason, is_fault=False)
    else:
        reason = f"{part.length} bytes of an incomplete line"
        report.find(Kind.TORN, path, part.offset, reason)
        report.take_out(path, part)
