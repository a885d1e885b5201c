"""The gateway with one more route, POST /v1/blocking: it takes a prompt, and answers at the end."""

from __future__ import annotations

import sys
from typing import Any

import falcon
import orjson

import gateway.app
from gateway.__main__ import main
from gateway.admission.submission_options import SubmissionOptions
from gateway.dialects.blocking import waited
from gateway.http.json_body import json_body
from gateway.http.request_log import caller
from gateway.services import Services
from gpu_worker.contract.request import GenerationRequest


class Blocking:
    """Answers `{"uuid", "state", "prompt"}` when the job has ended."""

    is_api = False

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        done = waited(req)
        if done is not None:
            state = self._services.lookup.view(done.uuid).state
            resp.data = orjson.dumps({"uuid": done.uuid, "state": state, "prompt": done.state})
            return
        body: Any = json_body(req, 1 << 20)
        request = GenerationRequest.model_validate(body)
        options = SubmissionOptions(queue=True)
        uuid = self._services.submission.submit(request, caller=caller(req), options=options)
        self._services.waiter.wait(req, resp, uuid, request.prompt)


def add_routes(app: Any, services: Services, max_body_bytes: int) -> None:
    app.add_route("/v1/blocking", Blocking(services))


if __name__ == "__main__":
    gateway.app.add_routes = add_routes
    sys.exit(main())
