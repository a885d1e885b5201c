"""Loads models on demand and runs a job's pictures one by one; a picture's seed is seed + i.

One by one, for a batch of n rounds other than n batches of one on most devices: a picture shall
not depend on what it was asked together with.
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
    """One loaded model at most, on one device."""

    def __init__(self, settings: WorkerSettings, models_file: LibraryFile) -> None:
        self._settings = settings
        self._file = models_file
        self._shelf = AssetFiles(models_file.library, settings.models_dir, settings.cache_dir)
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
        before, now, name = self._shelf.library.models, self._file.library, self.loaded
        self._shelf.library = self._provenance.library = now
        if name is not None and before.get(name) != now.models.get(name):
            self._let_go()  # another one has this name now
        self._describe()

    @property
    def facts(self) -> dict[str, Any]:
        """What there is to say of the process, and of the model that is loaded."""
        # One look: the control thread asks while the main thread may let go of it.
        loaded = self._loaded
        return provenance.process_metadata(self._device, self._size) | {
            "model": self._settings.model,
            **(provenance.model_metadata(loaded) if loaded is not None else {}),
        }

    def facts_of(self, request: GenerationRequest) -> dict[str, Any]:
        """See `gpu_worker.pipeline_api.Pipeline.facts_of`."""
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
        """The name of the model in memory."""
        loaded = self._loaded
        return None if loaded is None else loaded.name

    def load(self, model: str | None) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.load`."""
        name = model or self._settings.model
        if self.loaded == name:
            return
        source = sources.find(name, self._shelf.library, self._settings)
        self._let_go()
        self._provenance.loading(name)
        pipe = loader.load(source, self._settings, machine_size.choose_dtype(self._device))
        pipe.set_progress_bar_config(disable=True)
        machine_size.apply(pipe, self._size, self._device)
        alignment.align(pipe, self._device)
        self._loaded = LoadedModel(name, pipe, self._size, self._device, source.model.defaults)
        self._describe()

    def unload(self) -> None:
        """See `gpu_worker.pipeline_api.Pipeline.unload`."""
        if self._let_go():
            self._describe()

    def _let_go(self) -> bool:
        """Whether there was a model. What is described is the caller's to renew."""
        if self._loaded is None:
            return False
        self._loaded = None
        machine_size.free(self._device)
        return True

    def _describe(self) -> None:
        """For the control thread, which answers at once."""
        pipe = self._loaded.pipe if self._loaded is not None else None
        known = library.describe_library(self._shelf.library, self._settings, self.loaded, pipe)
        self._description = Capabilities(**known, models_error=self._file.error)
        self.described += 1

    def default_side_px(self) -> int:
        """Of the loaded model."""
        return self._ready(None).default_side_px()

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """See `gpu_worker.pipeline_api.Pipeline.generate`. Where the memory does not suffice, the
        job is run again with the next smaller MACHINE_SIZE, and its images say so."""
        try:
            return self._attempt(job, on_step)
        except OutOfMemory as error:
            smaller, sentence = machine_size.next_smaller(self._size), str(error)
            if smaller is None or job.request.upscale is not None:
                raise
        # Only here the first attempt's tensors are gone: the error had hold of them.
        log.warning("%s; this job runs so", sentence)
        return self._attempt_with_less(job, on_step, smaller, sentence)

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
        self, job: Job, on_step: OnStep, smaller: machine_size.Size, sentence: str
    ) -> list[GeneratedImage]:
        """The model is loaded anew for this job alone; the next one finds the size of before."""
        before, self._size = self._size, smaller
        self._let_go()
        try:
            made = self._attempt(job, on_step)
            of_model = self.facts_of(job.request)
        finally:
            self.unload()
            self._size = before
        said = {"machine_size": smaller, "out_of_memory": sentence}
        return [GeneratedImage(each.image, of_model | each.facts | said) for each in made]

    def _ready(self, model: str | None) -> LoadedModel:
        self.load(model)
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
        context = GenerationContext(loaded, request, images, self._shelf, canvas)
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
            metadata = self._provenance.facts(pipe, request, self._device)
        metadata["peak_memory_bytes"] = peak.read()
        return [GeneratedImage(each.image, metadata | each.facts) for each in generated]

    def _upscaled(self, job: Job, asked: Upscale, on_step: OnStep) -> list[GeneratedImage]:
        """The job's own picture made larger: no model of pictures is needed for that."""
        inputs, digest = InputImages(self._settings.inputs_dir / job.uuid), str(job.request.image)
        peak = PeakMemory(self._device)
        image = inputs.picture(digest)
        size = output_size.upscaled_size(image.size, asked.scale)
        made = self._enlarge(image, asked.upscaler, size)
        on_step(1, 1)
        made_by = {
            **self._provenance.device_facts(self._device),
            **upscale.versions(asked.upscaler),
            **self._provenance.part_facts(job.request),
            "peak_memory_bytes": peak.read(),
        }
        return [GeneratedImage(made, made_by, infotext.with_size(inputs.parameters(digest), *size))]

    def _enlarge(self, image: Image.Image, name: str, size: tuple[int, int]) -> Image.Image:
        shelf = self._shelf
        return upscale.enlarge(image, name, size, shelf.library, shelf.folder, self._device)


def load(settings: WorkerSettings) -> DiffusersPipeline:
    """The factory that SDE_PIPELINE names by default; the model of SDE_MODEL is loaded.

    Raises:
        ModelNotFound: SDE_MODEL names nothing loadable.
        ModelsError: models.toml is not as it must be.
        ValueError: SDE_DEVICE is not on this machine.
    """
    loader.silence_libraries()
    made = DiffusersPipeline(settings, LibraryFile(settings.models_dir / "models.toml"))
    made.load(None)
    return made
