"""What made a picture, beside the request: the weights' digests, libraries, device, attention.

Reads weight files, in a thread of its own; loads none of them.
"""

from __future__ import annotations

import logging
import platform
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from gpu_worker.assets import model_library
from gpu_worker.assets.file_digests import FileDigests
from gpu_worker.assets.model_library import Asset, Kind, Library, ModelsError
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.loading import alignment, quantization
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.loading.sources import DEMO_MODEL
from gpu_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Provenance:
    """Of one worker. A model's files are read while it loads, so that a picture seldom waits."""

    def __init__(self, settings: WorkerSettings, library: Library) -> None:
        self._settings = settings
        self.library = library
        self._digests = FileDigests(settings.run_dir / f"weights.gpu-{settings.gpu}.json")
        self._model: Future[dict[str, Any]] | None = None

    def loading(self, name: str) -> None:
        """A model is being loaded: begin to read its files."""
        future: Future[dict[str, Any]] = Future()

        def read() -> None:
            try:
                future.set_result(self._model_facts(name))
            except Exception as error:
                future.set_exception(error)

        # A daemon: a worker that is told to stop does not wait for gigabytes to be read.
        threading.Thread(target=read, name="weights", daemon=True).start()
        self._model = future

    def facts(self, pipe: Any, request: GenerationRequest, device: torch.device) -> dict[str, Any]:
        """What the records of this request say; waits until the model's files have been read."""
        return {
            **environment(pipe),
            **self.device_facts(device),
            **quantization.metadata(self._settings.quantization),
            **(self._model.result() if self._model is not None else {}),
            **self.part_facts(request),
        }

    def device_facts(self, device: torch.device) -> dict[str, Any]:
        """Libraries, instructions and memory by which a device rounds."""
        if device.type == "cuda":
            return {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
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

    def _model_facts(self, name: str) -> dict[str, Any]:
        part = self.library.models.get(name, Asset(source=name))
        place, revision = self._place(part, own=name not in self.library.models)
        facts: dict[str, Any] = {}
        if place is not None and (digest := _digest_or_none(self._digests.of, place)):
            facts["weights_sha256"] = digest
        if revision is not None:
            facts["revision"] = revision
        return facts

    def part_facts(self, request: GenerationRequest) -> dict[str, Any]:
        """Of what the request names beside the model."""
        named: list[tuple[Kind, str]] = [("loras", lora.name) for lora in request.loras]
        named += [("embeddings", name) for name in request.embeddings]
        named += [("controlnets", net.name) for net in request.controlnets]
        if request.ip_adapter is not None:
            named.append(("ip_adapters", request.ip_adapter.name))
        if request.vae is not None:
            named.append(("vaes", request.vae))
        if request.refiner is not None:
            named.append(("refiners", request.refiner.name))
        for larger in (request.hires, request.upscale):
            if larger is not None and larger.upscaler in self.library.upscalers:
                named.append(("upscalers", larger.upscaler))
        parts: dict[str, str] = {}
        loras: dict[str, str] = {}
        for kind, name in named:
            place, _ = self._place(self.library.part(kind, name))
            if place is None:
                continue
            place = _only_file(place)
            if digest := _digest_or_none(self._digests.of, place):
                parts[f"{kind}/{name}"] = digest
            named_by_sites = kind == "loras" and place.suffix == ".safetensors"
            if named_by_sites and (digest := _digest_or_none(self._digests.of_tensors, place)):
                loras[name] = digest
        return {
            key: value for key, value in (("parts_sha256", parts), ("lora_hashes", loras)) if value
        }

    def _place(self, part: Asset, own: bool = False) -> tuple[Path | None, str | None]:
        """Where its files lie on this machine, and the commit they are of, as far as is known.

        Args:
            own: the operator's own word (SDE_MODEL), which may be a path anywhere.
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
        place = folder / (part.subfolder or "") / (part.weight_name or "")
        return (place if place.exists() else folder), revision

    def _snapshot(self, part: Asset) -> Path | None:
        """Of a hub model as it has been downloaded; nothing is fetched."""
        from huggingface_hub import snapshot_download

        cache = self._settings.cache_dir
        try:
            folder = snapshot_download(
                part.source, revision=part.revision, cache_dir=cache, local_files_only=True
            )
        except (OSError, ValueError) as error:
            log.warning("the files of %s are not found: %s", part.source, error)
            return None
        return Path(folder)


def _only_file(place: Path) -> Path:
    """The weights of a directory that has one file of them: it is that file which others know."""
    files = [path for path in place.glob("*") if path.suffix in model_library.SAFE_SUFFIXES]
    return files[0] if len(files) == 1 else place


def _digest_or_none(digest: Callable[[Path], str], place: Path) -> str | None:
    try:
        return digest(place)
    except OSError as error:
        log.warning("the digest of %s is not known: %s", place, error)
        return None


def environment(pipe: Any) -> dict[str, Any]:
    """What else pixels depend on: the same noise on every device, but not the same rounding."""
    return {
        "rng": "cpu",
        "transformers": transformers.__version__,
        "attention": attention(pipe),
    }


def _cpu_model() -> str:
    """The processor's product name (proc(5), cpuinfo); MKL chooses its code by it too."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def attention(pipe: Any) -> str:
    """The classes that compute the denoiser's attention; those that leave it to diffusers'
    dispatcher with its backend: `FluxAttnProcessor/native`."""
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
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
    """Where it runs and by which libraries, whatever it does."""
    return {
        "device": device_name(device),
        "machine_size": machine_size,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }


def model_metadata(loaded: LoadedModel) -> dict[str, Any]:
    """What every picture that the model draws has in common."""
    return {
        "model": loaded.name,
        "pipeline": type(loaded.pipe).__name__,
        "dtype": str(loaded.pipe.dtype).removeprefix("torch."),
        "scheduler": type(loaded.pipe.scheduler).__name__,
    }


def device_name(device: torch.device) -> str:
    """A GPU's product name, else `cpu` or `mps`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
