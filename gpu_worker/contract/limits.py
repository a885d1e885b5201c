"""Limits what one request may ask for, also for all its images and passes together.

The limits of the contract's types hold always. These are an operator's, and the gateway checks
them before it accepts a job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpu_worker.contract import output_size
from gpu_worker.contract.field_types import DEFAULT_STEPS, MAX_IMAGES, MAX_PROMPT_CHARS, MAX_STEPS
from gpu_worker.contract.output_size import MAX_LARGE_PIXELS, Size
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported

USUAL_SIDE_PX = 1024
"""A side that a request leaves to the model counts as this one: no model has a larger default."""

_MPIX = 1_000_000


@dataclass(frozen=True)
class RequestLimits:
    """An operator's limits. `mpix` is of one image, and `mpix_steps` of all images and passes.

    A pixel step is one step of one pixel: 4 images of 1024 x 1024 with 50 steps are 210 million.
    """

    prompt_chars: int = MAX_PROMPT_CHARS
    steps: int = MAX_STEPS
    images: int = MAX_IMAGES
    mpix: float = MAX_LARGE_PIXELS / _MPIX
    mpix_steps: float = 5000.0

    def check(self, request: GenerationRequest, input_size: Size | None) -> None:
        """Check a request.

        Args:
            input_size: of its `image`, upright; None when there is none.

        Raises:
            Unsupported: it exceeds a limit; the text names the field, its value and the limit.
        """
        for field in ("prompt", "negative_prompt"):
            text = getattr(request, field)
            if len(text) > self.prompt_chars:
                limit = f"the limit is {self.prompt_chars} (SDE_MAX_PROMPT_CHARS)"
                raise Unsupported(field, text, f"has {len(text)} characters; {limit}")
        if request.num_images_per_prompt > self.images:
            raise Unsupported(
                "num_images_per_prompt",
                request.num_images_per_prompt,
                f"must be at most {self.images} (SDE_MAX_IMAGES)",
            )
        for field, steps in _steps(request):
            if steps > self.steps:
                raise Unsupported(field, steps, f"must be at most {self.steps} (SDE_MAX_STEPS)")
        self._check_pixels(request, input_size)

    def _check_pixels(self, request: GenerationRequest, input_size: Size | None) -> None:
        count = request.num_images_per_prompt
        total = 0.0
        is_known = input_size is not None or None not in (request.width, request.height)
        for field, (width, height), steps in _passes(request, input_size):
            if is_known and width * height > self.mpix * _MPIX:
                raise Unsupported(
                    field,
                    _value(request, field),
                    f"makes an image of {width} x {height}; the limit is {self.mpix:g} million "
                    "pixels (SDE_MAX_MPIX)",
                )
            total += width * height * steps * count
            if total > self.mpix_steps * _MPIX:
                self._refuse_total(request, (width, height), steps, total)

    def _refuse_total(
        self, request: GenerationRequest, size: Size, steps: float, total: float
    ) -> None:
        """Refuse the field that exceeds its usual value most. Raises Unsupported."""
        shares = {
            "num_inference_steps": (request.num_inference_steps or 0) / DEFAULT_STEPS,
            "num_images_per_prompt": float(request.num_images_per_prompt),
            "width": (request.width or 0) * (request.height or 0) / USUAL_SIDE_PX**2,
            "hires.scale": request.hires.scale**2 if request.hires is not None else 0.0,
        }
        field = max(shares, key=lambda name: shares[name])
        raise Unsupported(
            field,
            _value(request, field),
            f"makes {total / _MPIX:.0f} million pixel steps with the other fields (the last pass "
            f"has {size[0]} x {size[1]} pixels x {steps:g} steps x "
            f"{request.num_images_per_prompt} images); the limit is {self.mpix_steps:g} "
            "(SDE_MAX_MPIX_STEPS)",
        )


def _steps(request: GenerationRequest) -> Iterator[tuple[str, int]]:
    if request.num_inference_steps is not None:
        yield "num_inference_steps", request.num_inference_steps
    if request.hires is not None and request.hires.num_inference_steps is not None:
        yield "hires.num_inference_steps", request.hires.num_inference_steps


def _passes(
    request: GenerationRequest, input_size: Size | None
) -> Iterator[tuple[str, Size, float]]:
    """Yield the field that decides the size, the size, and the steps of each pass of an image."""
    if request.upscale is not None:
        size = input_size or (USUAL_SIDE_PX, USUAL_SIDE_PX)
        yield "upscale.scale", output_size.upscaled_size(size, request.upscale.scale), 1.0
        return
    steps = request.num_inference_steps or DEFAULT_STEPS
    first = (request.width or USUAL_SIDE_PX, request.height or USUAL_SIDE_PX)
    share = 1.0
    if input_size is not None:
        first = output_size.image_to_image_size(request, input_size)
        share = request.strength if request.strength is not None else 1.0
    yield "image" if input_size and request.width is None else "width", first, steps * share
    if request.hires is not None:
        second = request.hires.num_inference_steps or steps
        size = output_size.hires_size(first, request.hires.scale)
        yield "hires.scale", size, second * request.hires.strength


def _value(request: GenerationRequest, field: str) -> object:
    value: object = request
    for name in field.split("."):
        value = getattr(value, name)
    return value
