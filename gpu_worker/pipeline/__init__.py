"""The diffusers pipeline: find a model, load it, make pictures. The only place of torch."""

from gpu_worker.pipeline.engine import DiffusersPipeline, load
from gpu_worker.pipeline.loading.sources import DEMO_MODEL, ModelNotFound

__all__ = ["DEMO_MODEL", "DiffusersPipeline", "ModelNotFound", "load"]
