"""The index's table of labels: stars, the trash, and images that were deleted one by one.

The log of labels is the source (labels_log.py). The table is a copy of it for queries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.labels_log import NO_LABEL, Label

SCHEMA = """
CREATE TABLE labels (
    uuid TEXT NOT NULL, image_index INTEGER NOT NULL,
    star INTEGER NOT NULL, trashed_time TEXT, is_deleted INTEGER NOT NULL,
    PRIMARY KEY (uuid, image_index)
) WITHOUT ROWID;
CREATE TRIGGER label_added AFTER INSERT ON labels BEGIN
    UPDATE images SET star = new.star, trashed_time = new.trashed_time
        WHERE uuid = new.uuid AND image_index = new.image_index;
    UPDATE results SET hidden = new.trashed_time IS NOT NULL
        WHERE uuid = new.uuid AND image_index = new.image_index;
    DELETE FROM results
        WHERE new.is_deleted AND uuid = new.uuid AND image_index = new.image_index;
END;
CREATE TRIGGER result_added AFTER INSERT ON results
WHEN EXISTS (
    SELECT 1 FROM labels WHERE uuid = new.uuid AND image_index = new.image_index
    AND trashed_time IS NOT NULL
)
BEGIN
    UPDATE results SET hidden = 1 WHERE uuid = new.uuid AND image_index = new.image_index;
END;
"""

_SET = "INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?)"


class LabelTable:
    """The table in an open index. It raises sqlite3.DatabaseError as IndexDb does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def sync(self, labels: Mapping[ImageName, Label]) -> None:
        """Make the table equal to the log."""
        query = "SELECT uuid, image_index, star, trashed_time, is_deleted FROM labels"
        current = {
            ImageName(row[0], row[1]): Label(bool(row[2]), row[3], bool(row[4]))
            for row in self._db.execute(query)
        }
        obsolete = [name for name in current if name not in labels]
        changed = {name: label for name, label in labels.items() if current.get(name) != label}
        if obsolete or changed:
            with self._db:
                self._write({**dict.fromkeys(obsolete, NO_LABEL), **changed})
                self._db.executemany(
                    "DELETE FROM labels WHERE uuid = ? AND image_index = ?", obsolete
                )

    def set(self, labels: Mapping[ImageName, Label]) -> None:
        """Set the labels of images, in one transaction."""
        with self._db:
            self._write(labels)

    def find(self, names: Iterable[ImageName]) -> dict[ImageName, Label]:
        """Return the labels of these images; an image without any has NO_LABEL."""
        query = (
            "SELECT star, trashed_time, is_deleted FROM labels WHERE uuid = ? AND image_index = ?"
        )
        labels = {}
        for name in names:
            row = self._db.execute(query, name).fetchone()
            labels[name] = Label(bool(row[0]), row[1], bool(row[2])) if row else NO_LABEL
        return labels

    def is_deleted(self, name: ImageName) -> bool:
        """Return whether an image was deleted although its job has others."""
        query = "SELECT 1 FROM labels WHERE uuid = ? AND image_index = ? AND is_deleted"
        return self._db.execute(query, name).fetchone() is not None

    def trashed_before(self, time: str) -> list[ImageName]:
        """Return the images that went into the trash before a time in ISO 8601, UTC."""
        query = (
            "SELECT uuid, image_index FROM images "
            "WHERE trashed_time IS NOT NULL AND trashed_time <= ?"
        )
        return [ImageName(*row) for row in self._db.execute(query, (time,))]

    def _write(self, labels: Mapping[ImageName, Label]) -> None:
        rows = ((*name, *label) for name, label in labels.items())
        self._db.executemany(_SET, rows)
