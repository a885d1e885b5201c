"""The bytes that clients of the OpenAI images API read, compared with files in tests/golden/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import orjson
import pytest

from gateway.admission.capabilities import WorkerCapabilities
from gateway.dialects.openai.answers import AnswerPlan, Answers
from gateway.dialects.openai.errors import JobFailed, ModelNotFound, shape
from gateway.dialects.openai.models import ModelIds
from gateway.dialects.openai.signed_urls import SECRET_BYTES, UrlSigner
from gateway.errors import InvalidRequest, KeyRequired, QueueFull
from gateway.http import problems
from gateway.http.error_shapes import ErrorShapes
from gateway.jobs.broker import Broker
from gateway.jobs.lookup import JobLookup
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.job import Job, Outcome, result_record
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store import record_line

GOLDEN = Path(__file__).parent.parent / "golden" / "openai"
UUID = "00000000-0000-4000-8000-000000000001"

ERRORS: dict[str, Exception] = {
    "error-field": InvalidRequest([{"field": "size", "message": "must be auto", "value": "'x'"}]),
    "error-key": KeyRequired(),
    "error-model": ModelNotFound("model: no model has the id 'x'"),
    "error-busy": QueueFull(4),
    "error-failed": JobFailed("out of memory"),
}


def check(request: pytest.FixtureRequest, name: str, content: bytes) -> None:
    path = GOLDEN / name
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert content.decode() == path.read_text(), f"{path.name} has changed"


@pytest.fixture
def answers(tmp_path: Path) -> Any:
    """Of a store with one job of two images."""
    request = GenerationRequest(prompt="a", seed=7, num_images_per_prompt=2)
    job = Job(sequence=1, uuid=UUID, created_time="2026-01-01T00:00:01+00:00", request=request)
    lines = [
        record_line.encode(
            result_record(
                job,
                outcome=Outcome.SUCCEEDED,
                errors=[],
                data="eA==",
                metadata={"image_index": number, "num_images": 2, "width": 64, "height": 32},
            )
        )
        for number in range(2)
    ]
    (tmp_path / "gpu-0.00000001.jsonl").write_bytes(b"".join(lines))
    index = ResultIndex(tmp_path)
    index.open()
    yield Answers(JobLookup(Broker([], 0), index), index, UrlSigner(b"0" * SECRET_BYTES))
    index.close()


def test_an_answer(request: pytest.FixtureRequest, answers: Answers) -> None:
    plan = AnswerPlan(format="png", quality=100, with_base64=True, with_url=True)
    req, resp = falcon.testing.create_req(host="box", port=9090), falcon.Response()
    answers.write(req, resp, UUID, plan)
    stream: Any = resp.stream
    check(request, "images.json", stream.read() + b"\n")
    events = b"".join(answers.events(UUID, plan))
    check(request, "events.txt", events)


def test_models(request: pytest.FixtureRequest) -> None:
    ids = ModelIds(WorkerCapabilities(), aliases=True)
    model = ids.json("demo")
    assert model["created"]
    check(request, "model.json", orjson.dumps(model | {"created": 0}) + b"\n")


@pytest.mark.parametrize("name", ERRORS)
def test_an_error(request: pytest.FixtureRequest, name: str) -> None:
    def fails(req: falcon.Request, resp: falcon.Response) -> None:
        raise ERRORS[name]

    class Resource:
        on_get = staticmethod(fails)

    app = falcon.App(middleware=[ErrorShapes({"/": shape})])
    problems.register(app)
    app.add_route("/", Resource())
    reply = falcon.testing.simulate_get(app, "/")
    headers = {key: reply.headers.get(key) for key in ("retry-after", "x-should-retry")}
    whole = {"status": reply.status_code, "headers": headers, "body": reply.json}
    check(request, f"{name}.json", orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")
