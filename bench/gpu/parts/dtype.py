"""float16 and bfloat16 beside float32: are all values finite, and how far is the image away.

The real sizes have random weights: they show speed, range and dead kernels, not the overflow of a
trained model. The built-in model is trained, and the families are tiny.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from bench.gpu import card, pictures
from bench.gpu.case import Measure, Part, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import MODELS, Session
from bench.gpu.tiny import family_names
from tests.support.builders.tiny_families import FAMILIES
from tests.support.cuda_matrix import families
from tests.support.pipeline_bench import Bench

HALVES = ("float16", "bfloat16")
STEPS = 8


def part() -> Part:
    """Return the cases."""
    cases: dict[str, Measure] = {"built-in model": built_in}
    cases |= {name: functools.partial(of_model, model=name) for name in MODELS}
    cases |= {f"{name} encode": functools.partial(encode, model=name) for name in ("sd15", "xl")}
    cases |= {f"tiny {name}": functools.partial(family, name=name) for name in family_names()}
    return Part(cases, case_s=90)


def built_in(session: Session, line: Line) -> None:
    """Draw with the built-in model in each dtype."""
    _compare(session, line, session.work, "", SDE_MODEL="demo")


def of_model(session: Session, line: Line, model: str) -> None:
    """Draw with a model of real size in each dtype."""
    session.model(model)
    _compare(session, line, session.work, model)


def _compare(session: Session, line: Line, folder: Any, model: str, **settings: str) -> None:
    """Draw in float32 and in both halves; the pipeline refuses values that are no numbers."""
    reference: list[Any] = []
    for dtype in ("float32", *HALVES):
        bench = session.bench(folder, model, SDE_DTYPE=dtype, MACHINE_SIZE="big", **settings)
        try:
            watch = _Latents(bench)
            images = bench.make(num_inference_steps=session.steps(STEPS), on_step=watch.on_step)
            line.numbers[f"{dtype}_largest_latent"] = watch.largest()
            line.numbers[f"{dtype}_vae"] = images[0].metadata.get("vae_dtype", "as loaded")
            expect(line, not pictures.is_flat(images), f"{dtype}: the image has one colour")
            expect(line, watch.is_finite(), f"{dtype}: latents are not finite")
            if reference:
                line.numbers[f"{dtype}_db"] = pictures.psnr_db(images, reference)
            reference = reference or images
        except Exception as error:
            line.problems.append(f"{dtype}: {error}"[:400])
            torch.cuda.synchronize()
        finally:
            bench.ours.unload()
    line.numbers = rounded(line.numbers)


class _Latents:
    """Reads what a denoiser predicts at each step, without a wait in between."""

    def __init__(self, bench: Bench) -> None:
        self._peaks: list[torch.Tensor] = []
        denoiser = getattr(bench.pipe, "unet", None) or bench.pipe.transformer
        denoiser.register_forward_hook(self._note)

    def _note(self, module: Any, inputs: Any, output: Any) -> None:
        prediction = output[0] if isinstance(output, tuple) else output.sample
        self._peaks.append(prediction.abs().max().float())

    def on_step(self, step: int, steps: int, preview: Any = None) -> None:
        """Go on."""

    def is_finite(self) -> bool:
        """Return whether every prediction had finite values alone."""
        return all(bool(peak.isfinite()) for peak in self._peaks)

    def largest(self) -> float:
        """Return the largest value of all predictions."""
        return max((float(peak) for peak in self._peaks), default=0.0)


def encode(session: Session, line: Line, model: str) -> None:
    """Encode an image with the VAE in float16, as a naive caller does, and as the worker does."""
    bench = session.pipeline(model, MACHINE_SIZE="big")
    vae, side = bench.pipe.vae, session.architecture(model).side_px
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = (torch.rand(1, 3, side, side, generator=generator) * 2 - 1).to(card.DEVICE)
    latents = vae.encode(pixels.to(torch.float16)).latent_dist.mode()
    line.numbers = {
        "vae_dtype": str(vae.dtype).removeprefix("torch."),
        "finite": bool(latents.isfinite().all()),
    }
    expect(line, line.numbers["finite"], "the worker's own encode gave values that are no numbers")
    plain = type(vae).from_config(vae.config).to(card.DEVICE, torch.float16)
    plain.load_state_dict(vae.state_dict())
    line.numbers["float16_finite"] = bool(
        plain.encode(pixels.to(torch.float16)).latent_dist.mode().isfinite().all()
    )
    bench.ours.unload()


def family(session: Session, line: Line, name: str) -> None:
    """Draw with a tiny model of a family in each dtype, and in the one that the worker chooses."""
    folder = session.work / "tiny"
    if not (folder / "models" / name).exists():
        FAMILIES[name].build().save_pretrained(folder / "models" / name)
    reference: list[Any] = []
    for dtype in ("float32", *HALVES, "auto"):
        bench = session.bench(folder, name, SDE_DTYPE=dtype, MACHINE_SIZE="big")
        try:
            images = bench.make(**families.request(bench, FAMILIES[name]))
            if reference:
                line.numbers[f"{dtype}_db"] = pictures.psnr_db(images, reference)
            reference = reference or images
        except Exception as error:
            line.numbers[f"{dtype}_db"] = None
            # The halves that a family is not made for may fail; its own dtype may not.
            if dtype in ("float32", "auto"):
                line.problems.append(f"{dtype}: {error}"[:400])
            else:
                line.numbers[f"{dtype}_error"] = str(error)[:200]
            torch.cuda.synchronize()
        finally:
            bench.ours.unload()
    line.numbers = rounded(line.numbers)
