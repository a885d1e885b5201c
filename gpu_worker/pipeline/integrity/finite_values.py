"""Notes whether the numbers of each part of a pipeline are finite, and reads the notes once a pass.

A note is a sum that stays on the device, so no step waits for it. The module knows no requests.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpu_worker.pipeline.execution import vae_calls, wider_vae

SCHEDULER, TEXT_ENCODER = "scheduler", "text_encoder"

_CONTRIBUTORS = ("encoder", "controlnet", "safety_checker")
"""Words in the names of parts whose numbers count through the denoiser alone. It may not read all
of them: a hidden layer of a text encoder may overflow in float16 without harm."""

_LATENTS = ("sample", "hidden_states")
"""What diffusers' denoisers call their latents, where those do not come first."""


@dataclass(frozen=True)
class Note:
    """`total` is the sum of what the part returned: it is finite only if every number is."""

    part: str
    dtype: torch.dtype
    total: torch.Tensor


class ValueNotes:
    """The notes of one pass, in the order of the computation."""

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._is_paused = False

    def add(self, part: str, value: object) -> None:
        """Note every floating-point tensor in what a part returned."""
        if self._is_paused:
            return
        for each in wider_vae.tensors(value):
            # A sum in float16 would overflow where no number does.
            dtype = torch.float64 if each.dtype == torch.float64 else torch.float32
            self._notes.append(Note(part, each.dtype, each.detach().sum(dtype=dtype)))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Note nothing inside this context, because a preview has no part in the image."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def cause(self) -> Note | None:
        """Return the first note that is not finite, if such numbers reached the image.

        It waits for the device.
        """
        bad = [note for note, is_finite in self._read() if not is_finite]
        return bad[0] if any(_is_decisive(note.part) for note in bad) else None

    def _read(self) -> Iterator[tuple[Note, bool]]:
        flags: dict[int, bool] = {}
        for device in {note.total.device for note in self._notes}:
            places = [at for at, note in enumerate(self._notes) if note.total.device == device]
            totals = torch.stack([self._notes[at].total.float() for at in places])
            flags |= zip(places, totals.isfinite().tolist(), strict=True)
        return ((note, flags[at]) for at, note in enumerate(self._notes))


@contextlib.contextmanager
def watch(pipe: Any, arguments: dict[str, Any]) -> Iterator[ValueNotes]:
    """Note what the parts of a pipeline return inside this context.

    Args:
        arguments: those of the call, for prompts that were encoded before it.
    """
    notes = ValueNotes()
    for name, value in arguments.items():
        if name.endswith("prompt_embeds"):
            notes.add(TEXT_ENCODER, value)
    with contextlib.ExitStack() as stack:
        # The notes are read after the pass; numpy would only warn of what they say.
        stack.enter_context(np.errstate(invalid="ignore"))
        parts = {id(part): (name, part) for name, part in pipe.components.items()}
        for name, part in parts.values():
            if not isinstance(part, torch.nn.Module):
                if hasattr(part, "step") and hasattr(part, "set_timesteps"):
                    stack.enter_context(_watched_step(part, notes))
            elif hasattr(part, "decode") and hasattr(part, "encode"):
                stack.enter_context(_watched_vae(name, part, notes))
            else:
                stack.enter_context(_watched_network(name, part, notes))
        yield notes


def _is_decisive(part: str) -> bool:
    return not any(word in part for word in _CONTRIBUTORS)


@contextlib.contextmanager
def _watched_network(name: str, part: torch.nn.Module, notes: ValueNotes) -> Iterator[None]:
    handles = [part.register_forward_hook(lambda _module, _inputs, out: notes.add(name, out))]

    def first_input(_module: object, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note what the scheduler made of the noise, before its first step."""
        latents = inputs[:1] or [named[key] for key in _LATENTS if key in named][:1]
        notes.add(SCHEDULER, latents)
        handles.pop().remove()

    if _is_decisive(name):
        handles.append(part.register_forward_pre_hook(first_input, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _watched_step(scheduler: Any, notes: ValueNotes) -> Iterator[None]:
    own = scheduler.step

    @functools.wraps(own)  # diffusers reads its parameters
    def step(*inputs: Any, **named: Any) -> Any:
        output = own(*inputs, **named)
        notes.add(SCHEDULER, output[0] if isinstance(output, tuple) else output.prev_sample)
        return output

    with replaced(scheduler, "step", step):
        yield


@contextlib.contextmanager
def _watched_vae(name: str, vae: torch.nn.Module, notes: ValueNotes) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for method in vae_calls.METHODS:
            own = getattr(vae, method)

            def run(*inputs: Any, own: Any = own, **named: Any) -> Any:
                output = own(*inputs, **named)
                notes.add(name, output)
                return output

            stack.enter_context(replaced(vae, method, functools.wraps(own)(run)))
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of one object inside this context. Its class keeps its own."""
    before = vars(owner).get(name)
    vars(owner)[name] = function
    try:
        yield
    finally:
        if before is None:
            del vars(owner)[name]
        else:
            vars(owner)[name] = before
