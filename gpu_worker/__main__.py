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
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from gpu_worker import gpu_environment, launcher, quantization_libraries
from gpu_worker.assets import model_library
from gpu_worker.contract import protocol
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.control import ready_note
from gpu_worker.control.load_error import LoadError
from gpu_worker.control.movement import Movement, resident_bytes
from gpu_worker.control.runner import Runner
from gpu_worker.control.server import ControlServer
from gpu_worker.control.slots import Slots
from gpu_worker.control.watchdog import StepWatchdog
from gpu_worker.output.partial_images import PartialImages
from gpu_worker.output.preview_file import PreviewFile
from gpu_worker.pipeline_api import DeviceLost, Pipeline
from gpu_worker.settings import DEFAULT_PIPELINE, SettingsError, WorkerSettings, load
from gpu_worker.store import in_flight, log_format, private_folder, process
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
    faulthandler.enable()
    try:
        settings = load(WorkerSettings, os.environ)
        endpoint = protocol.endpoint(settings.run_dir, settings.gpu)
        gpu_variables = gpu_environment.variables(settings, os.environ)
        _find_pipeline(settings)
        library = model_library.read(settings.models_dir / "models.toml")
        if settings.pipeline == DEFAULT_PIPELINE:
            hub_cache = _hub_cache(settings)
            model_library.check_setting(settings.model, library, settings.models_dir, hub_cache)
    except (ValueError, OSError) as error:
        print(f"gpu_worker: {log_format.SecretFilter(os.environ)(str(error))}", file=sys.stderr)
        return os.EX_CONFIG
    if "--check" in sys.argv[1:]:
        return 0
    log_format.configure(settings.log_format, os.environ)
    os.umask(0o077)
    process.exit_with_parent()
    os.environ.update(gpu_variables)
    _library_environment(settings)
    try:
        private_folder.make(settings.data_dir, follow_links=True)
        private_folder.make_cache(settings.model_cache)
        private_folder.make(settings.run_dir, settings.results_dir, settings.previews_dir)
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
        in_flight.refuse_newer(settings.results_dir, f"gpu-{settings.gpu}")
        results.open()
    except OSError as error:
        log.error("the result log cannot be opened: %s", error)
        return os.EX_UNAVAILABLE
    slots, stop = Slots(results.position), process.SignalEvent()
    _leave_on_signals(slots, stop)
    pipelines: list[Pipeline] = []
    status = _status_source(slots, settings.model, pipelines)
    ControlServer(
        endpoint, status, slots, lambda: pipelines[0].describe() if pipelines else Capabilities()
    ).start()
    log.info("loading %s", settings.model)
    last_error = LoadError(settings.run_dir / f"gpu-{settings.gpu}.load_error", settings.model)
    slots.fail_loading(last_error.read())
    movement = Movement(_hub_cache(settings))
    try:
        pipeline = _load_watched(settings, movement, last_error)
    except Exception as error:
        log.error("the model %s could not be loaded: %s", settings.model, error)
        slots.fail_loading(last_error.write(error))
        if os.environ.get("SUPERVISOR_ENABLED"):
            # The status names the error until supervisord starts the next attempt.
            stop.wait(LOAD_RETRY_S)
        # A driver that hangs would hang in the clean-up of this process, too.
        os._exit(_exit_code(error))
    last_error.clear()
    slots.fail_loading(None)
    pipelines.append(pipeline)
    _announce(settings, pipeline)
    watchdog = StepWatchdog(settings.step_timeout_s, movement)
    _run_jobs(_runner(settings, slots, results, pipeline, watchdog, stop))
    log.info("stopped")
    return 0


def _run_jobs(runner: Runner) -> None:
    """Run jobs until the worker is to stop. An error ends the process."""
    try:
        runner.run()
    except DeviceLost as error:
        log.critical("the device is lost and this process ends: %s", error)
        # A CUDA context with a sticky error may hang in its own clean-up.
        os._exit(os.EX_SOFTWARE)
    except Exception:
        log.critical("the main thread has died, so this process ends", exc_info=True)
        # A thread of a library must not keep a process alive that runs no more jobs.
        os._exit(os.EX_SOFTWARE)


def _announce(settings: WorkerSettings, pipeline: Pipeline) -> None:
    """Say in the log and in the terminal of run.sh that the first model is loaded."""
    log.info("ready: %s", pipeline.metadata)
    path = settings.run_dir / f"gpu-{settings.gpu}.ready"
    ready_note.write(path, settings.model, str(pipeline.metadata.get("device", "its device")))


def _exit_code(error: Exception) -> int:
    """Return the exit code for a first model that could not be loaded."""
    if isinstance(error, DeviceLost):
        return os.EX_SOFTWARE
    return os.EX_CONFIG if isinstance(error, SettingsError) else os.EX_UNAVAILABLE


def _runner(
    settings: WorkerSettings,
    slots: Slots,
    results: ResultLog,
    pipeline: Pipeline,
    watchdog: StepWatchdog,
    stop: threading.Event,
) -> Runner:
    writer = f"gpu-{settings.gpu}"
    return Runner(
        slots,
        results,
        InFlight(settings.results_dir, writer),
        pipeline,
        watchdog=watchdog,
        max_attempts=settings.max_attempts,
        stopping=stop.is_set,
        preview=PreviewFile(settings.previews_dir, writer),
        partial_images=PartialImages(settings.previews_dir, writer),
        unload_after_s=settings.unload_after_s,
        png_texts=settings.png_metadata == "on",
        served=launcher.served_reporter(os.environ),
        last_exit=os.environ.get(launcher.LAST_EXIT),
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
                    stepped_at=held.stepped_at,
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
            memory_bytes=resident_bytes(),
            load_error=view.load_error,
            gpu_memory_bytes=view.gpu_memory[0] if view.gpu_memory else None,
            gpu_memory_total_bytes=view.gpu_memory[1] if view.gpu_memory else None,
            versions={name: metadata[name] for name in _VERSIONS if name in metadata},
        )

    return status


def _find_pipeline(settings: WorkerSettings) -> None:
    """Raise ValueError when the module does not exist. It is not imported, which takes seconds."""
    module = settings.pipeline.split(":")[0]
    try:
        exists = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        exists = False
    if not exists:
        raise ValueError(f"SDE_PIPELINE={settings.pipeline!r}: the module {module} does not exist")


def _load_watched(settings: WorkerSettings, movement: Movement, last_error: LoadError) -> Pipeline:
    """Return the pipeline of SDE_PIPELINE. The process ends when nothing moves for too long."""

    def report(sentence: str) -> None:
        log.critical("the model %s: %s", settings.model, sentence)
        last_error.write(TimeoutError(sentence))

    watchdog = StepWatchdog(settings.step_timeout_s, movement, report)
    watchdog.arm(time.monotonic())
    try:
        return _load_pipeline(settings)
    finally:
        watchdog.cancel()


def _hub_cache(settings: WorkerSettings) -> Path:
    """Return the folder in which the hub library keeps its downloads."""
    own = os.environ.get("HF_HUB_CACHE", Path(settings.hf_home, "hub"))
    return Path(settings.cache_dir or own)


def _load_pipeline(settings: WorkerSettings) -> Pipeline:
    module, factory = settings.pipeline.split(":")
    pipeline: Pipeline = getattr(importlib.import_module(module), factory)(settings)
    return pipeline


def _library_environment(settings: WorkerSettings) -> None:
    """Set what the libraries read at their import.

    They log errors only: they warn of an image processor without torchvision, which no image needs.
    Nothing is downloaded while a worker serves, and nothing is reported: `sde pull` downloads.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    quantization_libraries.hide_unused(settings.quantization)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # On a CPU that is shared, OpenMP's spinning threads cost twenty times the work itself.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if settings.cache_dir is not None:
        os.environ.setdefault("HF_HUB_CACHE", str(settings.model_cache))


if __name__ == "__main__":
    sys.exit(main())
