"""Loads models on demand and runs the images of a job one by one, with the seeds seed + i.

The images are not generated as a batch, because a batch rounds differently on most devices. An
image must not depend on the other images of its request.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from PIL import Image

from gpu_worker.assets.library_file import LibraryFile
from gpu_worker.contract import checks, output_size
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest, Upscale
from gpu_worker.output import infotext
from gpu_worker.pipeline.adapters import attach
from gpu_worker.pipeline.capabilities import library, provenance
from gpu_worker.pipeline.capabilities.provenance import Provenance
from gpu_worker.pipeline.loading import alignment, loader, machine_size, sources
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.loading.memory import (
    PeakMemory,
    is_fatal_device_error,
    is_out_of_memory,
    out_of_memory_message,
)
from gpu_worker.pipeline.sampling import call_arguments, prompt_embedding, refiner
from gpu_worker.pipeline.sampling.canvas import Canvas
from gpu_worker.pipeline.sampling.context import GenerationContext
from gpu_worker.pipeline.sampling.image_generator import ImageGenerator
from gpu_worker.pipeline.sampling.input_images import InputImages
from gpu_worker.pipeline.schedulers import select
from gpu_worker.pipeline.upscaling import upscale
from gpu_worker.pipeline_api import DeviceLost, GeneratedImage, OnStep, OutOfMemory
from gpu_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


class DiffusersPipeline:
    """A pipeline with at most one loaded model, on one device."""

    def __init__(self, settings: WorkerSettings, models_file: LibraryFile) -> None:
        self._settings = settings
        self._file = models_file
        self._assets = AssetFiles(models_file.library, settings.models_dir, settings.cache_dir)
        self._device = machine_size.choose_device(settings.device, settings.gpu)
        self._size: machine_size.Size = settings.machine_size or machine_size.choose_size(
            machine_size.memory_bytes(self._device)
        )
        self._loaded: LoadedModel | None = None
        self._description = Capabilities()
        self.described = 0
        self._provenance = Provenance(settings, models_file.library)

    def refresh(self) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.refresh`."""
        if not self._file.reread():
            return
        before, library, name = self._assets.library.models, self._file.library, self.loaded
        self._assets.library = self._provenance.library = library
        if name is not None and before.get(name) != library.models.get(name):
            self._remove_model()  # the name now stands for another model
        self._describe()

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the process and of the loaded model."""
        # The control thread reads this while the main thread may replace it.
        loaded = self._loaded
        return provenance.process_metadata(self._device, self._size) | {
            "model": self._settings.model,
            **(provenance.model_metadata(loaded) if loaded is not None else {}),
        }

    def request_metadata(self, request: GenerationRequest) -> dict[str, Any]:
        """See `gpu_worker.pipeline_api.Pipeline.request_metadata`."""
        if request.upscale is not None:
            return provenance.process_metadata(self._device, self._size)
        name, loaded = request.model or self._settings.model, self._loaded
        if loaded is None or loaded.name != name:
            return provenance.process_metadata(self._device, self._size) | {"model": name}
        return provenance.process_metadata(self._device, self._size) | provenance.model_metadata(
            loaded
        )

    def describe(self) -> Capabilities:
        """See `gpu_worker.pipeline_api.Pipeline.describe`."""
        return self._description

    @property
    def loaded(self) -> str | None:
        """Return the name of the model in memory."""
        loaded = self._loaded
        return None if loaded is None else loaded.name

    def load(self, model: str | None) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.load`."""
        self._load(model or self._settings.model, in_job=False)

    def _load(self, name: str, *, in_job: bool) -> None:
        if self.loaded == name:
            return
        source = sources.find(name, self._assets.library, self._settings)
        self._remove_model()
        self._provenance.loading(name)
        pipe = loader.load(
            source, self._settings, machine_size.choose_dtype(self._device), in_job=in_job
        )
        pipe.set_progress_bar_config(disable=True)
        machine_size.apply(pipe, self._size, self._device)
        alignment.align(pipe, self._device)
        self._loaded = LoadedModel(name, pipe, self._size, self._device, source.model.defaults)
        self._describe()

    def unload(self) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.unload`."""
        if self._remove_model():
            self._describe()

    def _remove_model(self) -> bool:
        """Remove the model from memory and return whether there was one."""
        if self._loaded is None:
            return False
        self._loaded = None
        machine_size.free(self._device)
        return True

    def _describe(self) -> None:
        """Renew the description, which the control thread sends at once."""
        pipe = self._loaded.pipe if self._loaded is not None else None
        capabilities = library.describe_library(
            self._assets.library, self._settings, self.loaded, pipe
        )
        self._description = Capabilities(**capabilities, models_error=self._file.error)
        self.described += 1

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """See `gpu_worker.pipeline_api.Pipeline.generate`.

        If the memory is too small, the job runs again with the next smaller MACHINE_SIZE, and the
        records of its images say so.
        """
        try:
            return self._attempt(job, on_step)
        except OutOfMemory as error:
            smaller, message = machine_size.next_smaller(self._size), str(error)
            if smaller is None or job.request.upscale is not None:
                raise
        # The error held the tensors of the first attempt; they are free only here.
        log.warning("%s; this job runs with MACHINE_SIZE=%s", message, smaller)
        return self._attempt_with_less(job, on_step, smaller, message)

    def _attempt(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        try:
            if job.request.upscale is not None:
                return self._upscaled(job, job.request.upscale, on_step)
            return self._generate(self._ready(job.request.model), job, on_step)
        except Exception as error:
            if is_out_of_memory(error):
                size = None if job.request.upscale is not None else self._size
                raise OutOfMemory(
                    out_of_memory_message(size, provenance.device_name(self._device))
                ) from error
            if is_fatal_device_error(error):
                raise DeviceLost(str(error).splitlines()[0]) from error
            raise
        finally:
            machine_size.empty_cache(self._device)

    def _attempt_with_less(
        self, job: Job, on_step: OnStep, smaller: machine_size.Size, message: str
    ) -> list[GeneratedImage]:
        """Run the job with a smaller MACHINE_SIZE. The model is loaded for this job only."""
        before, self._size = self._size, smaller
        self._remove_model()
        try:
            images = self._attempt(job, on_step)
            of_model = self.request_metadata(job.request)
        finally:
            self.unload()
            self._size = before
        notes = {"machine_size": smaller, "out_of_memory": message}
        return [GeneratedImage(each.image, of_model | each.metadata | notes) for each in images]

    def _ready(self, model: str | None) -> LoadedModel:
        self._load(model or self._settings.model, in_job=True)
        if self._loaded is None:
            raise RuntimeError("no model is loaded")
        return self._loaded

    def _generate(self, loaded: LoadedModel, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        request, about = job.request, self._description
        checks.check_model(request, loaded.name, about.models[loaded.name], about.schedulers)
        images = InputImages(self._settings.inputs_dir / job.uuid)
        canvas = Canvas.for_request(loaded, request, images)
        if request.hires is not None:
            multiple = loaded.side_multiple_px()
            output_size.check_hires(canvas.size, request.hires.scale, multiple)
        context = GenerationContext(loaded, request, images, self._assets, canvas)
        peak = PeakMemory(self._device)
        with contextlib.ExitStack() as stack:
            pipe, adapter_arguments, about_adapters = stack.enter_context(attach.attach(context))
            scheduler = stack.enter_context(select.use_scheduler(pipe, context))
            arguments, resolved = call_arguments.build(context, pipe)
            prompts, about_prompts = prompt_embedding.build(pipe, request)
            generator = ImageGenerator(
                context,
                pipe,
                arguments | adapter_arguments | prompts,
                scheduler | resolved | about_prompts | about_adapters,
                self._enlarge,
                stack.enter_context(refiner.attach(pipe, context, resolved)),
            )
            count = request.num_images_per_prompt
            generated = [generator.generate(number, on_step) for number in range(count)]
            metadata = self._provenance.metadata(pipe, request, self._device)
        metadata["peak_memory_bytes"] = peak.read()
        return [GeneratedImage(each.image, metadata | each.metadata) for each in generated]

    def _upscaled(self, job: Job, request: Upscale, on_step: OnStep) -> list[GeneratedImage]:
        """Enlarge the job's own image, which needs no model."""
        inputs, digest = InputImages(self._settings.inputs_dir / job.uuid), str(job.request.image)
        peak = PeakMemory(self._device)
        image = inputs.image(digest)
        size = output_size.upscaled_size(image.size, request.scale)
        upscaled = self._enlarge(image, request.upscaler, size)
        on_step(1, 1)
        metadata = {
            **self._provenance.device_metadata(self._device),
            **upscale.versions(request.upscaler),
            **self._provenance.asset_metadata(job.request),
            "peak_memory_bytes": peak.read(),
        }
        return [
            GeneratedImage(upscaled, metadata, infotext.with_size(inputs.parameters(digest), *size))
        ]

    def _enlarge(self, image: Image.Image, name: str, size: tuple[int, int]) -> Image.Image:
        assets = self._assets
        return upscale.enlarge(image, name, size, assets.library, assets.folder, self._device)


def load(settings: WorkerSettings) -> DiffusersPipeline:
    """Return the default pipeline of SDE_PIPELINE, with the model of SDE_MODEL loaded.

    Raises:
        ModelNotFound: SDE_MODEL names nothing that can be loaded.
        ModelsError: models.toml is invalid.
        ValueError: this machine does not have SDE_DEVICE.
    """
    loader.silence_libraries()
    pipeline = DiffusersPipeline(settings, LibraryFile(settings.models_dir / "models.toml"))
    pipeline.load(None)
    return pipeline
