"""Says what it can do, and writes what it was asked to load into SDE_DATA_DIR/asked.txt.

The model `broken` cannot be loaded; `slow` takes until the file `released` is in SDE_DATA_DIR, and
so does the second step of a job whose prompt says `slow`. SDE_MODEL `mute` describes nothing, and
`speechless` fails at it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import GeneratedImage, OnStep
from gpu_worker.settings import WorkerSettings
from tests.pipelines.instant import Instant

LOOK_S = 0.01

COMMON = ["negative_prompt", "guidance_scale", "scheduler_options", "hires"]
FULL: dict[str, Any] = {
    "pipeline": "StableDiffusionPipeline",
    "source": "built in",
    "revision": None,
    "modes": ["txt2img", "img2img", "inpaint"],
    "takes": [
        *COMMON,
        *("clip_skip", "loras", "embeddings", "controlnets", "ip_adapter", "vae", "refiner"),
    ],
    "schedulers": ["DDIMScheduler", "EulerDiscreteScheduler"],
    "weighted_prompts": True,
    "defaults": {"num_inference_steps": 20, "guidance_scale": 7.5},
}
PLAIN: dict[str, Any] = {
    "pipeline": "FluxPipeline",
    "source": "flux",
    "revision": "abc123",
    "modes": ["txt2img"],
    "takes": ["guidance_scale"],
    "schedulers": ["FlowMatchEulerDiscreteScheduler"],
    "defaults": {},
}


class Describes(Instant):
    """Several models, one in memory at most."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._record = settings.data_dir / "asked.txt"
        self._said = settings.model
        self._released = settings.data_dir / "released"
        self.loaded = "demo"

    @property
    def metadata(self) -> dict[str, Any]:  # type: ignore[override]
        """Of the model in memory."""
        return {"model": self.loaded or "demo", "device": "cpu"}

    def describe(self) -> Capabilities:
        """As docs/http-api.md draws it."""
        if self._said == "speechless":
            raise RuntimeError("no words, on purpose")
        if self._said == "mute":
            return Capabilities()
        models = {"demo": FULL, "plain": PLAIN, "slow": FULL, "broken": FULL}
        described = {
            "default": "demo",
            "models": {
                **{
                    name: {**model, "loaded": name == self.loaded} for name, model in models.items()
                },
                "absent": {"loaded": False, "error": "flux-2: is not in the models folder"},
            },
            "loras": ["pixel", "ink"],
            "embeddings": ["bad-hands"],
            "controlnets": ["canny"],
            "ip_adapters": ["face"],
            "vaes": ["sharp"],
            "upscalers": ["latent", "lanczos", "esrgan"],
            "refiners": ["xl"],
        }
        return Capabilities.model_validate(described)

    def load(self, model: str | None) -> None:
        """Written down; what was there has gone when it fails, as of a real one."""
        name = model or "demo"
        if name == self.loaded:
            return
        self._say(f"load {name}")
        self.loaded = None
        if name == "broken":
            raise RuntimeError("broken on purpose")
        if name == "slow":
            self._wait()
        self.loaded = name

    def unload(self) -> None:
        """Written down."""
        self._say("unload")
        self.loaded = None

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """Loads the job's model when it is not there."""
        self.load(job.request.model)
        return super().generate(job, on_step)

    def before_step(self, step: int, job: Job) -> None:
        """A prompt of `slow` waits."""
        if "slow" in job.request.prompt and step:
            self._wait()

    def _wait(self) -> None:
        while not self._released.exists():
            time.sleep(LOOK_S)

    def _say(self, line: str) -> None:
        with open(self._record, "a", encoding="utf-8") as record:
            record.write(line + "\n")


def asked(data_dir: Path) -> list[str]:
    """What it has written down."""
    try:
        return (data_dir / "asked.txt").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def load(settings: WorkerSettings) -> Describes:
    """The factory."""
    return Describes(settings)
