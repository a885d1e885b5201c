"""Resources under /image: the seed's routes, and jobs. They look and accept; they do no work."""

from __future__ import annotations

import uuid as uuids

import falcon
import orjson

from gateway.broker import Broker, UnknownJob
from gpu_worker.generation import GenerationRequest
from gpu_worker.results import ResultIndex, array

MAX_BODY_BYTES = 1 << 20
JSON = "application/json"


def parse_uuid(text: str, where: str) -> str:
    """The canonical form; a client's string never reaches a path.

    Raises:
        falcon.HTTPBadRequest: it is no uuid.
    """
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise falcon.HTTPBadRequest(
            title="Invalid request", description=f"{where}: {ascii(text)[:80]} is not a uuid"
        ) from None


def json_body(req: falcon.Request) -> object:
    """The request's JSON; any other content type is refused, also none: a form on a foreign page
    could send those (cross-site request forgery).

    Raises:
        falcon.HTTPError: 415, 413 or 400.
    """
    kind = (req.content_type or "").partition(";")[0].strip().lower()
    if kind != JSON:
        said = f"got {ascii(req.content_type)[:80]}" if req.content_type else "none was sent"
        raise falcon.HTTPUnsupportedMediaType(
            title="Unsupported media type", description=f"Content-Type must be {JSON}; {said}"
        )
    body = req.bounded_stream.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise falcon.HTTPContentTooLarge(
            title="Too large", description=f"a request has at most {MAX_BODY_BYTES} bytes"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise falcon.HTTPBadRequest(
            title="Broken JSON", description=f"the body is not valid JSON: {error}"
        ) from None


class GenerateResource:
    """POST accepts a generation, GET streams results: the seed's contract."""

    def __init__(self, broker: Broker, index: ResultIndex) -> None:
        self._broker = broker
        self._index = index

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 `{"generation_uuid": ...}`, or 4xx, 429, 503."""
        request = GenerationRequest.model_validate(json_body(req))
        job = self._broker.accept(request)
        resp.data = orjson.dumps({"generation_uuid": job.uuid})

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All results, or the one of `generation_uuid`, as a JSON array streamed from the log."""
        for name in req.params:
            if name != "generation_uuid":
                raise falcon.HTTPBadRequest(
                    title="Invalid request",
                    description=f"{ascii(name)[:80]} is not a known parameter; "
                    "known is generation_uuid",
                )
        uuid: str | None = None
        if "generation_uuid" in req.params:
            given = req.get_param_as_list("generation_uuid") or [""]
            uuid = parse_uuid(",".join(given), "generation_uuid")
        resp.content_type = JSON
        resp.stream = array(self._index.entries(uuid))


class JobResource:
    """GET /image/jobs/{uuid}: where a job stands."""

    def __init__(self, broker: Broker, index: ResultIndex) -> None:
        self._broker = broker
        self._index = index

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """The table's view; for a job of an earlier life of the gateway, what the log says."""
        uuid = parse_uuid(uuid, "uuid")
        try:
            resp.data = orjson.dumps(self._broker.view(uuid))
        except UnknownJob:
            resp.data = orjson.dumps(self._from_log(uuid))

    def _from_log(self, uuid: str) -> dict[str, object]:
        entries = self._index.entries(uuid)
        if not entries:
            raise UnknownJob(uuid)
        record = orjson.loads(entries[0].read())
        steps = record.get("num_inference_steps", 0)
        return {
            "uuid": uuid,
            "state": "failed" if record["errors"] else "succeeded",
            "position": None,
            "step": 0 if record["errors"] else steps,
            "steps": steps,
            "eta_s": None,
            "attempts": record.get("attempt", 1),
            "created_time": record["created_time"],
            "errors": record["errors"],
        }
