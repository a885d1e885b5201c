"""Keeps the log of labels: stars, the trash, and single images that were deleted.

Its one writer is the gateway. An event is on disk before anybody sees its effect.
docs/results-format.md defines the format.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.store.gallery import image_name
from gateway.store.gallery.image_name import ImageName
from gpu_worker.store import durable, scan
from gpu_worker.store.durable import AppendFile, DamagedLine, NewerLine, StoreTooNew

log = logging.getLogger(__name__)

VERSION = 1
STAR, UNSTAR, TRASH, RESTORE, DELETED = "star", "unstar", "trash", "restore", "deleted"
EVENTS = (STAR, UNSTAR, TRASH, RESTORE, DELETED)

COMPACT_BYTES = 1 << 20
"""The log is compacted above this size when it has doubled since the last time."""

AT_ONCE = 1000
"""The most images of one line."""


class Label(NamedTuple):
    """What the log says of an image. `trashed_time` is ISO 8601 in UTC, None outside the trash."""

    star: bool = False
    trashed_time: str | None = None
    is_deleted: bool = False

    def after(self, event: str, time: str | None) -> Label:
        """Return the label after an event."""
        match event:
            case "star" | "unstar":
                return self._replace(star=event == STAR)
            case "trash":
                return self._replace(trashed_time=self.trashed_time or time)
            case "restore":
                return self._replace(trashed_time=None)
        return Label(is_deleted=True)


NO_LABEL = Label()


def encode(event: str, names: Iterable[ImageName], time: str | None = None) -> bytes:
    """Return one line with its newline. `time` belongs to `trash` alone."""
    body: dict[str, Any] = {"v": VERSION, "event": event, "images": list(map(str, names))}
    if time is not None:
        body["time"] = time
    return durable.with_checksum(orjson.dumps(body)[:-1])


def decode(line: bytes) -> tuple[str, list[ImageName], str | None]:
    """Return event, images and time of a line.

    Raises:
        NewerLine: the line is of a newer version, or has an event that this one does not know.
        DamagedLine: the line is not a label.
    """
    durable.verify_checksum(line)
    try:
        body = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise DamagedLine("is not JSON") from None
    match body:
        case {"v": int(version)} if version > VERSION:
            raise NewerLine(f"has the version {version}, and this version reads {VERSION}")
        case {"v": 1, "event": str(event)} if event not in EVENTS:
            raise NewerLine(f"has the event {event[:40]!r}, which this version does not know")
        case {"v": 1, "event": str(event), "images": list(texts)}:
            names = [image_name.parse(text) for text in texts if isinstance(text, str)]
            time = body.get("time")
            if len(names) == len(texts) and None not in names and _is_time(event, time):
                return event, [name for name in names if name is not None], time
    raise DamagedLine(f"is not a label of version {VERSION}")


def _is_time(event: str, time: object) -> bool:
    return isinstance(time, str) if event == TRASH else time is None


def read(path: Path) -> dict[ImageName, Label]:
    """Return the labels that the log gives. A damaged line is skipped and logged.

    Raises:
        StoreTooNew: a newer version wrote the log.
        OSError: the file exists but cannot be read.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[ImageName, Label], list[bytes | None]]:
    """Return the labels, and the lines that cannot be used, None for one that is too long."""
    labels: dict[ImageName, Label] = {}
    unusable: list[bytes | None] = []
    try:
        file = durable.open_plain(path, scan.CHUNK_BYTES)
    except FileNotFoundError:
        return labels, unusable
    with file:
        for offset, _, text in scan.whole_lines(file):
            try:
                event, names, time = decode(text or b"")
            except NewerLine as error:
                raise StoreTooNew(path, error) from None
            except DamagedLine as error:
                log.warning("%s: the line at %d is skipped: it %s", path.name, offset, error)
                unusable.append(text)
                continue
            for name in names:
                labels[name] = labels.get(name, NO_LABEL).after(event, time)
    return {name: label for name, label in labels.items() if label != NO_LABEL}, unusable


class LabelsLog:
    """The file. Thread-safe. Every method that writes raises OSError; then nothing has changed.

    Args:
        is_gone: returns whether the results of a job are deleted; a compaction drops its labels.
    """

    def __init__(
        self,
        path: Path,
        is_gone: Callable[[str], bool] = lambda _: False,
        compact_bytes: int = COMPACT_BYTES,
    ) -> None:
        self._file = AppendFile(path)
        self._is_gone = is_gone
        self._compact_bytes = compact_bytes
        self._compacted_to = 0
        self._lock = threading.Lock()

    def append(self, event: str, names: list[ImageName], time: str | None = None) -> None:
        """Record an event of images. It is on disk when this returns."""
        lines = [
            encode(event, names[start : start + AT_ONCE], time)
            for start in range(0, len(names), AT_ONCE)
        ]
        with self._lock:
            if not self._file.is_open:
                cut = self._file.open()
                if cut:
                    log.warning("a torn line of %d bytes was cut from the labels", cut)
            self._file.append(b"".join(lines))
            if self._file.committed > max(self._compact_bytes, 2 * self._compacted_to):
                self._compact()

    def _compact(self) -> None:
        """Replace the file by one that gives the same labels in fewer bytes.

        Lines that cannot be used are copied unchanged.
        """
        try:
            labels, unusable = _read(self._file.path)
            lines = [line for line in unusable if line is not None]
            if len(lines) < len(unusable):
                raise OSError("a damaged line is too long to be copied")
            content = b"".join((*lines, *self._live_lines(labels)))
            # The next append opens the file again, whether the replacement succeeds or not.
            self._file.close()
            durable.replace(self._file.path, content)
        except OSError as error:
            log.warning("the labels could not be compacted: %s", error)
            self._compacted_to = self._file.committed
            return
        self._compacted_to = len(content)

    def _live_lines(self, labels: dict[ImageName, Label]) -> Iterator[bytes]:
        groups: dict[tuple[str, str | None], list[ImageName]] = {}
        for name, label in labels.items():
            if self._is_gone(name.uuid):
                continue
            if label.is_deleted:
                groups.setdefault((DELETED, None), []).append(name)
            if label.star:
                groups.setdefault((STAR, None), []).append(name)
            if label.trashed_time is not None:
                groups.setdefault((TRASH, label.trashed_time), []).append(name)
        for (event, time), names in groups.items():
            for start in range(0, len(names), AT_ONCE):
                yield encode(event, names[start : start + AT_ONCE], time)
