"""The bytes that others read, compared with files in tests/golden/: a change of one is seen.

`pytest tests/test_golden.py --update-golden` writes the files anew; the diff is what a reviewer
reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import pytest
from sde_client.commands.app import app as cli
from typer.testing import CliRunner

from gateway import errors
from gateway.admission.submission_options import SubmissionOptions
from gateway.http import problems
from gateway.jobs.job_entry import JobEntry, JobState, JobView
from gateway.store import journal_event, tombstones
from gateway.store.gallery import labels_log
from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.image_search import Filters
from gateway.store.result_index import ResultIndex
from gpu_worker import pipeline
from gpu_worker.contract import protocol
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.fields.field_table import fields_of
from gpu_worker.contract.job import Job, Outcome, Source, result_record
from gpu_worker.contract.protocol import Reply, Request, WorkerStatus
from gpu_worker.contract.request import GenerationRequest, Upscale
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.output import result_records
from gpu_worker.pipeline.schedulers import catalog
from gpu_worker.settings import WorkerSettings, load
from gpu_worker.store import durable, in_flight, record_line
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_bench import write_library

GOLDEN = Path(__file__).parent / "golden"
UUID, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
CREATED, STARTED, ENDED = (f"2026-01-01T00:00:0{second}.000+00:00" for second in (1, 2, 3))
SUBMISSION = "0" * 32 + ":" + "1" * 32
DIGEST = "sha256:" + "ab" * 32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Check = Callable[[str, bytes], None]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Check:
    """Compares bytes with the file of that name, or writes it."""

    def check(name: str, content: bytes) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        assert content.decode() == path.read_text(), f"{path.name} has changed"

    return check


def full_request() -> GenerationRequest:
    """Every field that goes with another, none of them its default."""
    return GenerationRequest(
        prompt='a "red" circle\n(large:1.2)',
        negative_prompt="blurry",
        model="xl",
        num_inference_steps=30,
        guidance_scale=7.0,
        true_cfg_scale=3.0,
        width=512,
        height=768,
        seed=7,
        num_images_per_prompt=2,
        scheduler="EulerDiscreteScheduler",
        scheduler_options={"use_karras_sigmas": True, "timestep_spacing": "trailing"},
        clip_skip=1,
        eta=0.5,
        guidance_rescale=0.7,
        image=DIGEST,
        mask_image=DIGEST,
        strength=0.6,
        loras=[{"name": "ink", "weight": 0.8}],
        controlnets=[{"name": "canny", "image": DIGEST, "guidance_end": 0.5}],
        ip_adapter={"name": "face", "image": DIGEST, "scale": 0.3},
        embeddings=["cat"],
        vae="sharp",
        hires={"scale": 1.5, "upscaler": "lanczos", "strength": 0.4, "num_inference_steps": 9},
        refiner={"name": "xl-refiner", "switch_at": 0.9},
        step_log=True,
    )


def job(request: GenerationRequest | None = None, **more: Any) -> Job:
    request = request or GenerationRequest(prompt="a red circle", seed=7)
    return Job(sequence=12, uuid=UUID, created_time=CREATED, request=request, **more)


def upscale_job() -> Job:
    request = GenerationRequest(prompt="x", image=DIGEST, upscale=Upscale(scale=2.0), seed=1)
    return job(request, source=Source(uuid=OTHER, image_index=1))


def status(**more: Any) -> WorkerStatus:
    given = {"state": "idle", "boot_id": "b0", "log": "gpu-0.00000001.jsonl", "committed": 4096}
    return WorkerStatus.model_validate(given | more)


BUSY = {
    "state": "busy",
    "slots": [{"uuid": UUID, "step": 3, "steps": 60, "attempt": 2, "started_time": STARTED}],
    "step_s": 0.25,
    "trouble": "the disk is full",
    "model": "xl",
    "device": "NVIDIA H100",
    "dtype": "float16",
    "machine_size": "big",
    "described": 4,
    "loaded": "xl",
    "load_error": "broken: it is broken",
    "versions": {"torch": "2.13.0"},
    "memory_bytes": 1 << 30,
}


def test_protocol_requests(golden: Check) -> None:
    requests = {
        "status": Request(op="status", deadline=12.5),
        "submit": Request(op="submit", deadline=12.5, job=job(full_request())),
        "submit-upscale": Request(op="submit", deadline=12.5, job=upscale_job()),
        "cancel": Request(op="cancel", deadline=12.5, uuid=UUID),
        "rotate": Request(op="rotate", deadline=12.5, log="gpu-0.00000001.jsonl"),
        "describe": Request(op="describe", deadline=12.5),
        "load": Request(op="load", deadline=12.5, model="xl"),
        "unload": Request(op="unload", deadline=12.5),
    }
    for name, request in requests.items():
        frame = protocol.encode(request)
        golden(f"protocol/request-{name}.json", frame)
        assert protocol.decode_request(frame) == request


def test_protocol_replies(golden: Check) -> None:
    replies = {
        "idle": Reply(status=status(), accepted=True),
        "busy": Reply(status=status(**BUSY)),
        "description": Reply(
            status=status(), accepted=True, description=Capabilities(default="demo")
        ),
        "error": Reply(status=status(state="loading"), error="the deadline has passed"),
    }
    for name, reply in replies.items():
        frame = protocol.encode(reply)
        golden(f"protocol/reply-{name}.json", frame)
        assert protocol.decode_reply(frame) == reply


FACTS = {
    "image_index": 0,
    "num_images": 2,
    "attempt": 1,
    "started_time": STARTED,
    "ended_time": ENDED,
    "seconds": 1.5,
    "seed": 7,
    "device": "cpu",
    "step": 60,
    "steps": 60,
}


def test_record_lines(golden: Check) -> None:
    one = {**FACTS, "num_images": 1}
    made = {
        "succeeded": result_record(
            job(full_request(), submission=SUBMISSION),
            outcome=Outcome.SUCCEEDED,
            errors=[],
            data="eA==",
            metadata=FACTS,
        ),
        "upscaled": result_record(
            upscale_job(), outcome=Outcome.SUCCEEDED, errors=[], data="eA==", metadata=one
        ),
        "failed": result_record(
            job(), outcome=Outcome.FAILED, errors=["out of memory"], data=None, metadata=one
        ),
        "canceled": result_record(
            job(), outcome=Outcome.CANCELED, errors=["canceled"], data=None, metadata={}
        ),
    }
    for name, record in made.items():
        text = record_line.encode(record)
        golden(f"record/{name}.jsonl", text)
        assert record_line.parse(text).uuid == UUID


def test_what_the_process_notes(golden: Check, tmp_path: Path) -> None:
    notes = in_flight.InFlight(tmp_path, "gpu-0")
    notes.write(in_flight.InFlightJob(attempt=2, job=job(full_request())))
    path = tmp_path / f"gpu-0.in_flight.{UUID}.json"
    golden("record/in_flight.json", path.read_bytes())
    assert [path] == in_flight.note_paths(tmp_path)


def test_journal_events(golden: Check) -> None:
    events = {
        "accepted": {"job": job(full_request(), submission=SUBMISSION).model_dump(mode="json")},
        "dispatched": {"uuid": UUID, "worker": "gpu-0"},
        "cancel": {"uuid": UUID},
        "deleted": {"uuid": UUID, "submission": SUBMISSION},
        "sequence": {"sequence": 12},
    }
    for name, content in events.items():
        text = journal_event.encode({"event": name, **content})
        golden(f"journal/{name}.jsonl", text)
        assert journal_event.decode(text) == {
            "v": 1,
            "event": name,
            **content,
            "crc32": text[-11:-3].decode(),
        }


def test_a_deletion(golden: Check) -> None:
    golden("journal/tombstone.jsonl", tombstones.encode(UUID, SUBMISSION))
    golden("journal/tombstone-without-key.jsonl", tombstones.encode(UUID, None))
    durable.verify_checksum(tombstones.encode(UUID, None))


def test_labels_of_images(golden: Check) -> None:
    names = [ImageName(UUID, 0), ImageName(OTHER, 1)]
    for event in labels_log.EVENTS:
        time = CREATED if event == labels_log.TRASH else None
        line = labels_log.encode(event, names, time)
        golden(f"journal/label-{event}.jsonl", line)
        assert labels_log.decode(line) == (event, names, time)


def test_the_fields_of_a_request(golden: Check) -> None:
    golden("fields.json", pretty(fields_of(GenerationRequest) | fields_of(SubmissionOptions)))


def test_an_item_of_the_gallery(golden: Check, tmp_path: Path) -> None:
    record = result_record(
        job(full_request(), owner="owner", batch_id="night", client_name="tester"),
        outcome=Outcome.SUCCEEDED,
        errors=[],
        data="eA==",
        metadata={**FACTS, "num_images": 1},
    )
    (tmp_path / "gpu-0.00000001.jsonl").write_bytes(record_line.encode(record))
    index = ResultIndex(tmp_path)
    index.open()
    total, rows = index.search(Filters(words="red large"), 10)
    index.close()
    assert total == 1 and str(rows[0].cursor) == f"12.{UUID}.0"
    golden("gallery/item.json", pretty(rows[0].members))


def test_job_views(golden: Check) -> None:
    entry = JobEntry(job(full_request()))
    views = {"queued": entry.view(2, 12.5)}
    entry.state, entry.worker = JobState.RUNNING, "gpu-0"
    busy = status(**BUSY)
    entry.observe(busy.slots[0], busy.trouble)
    views["running"] = entry.view(None, 3.5)
    record = {"uuid": UUID, "created_time": CREATED, "errors": [], **FACTS, "state": "succeeded"}
    entry.end(record)
    views["succeeded"] = entry.view(None, None)
    assert JobView.from_record(record) == views["succeeded"]
    failure = record | {"state": "failed", "errors": ["no"], "step": 3}
    views["failed"] = JobView.from_record(failure)
    views["canceled"] = JobView.from_record(record | {"state": "canceled", "step": 3})
    for name, view in views.items():
        golden(f"job/{name}.json", pretty(view.json()))


def pretty(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def test_the_description(golden: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which options a scheduler lacks depends on the libraries of the machine.
    monkeypatch.setattr(catalog, "_lacks_library", lambda cls, option: False)
    catalog.options.cache_clear()
    models = tmp_path / "models"
    small = tiny_models.build()
    small.save_pretrained(models / "sd")
    tiny_adapters.build_xl().save_pretrained(models / "xl")
    tiny_adapters.save_lora(small, models / "ink.safetensors")
    write_library(
        tmp_path,
        models={
            "sd": {"source": "sd", "defaults": {"num_inference_steps": 4}},
            "xl": {"source": "xl"},
            "hub": {"source": "owner/name", "revision": "abc"},
            "gone": {"source": "gone.safetensors"},
        },
        loras={"ink": {"source": "ink.safetensors"}, "lost": {"source": "lost.safetensors"}},
    )
    ours = pipeline.load(load(WorkerSettings, {"SDE_DATA_DIR": str(tmp_path), "SDE_DEVICE": "cpu"}))
    text = pretty(ours.describe().model_dump(mode="json")).decode().replace(str(tmp_path), "DATA")
    catalog.options.cache_clear()
    golden("description.json", text.encode())


REFUSALS: dict[str, Exception] = {
    "queue-full": errors.QueueFull(4),
    "may-not-wait": errors.NoIdleWorker(4),
    "image-deleted": errors.ResultDeleted(f"{UUID}-2", is_image=True),
    "no-worker": errors.NoWorker(5),
    "storage": errors.StorageUnavailable("the disk is full"),
    "invalid": errors.InvalidRequest(
        [{"field": "width", "message": "must be a whole number", "value": "'x'"}], ["prompt"]
    ),
    "unsupported": Unsupported("vae", "x", "none of the vaes is called so"),
    "unknown-model": errors.UnknownModel("no model is called 'x'; there are: demo"),
    "not-described": errors.NotDescribed("no worker has said yet what it can do"),
    "not-loaded": errors.NotLoaded("x is not loaded"),
    "worker-busy": errors.WorkerBusy("the worker is busy"),
    "too-many-streams": errors.TooManyStreams("streams", 1),
    "key-reused": errors.IdempotencyKeyReused("Idempotency-Key: 'k' was sent before"),
    "unknown-job": errors.UnknownJob(UUID),
    "deleted": errors.ResultDeleted(UUID),
    "no-image": errors.NoImage("the job has no image"),
    "already-ended": errors.AlreadyEnded("the job has succeeded already"),
    "not-ended": errors.NotEnded("the job runs"),
    "damaged": durable.DamagedLine("does not match its checksum"),
    "not-found": falcon.HTTPRouteNotFound(),
    "bad-request": falcon.HTTPBadRequest(title="Invalid request", description="uuid: is none"),
    "unexpected": ZeroDivisionError("a secret"),
}


class Raises:
    """A resource that answers with one of them."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        raise REFUSALS[name]


def test_problem_documents(golden: Check) -> None:
    app = falcon.App()
    problems.register(app)
    app.add_route("/{name}", Raises())
    client = falcon.testing.TestClient(app)
    for name in REFUSALS:
        reply = client.simulate_get(f"/{name}")
        kept = {key: reply.headers.get(key) for key in ("content-type", "retry-after")}
        golden(f"problem/{name}.json", pretty({"headers": kept, "body": reply.json}))


def test_the_help_of_each_command(golden: Check) -> None:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "SDE_KEY": None, "SDE_URL": None})
    names = [
        str(each.name or getattr(each.callback, "__name__", "")) for each in cli.registered_commands
    ]
    assert len(names) > 15
    for name in ["", *names]:
        done = runner.invoke(cli, [*([name] if name else []), "--help"], prog_name="sde")
        assert done.exit_code == 0, done.output
        golden(f"help/{name or 'sde'}.txt", done.output.encode())


def test_the_words_of_a_fault(golden: Check) -> None:
    faults = [MemoryError(), ValueError("bad\udc80"), OSError(28, "No space left on device")]
    texts = [result_records.error_message(each) for each in faults]
    golden("record/sentences.json", pretty(texts))
