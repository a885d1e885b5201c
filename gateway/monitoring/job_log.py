"""Logs one line when a job is accepted, one when it has ended, and one for a refused request.

The prompt and the values of refused fields are in a line only with SDE_LOG_PROMPTS=1.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from gateway.jobs.job_entry import JobEntry
from gateway.monitoring.counts import Counts
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store.log_format import FIELDS

log = logging.getLogger("gateway.jobs")

MAX_CHARS = 400
"""Of a reason or a prompt in a line."""

_OTHER_FIELDS = ("body", "generation_uuid", "image_index", "scale", "upscaler")

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[(]got .*[)]")
"""Values stand in quotes in every message of ours."""


class JobLog:
    """Writes the lines and counts what they report. Thread-safe."""

    def __init__(self, counts: Counts, *, with_prompts: bool) -> None:
        self._counts = counts
        self._with_prompts = with_prompts

    def accepted(self, entry: JobEntry) -> None:
        """Log the start of a job."""
        self._counts.accepted(entry.caller.door)
        fields = _origin(entry) | _generation(entry.job.request) | {"outcome": None}
        self._write(logging.INFO, "job accepted", fields | self._prompt(entry.job.request))

    def dispatched(self, entry: JobEntry) -> None:
        """Count how long the job has waited."""
        if entry.queued_s is not None:
            self._counts.waited(entry.queued_s)

    def ended(self, entry: JobEntry, record: dict[str, Any], step_s: float | None) -> None:
        """Log the end of a job, with its first error."""
        outcome, seconds = str(entry.state), record.get("seconds")
        has_steps = outcome == "succeeded" and (record.get("steps") or 0) > 1
        self._counts.ended(entry.caller.door, outcome, seconds, step_s if has_steps else None)
        request = entry.job.request
        size = {name: record.get(name) or getattr(request, name) for name in ("width", "height")}
        fields = {
            **_origin(entry),
            **_generation(request),
            **size,
            "model": record.get("model") or request.model,
            "worker": entry.worker,
            "attempt": record.get("attempt"),
            "queued_s": None if entry.queued_s is None else round(entry.queued_s, 3),
            "seconds": seconds,
            "outcome": outcome,
        }
        errors = record.get("errors") or []
        if errors:
            fields["error"] = self._reason(str(errors[0]), request)
        self._write(logging.INFO, "job ended", fields | self._prompt(request))

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an answer."""
        self._counts.answered(route, method, status)

    def refused(
        self,
        fields: dict[str, Any],
        problem: dict[str, Any],
        generation: GenerationRequest | None,
    ) -> None:
        """Log a refusal. `problem` is the document that the client gets."""
        level = logging.WARNING if fields["status"] >= 500 else logging.INFO
        more = {
            **_generation(generation),
            "outcome": "refused",
            "type": problem.get("type"),
            "fields": ",".join(_field_names(problem)) or None,
        }
        if self._with_prompts:
            more["detail"] = str(problem.get("detail"))[:MAX_CHARS]
        self._write(level, "request refused", fields | more)

    def _prompt(self, request: GenerationRequest) -> dict[str, Any]:
        return {"prompt": request.prompt[:MAX_CHARS]} if self._with_prompts else {}

    def _reason(self, text: str, request: GenerationRequest) -> str:
        if not self._with_prompts:
            for prompt in (request.prompt, request.negative_prompt):
                text = text.replace(prompt, "...") if prompt.strip() else text
            text = _QUOTED.sub("'...'", text)
        return text[:MAX_CHARS]

    def _write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        log.log(level, message, extra={FIELDS: fields})


def _field_names(problem: dict[str, Any]) -> list[str]:
    """Return the refused fields. The name of an unknown one is a text of the client."""
    names = [str(each.get("field")) for each in problem.get("errors", [])]
    fields = (*GenerationRequest.model_fields, *_OTHER_FIELDS)
    return [name if name.partition(".")[0] in fields else "unknown" for name in names]


def _origin(entry: JobEntry) -> dict[str, Any]:
    return {
        "request_id": entry.caller.request_id,
        "uuid": entry.job.uuid,
        "owner": entry.job.owner,
        "door": entry.caller.door,
    }


def _generation(request: GenerationRequest | None) -> dict[str, Any]:
    """Return what a line has of a request; all is None for a request that is no generation."""
    names = ("model", "width", "height")
    steps = None if request is None else request.steps
    return {name: getattr(request, name, None) for name in names} | {"steps": steps}
