"""What a job's pipeline is built from: handed as one to adapters, schedulers and sampling."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.sampling.canvas import Canvas
from gpu_worker.pipeline.sampling.input_images import InputImages


@dataclass(frozen=True)
class GenerationContext:
    """The model in memory, the request, its images, the operator's files, and the size to draw."""

    loaded: LoadedModel
    request: GenerationRequest
    images: InputImages
    assets: AssetFiles
    canvas: Canvas
