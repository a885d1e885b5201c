"""The index's table of images: what can be searched, and what a gallery shows of each.

It is in the same SQLite file as the places of the records, and its rows come and go with theirs.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

import orjson

SCHEMA = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL, image_index INTEGER NOT NULL,
    sequence INTEGER NOT NULL, place INTEGER NOT NULL, state TEXT NOT NULL,
    created REAL, day TEXT, model TEXT, seed INTEGER, width INTEGER, height INTEGER,
    owner TEXT, batch_id TEXT, client_name TEXT, loras TEXT,
    prompt TEXT NOT NULL, members TEXT NOT NULL,
    star INTEGER NOT NULL DEFAULT 0, trashed_time TEXT,
    UNIQUE (uuid, image_index)
);
CREATE INDEX images_shown ON images (sequence DESC, uuid DESC, place DESC)
    WHERE trashed_time IS NULL;
CREATE INDEX images_in_trash ON images (trashed_time) WHERE trashed_time IS NOT NULL;
CREATE INDEX images_by_day ON images (day) WHERE trashed_time IS NULL;
CREATE VIRTUAL TABLE words USING fts5(
    prompt, content='images', content_rowid='id',
    tokenize='unicode61 remove_diacritics 2'
);
CREATE TRIGGER image_added AFTER INSERT ON images BEGIN
    INSERT INTO words (rowid, prompt) VALUES (new.id, new.prompt);
END;
CREATE TRIGGER image_removed AFTER DELETE ON images BEGIN
    INSERT INTO words (words, rowid, prompt) VALUES ('delete', old.id, old.prompt);
END;
CREATE TRIGGER result_removed AFTER DELETE ON results BEGIN
    DELETE FROM images WHERE uuid = old.uuid AND image_index = old.image_index;
END;
"""
"""`place` is -image_index, so that one direction sorts jobs and their images (newest job first)."""

MEMBERS = (
    *("uuid", "image_index", "num_images", "state", "created_time", "ended_time"),
    *("negative_prompt", "model", "seed", "width", "height"),
    *("num_inference_steps", "guidance_scale", "scheduler"),
    *("owner", "batch_id", "client_name", "errors", "seconds"),
)
"""The members of a record that the table has as JSON, beside its prompt."""

_INSERT = """
INSERT INTO images (
    uuid, image_index, sequence, place, state, created, day, model, seed, width, height,
    owner, batch_id, client_name, loras, prompt, members, star, trashed_time
)
SELECT ?1, ?2, ?3, -?2, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
    COALESCE((SELECT star FROM labels WHERE uuid = ?1 AND image_index = ?2), 0),
    (SELECT trashed_time FROM labels WHERE uuid = ?1 AND image_index = ?2)
"""


def insert(
    db: sqlite3.Connection, uuid: str, image_index: int, num_images: int, metadata: bytes
) -> None:
    """Add an image whose record has just been indexed.

    Args:
        metadata: the record's line with `data` null.
    """
    record = orjson.loads(metadata)
    record |= {"image_index": image_index, "num_images": num_images}
    created = _moment(record.get("created_time"))
    db.execute(
        _INSERT,
        (
            uuid,
            image_index,
            record["sequence"],
            record["state"],
            created.timestamp() if created else None,
            created.astimezone().date().isoformat() if created else None,
            _value(record, "model", str),
            _whole(record, "seed"),
            _whole(record, "width"),
            _whole(record, "height"),
            _value(record, "owner", str),
            _value(record, "batch_id", str),
            _value(record, "client_name", str),
            _loras(record),
            _value(record, "prompt", str) or "",
            orjson.dumps({name: record.get(name) for name in MEMBERS}).decode(),
        ),
    )


def _value(record: dict[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    return value if isinstance(value, kind) else None


def _whole(record: dict[str, Any], name: str) -> int | None:
    """Return a whole number that SQLite can store."""
    value = record.get(name)
    return value if type(value) is int and abs(value) < 1 << 63 else None


def _loras(record: dict[str, Any]) -> str | None:
    """Return the names of the LoRAs, each between line feeds."""
    entries = record.get("loras")
    if not isinstance(entries, list) or not entries:
        return None
    names = [str(each.get("name")) for each in entries if isinstance(each, dict)]
    return "".join(f"\n{name}\n" for name in names)


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
