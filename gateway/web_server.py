"""waitress as this service runs it, and its own refusals as problem documents.

What waitress refuses itself (a body or headers too large, a broken request) never reaches falcon.
"""

from __future__ import annotations

from typing import Any

import orjson
import waitress.channel
import waitress.server
import waitress.task

from gateway.problems import PROBLEM_JSON

SERVER_THREADS = 32
"""20 of them may wait: eight for a job's next change (gateway/jobs.py), twelve that serve streams
(gateway/events.py)."""

SLACK_BYTES = 1 << 20
"""A body that is a little too large is read to its end and refused by falcon."""


class ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """waitress's answer to what it refuses, in our shape."""

    def execute(self) -> None:
        """Write it and close the connection: the rest of the request was not read."""
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        document = {
            "type": "about:blank",
            "title": error.reason,
            "status": error.code,
            "detail": str(error.body),
        }
        body = orjson.dumps(document)
        self.response_headers.append(("Content-Type", PROBLEM_JSON))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def listen(app: Any, host: str, port: int, max_body_bytes: int) -> Any:
    """A server that has bound its address. Raises OSError."""
    waitress.channel.HTTPChannel.error_task_class = ProblemTask  # waitress's own seam: a class's
    return waitress.server.create_server(
        app,
        host=host,
        port=port,
        threads=SERVER_THREADS,
        connection_limit=500,
        asyncore_use_poll=True,  # select() ends the process beyond ~1000 connections
        backlog=128,
        channel_timeout=30,
        cleanup_interval=2,
        channel_request_lookahead=0,
        max_request_header_size=32768,
        max_request_body_size=max_body_bytes + SLACK_BYTES,
        outbuf_overflow=8 << 20,  # else every picture over 1 MB goes through a temporary file
        expose_tracebacks=False,
        ident=None,
    )
