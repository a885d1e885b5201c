"""Creates previews of a running job, from the latents' estimate of the final image.

Where no linear map fits the VAE, the VAE decodes the estimate. That costs more, so such previews
are less frequent. Nothing here makes the host wait for a CUDA device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image

from gpu_worker.pipeline.loading import latent_rgb
from gpu_worker.pipeline.loading.latent_rgb import Projection
from gpu_worker.pipeline_api import Preview

MAX_PX = 256
_SIGMA_SPACE = ("Euler", "Heun", "LMS", "KDPM2", "EDM", "FlowMatch")
"""Schedulers whose latents are x0 + sigma * noise, or x0 (1 - sigma) + sigma * noise.

For both, a straight line in sigma leads to x0. All others have sqrt(a) x0 + sqrt(1 - a) noise.
"""

_SCHEDULE = ("sigmas", "timesteps", "alphas_cumprod")
"""The tensors that a scheduler may have, which lead from latents to x0."""


class LatentPreviews:
    """The previews of one pass of a pipeline.

    `colors` is what turns latents into colours, see `LoadedModel.latent_colors`.
    """

    def __init__(self, pipe: Any, colors: Projection | Any | None) -> None:
        self._pipe = pipe
        self._factor = int(getattr(pipe, "vae_scale_factor", 8))
        self._colors = colors
        self._previous: torch.Tensor | None = None
        self._step: dict[str, Any] | None = None

    def after(
        self, index: int, timestep: Any, latents: torch.Tensor | None
    ) -> Callable[[], Preview | None] | None:
        """Return a function that makes the preview after step `index` (from 0) of the call.

        The function returns None while its data is on the way from the device.

        Args:
            timestep: the scheduler's timestep of the step.
            latents: those after the step, (1, channels, h, w). Others have no preview.
        """
        self._step = None
        if latents is None or latents.ndim != 4:
            return None
        step = self._step = {"index": index, "timestep": timestep, "latents": latents}
        step["previous"], self._previous = self._previous, latents
        # The next step changes the scheduler's own.
        step["step_index"] = getattr(self._pipe.scheduler, "step_index", None)
        if self._colors is None:
            return None
        stages = self._stages(step)
        return lambda: next(stages)

    def estimate(self) -> torch.Tensor | None:
        """Return the estimate of the final latents at the last step that after() was called for.

        It is in float32 on the CPU, and the host waits for it. It is None where there is none.
        """
        if self._step is None:
            return None
        scheduler = self._pipe.scheduler
        values = {**{name: getattr(scheduler, name, None) for name in _SCHEDULE}, **self._step}
        return _estimate(
            type(scheduler).__name__,
            {
                name: value.detach().cpu() if isinstance(value, torch.Tensor) else value
                for name, value in values.items()
            },
        )

    def _stages(self, step: dict[str, Any]) -> Iterator[Preview | None]:
        """Yield None until the copies have arrived, and then the preview."""
        height, width = (side * self._factor for side in step["latents"].shape[2:])
        scheduler = self._pipe.scheduler
        copies = HostCopies(
            {**{name: getattr(scheduler, name, None) for name in _SCHEDULE}, **step}
        )
        while not copies.are_complete():
            yield None
        estimate = _estimate(type(scheduler).__name__, copies.values)
        if isinstance(self._colors, Projection):
            yield Preview(shrink(self._colors.image(estimate), (width, height)))
            return
        start = _mark(step["latents"].device)
        decoded = HostCopies({"pixels": latent_rgb.decode(self._colors, estimate)})
        while not decoded.are_complete():
            yield None
        image = latent_rgb.pixels_image(decoded.values["pixels"])
        yield Preview(shrink(image, (width, height)), decoded.seconds_since(start))


class HostCopies:
    """Copies of tensors in the host's memory, which a CUDA device writes when it comes to them.

    Other devices have written them at once. `values` keeps what is no tensor as it is.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
        cuda = next((each.device for each in tensors if each.device.type == "cuda"), None)
        # Only from CUDA does torch copy to pinned memory, and can say when the copy is there.
        self.values = {
            name: value.detach().to("cpu", non_blocking=value.device.type == "cuda")
            if isinstance(value, torch.Tensor)
            else value
            for name, value in values.items()
        }
        self._end = None if cuda is None else _mark(cuda)

    def are_complete(self) -> bool:
        """Return whether the values can be read."""
        return self._end is None or bool(self._end.query())

    def seconds_since(self, start: Any) -> float:
        """Return the device's seconds from a mark to the copies; 0 without CUDA."""
        if self._end is None or start is None:
            return 0.0
        return float(start.elapsed_time(self._end)) / 1e3


def _mark(device: torch.device) -> Any:
    """Return an event at the end of what a CUDA device has to do; None for other devices."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _estimate(scheduler: str, values: dict[str, Any]) -> torch.Tensor:
    """Return x0, where the line through two steps' latents meets sigma 0, in float32.

    Args:
        scheduler: the name of its class.
        values: what `_SCHEDULE` names, and the step's own values, in the host's memory.
    """
    current, previous = values["latents"][:1].float(), values["previous"]
    if previous is None:
        return current
    place, timesteps = _position(values), values["timesteps"]
    alphas, sigmas = values["alphas_cumprod"], values["sigmas"]
    previous = previous[:1].float()
    if scheduler.startswith(_SIGMA_SPACE):
        if place + 1 >= len(sigmas):
            return current
        old, new = float(sigmas[place]), float(sigmas[place + 1])
        return _at_zero(previous, current, old, new)
    if alphas is None or place + 1 >= len(timesteps):
        return current
    a, b = (float(alphas[int(timesteps[k])]) for k in (place, place + 1))
    old, new = ((1 - share) ** 0.5 / share**0.5 for share in (a, b))
    return _at_zero(previous / a**0.5, current / b**0.5, old, new)


def _at_zero(first: torch.Tensor, second: torch.Tensor, old: float, new: float) -> torch.Tensor:
    """Return where the line from `first` at sigma `old` to `second` at `new` meets sigma 0."""
    return second if old == new else second - (second - first) * (new / (new - old))


def _position(values: dict[str, Any]) -> int:
    """Return the position of a step in the scheduler's lists, from 0.

    It differs from the call's own count where a call skips steps, as image-to-image does. The
    scheduler counts from its own start, and has counted the step already.
    """
    if values["step_index"] is not None:
        return max(int(values["step_index"]) - 1, 0)
    index = int(values["index"])
    matches = (values["timesteps"] == values["timestep"]).nonzero().flatten().tolist()
    return next((position for position in matches if position >= index), index)


def shrink(small: Image.Image, max_size: tuple[int, int]) -> Image.Image:
    """Resize a preview to MAX_PX on its longer side, but not beyond the final image."""
    scale = min(MAX_PX / max(small.size), max_size[0] / small.width)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.BILINEAR)
