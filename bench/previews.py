"""What live previews cost. Goal: under 2 % of the run time.

Pictures of the built-in model with and without them, turn about; and one preview beside one step of
a UNet of Stable Diffusion 1.5's size.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import architectures
from bench.memory_case import Marks, call
from bench.table import goal, markdown, number
from gpu_worker import pipeline
from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.output.preview_file import SHARE, PreviewFile
from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.execution.device import choose_device
from gpu_worker.pipeline.loading import loader
from gpu_worker.pipeline.loading.latent_rgb import Projection, encoder_copy
from gpu_worker.pipeline.sampling.latent_preview import LatentPreviews
from gpu_worker.pipeline_api import Preview
from gpu_worker.settings import WorkerSettings, load

STEPS = 20
MODEL = "sd15"


class Counted(PreviewFile):
    """Counts what it makes and the seconds that this takes."""

    made = 0
    spent_s = 0.0

    def offer(self, uuid: str, make: Callable[[], Preview | None]) -> None:
        """As the worker does it."""

        def counted() -> Preview | None:
            preview = make()
            self.made += preview is not None
            return preview

        begun = time.perf_counter()
        super().offer(uuid, counted)
        self.spent_s += time.perf_counter() - begun


def built_in(rounds: int, folder: Path) -> list[str]:
    """A row: pictures of the built-in model. The share is of the seconds spent on previews: that
    of two medians would drown in the noise of the pictures themselves."""
    ours = pipeline.load(load(WorkerSettings, {"SDE_DATA_DIR": str(folder)}))
    previews = Counted(folder, "bench")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for place in range(rounds + 1):
        for with_previews in (True, False):
            uuid = f"00000000-0000-4000-8000-{place:012d}"
            request = GenerationRequest(prompt="a circle", num_inference_steps=STEPS, seed=place)
            job = Job(uuid=uuid, sequence=1, created_time="", request=request)

            def on_step(
                step: int,
                steps: int,
                preview: Callable[[], Preview | None] | None = None,
                partial: Callable[[], Image.Image] | None = None,
                offered: bool = with_previews,
                uuid: str = uuid,
            ) -> None:
                if offered and preview is not None:
                    previews.offer(uuid, preview)

            begun = time.perf_counter()
            ours.generate(job, on_step)
            seconds[with_previews].append(time.perf_counter() - begun)
            previews.remove()
        if not place:  # the first round fits the model's map
            seconds, previews.made, previews.spent_s = {True: [], False: []}, 0, 0.0
    there, without = (statistics.median(seconds[kind]) for kind in (True, False))
    print(
        f"built-in model, {STEPS} steps, medians of {rounds} pictures: {without:.3f} s without "
        f"previews, {there:.3f} s with {previews.made / rounds:.1f} of them a picture, "
        f"{previews.spent_s / max(1, previews.made) * 1e3:.1f} ms each"
    )
    share = 100 * previews.spent_s / sum(seconds[True])
    return goal("built-in model, share of the run time", share, 100 * SHARE, " %")


def real_size(steps: int, folder: Path) -> list[str]:
    """A row: the preview that each model with a nearly linear VAE has, beside a step."""
    known = architectures.ARCHITECTURES[MODEL]
    device = choose_device("auto", 0)
    loader.silence_libraries()
    pipe = architectures.build(known, architectures.dtype(device))
    pipe.set_progress_bar_config(disable=True)
    machine_size.apply(pipe, "big", device)
    marks = Marks(device)
    call(pipe, known, steps, marks)
    step_s = statistics.median(marks.seconds[1:-1])
    side = known.side_px // int(pipe.vae_scale_factor)
    generator = torch.Generator("cpu").manual_seed(0)
    latents = torch.randn(1, 4, side, side, generator=generator).to(device, pipe.unet.dtype)
    factor = int(pipe.vae_scale_factor)
    published_s = _seconds(lambda: Projection.published(pipe.vae, factor), device)
    fit_s = _seconds(lambda: Projection.from_vae(encoder_copy(pipe.vae), factor), device)
    # Random weights make no linear VAE: a map of the same size stands for the fitted one.
    linear = Projection(torch.randn(5, 3, generator=generator))
    cheap_s = min(_offered(pipe, latents, linear, device, folder) for _ in range(5))
    dear_s = _offered(pipe, latents, pipe, device, folder)
    print(
        f"{known.title}, {known.side_px} px on {device}: a step {number(step_s)} s; a preview "
        f"{cheap_s * 1e3:.1f} ms; once a loaded model, its map: published "
        f"{published_s * 1e3:.1f} ms, fitted {number(fit_s)} s; "
        f"through the whole VAE, where it is not linear, {number(dear_s)} s"
    )
    title = f"{known.title}, one preview a step, share of a step"
    return goal(title, 100 * cheap_s / step_s, 100 * SHARE, " %")


def _offered(
    pipe: Any, latents: torch.Tensor, colors: Any, device: torch.device, folder: Path
) -> float:
    """Seconds of one preview from the latents to the file, the wait for the device included."""
    previews = LatentPreviews(pipe, colors)
    file = Counted(folder, "bench")
    timestep = pipe.scheduler.timesteps[0]
    previews.after(0, timestep, latents)
    make = previews.after(1, timestep, latents * 0.99)
    assert make is not None

    def draw() -> None:
        while not file.made:
            file.offer("a", make)

    return _seconds(draw, device)


def _seconds(what: Callable[[], object], device: torch.device) -> float:
    marks = Marks(device)
    what()
    marks.mark()
    return marks.seconds[0]


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="pictures of the built-in model")
    parser.add_argument("--steps", type=int, default=3, help="of the real size")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    try:
        rows = [built_in(options.rounds, folder), real_size(options.steps, folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(markdown(("previews", "goal", "found", ""), rows))


if __name__ == "__main__":
    main()
