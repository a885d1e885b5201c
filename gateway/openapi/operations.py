"""Lists every operation of the HTTP API. A test compares the list with the routes."""

from __future__ import annotations

from gateway.admission.submission_options import SubmissionOptions
from gateway.openapi.operation import (
    BOOLEAN,
    NO_CONTENT,
    OBJECT,
    UUID,
    Answer,
    Operation,
    Schema,
    array,
    integer,
    members,
)
from gateway.routes.events import END_ID
from gateway.routes.gallery import results
from gateway.routes.gallery.changes import ImageList, StarChange
from gateway.routes.gallery.thumbnails import DEFAULT_PX
from gateway.routes.generate import DEFAULT_PAGE, MAX_PAGE
from gateway.routes.jobs import MAX_LISTED, MAX_WAIT_S
from gateway.routes.keys import NewKey
from gateway.routes.upscale import UpscaleRequest
from gateway.store.gallery.thumbnail_cache import MAX_PX, MIN_PX
from gpu_worker.contract.request import GenerationRequest

_ACCEPTED = Answer("The job is accepted.", members(generation_uuid="string"))
_JOB = members(
    uuid="string",
    state="string",
    position="integer|null",
    step="integer",
    steps="integer",
    eta_s="number|null",
    attempts="integer",
    cancel_requested="boolean",
    created_time="string",
    started_time="string|null",
    ended_time="string|null",
    errors="array",
    owner="string|null",
    batch_id="string|null",
    client_name="string|null",
)
_WORKER = members(worker="string", name="string", state="string", restarts="integer")
_RECORD = members(uuid="string", prompt="string", created_time="string", errors="array")
_TEXT: Schema = {"type": "string"}
_FILTERS: dict[str, Schema] = {
    **dict.fromkeys(results.FILTERS, _TEXT),
    "q": {"type": "string", "maxLength": results.MAX_WORDS_CHARS},
    "seed": integer(0, results.MAX_SEED),
    "size": {"type": "string", "pattern": "^[0-9]{1,5}x[0-9]{1,5}$"},
    "star": BOOLEAN,
    "trash": BOOLEAN,
}
_CHANGED = {200: Answer("The number of images that have changed.", members(changed="integer"))}
_IDEMPOTENCY = ("Idempotency-Key",)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/healthz"): Operation(
        "Return whether the gateway answers.",
        {200: Answer("It does.", members(status="string"))},
        scope=None,
    ),
    ("GET", "/readyz"): Operation(
        "Return whether a worker can take jobs.",
        {200: Answer("One can.", members(status="string"))},
        scope=None,
    ),
    ("GET", "/metrics"): Operation(
        "Return the metrics in the text format of Prometheus.",
        {200: Answer("The metrics.", {"type": "string"}, "text/plain")},
    ),
    ("GET", "/openapi.json"): Operation("Return this document.", {200: Answer("It.", OBJECT)}),
    ("GET", "/server/status"): Operation(
        "Return whether a job accepted now would start at once.",
        {200: Answer("The status.", members(is_available="boolean"))},
    ),
    ("GET", "/server/workers"): Operation(
        "List the workers.", {200: Answer("The workers.", array(_WORKER))}
    ),
    ("GET", "/server/storage"): Operation(
        "Return the state of the result log and its disk.",
        {
            200: Answer(
                "Counts and bytes.",
                members(
                    results="integer",
                    size_bytes="integer",
                    segments="integer",
                    damaged_lines="integer",
                    free_bytes="integer|null",
                    trouble="string|null",
                ),
            )
        },
    ),
    ("GET", "/server/models"): Operation(
        "Describe the models, schedulers and adapters.", {200: Answer("The description.", OBJECT)}
    ),
    ("GET", "/server/fields"): Operation(
        "Describe each field of a request.", {200: Answer("An object by field.", OBJECT)}
    ),
    ("POST", "/server/models/{name}/load"): Operation(
        "Load a model.", {202: Answer("A worker loads it.", _WORKER)}, scope="admin"
    ),
    ("POST", "/server/models/{name}/unload"): Operation(
        "Unload a model.", {202: Answer("A worker unloads it.", _WORKER)}, scope="admin"
    ),
    ("GET", "/server/session"): Operation(
        "Return who sends the request.",
        {200: Answer("The sender.", members(key="string|null", scopes="array"))},
    ),
    ("POST", "/server/session"): Operation(
        "Begin a session, as a cookie of a web page.", {204: NO_CONTENT}
    ),
    ("DELETE", "/server/session"): Operation("End the session.", {204: NO_CONTENT}, scope=None),
    ("GET", "/server/keys"): Operation(
        "List the keys.",
        {200: Answer("The keys.", array(members(name="string", scopes="array")))},
        scope="admin",
    ),
    ("POST", "/server/keys"): Operation(
        "Make a key.",
        {201: Answer("The key, this one time.", members(name="string", key="string"))},
        body=NewKey,
        scope="admin",
    ),
    ("DELETE", "/server/keys/{name}"): Operation("Revoke a key.", {204: NO_CONTENT}, scope="admin"),
    ("POST", "/image/generate"): Operation(
        "Submit a generation.",
        {200: _ACCEPTED},
        body=GenerationRequest,
        options=SubmissionOptions,
        headers=_IDEMPOTENCY,
    ),
    ("GET", "/image/generate"): Operation(
        "List results.",
        {200: Answer("The records.", array(_RECORD))},
        query={
            "generation_uuid": UUID,
            "limit": integer(1, MAX_PAGE, DEFAULT_PAGE),
            "before": UUID,
            "data": BOOLEAN,
        },
    ),
    ("DELETE", "/image/generate"): Operation(
        "Move the results of a job into the trash.",
        {204: NO_CONTENT},
        query={"generation_uuid": UUID, "trash": BOOLEAN},
        required=frozenset({"generation_uuid"}),
    ),
    ("POST", "/image/upscale"): Operation(
        "Submit the upscaling of a stored image.",
        {200: _ACCEPTED},
        body=UpscaleRequest,
        options=SubmissionOptions,
        headers=_IDEMPOTENCY,
    ),
    ("GET", "/image/files/{name}"): Operation(
        "Return an image or its thumbnail.",
        {200: Answer("The image.", _TEXT, "image/*")},
        query={"px": integer(MIN_PX, MAX_PX, DEFAULT_PX), "download": BOOLEAN, "trash": BOOLEAN},
    ),
    ("GET", "/image/results"): Operation(
        "Search the images.",
        {200: Answer("A page of images.", members(total="integer", results="array"))},
        query={
            **_FILTERS,
            "fields": _TEXT,
            "offset": integer(0, results.MAX_OFFSET, 0),
            "limit": integer(1, results.MAX_PAGE, results.DEFAULT_PAGE),
            "cursor": _TEXT,
        },
    ),
    ("GET", "/image/results/days"): Operation(
        "Count the images of each day.",
        {200: Answer("The days.", members(days="array"))},
        query=_FILTERS,
    ),
    ("POST", "/image/star"): Operation("Set or remove stars.", _CHANGED, body=StarChange),
    ("POST", "/image/trash"): Operation("Move images into the trash.", _CHANGED, body=ImageList),
    ("POST", "/image/restore"): Operation(
        "Move images out of the trash.", _CHANGED, body=ImageList
    ),
    ("POST", "/image/delete"): Operation("Delete images for good.", _CHANGED, body=ImageList),
    ("POST", "/image/zip"): Operation(
        "Return images as one archive.",
        {200: Answer("The archive.", _TEXT, "application/zip")},
        body=ImageList,
    ),
    ("GET", "/events"): Operation(
        "Stream what happens to all jobs, results and workers as server-sent events.",
        {200: Answer("The events.", _TEXT, "text/event-stream")},
        headers=("Last-Event-ID",),
    ),
    ("GET", "/image/jobs"): Operation(
        "List jobs, the newest first.",
        {200: Answer("The jobs.", array(_JOB))},
        query={"limit": integer(1, MAX_LISTED, 100)},
    ),
    ("GET", "/image/jobs/{uuid}"): Operation(
        "Return a job.",
        {200: Answer("The job.", _JOB)},
        query={"wait": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S}},
    ),
    ("DELETE", "/image/jobs/{uuid}"): Operation(
        "Cancel a job.",
        {200: Answer("It has ended.", _JOB), 202: Answer("It ends before its next step.", _JOB)},
    ),
    ("GET", "/image/jobs/{uuid}/events"): Operation(
        "Stream a job's life as server-sent events.",
        {
            200: Answer("The events.", {"type": "string"}, "text/event-stream"),
            204: Answer(f"The client has seen the end (Last-Event-ID {END_ID})."),
        },
        headers=("Last-Event-ID",),
    ),
    ("GET", "/image/jobs/{uuid}/preview"): Operation(
        "Return the preview of a running job.",
        {200: Answer("The preview.", {"type": "string"}, "image/jpeg")},
    ),
    ("GET", "/image/jobs/{uuid}/inputs/{sha256}"): Operation(
        "Return an input image of a job.", {200: Answer("The image.", {"type": "string"}, "*/*")}
    ),
}
