"""How often previews are made and what they cost, with a clock and a device set by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from gpu_worker.output.preview_file import LEAST_PAUSE_S, SHARE, PreviewFile
from gpu_worker.pipeline_api import Preview


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(folder: Path, clock: Clock) -> PreviewFile:
    return PreviewFile(folder, "gpu-0", clock)


@dataclass
class Host:
    """Jobs on a device that does at once what it is given: on the CPU."""

    file: PreviewFile
    clock: Clock
    spent_s: float = 0.0
    made: list[str] = field(default_factory=list)

    def offer(self, uuid: str, cost_s: float) -> None:
        def draw() -> Preview:
            self.made.append(uuid)
            self.clock.now += cost_s
            return Preview(Image.new("L", (8, 8)))

        before = self.clock.now
        self.file.offer(uuid, draw)
        self.spent_s += self.clock.now - before

    def job(self, uuid: str, cost_s: float, lasts_s: float, step_s: float = 0.5) -> None:
        ends = self.clock.now + lasts_s
        while self.clock.now < ends:
            self.offer(uuid, cost_s)
            self.clock.now += step_s
        self.file.remove()


def test_what_a_preview_costs_is_earned_before_the_next(folder: Path, clock: Clock) -> None:
    host = Host(PreviewFile(folder, "gpu-0", clock), clock)
    host.offer("a", 0.1)
    assert [path.name for path in folder.iterdir()] == ["gpu-0.a.jpg"]
    clock.now = 104.9
    host.offer("a", 0.1)
    assert host.made == ["a"]
    clock.now = 105.01
    host.offer("a", 0.0)
    clock.now += LEAST_PAUSE_S / 2
    host.offer("a", 0.0)
    assert host.made == ["a", "a"], "even one that costs nothing has a pause"
    host.file.remove()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("lasts_s", [0.3, 2.0, 100.0])
@pytest.mark.parametrize("cost_s", [0.002, 0.02, 0.3])
def test_all_jobs_together_spend_at_most_a_fiftieth(
    file: PreviewFile, clock: Clock, cost_s: float, lasts_s: float
) -> None:
    host, begun = Host(file, clock), clock.now
    for number in range(int(200 / lasts_s)):
        host.job(str(number), cost_s, lasts_s, step_s=0.03)
    share = (host.spent_s - cost_s) / (clock.now - begun)
    assert share <= SHARE
    assert len(host.made) >= min(int(200 / lasts_s), int(0.9 * 200 * SHARE / cost_s))


def test_a_cheap_model_has_previews_after_a_dear_one(file: PreviewFile, clock: Clock) -> None:
    host = Host(file, clock)
    host.job("first", cost_s=1.0, lasts_s=10.0)
    host.job("short", cost_s=1.0, lasts_s=20.0)
    assert host.made == ["first"]
    host.job("long", cost_s=1.0, lasts_s=60.0)
    assert host.made == ["first", "long"]
    for uuid in "abc":
        host.job(uuid, cost_s=0.01, lasts_s=10.0)
    assert {"b", "c"} <= set(host.made)


COPY_S, DRAWING_S, LAUNCH_S = 0.0002, 0.0015, 0.004
"""The host's time for a copy's start, for a JPEG, and for the kernels of a step."""


class Gpu:
    """A device that the host runs ahead of, by up to `ahead` steps.

    `decode_s` is its time for the VAE where no linear map fits, else 0.
    """

    def __init__(self, clock: Clock, ahead: int, decode_s: float) -> None:
        self.clock = clock
        self.ahead = ahead
        self.decode_s = decode_s
        self.free_at = 0.0
        self.spent_s = 0.0
        self.made = 0

    def job(self, file: PreviewFile, uuid: str, steps: int, step_s: float) -> int:
        """Run a job and return the number of its previews."""
        ends: list[float] = []
        made = self.made
        for number in range(steps):
            self.clock.now += LAUNCH_S
            ends.append(self._queue(step_s))
            if number >= self.ahead:
                self.clock.now = max(self.clock.now, ends[number - self.ahead])
            before = self.clock.now
            file.offer(uuid, self._preview())
            self.spent_s += self.clock.now - before
        self.clock.now = max(self.clock.now, self.free_at)
        file.remove()
        return self.made - made

    def _queue(self, seconds: float) -> float:
        self.free_at = max(self.free_at, self.clock.now) + seconds
        return self.free_at

    def _preview(self) -> Callable[[], Preview | None]:
        waits: list[float] = []

        def make() -> Preview | None:
            if not waits:
                self.clock.now += COPY_S
                waits.append(self.free_at)
            if self.clock.now < waits[-1]:
                return None
            if self.decode_s and len(waits) == 1:
                self.spent_s += self.decode_s
                waits.append(self._queue(self.decode_s))
                return None
            self.clock.now += DRAWING_S
            self.made += 1
            return Preview(Image.new("L", (8, 8)), self.decode_s)

        return make


STEPS, DECODE_S, AHEAD = 60, 0.1, 3


@pytest.mark.parametrize("ahead", [0, 1, 6])
@pytest.mark.parametrize("step_s", [0.02, 0.07, 0.5, 2.0])
def test_each_job_has_previews_however_far_the_device_is_behind(
    file: PreviewFile, clock: Clock, step_s: float, ahead: int
) -> None:
    gpu, begun = Gpu(clock, ahead, decode_s=0.0), clock.now
    counts = [gpu.job(file, str(number), STEPS, step_s) for number in range(10)]
    print(f"{step_s} s a step, {ahead} ahead: {counts} previews, {gpu.spent_s:.3f} s of them")
    # One begins after a pause, and is there when the device has caught up.
    interval_s = LEAST_PAUSE_S + (ahead + 2) * step_s
    assert min(counts) >= int(STEPS * step_s / interval_s) > 0
    assert gpu.spent_s / (clock.now - begun) <= SHARE


@pytest.mark.parametrize("step_s", [0.02, 0.07, 0.5, 2.0])
def test_the_devices_own_time_for_a_preview_is_paid_as_well(
    file: PreviewFile, clock: Clock, step_s: float
) -> None:
    gpu, begun = Gpu(clock, AHEAD, DECODE_S), clock.now
    counts = [gpu.job(file, str(number), STEPS, step_s) for number in range(20)]
    lasted_s = clock.now - begun
    print(f"{step_s} s a step: {counts} previews, {gpu.spent_s:.2f} s of {lasted_s:.0f} s")
    assert gpu.spent_s - DECODE_S - DRAWING_S - COPY_S <= SHARE * lasted_s
    interval_s = DECODE_S / SHARE + 2 * (AHEAD + 2) * step_s
    assert sum(counts) >= 0.6 * lasted_s / interval_s > 1


def test_a_preview_that_comes_too_late_is_not_the_next_jobs(
    folder: Path, file: PreviewFile
) -> None:
    late: list[Preview | None] = [None, Preview(Image.new("L", (8, 8)))]
    file.offer("a", lambda: late[0])
    file.remove()
    del late[0]
    file.offer("b", lambda: None)
    assert list(folder.iterdir()) == []
    file.remove()


def test_a_preview_that_fails_costs_no_picture_and_old_ones_go(folder: Path) -> None:
    (folder / "gpu-0.old.jpg").write_bytes(b"x")
    (folder / "gpu-0.old.tmp").write_bytes(b"x")
    (folder / "gpu-1.other.jpg").write_bytes(b"x")
    clock = Clock()
    previews = PreviewFile(folder, "gpu-0", clock)

    def fails() -> Preview:
        raise RuntimeError("on purpose")

    previews.offer("a", fails)
    assert [path.name for path in folder.iterdir()] == ["gpu-1.other.jpg"]
    clock.now += LEAST_PAUSE_S
    previews.offer("a", lambda: Preview(Image.new("L", (8, 8))))
    assert (folder / "gpu-0.a.jpg").exists()
