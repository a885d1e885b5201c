"""Stars images, and moves them into the trash and out of it. The trash is emptied by age.

Every change is on disk before it is seen. An image in the trash is hidden from the readers of
results, and its bytes stay where they are until it is deleted for good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.errors import StorageUnavailable
from gateway.jobs.broker import Broker
from gateway.jobs.deletion import ResultDeletion
from gateway.store.gallery import labels_log
from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.labels_log import Label, LabelsLog
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex

Publish = Callable[[dict[str, Any]], None]

PURGED_AT_ONCE = 500


class ResultTrash:
    """Changes the labels of images. Thread-safe.

    Args:
        days: how long an image stays in the trash; 0 deletes it at once.
        publish: is called with each change, `{"images": [...], "star" or "trash": bool}`.
        forget: is called with images that were deleted one by one.
        now: returns the time of what happens now, such as RetentionClock.stamp().
    """

    def __init__(
        self,
        broker: Broker,
        index: ResultIndex,
        deletion: ResultDeletion,
        labels: LabelsLog,
        days: float,
        publish: Publish = lambda _: None,
        forget: Callable[[set[ImageName]], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._broker = broker
        self._index = index
        self._deletion = deletion
        self._labels = labels
        self._days = days
        self._publish = publish
        self._forget = forget
        self._now = now
        self._lock = threading.Lock()

    def star(self, names: Iterable[ImageName], star: bool) -> int:
        """Set or remove a star, and return how many images have changed.

        Raises:
            StorageUnavailable: the disk cannot store it; nothing has changed.
        """
        with self._lock:
            current = self._current(names)
            changed = [name for name, label in current.items() if label.star is not star]
            self._write(labels_log.STAR if star else labels_log.UNSTAR, changed, current)
        self._tell(changed, star=star)
        return len(changed)

    def trash(self, names: Iterable[ImageName]) -> int:
        """Move images into the trash, and return how many. With 0 days they are deleted.

        Raises:
            StorageUnavailable: the disk cannot store it; nothing has changed.
        """
        if not self._days:
            return self.delete(names)
        with self._lock:
            current = self._current(names)
            changed = [name for name, label in current.items() if label.trashed_time is None]
            self._write(labels_log.TRASH, changed, current)
            self._hide_jobs(changed)
        self._tell(changed, trash=True)
        return len(changed)

    def trash_job(self, uuid: str, *, at_once: bool = False) -> bool:
        """Move all images of a job into the trash, or delete them; return whether there were any.

        Raises:
            NotEnded: the job has no outcome.
            StorageUnavailable: the disk cannot store it; nothing has changed.
        """
        at_once = at_once or not self._days
        entries = self._index.find_records(uuid) if at_once else self._index.find_all(uuid)
        names = [ImageName(uuid, entry.image_index) for entry in entries]
        if names:
            return (self.delete(names) if at_once else self.trash(names)) > 0
        self._deletion.check_ended(uuid)
        return False

    def restore(self, names: Iterable[ImageName]) -> int:
        """Move images out of the trash, and return how many.

        Raises:
            StorageUnavailable: the disk cannot store it; nothing has changed.
        """
        with self._lock:
            current = self._current(names)
            changed = [name for name, label in current.items() if label.trashed_time is not None]
            self._write(labels_log.RESTORE, changed, current)
        self._tell(changed, trash=False)
        return len(changed)

    def delete(self, names: Iterable[ImageName]) -> int:
        """Delete images for good, and return how many. Their bytes leave the disk soon afterwards.

        Raises:
            StorageUnavailable: the disk cannot store it; the images that are left have not changed.
        """
        with self._lock:
            existing = set(self._current(names))
            whole, parts = self._split(existing)
            if whole:
                self._deletion.delete(*whole)
            if parts:
                single = [ImageName(entry.uuid, entry.image_index) for entry in parts]
                self._write(labels_log.DELETED, single, self._current(single))
                self._deletion.rewrite.update(entry.segment for entry in parts)
                self._forget(set(single))
        return len(existing)

    def purge(self, read_time: Callable[[], datetime]) -> None:
        """Delete what has been in the trash for too long.

        Args:
            read_time: returns the time by which the age counts, such as RetentionClock.read(). It
                is not called while the trash is empty, because it may write to a full disk.

        Raises:
            OSError, StorageUnavailable: as `read_time` and delete() do; the rest is deleted later.
        """
        if not self._index.query(lambda db: db.labels.trashed_before(_text(self._now()))):
            return
        oldest = _text(read_time() - timedelta(days=self._days))
        due = self._index.query(lambda db: db.labels.trashed_before(oldest))
        for start in range(0, len(due), PURGED_AT_ONCE):
            self.delete(due[start : start + PURGED_AT_ONCE])

    def _current(self, names: Iterable[ImageName]) -> dict[ImageName, Label]:
        """Return the labels of the images that exist, in the trash or not."""
        unique = dict.fromkeys(names)
        existing = [name for name in unique if self._index.find_image(*name, trash=True)]
        return self._index.query(lambda db: db.labels.find(existing))

    def _write(
        self,
        event: str,
        names: list[ImageName],
        current: dict[ImageName, Label],
    ) -> None:
        if not names:
            return
        try:
            time = _text(self._now()) if event == labels_log.TRASH else None
            self._labels.append(event, names, time)
        except OSError as error:
            raise StorageUnavailable.refusing("the change", error) from error
        self._index.set_labels({name: current[name].after(event, time) for name in names})

    def _hide_jobs(self, names: Iterable[ImageName]) -> None:
        """Remove jobs from the table whose images are all in the trash."""
        for uuid in {name.uuid for name in names}:
            if self._index.is_deleted(uuid):
                self._broker.forget(uuid)

    def _split(self, names: set[ImageName]) -> tuple[list[str], list[Entry]]:
        """Return the jobs that lose all their images, and the records that others lose."""
        whole: list[str] = []
        parts: list[Entry] = []
        for uuid in sorted({name.uuid for name in names}):
            entries = self._index.find_records(uuid)
            selected = [each for each in entries if ImageName(uuid, each.image_index) in names]
            if len(selected) == len(entries):
                whole.append(uuid)
            else:
                parts += selected
        return whole, parts

    def _tell(self, names: list[ImageName], **change: bool) -> None:
        if names:
            self._publish({"images": list(map(str, names)), **change})


def _text(moment: datetime) -> str:
    """Return ISO 8601 in UTC, which the index compares as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
