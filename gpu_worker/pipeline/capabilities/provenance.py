"""Collects the provenance of an image: digests of weights, libraries, device and attention.

No file is loaded as a model.
"""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from gpu_worker.assets import model_library
from gpu_worker.assets.file_digests import FileDigests
from gpu_worker.assets.model_library import Asset, Library, ModelsError
from gpu_worker.contract.fields.request_walk import assets_of
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.capabilities.weight_files import loaded_files
from gpu_worker.pipeline.execution import alignment, rounding
from gpu_worker.pipeline.families import denoiser_of
from gpu_worker.pipeline.loading import quantization
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.loading.sources import DEMO_MODEL
from gpu_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Provenance:
    """The provenance of one worker.

    A model's files are read when it has been loaded, and those of a request's assets before its
    first step. So no generated image waits for them.
    """

    def __init__(self, settings: WorkerSettings, library: Library) -> None:
        self._settings = settings
        self.library = library
        self._digests = FileDigests(settings.run_dir / "weights.sqlite")
        self._model: dict[str, Any] = {}

    def read_model(self, name: str, variant: str | None = None) -> None:
        """Read the files of a model that has been loaded.

        Args:
            variant: the one that was loaded, such as fp16.
        """
        part = self.library.models.get(name, Asset(source=name))
        location, revision = self._location(part, own=name not in self.library.models)
        digest = None if location is None else self._digest(location, "models", variant)
        model = {"weights_sha256": digest, "revision": revision}
        self._model = {key: value for key, value in model.items() if value is not None}

    def metadata(self, pipe: Any, device: torch.device) -> dict[str, Any]:
        """Return the metadata of the loaded model and of what computes."""
        return {
            **environment(pipe),
            **self.device_metadata(device),
            **quantization.metadata(self._settings.quantization),
            **self._model,
        }

    def device_metadata(self, device: torch.device) -> dict[str, Any]:
        """Return the libraries, instructions and settings on which rounding depends."""
        if device.type == "cuda":
            return rounding.describe(device)
        if device.type != "cpu":
            return {}
        metadata: dict[str, Any] = {
            "cpu_model": _cpu_model(),
            "cpu_threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "weights_alignment_bytes": alignment.BYTES,
        }
        if self._settings.rounding:
            metadata["cpu_rounding"] = self._settings.rounding
        return metadata

    def asset_metadata(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the digests of the assets that the request names besides the model."""
        parts: dict[str, str] = {}
        loras: dict[str, str] = {}
        for kind, _, name in assets_of(request):
            # The model has its own digest, and built-in upscalers have no file.
            if kind == "models" or name not in getattr(self.library, kind):
                continue
            asset = getattr(self.library, kind)[name]
            location, _ = self._location(asset)
            if location is None:
                continue
            location = _only_file(location, kind, asset.variant)
            if digest := self._digest(location, kind, asset.variant):
                parts[f"{kind}/{name}"] = digest
            named_by_sites = kind == "loras" and location.suffix == ".safetensors"
            if named_by_sites and (digest := _digest_or_none(self._digests.of_tensors, location)):
                loras[name] = digest
        return {
            key: value for key, value in (("parts_sha256", parts), ("lora_hashes", loras)) if value
        }

    def _digest(self, location: Path, kind: str, variant: str | None) -> str | None:
        """Return the digest of what is loaded from a location; None where it cannot be read."""
        return _digest_or_none(
            lambda place: self._digests.of(place, loaded_files(place, kind, variant)), location
        )

    def _location(self, part: Asset, own: bool = False) -> tuple[Path | None, str | None]:
        """Return the location of an asset's files and their commit; None where it is unknown.

        Args:
            own: the source is the operator's own (SDE_MODEL), which may be any path.
        """
        if own and part.source == "demo":
            return DEMO_MODEL, None
        if own and Path(part.source).exists():
            return Path(part.source), part.revision
        try:
            folder = model_library.locate(self._settings.models_dir, part.source)
        except ModelsError:
            return None, part.revision
        revision = part.revision
        if folder is None:
            folder = self._snapshot(part)
            if folder is not None and _COMMIT.fullmatch(folder.name):
                revision = folder.name
        if folder is None or folder.is_file():
            return folder, revision
        location = folder / (part.subfolder or "") / (part.weight_name or "")
        return (location if location.exists() else folder), revision

    def _snapshot(self, part: Asset) -> Path | None:
        """Return the folder of a downloaded hub model. Nothing is downloaded."""
        from huggingface_hub import snapshot_download

        cache = self._settings.cache_dir
        try:
            folder = snapshot_download(
                part.source, revision=part.revision, cache_dir=cache, local_files_only=True
            )
        except (OSError, ValueError) as error:
            log.warning("the files of %s cannot be found: %s", part.source, error)
            return None
        return Path(folder)


def _only_file(location: Path, kind: str, variant: str | None) -> Path:
    """Return the only file that is loaded of a directory, whose digest is the public one."""
    files = loaded_files(location, kind, variant)
    return files[0] if len(files) == 1 and files[0].parent == location else location


def _digest_or_none(digest: Callable[[Path], str], location: Path) -> str | None:
    try:
        return digest(location)
    except OSError as error:
        log.warning("the digest of %s is unknown: %s", location, error)
        return None


def environment(pipe: Any) -> dict[str, Any]:
    """Return what else the pixels depend on. The noise is the same on every device."""
    return {
        "rng": "cpu",
        "transformers": transformers.__version__,
        "attention": attention(pipe),
    }


def _cpu_model() -> str:
    """Return the processor's product name (proc(5), cpuinfo), on which MKL's code depends."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def attention(pipe: Any) -> str:
    """Return the classes of the denoiser's attention processors.

    Those that use diffusers' dispatcher also name its backend: `FluxAttnProcessor/native`.
    """
    denoiser = denoiser_of(pipe)
    processors = getattr(denoiser, "attn_processors", {}).values()
    return "+".join(sorted({_processor(each) for each in processors}))


def _processor(processor: Any) -> str:
    name = type(processor).__name__
    if not hasattr(processor, "_attention_backend"):
        return name
    backend = processor._attention_backend
    if backend is None:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        backend = _AttentionBackendRegistry.get_active_backend()[0]
    return f"{name}/{getattr(backend, 'value', backend)}"


def process_metadata(device: torch.device, machine_size: str) -> dict[str, Any]:
    """Return the device, its MACHINE_SIZE and the versions of the libraries."""
    return {
        "device": device_name(device),
        "machine_size": machine_size,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }


def model_metadata(loaded: LoadedModel) -> dict[str, Any]:
    """Return what all images of the model have in common."""
    return {
        "model": loaded.name,
        "pipeline": type(loaded.pipe).__name__,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "offload": loaded.offload,
        "scheduler": type(loaded.pipe.scheduler).__name__,
    }


def device_name(device: torch.device) -> str:
    """Return the product name of a GPU, otherwise `cpu` or `mps`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
