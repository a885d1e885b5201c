"""Runs the GPU worker, `python -m gpu_worker`: settings, lock, signals.

The socket answers `loading` before torch is imported; the pipeline runs on the main thread.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from gpu_worker import quantization_libraries
from gpu_worker.assets import model_library
from gpu_worker.contract import protocol
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.control.load_error import LoadError
from gpu_worker.control.runner import Runner
from gpu_worker.control.server import ControlServer
from gpu_worker.control.slots import Slots
from gpu_worker.output.preview_file import PreviewFile
from gpu_worker.pipeline_api import DeviceLost, Pipeline
from gpu_worker.settings import DEFAULT_PIPELINE, WorkerSettings, load
from gpu_worker.store import process
from gpu_worker.store.in_flight import InFlight
from gpu_worker.store.process import StoreLocked
from gpu_worker.store.result_log import ResultLog

LOAD_RETRY_S = 60.0
"""The time between two attempts to load SDE_MODEL, for example while the hub is away."""

_VERSIONS = ("torch", "diffusers", "transformers", "cuda")

log = logging.getLogger("gpu_worker")


def main() -> int:
    """Run until SIGTERM or SIGINT; return an exit code of sysexits.h.

    `--check` only reads the settings and models.toml.
    """
    process.log_to_stderr()
    faulthandler.enable()
    try:
        settings = load(WorkerSettings, os.environ)
        endpoint = protocol.endpoint(settings.run_dir, settings.gpu)
        _find_pipeline(settings)
        library = model_library.read(settings.models_dir / "models.toml")
        if settings.pipeline == DEFAULT_PIPELINE:
            model_library.check_setting(settings.model, library, settings.models_dir)
    except (ValueError, OSError) as error:
        print(f"gpu_worker: {error}", file=sys.stderr)
        return os.EX_CONFIG
    if "--check" in sys.argv[1:]:
        return 0
    os.umask(0o077)
    process.exit_with_parent()
    _library_environment(settings)
    try:
        process.make_directories(
            settings.run_dir, settings.results_dir, settings.model_cache, settings.previews_dir
        )
        held = process.lock(settings.results_dir / f"gpu-{settings.gpu}.lock", "the result store")
    except StoreLocked as error:
        print(f"gpu_worker: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    except OSError as error:
        print(f"gpu_worker: SDE_DATA_DIR={settings.data_dir}: {error}", file=sys.stderr)
        return os.EX_CANTCREAT
    with held:
        return _serve(settings, endpoint)


def _serve(settings: WorkerSettings, endpoint: str) -> int:
    results = ResultLog(settings.results_dir, f"gpu-{settings.gpu}", settings.segment_mib << 20)
    try:
        results.open()
    except OSError as error:
        log.error("the result log cannot be opened: %s", error)
        return os.EX_UNAVAILABLE
    slots, stop = Slots(results.position), threading.Event()
    _leave_on_signals(slots, stop)
    pipelines: list[Pipeline] = []
    status = _status_source(slots, settings.model, pipelines)
    ControlServer(
        endpoint, status, slots, lambda: pipelines[0].describe() if pipelines else Capabilities()
    ).start()
    log.info("loading %s", settings.model)
    last_error = LoadError(settings.run_dir / f"gpu-{settings.gpu}.load_error", settings.model)
    slots.fail_loading(last_error.read())
    try:
        pipeline = _load_pipeline(settings)
    except Exception as error:
        log.error("the model %s could not be loaded: %s", settings.model, error)
        slots.fail_loading(last_error.write(error))
        if os.environ.get("SUPERVISOR_ENABLED"):
            # The status names the error until supervisord starts the next attempt.
            stop.wait(LOAD_RETRY_S)
        return os.EX_UNAVAILABLE
    last_error.clear()
    slots.fail_loading(None)
    pipelines.append(pipeline)
    log.info("ready: %s", pipeline.metadata)
    try:
        _runner(settings, slots, results, pipeline, stop).run()
    except DeviceLost as error:
        log.critical("the device is lost and this process ends: %s", error)
        # A CUDA context with a sticky error may hang in its own clean-up.
        os._exit(os.EX_SOFTWARE)
    log.info("stopped")
    return 0


def _runner(
    settings: WorkerSettings,
    slots: Slots,
    results: ResultLog,
    pipeline: Pipeline,
    stop: threading.Event,
) -> Runner:
    writer = f"gpu-{settings.gpu}"
    return Runner(
        slots,
        results,
        InFlight(settings.results_dir, writer),
        pipeline,
        step_timeout_s=settings.step_timeout_s,
        max_attempts=settings.max_attempts,
        stopping=stop.is_set,
        preview=PreviewFile(settings.previews_dir, writer),
        unload_after_s=settings.unload_after_s,
        png_texts=settings.png_metadata == "on",
    )


def _leave_on_signals(slots: Slots, stop: threading.Event) -> None:
    def leave(*_: object) -> None:
        stop.set()
        if slots.view().state is protocol.WorkerState.LOADING:
            # A model that is loading or downloading checks no flag, and no job is held yet.
            os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def _status_source(
    slots: Slots, model: str, pipelines: list[Pipeline]
) -> Callable[[], protocol.WorkerStatus]:
    boot_id = uuid.uuid4().hex

    def status() -> protocol.WorkerStatus:
        view = slots.view()
        metadata = pipelines[0].metadata if pipelines else {"model": model}
        return protocol.WorkerStatus(
            state=view.state,
            boot_id=boot_id,
            log=view.log,
            committed=view.committed,
            capacity=slots.capacity,
            slots=[
                protocol.SlotStatus(
                    uuid=held.job.uuid,
                    step=held.step,
                    steps=held.steps,
                    attempt=held.attempt,
                    started_time=held.started_time,
                )
                for held in view.held
            ],
            step_s=view.step_s,
            trouble=view.trouble,
            model=metadata.get("model"),
            device=metadata.get("device"),
            dtype=metadata.get("dtype"),
            machine_size=metadata.get("machine_size"),
            described=pipelines[0].described if pipelines else 0,
            loaded=pipelines[0].loaded if pipelines else None,
            memory_bytes=_memory_bytes(),
            load_error=view.load_error,
            versions={name: metadata[name] for name in _VERSIONS if name in metadata},
        )

    return status


def _memory_bytes() -> int:
    """Return the resident bytes of this process (proc(5), statm). Records have device memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _find_pipeline(settings: WorkerSettings) -> None:
    """Raise ValueError when the module does not exist. It is not imported, which takes seconds."""
    module = settings.pipeline.split(":")[0]
    try:
        exists = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        exists = False
    if not exists:
        raise ValueError(f"SDE_PIPELINE={settings.pipeline!r}: the module {module} does not exist")


def _load_pipeline(settings: WorkerSettings) -> Pipeline:
    module, factory = settings.pipeline.split(":")
    pipeline: Pipeline = getattr(importlib.import_module(module), factory)(settings)
    return pipeline


def _library_environment(settings: WorkerSettings) -> None:
    """Set what the libraries read at their import, unless the user has set it.

    They log errors only: they warn of an image processor without torchvision, which no image needs.
    """
    quantization_libraries.hide_unused(settings.quantization)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # On a CPU that is shared, OpenMP's spinning threads cost twenty times the work itself.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if settings.cache_dir is not None:
        os.environ.setdefault("HF_HUB_CACHE", str(settings.model_cache))


if __name__ == "__main__":
    sys.exit(main())
