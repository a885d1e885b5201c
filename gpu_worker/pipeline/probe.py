"""`python -m gpu_worker.pipeline.probe`: checks torch, the GPU and the models for `sde doctor`.

It prints one finding a line, as JSON, so that those before a crash are not lost. It reads the
headers of weights, and loads none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from gpu_worker import gpu_environment
from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Library
from gpu_worker.contract.validation_errors import error_text
from gpu_worker.pipeline.capabilities.library import describe_library
from gpu_worker.pipeline.execution import machine_size, memory
from gpu_worker.pipeline.execution.device import (
    DeviceUnavailable,
    Machine,
    start_device,
)
from gpu_worker.settings import SettingsError, WorkerSettings, load

_DRIVER = Path("/proc/driver/nvidia/version")

FULL = 0.5
"""The share of a GPU's memory above which other programs may be in the way."""


def say(level: str, area: str, text: str) -> None:
    """Print one finding."""
    print(json.dumps({"level": level, "area": area, "text": text}), flush=True)


def check_torch() -> None:
    """Report the build of torch, and the driver."""
    build = Machine.current().platform or "the CPU"
    has_driver = bool(gpu_environment.drivers())
    driver = f"; driver {_driver_version()}" if has_driver else "; no GPU driver on this machine"
    text = f"torch {torch.__version__}, built for {build}{driver}"
    if has_driver and build == "the CPU":
        advice = "install a torch for this GPU from the index that pytorch.org names"
        say("warning", "torch", f"{text}: the GPU stays unused; {advice}")
    else:
        say("ok", "torch", text)


def _driver_version() -> str:
    try:
        words = _DRIVER.read_text(encoding="utf-8").partition("\n")[0].split()
    except OSError:
        return "of an unknown version"
    return next((word for word in words if word[:1].isdigit()), "of an unknown version")


def check_device(settings: WorkerSettings) -> None:
    """Start the device of SDE_DEVICE, and report its memory."""
    area = f"gpu-{settings.gpu}"
    try:
        device = start_device(settings.device, settings.gpu)
    except (SettingsError, DeviceUnavailable, RuntimeError) as error:
        say("problem", area, error_text(error))
        return
    size = settings.machine_size or machine_size.choose_size(machine_size.memory_bytes(device))
    used = memory.gpu_memory(device)
    if used is None:
        say("ok", area, f"it computes on {device.type}, with MACHINE_SIZE={size}")
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    gib = [value / 2**30 for value in used]
    text = f"{name}: {gib[0]:.1f} of {gib[1]:.1f} GiB in use, MACHINE_SIZE={size}"
    if gib[0] > FULL * gib[1]:
        say("warning", area, f"{text}; unless that is this service, end the other programs")
    else:
        say("ok", area, text)


def check_models(settings: WorkerSettings) -> None:
    """Report SDE_MODEL and each entry of models.toml whose files cannot be used."""
    file = settings.models_dir / "models.toml"
    try:
        library = model_library.read(file)
    except (model_library.ModelsError, OSError) as error:
        say("problem", "models.toml", f"{error}; correct the file")
        library = Library()
    described = describe_library(library, settings, None)
    models = described["models"]
    for name, model in models.items():
        if model.error is not None:
            level = "problem" if name == settings.model else "warning"
            say(level, "model", f"{model.error}; add the files, or change SDE_MODEL or models.toml")
    for reasons in described["errors"].values():
        for reason in reasons.values():
            say("warning", "models.toml", f"{reason}; add the file, or remove the entry")
    usable = [name for name, model in models.items() if model.error is None]
    if settings.model in usable:
        say("ok", "model", f"SDE_MODEL={settings.model}; {_usable(usable)}")


def _usable(names: list[str]) -> str:
    return f"{len(names)} models can be used" if len(names) > 1 else "it can be used"


def main(arguments: list[str], environ: Any) -> int:
    """Print the findings; return 0 unless the settings are invalid."""
    try:
        settings = load(WorkerSettings, environ)
        environ.update(gpu_environment.variables(settings, environ))
    except SettingsError as error:
        say("problem", "settings", str(error))
        return os.EX_OK
    if "--device-only" not in arguments:
        check_torch()
    check_device(settings)
    if "--device-only" not in arguments:
        check_models(settings)
    sys.stdout.flush()
    # The thread of a driver that hangs would keep the process alive.
    os._exit(os.EX_OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
