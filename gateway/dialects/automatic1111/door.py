"""Holds what the resources of this API share: the services, and the options that clients set."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import Any, TypeVar

import falcon

from gateway.access.principal import Scope
from gateway.admission.turns import Turns
from gateway.dialects.automatic1111.saved_options import (
    MAX_CLIP_LAYERS,
    Options,
    OptionsFile,
)
from gateway.dialects.automatic1111.translation.request_models import Generation
from gateway.dialects.automatic1111.translation.target import (
    Checkpoint,
    Target,
    checkpoints,
    find_checkpoint,
)
from gateway.errors import NotDescribed, RequestRefused, UnknownModel
from gateway.http.access_control import principal
from gateway.jobs.job_entry import JobEntry, JobView
from gateway.services import Services
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.protocol import ModelCommand, WorkerState

NAME = "automatic1111"
"""The word for this door in the log and in metrics."""

Request = TypeVar("Request", bound=Generation)

_MAX_TASKS = 1000


class DoorResource:
    """What every resource of this API is."""

    door = NAME
    is_api = False
    takes_any_query = True

    def __init__(self, door: Door) -> None:
        self._door = door


class Door:
    """The parts that this API uses. Thread-safe.

    Args:
        max_body_bytes: a larger body is refused with 413.
    """

    def __init__(self, services: Services, max_body_bytes: int) -> None:
        self.services = services
        self.max_body_bytes = max_body_bytes
        self._lock = threading.Lock()
        self._file = OptionsFile(services.automatic1111_options)
        self._options = self._file.read()
        # It bounds the memory of images that are resized, masked and pasted at a time.
        self.preparation = Turns(2, 16, 60.0)
        self._tasks: OrderedDict[str, str] = OrderedDict()

    @property
    def options(self) -> Options:
        """Return the options of now."""
        return self._options

    def description(self) -> Capabilities:
        """Return what a worker has described, which is empty before one has."""
        with contextlib.suppress(NotDescribed):
            return self.services.capabilities.description()
        return Capabilities()

    def target(self) -> Target:
        """Return the model of requests that name none."""
        description = self.description()
        statuses = self.services.broker.workers().values()
        loaded = [status.loaded or status.model for status in statuses if status is not None]
        target = Target(None, description, checkpoints(description, loaded))
        checkpoint = self._options.checkpoint
        return target if checkpoint is None else target.with_model(checkpoint, "", [])

    def current_title(self) -> str:
        """Return the title of the model of requests that name none; nothing if none is known."""
        target = self.target()
        for each in target.models:
            if target.name is None or each.model == target.name:
                return each.title
        return ""

    def with_options(self, request: Request) -> Request:
        """Return a request with the options for what it does not set itself."""
        own: dict[str, Any] = {"sd_vae": self._options.vae}
        if request.clip_skip is None:
            own["CLIP_stop_at_last_layers"] = self._options.clip_layers
        settings = own | {
            name: value for name, value in request.override_settings.items() if value is not None
        }
        return request.model_copy(update={"override_settings": settings})

    def set_options(self, req: falcon.Request, changed: dict[str, Any]) -> None:
        """Set the options that have an effect, for the later requests of everybody.

        Raises:
            ScopeMissing: the key may not change what others get.
            UnknownModel: no model has the name.
        """
        options = self._changed(changed)
        if options == self._options:
            return
        principal(req).check_scope(Scope.ADMIN)
        with self._lock:
            before, self._options = self._options, options
            self._file.write(options)
        if options.checkpoint != before.checkpoint:
            self.load()

    def _changed(self, changed: dict[str, Any]) -> Options:
        own: dict[str, object] = {}
        text = changed.get("sd_model_checkpoint")
        if isinstance(text, str) and text.strip():
            title = self._find(text).title
            if title != self.current_title():
                own["checkpoint"] = title
        if isinstance(vae := changed.get("sd_vae"), str):
            own["vae"] = vae[:80]
        layers = changed.get("CLIP_stop_at_last_layers")
        if isinstance(layers, int) and 1 <= layers <= MAX_CLIP_LAYERS:
            own["clip_layers"] = int(layers)
        return self._options.model_copy(update=own)

    def _find(self, text: str) -> Checkpoint:
        models = self.target().models
        choice = find_checkpoint(text, models)
        if choice is None:
            names = ", ".join(each.title for each in models) or "none"
            raise UnknownModel(f"model {text[:80]!r} not found; the models are: {names}")
        return choice

    def load(self) -> None:
        """Have an idle worker load the model. If none is idle, the next job does it."""
        name = self.target().name
        if name is None:
            return
        with contextlib.suppress(RequestRefused):
            names = self.services.capabilities.workers_of(name)
            self._send(ModelCommand(name), names, once=True)

    def unload(self) -> None:
        """Have each idle worker unload its model."""
        self._send(ModelCommand(unload=True), list(self.services.commands), once=False)

    def _send(self, command: ModelCommand, workers: list[str], *, once: bool) -> None:
        statuses = self.services.broker.workers()
        for worker in workers:
            status = statuses.get(worker)
            if status is None or status.state is not WorkerState.IDLE:
                continue
            with contextlib.suppress(RequestRefused):
                self.services.commands[worker].submit(command)
                if once:
                    return

    def jobs(self) -> list[tuple[JobEntry, JobView]]:
        """Return the jobs of this API that run or wait, in the order of their arrival."""
        broker = self.services.broker
        _, live = broker.changes((), broker.arrivals())
        return [
            (entry, view)
            for entry, view in live
            if entry.caller.door == NAME and not view.state.ended
        ]

    def note_task(self, task: str | None, uuid: str) -> None:
        """Note the job of a client's own id, for POST /internal/progress."""
        if not task:
            return
        with self._lock:
            self._tasks[task[:200]] = uuid
            while len(self._tasks) > _MAX_TASKS:
                self._tasks.popitem(last=False)

    def uuid_of_task(self, task: str | None) -> str | None:
        """Return the job of a client's own id; None if it is unknown."""
        with self._lock:
            return self._tasks.get((task or "")[:200])
