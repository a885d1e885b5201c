"""Finds models, loads them and generates images with diffusers. Only this package needs torch."""

from gpu_worker.assets.library_file import LibraryFile
from gpu_worker.assets.model_library import ModelNotFound
from gpu_worker.pipeline.engine import DiffusersPipeline
from gpu_worker.pipeline.loading import loader
from gpu_worker.pipeline.loading.sources import DEMO_MODEL
from gpu_worker.settings import WorkerSettings

__all__ = ["DEMO_MODEL", "DiffusersPipeline", "ModelNotFound", "load"]


def load(settings: WorkerSettings) -> DiffusersPipeline:
    """Return the default pipeline of SDE_PIPELINE, with the model of SDE_MODEL loaded.

    Raises:
        ModelNotFound: SDE_MODEL names nothing that can be loaded.
        ModelsError: models.toml is invalid.
        SettingsError: this machine does not have SDE_DEVICE or SDE_GPU.
        DeviceUnavailable: the GPU cannot be used.
    """
    loader.silence_libraries()
    pipeline = DiffusersPipeline(settings, LibraryFile(settings.models_dir / "models.toml"))
    pipeline.load(None)
    return pipeline
