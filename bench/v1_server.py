"""A service as version 1 describes its own, to stand beside ours: `python -m bench.v1_server`.

FastAPI on uvicorn, one process, a pool of one thread; the results are a list in memory, which is
written anew to the disk at each. Pipeline and PNG encoder are those that ours runs in the bench.
"""

from __future__ import annotations

import argparse
import base64
import uuid as uuids
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastapi
import orjson
import pydantic
import uvicorn

from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.output import result_records
from gpu_worker.store import durable
from tests.pipelines.instant import Instant


class Asked(pydantic.BaseModel):
    """What a client may send; version 1 has the prompt alone."""

    prompt: str
    num_inference_steps: int = 50
    seed: int | None = None


class Generator:
    """One thread that generates, and the list of what it has made.

    Args:
        queue_size: jobs that may wait in the pool. The seed has none and answers 429; with none
            there would be no load to measure.
        synced: a result is on disk for good before it is shown, as ours is. The seed's is shown,
            then written, and nobody waits for the disk.
    """

    def __init__(self, path: Path, queue_size: int, synced: bool) -> None:
        self.results: list[dict[str, Any]] = []
        self._path = path
        self._most = queue_size + 1
        self._synced = synced
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pipeline = Instant()
        self._held = 0

    @property
    def is_available(self) -> bool:
        """Whether a job would start at once."""
        return self._held == 0

    def submit(self, asked: Asked) -> str:
        """The job's uuid. Raises fastapi.HTTPException (429)."""
        if self._held >= self._most:
            raise fastapi.HTTPException(429)
        self._held += 1
        uuid, now = str(uuids.uuid4()), datetime.now(UTC).isoformat()
        job = Job(
            uuid=uuid,
            sequence=0,
            created_time=now,
            request=GenerationRequest(**asked.model_dump()),
        )
        self._pool.submit(self._run, job)
        return uuid

    def _run(self, job: Job) -> None:
        record: dict[str, Any] = {
            "uuid": job.uuid,
            "prompt": job.request.prompt,
            "created_time": job.created_time,
            "errors": [],
            "data": None,
        }
        try:
            picture = self._pipeline.generate(job, lambda *_: None)[0]
            record["data"] = base64.b64encode(result_records.encode_png(picture.image)).decode(
                "ascii"
            )
        except Exception as error:
            record["errors"] = [str(error)]
        if self._synced:
            durable.replace(self._path, _lines([*self.results, record]))
            self.results.append(record)
        else:
            self.results.append(record)
            self._path.write_bytes(_lines(self.results))
        self._held -= 1


def _lines(results: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in results)


def create_app(generator: Generator) -> fastapi.FastAPI:
    """The seed's three routes. Coroutines: quicker here than FastAPI's own pool of threads."""
    app = fastapi.FastAPI()

    @app.get("/server/status")
    async def status() -> dict[str, bool]:
        return {"is_available": generator.is_available}

    @app.post("/image/generate")
    async def generate(asked: Asked) -> dict[str, str]:
        return {"generation_uuid": generator.submit(asked)}

    @app.get("/image/generate")
    async def results(generation_uuid: str | None = None) -> list[dict[str, Any]]:
        found = generator.results
        if generation_uuid is None:
            return found
        return [record for record in found if record["uuid"] == generation_uuid]

    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--folder", type=Path, required=True, help="an existing one")
    parser.add_argument("--queue-size", type=int, default=0)
    parser.add_argument("--synced", action="store_true", help="on disk before it is shown")
    options = parser.parse_args()
    path = options.folder / "results.jsonl"
    app = create_app(Generator(path, options.queue_size, options.synced))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
