"""Trains one network in several processes of one thread each that share its memory.

Each replica computes gradients for its own part of a batch; then each moves its own part of the
weights by the mean of all gradients. On a CPU this beats threads, which wait for each other at
every operation, above all while other work takes a core. On a GPU there is one replica.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from recipe.training import muon

_PATIENCE_S = 3600.0


class Barrier(Protocol):
    """What all replicas wait at."""

    def wait(self) -> object:
        """Return when every replica has come here."""


class SharedWeights:
    """A network's weights, average, moments and gradients in flat memory that replicas share."""

    def __init__(self, network: torch.nn.Module, count: int) -> None:
        self.network, self.count = network, count
        self.average = copy.deepcopy(network).requires_grad_(False)
        self._named = list(network.named_parameters())
        size = sum(weight.numel() for _, weight in self._named)
        device = self._named[0][1].device
        flats = [torch.zeros(size, device=device) for _ in range(4 + count)]
        if device.type == "cpu":
            flats = [flat.share_memory_() for flat in flats]
        self._weights, self._averages, self._first, self._second = flats[:4]
        self._gradients = flats[4:]
        self.progress = torch.zeros(3, dtype=torch.float64).share_memory_()
        """Steps, elapsed seconds and the stage's spent fraction."""
        self._bind(self._weights, self._named)
        self._bind(self._averages, list(self.average.named_parameters()))

    @property
    def steps(self) -> int:
        """Steps since the stage began, over resumes."""
        return int(self.progress[0])

    @staticmethod
    def _bind(flat: torch.Tensor, named: list[tuple[str, torch.nn.Parameter]]) -> None:
        begin = 0
        for _, weight in named:
            part = flat[begin : begin + weight.numel()].view(weight.shape)
            weight.data = part.copy_(weight.data)
            begin += weight.numel()

    def bind_gradients(self, rank: int) -> None:
        """Let this process's backward passes add into the rank's gradients."""
        begin = 0
        for _, weight in self._named:
            end = begin + weight.numel()
            weight.grad = self._gradients[rank][begin:end].view(weight.shape)
            begin = end

    def clear_gradients(self, rank: int) -> None:
        """Set the rank's gradients to zero."""
        self._gradients[rank].zero_()

    def _share(self, rank: int) -> list[tuple[str, torch.nn.Parameter, int]]:
        """The parameters that a rank moves, and where each begins: a part of equal size."""
        size, begin, share = len(self._weights), 0, []
        for name, weight in self._named:
            middle = begin + weight.numel() // 2
            if middle * self.count // size == rank:
                share.append((name, weight, begin))
            begin += weight.numel()
        return share

    @torch.no_grad()
    def move(self, rank: int, rate: float, decay: float) -> None:
        """Move the rank's part of the weights, and of their average by 1 - decay towards them."""
        share = self._share(rank)
        for name, weight, begin in share:
            here = slice(begin, begin + weight.numel())
            gradient = self._gradients[0][here]
            for other in self._gradients[1:]:
                gradient = gradient + other[here]
            gradient = (gradient / self.count).view(weight.shape)
            first, second = (flat[here].view(weight.shape) for flat in (self._first, self._second))
            if muon.is_matrix(name, weight):
                muon.move_matrix(weight.data, gradient, first, rate)
            else:
                muon.move_other(weight.data, gradient, (first, second), rate, self.steps + 1)
        if share:
            last = share[-1]
            here = slice(share[0][2], last[2] + last[1].numel())
            self._averages[here].lerp_(self._weights[here], 1 - decay)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        flats = (self._weights, self._averages, self._first, self._second, self.progress)
        names = ("weights", "averages", "first", "second", "progress")
        return dict(zip(names, flats, strict=True))

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint."""
        for name, flat in self.state().items():
            flat.copy_(state[name])


@dataclass(frozen=True)
class Replica:
    """One of the processes that train together."""

    rank: int
    shared: SharedWeights
    barrier: Barrier | None = None

    @property
    def first(self) -> bool:
        """Whether this one writes files and reports."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.shared.network.parameters()).device

    def wait(self) -> None:
        """Wait for the others."""
        if self.barrier is not None:
            self.barrier.wait()

    def step(self, loss: Callable[[], torch.Tensor], rate: float, decay: float) -> float:
        """One update by the mean gradient of all replicas; returns this replica's loss."""
        self.shared.clear_gradients(self.rank)
        value = loss()
        value.backward()
        self.wait()
        self.shared.move(self.rank, rate, decay)
        self.wait()
        if self.first:
            self.shared.progress[0] += 1
        return value.item()


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _work(stage: Callable[[Replica], None], replica: Replica) -> None:
    torch.set_num_threads(1)
    replica.shared.bind_gradients(replica.rank)
    stage(replica)


def run(stage: Callable[[Replica], None], shared: SharedWeights) -> None:
    """Run the stage in all replicas; raise RuntimeError if one of them ends badly.

    The processes are forked, so that they share the weights: call it with one thread only.
    """
    if shared.count == 1:
        shared.bind_gradients(0)
        stage(Replica(0, shared))
        return
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(shared.count, timeout=_PATIENCE_S)
    replicas = [Replica(rank, shared, barrier) for rank in range(shared.count)]
    processes = [context.Process(target=_work, args=(stage, each)) for each in replicas]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a replica ended with an error; the checkpoint remains")


def train(
    network: torch.nn.Module, checkpoint: Path, stage: Callable[[Replica], None], count: int
) -> None:
    """Run the stage on the network from its checkpoint, if there is one; a GPU has one replica."""
    where = device()
    torch.set_num_threads(1 if count > 1 else torch.get_num_threads())
    shared = SharedWeights(network.to(where), count if where.type == "cpu" else 1)
    if checkpoint.exists():
        shared.restore(torch.load(checkpoint, weights_only=True, map_location=where))
    run(stage, shared)
