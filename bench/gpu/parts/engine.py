"""One switch at a time on SD 1.5 and SD XL beside the eager pipeline, with diffusers directly.

Steps are timed by the card's events, and the latents after each step are held to the eager ones.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.gpu import card, pictures
from bench.gpu.case import Measure, Part, Skip, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session
from tests.support.pipeline_bench import PROMPT

MODELS = ("sd15", "xl")
BATCHES = (1, 2, 4, 8)
STEPS, WARM_UP = 20, 3
COMPILED = ("compiled, cold", "compiled, again", "reduce-overhead", "regions")
"""The cases that need a process of their own. The second one finds the cache of the first."""


@dataclass
class Run:
    """One call of a pipeline: the latents after each step, events, and the decoded pixels."""

    latents: list[torch.Tensor] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    pixels: torch.Tensor | None = None
    decode_ms: float = 0.0
    seconds: float = 0.0

    def step_ms(self) -> float:
        """Return the median of the card's milliseconds between two steps."""
        pairs = zip(self.events, self.events[1:], strict=False)
        return statistics.median(card.milliseconds(first, second) for first, second in pairs)


_PIPELINES: dict[str, Any] = {}
_EAGER: dict[str, Run] = {}
"""The pipeline and the eager run of this process's current model."""


def part() -> Part:
    """Return the cases: eager first, which the others are held to."""
    cases: dict[str, Measure] = {}
    for model in MODELS:
        for count in BATCHES:
            cases[f"{model} eager, {count} images"] = functools.partial(
                batch, model=model, count=count
            )
        for name in _SWITCHES:
            cases[f"{model} {name}"] = functools.partial(switch, model=model, name=name)
    compiled = frozenset(f"{model} {name}" for model in MODELS for name in COMPILED)
    alone: frozenset[str] = frozenset() if card.is_make_believe() else compiled
    return Part(cases, case_s=240, alone=alone)


def batch(session: Session, line: Line, model: str, count: int) -> None:
    """Time an eager batch, and hold its first image to that of a batch of one."""
    pipe = _pipeline(session, model)
    run = _call(session, pipe, model, count)
    one = _reference(session, model)
    line.numbers = _numbers(run, one, count)


def switch(session: Session, line: Line, model: str, name: str) -> None:
    """Time the pipeline with one switch on."""
    if name in COMPILED and (card.is_make_believe() or not _has_compiler()):
        raise Skip("torch.compile needs a real card, Triton and a C compiler")
    one = _reference(session, model)
    pipe = _pipeline(session, model)
    with contextlib.ExitStack() as undo:
        _SWITCHES[name](pipe, undo)
        start = time.perf_counter()
        _call(session, pipe, model, 1, steps=WARM_UP)
        torch.cuda.synchronize()
        line.numbers["first_call_s"] = time.perf_counter() - start
        run = _call(session, pipe, model, 1)
    line.numbers = rounded(line.numbers) | _numbers(run, one, 1)
    _PIPELINES.clear()  # the next switch begins with an eager pipeline


def _numbers(run: Run, one: Run, count: int) -> dict[str, Any]:
    """Return times an image, and how far the first image is from the eager one."""
    steps = [_difference(mine, eager) for mine, eager in zip(run.latents, one.latents, strict=True)]
    assert run.pixels is not None and one.pixels is not None
    return rounded(
        {
            "step_ms_an_image": run.step_ms() / count,
            "decode_ms_an_image": run.decode_ms / count,
            "image_s": run.seconds / count,
            "peak_mib": torch.cuda.max_memory_allocated(card.DEVICE) / (1 << 20),
            "first_step_db": steps[0],
            "last_step_db": steps[-1],
            "pixels_db": _difference(run.pixels, one.pixels),
        }
    )


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    mine, eager = one[:1].float().numpy(), other[:1].float().numpy()
    return pictures.array_psnr_db(mine, eager, peak=float(eager.max() - eager.min()) or 1.0)


def _pipeline(session: Session, model: str) -> Any:
    """Return diffusers' pipeline on the card, one at a time."""
    from diffusers import DiffusionPipeline

    if model not in _PIPELINES:
        _PIPELINES.clear()
        gc.collect()
        torch.cuda.empty_cache()
        pipe = DiffusionPipeline.from_pretrained(
            session.model(model), dtype=torch.float16, use_safetensors=True
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.vae.register_to_config(force_upcast=False)
        pipe.vae.to(torch.float32 if model == "xl" else torch.float16)
        _PIPELINES[model] = pipe.to(card.DEVICE)
    return _PIPELINES[model]


def _reference(session: Session, model: str) -> Run:
    """Return the eager run of one image, which each process makes once."""
    if model not in _EAGER:
        _EAGER.clear()
        pipe = _pipeline(session, model)
        _call(session, pipe, model, 1, steps=WARM_UP)
        _EAGER[model] = _call(session, pipe, model, 1)
    return _EAGER[model]


def _call(session: Session, pipe: Any, model: str, count: int, steps: int | None = None) -> Run:
    """Draw a batch, decode it, and copy what is compared after everything is timed."""
    known, run = session.architecture(model), Run()
    torch.cuda.reset_peak_memory_stats(card.DEVICE)

    def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        run.events.append(card.event())
        run.latents.append(tensors["latents"][:1].clone())
        return tensors

    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        latents = pipe(
            PROMPT,
            width=known.side_px,
            height=known.side_px,
            num_inference_steps=session.steps(STEPS) if steps is None else steps,
            num_images_per_prompt=count,
            guidance_scale=7.5,
            generator=[torch.Generator("cpu").manual_seed(7 + k) for k in range(count)],
            output_type="latent",
            callback_on_step_end=step_ended,
        ).images
        before = card.event()
        scaled = (latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype)
        pixels = pipe.vae.decode(scaled, return_dict=False)[0]
        run.decode_ms = card.milliseconds(before, card.event())
    torch.cuda.synchronize()
    run.seconds = time.perf_counter() - start
    run.pixels = pixels[:1].float().cpu()
    run.latents = [each.float().cpu() for each in run.latents]
    return run


def _has_compiler() -> bool:
    from torch.utils._triton import has_triton

    return has_triton() and any(map(shutil.which, ("cc", "gcc", "clang")))


Undo = contextlib.ExitStack


def _channels_last(pipe: Any, undo: Undo) -> None:
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)


def _vae_dtype(pipe: Any, undo: Undo, dtype: torch.dtype) -> None:
    pipe.vae.to(dtype)


def _benchmark(pipe: Any, undo: Undo) -> None:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    undo.callback(setattr, torch.backends.cudnn, "benchmark", before)


def _bf16(pipe: Any, undo: Undo) -> None:
    pipe.to(torch.bfloat16)


def _fused(pipe: Any, undo: Undo) -> None:
    pipe.unet.fuse_qkv_projections()


def _compiled(pipe: Any, undo: Undo, mode: str = "default") -> None:
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.unet.compile(mode=mode)


def _regions(pipe: Any, undo: Undo) -> None:
    pipe.unet.compile_repeated_blocks()


_SWITCHES: dict[str, Callable[[Any, Undo], None]] = {
    "channels_last": _channels_last,
    "cudnn.benchmark": _benchmark,
    "fused projections": _fused,
    "VAE in float32": functools.partial(_vae_dtype, dtype=torch.float32),
    "VAE in bfloat16": functools.partial(_vae_dtype, dtype=torch.bfloat16),
    "all in bfloat16": _bf16,
    "compiled, cold": _compiled,
    "compiled, again": _compiled,
    "reduce-overhead": functools.partial(_compiled, mode="reduce-overhead"),
    "regions": _regions,
}
