"""Holds what a job's pipeline is built from, for adapters, schedulers and sampling."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.inputs.canvas import Canvas
from gpu_worker.pipeline.inputs.input_images import InputImages
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.loaded_model import LoadedModel


@dataclass(frozen=True)
class GenerationContext:
    """The loaded model, the request, its images, the operator's files, and the image size.

    `is_watched`: the job asks for partial images.
    """

    loaded: LoadedModel
    request: GenerationRequest
    images: InputImages
    assets: AssetFiles
    canvas: Canvas
    is_watched: bool = False
