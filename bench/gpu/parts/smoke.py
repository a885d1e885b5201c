"""Every feature and every family at every MACHINE_SIZE on the card, beside the CPU, in float32.

The models are tiny, so this shows what cannot run or lands on another device, not quality.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from bench.gpu import card, pictures
from bench.gpu.case import Measure, Part, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session
from bench.gpu.tiny import family_names
from gpu_worker.pipeline.execution.machine_size import SIZES
from gpu_worker.pipeline_api import GeneratedImage
from tests.support.builders.tiny_families import FAMILIES
from tests.support.cuda_matrix import families, models, requests
from tests.support.cuda_matrix.cases import Previews, on_cpu
from tests.support.pipeline_bench import Bench

LEAST_DB = 40.0
KINDS = ("sd", "xl")
FAMILY_SIZES = ("big", "little", "tiny")
"""medium differs from big by the VAE's tiles alone, which the features show."""

MAKE_BELIEVE_STRIDE = 2
"""Without a real card two of the four sizes do, because the tests run them all."""

Images = list[GeneratedImage]


class References:
    """The tiny models and their images on the CPU, which are made when a case needs them."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @functools.cached_property
    def folder(self) -> Any:
        """Return the data folder with the tiny models of both kinds."""
        folder = self.session.work / "tiny"
        if not (folder / "models" / "models.toml").exists():
            models.save(folder)
        return folder

    @functools.cache  # noqa: B019 - one object a process
    def on_cpu(self, kind: str) -> Bench:
        """Return the pipeline of a kind on the CPU."""
        return on_cpu(self.folder, kind)

    @functools.cache  # noqa: B019
    def on_card(self, kind: str, size: str) -> Bench:
        """Return the pipeline of a kind on the card."""
        return self.session.bench(self.folder, kind, MACHINE_SIZE=size, SDE_DTYPE="float32")

    @functools.cache  # noqa: B019
    def requests(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the requests of all features of a kind."""
        return requests.by_feature(self.on_cpu(kind), kind)

    @functools.cache  # noqa: B019
    def images(self, kind: str, feature: str) -> Images:
        """Return the images of a feature on the CPU."""
        return self.on_cpu(kind).make(**self.requests(kind)[feature])

    @functools.cache  # noqa: B019
    def family(self, name: str) -> tuple[dict[str, Any], Images]:
        """Return the request of a family, and its images on the CPU."""
        folder = self.folder / "models" / name
        if not folder.exists():
            FAMILIES[name].build().save_pretrained(folder)
        bench = on_cpu(self.folder, name)
        request = families.request(bench, FAMILIES[name])
        return request, bench.make(**request)


def part() -> Part:
    """Return a case for each kind of job at each size, and for each family."""
    # TF32 would hide in the digits that are compared here.
    torch.backends.cudnn.allow_tf32 = False
    references: list[References] = []

    def with_references(measure: Any, *what: str) -> Measure:
        def run(session: Session, line: Line) -> None:
            if not references:
                references.append(References(session))
            measure(references[0], line, *what)

        return run

    cases: dict[str, Measure] = {"built-in model": built_in}
    for kind in KINDS:
        for size in SIZES[:: MAKE_BELIEVE_STRIDE if card.is_make_believe() else 1]:
            cases[f"{kind} {size}"] = with_references(features, kind, size)
            cases[f"{kind} {size} previews"] = with_references(previews, kind, size)
    for name in family_names():
        for size_name in FAMILY_SIZES:
            cases[f"{name} {size_name}"] = with_references(family, name, size_name)
    return Part(cases, case_s=120)


def built_in(session: Session, line: Line) -> None:
    """Draw with the built-in model, whose weights are trained, in the worker's dtype and float32.

    Only float32 is held to the CPU: rounding of a trained model is no fault.
    """
    settings = {"SDE_MODEL": "demo", "MACHINE_SIZE": "big"}
    request = {"num_inference_steps": session.steps(20)}
    expected = session.bench(
        session.work, "", SDE_DTYPE="float32", **settings | {"SDE_DEVICE": "cpu"}
    )
    reference = expected.make(**request)
    for dtype in ("float32", "auto"):
        bench = session.bench(session.work, "", SDE_DTYPE=dtype, **settings)
        images = bench.make(**request)
        line.numbers[f"{dtype}_db"] = round(pictures.psnr_db(images, reference), 1)
        expect(line, not pictures.is_flat(images), f"the image in {dtype} has one colour")
    expect(line, line.numbers["float32_db"] > LEAST_DB, "the image is not the CPU's")


def features(references: References, line: Line, kind: str, size: str) -> None:
    """Run every feature of a kind, and look at what each leaves of the pipeline and the memory."""
    bench = references.on_card(kind, size)
    bench.make()
    before, lowest = pictures.state(bench.pipe), pictures.SAME_DB
    held = pictures.allocated_mib()
    for name, request in references.requests(kind).items():
        try:
            images = bench.make(**request)
            decibel = pictures.psnr_db(images, references.images(kind, name))
        except Exception as error:
            line.problems.append(f"{name}: {type(error).__name__}: {error}"[:400])
            torch.cuda.synchronize()  # a lost card ends the case here
            continue
        lowest = min(lowest, decibel)
        expect(line, decibel > LEAST_DB, f"{name}: {decibel:.1f} dB to the CPU")
        after = pictures.state(bench.pipe)
        changed = {part: place for part, place in after.items() if place != before.get(part)}
        expect(line, not changed, f"{name}: changed is {changed}")
    left = pictures.allocated_mib() - held
    line.numbers = rounded(
        {"features": len(references.requests(kind)), "lowest_db": lowest, "left_mib": left}
    )
    expect(line, left < 1, f"the features left {left:.1f} MiB on the card")


def previews(references: References, line: Line, kind: str, size: str) -> None:
    """Ask for a preview after each step; the image must be the same as without."""
    bench, seen = references.on_card(kind, size), Previews()

    def on_step(step: int, steps: int, preview: Any = None) -> None:
        if preview is not None:
            seen(step, steps, lambda: _arrived(preview))

    images = bench.make(on_step=on_step)
    decibel = pictures.psnr_db(images, references.images(kind, "text"))
    line.numbers = rounded({"previews": len(seen.images), "lowest_db": decibel})
    line.problems += seen.errors[:1]
    expect(line, bool(seen.images) or size != "big", "there is no preview")
    expect(line, decibel > LEAST_DB, f"{decibel:.1f} dB to the CPU")


def _arrived(preview: Any) -> Any:
    """Return a preview, after its data has come from the card."""
    while (image := preview()) is None:
        torch.cuda.synchronize()
    return image


def family(references: References, line: Line, name: str, size: str) -> None:
    """Draw with a family in float32."""
    request, reference = references.family(name)
    session = references.session
    settings = {"MACHINE_SIZE": size, "SDE_DTYPE": "float32"}
    held = pictures.allocated_mib()
    bench = session.bench(references.folder, name, **settings)
    try:
        decibel = pictures.psnr_db(bench.make(**request), reference)
    finally:
        bench.ours.unload()
    left = pictures.allocated_mib() - held
    line.numbers = rounded({"lowest_db": decibel, "left_mib": left})
    expect(line, decibel > LEAST_DB, f"{decibel:.1f} dB to the CPU")
    expect(line, left < 1, f"{left:.1f} MiB are left after the unload")
