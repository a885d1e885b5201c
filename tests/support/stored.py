"""A store with results in it, as an earlier service has left it."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from gpu_worker.store import record_line


def store(folder: Path, count: int) -> list[str]:
    """A log of so many failed results and a damaged line; their uuids, oldest first."""
    uuids = [str(UUID(int=number)) for number in range(1, count + 1)]
    lines = [
        record_line.encode(
            {
                "uuid": uuid,
                "prompt": f"prompt {number}",
                "created_time": "2026-01-01T00:00:00.000+00:00",
                "errors": ["none of these has run"],
                "data": None,
                "state": "failed",
                "sequence": number,
            }
        )
        for number, uuid in enumerate(uuids, 1)
    ]
    (folder / "disk_backups").mkdir()
    log = folder / "disk_backups" / "gpu-0.00000001.jsonl"
    log.write_bytes(b"".join((*lines[:5], b"damaged\n", *lines[5:])))
    return uuids
