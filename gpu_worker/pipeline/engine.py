"""Loads models on demand and runs the images of a job one by one, with the seeds seed + i.

The images are not generated as a batch, because a batch rounds differently on most devices. An
image must not depend on the other images of its request.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from gpu_worker.pipeline.execution import (
    device_errors,
    fit,
    machine_size,
    memory,
    offload,
    vae_calls,
)
from gpu_worker.pipeline.execution.device import start_device
from gpu_worker.pipeline.execution.device_errors import Fault, classify
from gpu_worker.pipeline.execution.memory import PeakMemory, out_of_memory_message
from gpu_worker.pipeline.inputs.canvas import Canvas
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.inputs.input_images import InputImages
from gpu_worker.pipeline.loading import loader, sources
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.loading.recent_networks import RecentNetworks
from gpu_worker.pipeline.sampling import call_arguments, encoding, refiner
from gpu_worker.pipeline.sampling.image_generator import ImageGenerator
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
        self._device = start_device(settings.device, settings.gpu)
        self._assets = AssetFiles(
            models_file.library,
            settings.models_dir,
            settings.cache_dir,
            RecentNetworks(self._device),
        )
        size = settings.machine_size or machine_size.choose_size(
            machine_size.memory_bytes(self._device)
        )
        self._fits = fit.Fits(size, self._device, is_fixed=settings.machine_size is not None)
        self._loaded: LoadedModel | None = None
        self._has_garbage = False
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
            self.unload()  # the name now stands for another model
        else:
            self._describe()

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the process and of the loaded model."""
        # The control thread reads this while the main thread may replace it.
        loaded = self._loaded
        return self._process_metadata() | {
            "model": self._settings.model,
            **(provenance.model_metadata(loaded) if loaded is not None else {}),
        }

    def request_metadata(self, request: GenerationRequest) -> dict[str, Any]:
        """See `gpu_worker.pipeline_api.Pipeline.request_metadata`."""
        if request.upscale is not None:
            return self._process_metadata()
        name, loaded = request.model or self._settings.model, self._loaded
        if loaded is None or loaded.name != name:
            return self._process_metadata() | {"model": name}
        return self._process_metadata() | provenance.model_metadata(loaded)

    def _process_metadata(self) -> dict[str, Any]:
        loaded = self._loaded
        size = self._fits.base if loaded is None else loaded.placement
        return provenance.process_metadata(self._device, size)

    def describe(self) -> Capabilities:
        """See `gpu_worker.pipeline_api.Pipeline.describe`."""
        return self._description

    def gpu_memory(self) -> tuple[int, int] | None:
        """See `gpu_worker.pipeline_api.Pipeline.gpu_memory`."""
        return memory.gpu_memory(self._device)

    @property
    def loaded(self) -> str | None:
        """Return the name of the model in memory."""
        loaded = self._loaded
        return None if loaded is None else loaded.name

    def load(self, model: str | None) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.load`."""
        self._load(model or self._settings.model)

    def _load(self, name: str) -> None:
        if self.loaded == name:
            return
        source = sources.find(name, self._assets.library, self._settings)
        self.unload()
        self._has_garbage = True  # until the load has succeeded
        with device_errors.loss_reported(self._device):
            pipe = loader.load(source, self._settings, self._device)
            pipe.set_progress_bar_config(disable=True)
            vae_calls.install_all(pipe)
            base = self._fits.base
            words = sources.vocabulary_of(source)
            defaults = source.model.defaults
            loaded = LoadedModel(name, pipe, base, base, self._device, defaults, words)
            size = self._fits.first(name, pipe, loaded.default_side_px())
            self._place(loaded, size)
            if loaded.placement != size:
                self._fits.correct(name, loaded.placement)
        self._provenance.read_model(name, sources.variant(source))
        self._loaded, self._has_garbage = loaded, False
        self._describe()

    def _place(self, loaded: LoadedModel, size: machine_size.Size) -> None:
        """Move a model to its device, at this MACHINE_SIZE or at the next that fits.

        Raises:
            OutOfMemory: it fits at none.
        """
        try:
            loaded.placement = self._fits.place(loaded.name, loaded.pipe, size)
            return
        except Exception as error:
            if classify(error, self._device) is not Fault.MEMORY:
                raise
        machine_size.free(self._device)
        smallest = machine_size.SIZES[-1]
        raise OutOfMemory(out_of_memory_message(smallest, provenance.device_name(self._device)))

    def unload(self) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.unload`."""
        if self._loaded is not None:
            self._forget_model()
        if self._has_garbage:
            self._free()

    def _free(self) -> None:
        """Free the memory of what the worker has let go of. Raises DeviceLost."""
        self._has_garbage = False
        with device_errors.loss_reported(self._device):
            machine_size.free(self._device)

    def _forget_model(self) -> None:
        """Let go of the model, without a call of the device; the next load frees its memory."""
        self._loaded, self._has_garbage = None, True
        self._assets.recent.clear()
        self._describe()

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

        If the memory is too small, the job runs again with less of the model on the device, and the
        records of its images say so. Later jobs of that size begin there.
        """
        message = ""
        while True:
            try:
                images = self._attempt(job, on_step)
                break
            except fit.TooLarge as error:
                message, smaller = message or str(error), error.smaller
            # The error held the tensors of the attempt; they are free only here.
            log.warning("%s; this job runs with MACHINE_SIZE=%s", message, smaller)
            self._free()
        notes = {"out_of_memory": message} if message else {}
        return [dataclasses.replace(each, metadata=each.metadata | notes) for each in images]

    def _attempt(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        context = None
        try:
            if job.request.upscale is not None:
                return self._upscaled(job, job.request.upscale, on_step)
            context = self._prepare(job)
            self._fit(context)
            return self._generate(context, on_step)
        except OutOfMemory:
            raise
        except Exception as error:
            self._settle(error, context)
            raise
        except BaseException:
            self._forget_broken()
            raise

    def _settle(self, error: Exception, context: GenerationContext | None) -> None:
        """Leave the worker ready for the next job, and raise what the error means if it differs.

        Raises:
            BaseException: the stop of the job, which the error replaced.
            DeviceLost: the process must be replaced.
            OutOfMemory: the memory is too small; fit.TooLarge if a smaller MACHINE_SIZE may do.
        """
        stop = device_errors.stop_behind(error)
        if stop is not None:
            log.warning("a stopped job ended with: %s", device_errors.first_line(error))
            self._forget_broken()
            raise stop from None
        fault = classify(error, self._device)
        if fault is Fault.DEVICE:
            raise DeviceLost(device_errors.first_line(error)) from error
        failure = self._shortage(context) if fault is Fault.MEMORY else None
        self._forget_broken()
        if failure is not None:
            raise failure from error

    def _shortage(self, context: GenerationContext | None) -> OutOfMemory:
        """Return the error for a job that did not fit, and remember its size for other jobs."""
        device = provenance.device_name(self._device)
        if context is None:
            return OutOfMemory(out_of_memory_message(None, device))
        loaded = context.loaded
        message = out_of_memory_message(loaded.placement, device)
        return self._fits.shortage(
            loaded.name, loaded.pipe, loaded.placement, _demand(context), message
        )

    def _forget_broken(self) -> None:
        """Let go of a model that a failed job has left with another dtype, or with lost hooks."""
        if self._loaded is not None and not self._loaded.is_intact():
            self._forget_model()

    def _prepare(self, job: Job) -> GenerationContext:
        """Load the request's model, and return all that the request's pipeline is built from."""
        request = job.request
        self._load(request.model or self._settings.model)
        loaded, about = self._loaded, self._description
        if loaded is None:
            raise RuntimeError("no model is loaded")
        checks.check_model(request, loaded.name, about.models[loaded.name], about.schedulers)
        images = InputImages(self._settings.inputs_dir / job.uuid)
        canvas = Canvas.for_request(loaded, request, images)
        if request.hires is not None:
            multiple = loaded.side_multiple_px()
            output_size.check_hires(canvas.size, request.hires.scale, multiple)
        watched = job.partial_images > 0
        return GenerationContext(loaded, request, images, self._assets, canvas, watched)

    def _fit(self, context: GenerationContext) -> None:
        """Move the loaded model to where the request fits. If that fails, no model is loaded."""
        loaded = context.loaded
        size = self._fits.of_job(loaded.name, _demand(context))
        if size == loaded.placement:
            return
        try:
            offload.disable(loaded.pipe)
            machine_size.free(self._device)
            self._place(loaded, size)
        except BaseException:
            self._forget_model()
            raise

    def _generate(self, context: GenerationContext, on_step: OnStep) -> list[GeneratedImage]:
        request = context.request
        peak = PeakMemory(self._device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._assets.recent.job())
            pipe, adapter_arguments, about_adapters = stack.enter_context(attach.attach(context))
            scheduler = stack.enter_context(select.use_scheduler(pipe, context))
            arguments, resolved = call_arguments.build(context, pipe)
            prompts, about_prompts = encoding.encode(pipe, request, resolved["guidance_scale"])
            stack.enter_context(encoding.once(pipe))
            generator = ImageGenerator(
                context,
                pipe,
                arguments | adapter_arguments | prompts,
                scheduler | resolved | about_prompts | about_adapters,
                self._enlarge,
                stack.enter_context(refiner.attach(pipe, context, resolved)),
            )
            about_files = self._provenance.asset_metadata(request)
            count = request.num_images_per_prompt
            generated = [generator.generate(number, on_step) for number in range(count)]
            metadata = self._provenance.metadata(pipe, self._device) | about_files
        metadata["peak_memory_bytes"] = peak.read()
        return [GeneratedImage(each.image, metadata | each.metadata) for each in generated]

    def _upscaled(self, job: Job, request: Upscale, on_step: OnStep) -> list[GeneratedImage]:
        """Enlarge the job's own image, which needs no model."""
        inputs, digest = InputImages(self._settings.inputs_dir / job.uuid), str(job.request.image)
        peak = PeakMemory(self._device)
        image = inputs.image(digest)
        size = output_size.upscaled_size(image.size, request.scale)
        about_files = self._provenance.asset_metadata(job.request)
        upscaled = self._enlarge(image, request.upscaler, size)
        on_step(1, 1)
        metadata = {
            **self._provenance.device_metadata(self._device),
            **upscale.versions(request.upscaler),
            **about_files,
            "peak_memory_bytes": peak.read(),
        }
        return [
            GeneratedImage(upscaled, metadata, infotext.with_size(inputs.parameters(digest), *size))
        ]

    def _enlarge(self, image: Image.Image, name: str, size: tuple[int, int]) -> Image.Image:
        assets = self._assets
        return upscale.enlarge(image, name, size, assets.library, assets.folder, self._device)


def _demand(context: GenerationContext) -> fit.Demand:
    multiple = context.loaded.side_multiple_px()
    return fit.Demand.of_request(context.request, context.canvas.size, multiple)
