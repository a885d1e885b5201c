"""Finds models, loads them and generates images with diffusers. Only this package needs torch."""

from gpu_worker.assets.model_library import ModelNotFound
from gpu_worker.pipeline.engine import DiffusersPipeline, load
from gpu_worker.pipeline.loading.sources import DEMO_MODEL

__all__ = ["DEMO_MODEL", "DiffusersPipeline", "ModelNotFound", "load"]
