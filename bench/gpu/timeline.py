"""Marks where a job of the worker's pipeline is, by the host's clock and by events of the card.

The marks are hooks of the pipeline's own modules: text encoder, denoiser, and the VAE's decoder.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.gpu import card
from tests.support.pipeline_bench import Bench


@dataclass
class Timeline:
    """The marks of one job; host times in seconds of time.perf_counter."""

    start: float = 0.0
    step_hosts: list[float] = field(default_factory=list)
    step_events: list[Any] = field(default_factory=list)
    decode_events: list[Any] = field(default_factory=list)
    end: float = 0.0

    def numbers(self) -> dict[str, float]:
        """Return the milliseconds of each stage; those with `card` are the card's own."""
        events = zip(self.step_events, self.step_events[1:], strict=False)
        hosts = zip(self.step_hosts, self.step_hosts[1:], strict=False)
        steps = [card.milliseconds(first, second) for first, second in events]
        queued = [1e3 * (second - first) for first, second in hosts]
        return {
            "before_first_step_ms": 1e3 * (self.step_hosts[0] - self.start),
            "step_card_ms": statistics.median(steps),
            "step_host_ms": statistics.median(queued),
            "decode_card_ms": card.milliseconds(self.decode_events[0], self.decode_events[-1]),
            "image_ms": 1e3 * (self.end - self.start),
        }


def measure(bench: Bench, **request: Any) -> tuple[Timeline, list[Any]]:
    """Return the timeline of one job, and its images."""
    line = Timeline()

    def step(*_: Any) -> None:
        line.step_hosts.append(time.perf_counter())
        line.step_events.append(card.event())

    def decode(*_: Any) -> None:
        line.decode_events.append(card.event())

    unet, decoder = bench.pipe.unet, bench.pipe.vae.decoder
    hooks = [unet.register_forward_pre_hook(step), decoder.register_forward_pre_hook(decode)]
    hooks.append(decoder.register_forward_hook(decode))
    torch.cuda.synchronize()
    line.start = time.perf_counter()
    try:
        images = bench.make(**request)
    finally:
        for hook in hooks:
            hook.remove()
    line.end = time.perf_counter()
    return line, images
