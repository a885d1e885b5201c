"""What the make-believe device itself does: each rule that it keeps, shown on a few tensors."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_worker.pipeline import families
from gpu_worker.pipeline.execution import dtypes
from tests.support.cuda import device
from tests.support.cuda.counters import COUNTERS, Copies
from tests.support.cuda.faults import FAULTS, ILLEGAL_ADDRESS
from tests.support.cuda.memory import DEVICES
from tests.support.cuda_matrix.cases import case

GPU = torch.device("cuda:1")


def run(folder: Path) -> None:
    """Print a line for each rule."""
    for rule in _RULES:
        with case(rule.__name__) as this:
            COUNTERS.reset()
            try:
                rule()
            finally:
                FAULTS.clear()
                # An error, its frames and their tensors are a circle.
                gc.collect()
            this.problems += [f"{each} is not empty" for each in DEVICES if each.allocated_bytes]


def _refusal(kind: type[BaseException], act: Callable[[], Any]) -> str:
    """Return the words of an error that must come."""
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def _ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, device=GPU)


def devices_are_not_mixed() -> None:
    """Only a CPU tensor without dimensions may be mixed with those of a device."""
    words = _refusal(RuntimeError, lambda: _ones(2) + torch.ones(2))
    assert "same device" in words and "cuda:1" in words and "cpu" in words
    _refusal(RuntimeError, lambda: _ones(2) + torch.ones(2, device="cuda:0"))
    assert (_ones(2) + torch.tensor(1.0)).tolist() == [2, 2]
    index = torch.tensor([1], device=GPU)
    assert "indices should be" in _refusal(RuntimeError, lambda: torch.ones(2)[index])
    _refusal(RuntimeError, lambda: torch.randn(2, device=GPU, generator=torch.Generator()))


def what_cuda_cannot_do_is_refused() -> None:
    """No numpy without a copy, and no copy of a tensor without data."""
    assert "Tensor.cpu()" in _refusal(TypeError, lambda: _ones(2).numpy())
    _refusal(TypeError, lambda: np.asarray(_ones(2)))
    _refusal(NotImplementedError, lambda: torch.ones(2, device="meta").to(GPU))


def waits_are_counted_where_they_arise() -> None:
    """Whatever makes the host read the device is a wait, and nothing else is."""
    values, mask = _ones(3), _ones(3) > 0
    _ = values + 1, values[:1], values[torch.tensor([0], device=GPU)], values.to(torch.float16)
    assert COUNTERS.waits.total() == 0
    waits: list[Callable[[], Any]] = [
        lambda: values[0].item(),
        lambda: bool(mask.all()),
        lambda: values[mask],
        lambda: mask.nonzero(),
        lambda: values[torch.tensor(1, device=GPU)],
        lambda: values.cpu(),
        lambda: values.tolist(),
        lambda: torch.equal(values, values),
        lambda: torch.cuda.synchronize(),
    ]
    for number, wait in enumerate(waits, start=1):
        wait()
        assert COUNTERS.waits.total() == number, number
    assert all("device_rules.py" in place for place in COUNTERS.waits)


def copies_are_counted_with_their_bytes() -> None:
    """By direction; a move between devices or to `meta` is none of both."""
    values = torch.ones(4).to(GPU)
    _ = values.cpu(), values.to("cuda:0"), values.to("meta"), values.half(), _ones(4)
    values.copy_(torch.zeros(4))
    for copies, times in ((COUNTERS.to_device, 2), (COUNTERS.from_device, 1)):
        assert isinstance(copies, Copies)
        assert copies.times.total() == times and copies.size_bytes.total() == 16 * times
        assert all("device_rules.py" in place for place in copies.times)


def memory_is_counted_until_it_is_freed() -> None:
    """A view shares its storage; the peak outlives what was freed."""
    memory = DEVICES[1]
    before, values = memory.allocated_bytes, _ones(256)
    view = values[:2].view(1, 2)
    assert torch.cuda.memory_allocated(GPU) == before + 1024
    del values
    assert memory.allocated_bytes == before + 1024, "the view holds it"
    del view
    assert memory.allocated_bytes == before
    memory.reset_peak()
    _ = _ones(512) + 1
    assert torch.cuda.max_memory_allocated(GPU) == before + 2 * 2048


def a_limit_fails_the_allocation_that_passes_it() -> None:
    """Nothing is counted of what failed, and what fits goes on."""
    memory = DEVICES[1]
    memory.limit_bytes = memory.allocated_bytes + 1024
    values = _ones(128)
    words = _refusal(torch.OutOfMemoryError, lambda: _ones(129))
    assert "CUDA out of memory" in words and memory.out_of_memory_errors == 1
    assert torch.cuda.mem_get_info(GPU)[0] == 512
    values += 1
    _ = _ones(128)
    memory.limit_bytes = memory.total_bytes


def a_copy_without_a_wait_comes_late() -> None:
    """Into pinned memory; into other memory the host always waits."""
    values = torch.arange(4.0).to(GPU)
    late = values.to("cpu", non_blocking=True)
    buffer = torch.empty(4, pin_memory=True)
    buffer.copy_(values, non_blocking=True)
    assert COUNTERS.waits.total() == 0 and buffer.is_pinned()
    assert late.isnan().all() and buffer.isnan().all()
    event = torch.cuda.Event()
    event.record()
    event.synchronize()
    assert COUNTERS.waits.total() == 1
    assert late.tolist() == buffer.tolist() == [0, 1, 2, 3]
    plain = torch.empty(4)
    plain.copy_(values, non_blocking=True)
    assert plain.tolist() == [0, 1, 2, 3] and COUNTERS.waits.total() == 2


def any_error_is_raised_in_any_operation() -> None:
    """Once, at the operation that is named."""
    values = _ones(2)
    FAULTS.raise_at("^aten::mul$", KeyError("odd"), count=2)
    _ = values + 1, values * 2
    _refusal(KeyError, lambda: values * 2)
    _ = values * 2
    FAULTS.raise_at("^cuda::empty_cache$", ValueError("odd"))
    torch.cuda.synchronize()
    _refusal(ValueError, torch.cuda.empty_cache)


def a_lost_device_fails_every_call() -> None:
    """With torch's error and its code; what torch itself keeps can still be read."""
    values = _ones(2)
    FAULTS.raise_at("^aten::add$", None)
    calls: list[Callable[[], Any]] = [
        lambda: values + 1,
        lambda: values * 2,
        lambda: torch.ones(2, device=GPU),
        torch.cuda.synchronize,
        torch.cuda.empty_cache,
        lambda: torch.cuda.mem_get_info(GPU),
        lambda: torch.cuda.current_stream().synchronize(),
    ]
    for call in calls:
        try:
            call()
        except torch.AcceleratorError as error:
            assert error.error_code == ILLEGAL_ADDRESS
            continue
        raise AssertionError("a call of a lost device did not fail")
    assert torch.cuda.memory_allocated(GPU) == 8
    assert torch.ones(2).tolist() == [1, 1], "the CPU goes on"


def plain_cuda_is_the_current_device() -> None:
    """In each thread, and for every way to name it."""
    assert torch.cuda.is_available() and torch.cuda.device_count() == 2
    with torch.cuda.device(1):
        found = [torch.ones(1, device="cuda"), torch.ones(1).to("cuda"), torch.ones(1).cuda()]
        found += [torch.tensor([1.0], device="cuda"), torch.as_tensor(np.ones(1), device="cuda")]
    assert {str(each.device) for each in found} == {"cuda:1"}
    seen: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: seen.append(torch.ones(1).to(GPU) + 1))
    thread.start()
    thread.join()
    assert seen[0].device == GPU and seen[0].tolist() == [2]
    with torch.device("meta"):
        assert torch.nn.Linear(2, 2).weight.device.type == "meta"


def parameters_stay_the_same_objects() -> None:
    """When their data moves there and back, and in a deep copy they are parameters again."""
    layer = torch.nn.Linear(3, 2)
    weight, host = layer.weight, layer.weight.data
    weight.data = host.to(GPU)
    assert layer.weight is weight and isinstance(weight, torch.nn.Parameter)
    assert weight.device == GPU and torch.cuda.memory_allocated(GPU) == 24
    other = copy.deepcopy(layer)
    assert isinstance(other.weight, torch.nn.Parameter) and other.weight.device == GPU
    weight.data = host
    layer.to(GPU).double()
    assert layer.weight is weight and weight.device == GPU and weight.dtype == torch.float64
    layer.to("cpu").float()
    assert layer.weight is weight and weight.device.type == "cpu" and weight.equal(host)


def indices_and_shapes_are_the_cpus() -> None:
    """Also lists as indices, which C++ builds on the device, and shapes that change in place."""
    values = torch.arange(6.0).view(3, 2).to(GPU)
    values[[0, 2]] = _ones(2, 2)
    values[1, 0] = 5
    view = values[0]
    values.unsqueeze_(0)
    assert values.shape == (1, 3, 2) and values.sum().item() == 12 and view.tolist() == [1, 1]
    values.squeeze_(0)
    assert values.tolist() == [[1, 1], [5, 3], [1, 1]] and values[[1]].tolist() == [[5, 3]]
    halves = values.half().softmax(-1, dtype=torch.float32)
    assert halves.dtype == torch.float32 and abs(halves.sum().item() - 3) < 1e-5
    assert values.new_tensor([1.0]).device == GPU


def bfloat16_can_be_missing() -> None:
    """On a device before compute capability 8.0, which only emulates it."""
    device.enter(count=1, memory_bytes=1 << 20, capability=(7, 5))
    assert torch.cuda.device_count() == 1
    assert torch.cuda.get_device_properties(0).total_memory == 1 << 20
    assert torch.cuda.is_bf16_supported()
    assert not torch.cuda.is_bf16_supported(including_emulation=False)
    device.enter()
    assert torch.cuda.is_bf16_supported(including_emulation=False)


def no_part_has_a_dtype_that_the_device_lacks() -> None:
    """Also where the part's dtype is not the family's."""
    device.enter(count=1, capability=(7, 5))
    for name, setting, dtype, parts in (
        ("SanaPipeline", "auto", torch.float32, {"text_encoder": torch.float32}),
        ("SanaPipeline", "float16", torch.float16, {"text_encoder": torch.float32}),
        ("KolorsPipeline", "auto", torch.float16, {"vae": torch.float32}),
        ("ZImagePipeline", "auto", torch.float32, {}),
    ):
        family = families.family_of(name)
        chosen = dtypes.choose(family, torch.device("cuda"), None, setting)
        assert chosen == dtypes.Dtypes(dtype, parts), (name, setting, chosen)
    device.enter()
    family = families.family_of("SanaPipeline")
    chosen = dtypes.choose(family, torch.device("cuda"))
    assert chosen.parts == {"text_encoder": torch.bfloat16}


def diffusers_offloads_groups_with_streams() -> None:
    """The image is the CPU's, and the weights rest on the CPU afterwards."""
    from diffusers.hooks import apply_group_offloading

    from tests.support.builders import tiny_models

    def image(pipe: Any) -> np.ndarray[Any, Any]:
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(1)
        sizes = {"width": 32, "height": 32, "num_inference_steps": 1}
        return np.asarray(pipe("a circle", generator=generator, **sizes).images[0], np.int16)

    expected, pipe = image(tiny_models.build()), tiny_models.build()
    groups: dict[str, Any] = {"offload_type": "leaf_level", "use_stream": True}
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        apply_group_offloading(part, GPU, torch.device("cpu"), **groups)
    for _ in range(2):
        assert np.abs(image(pipe) - expected).max() <= 1
    assert {each.device.type for each in pipe.unet.parameters()} == {"cpu"}
    assert COUNTERS.calls["stream_synchronize"] > 0
    # The scheduler holds its timesteps there.
    pipe.scheduler.timesteps = pipe.scheduler.timesteps.cpu()


_RULES = (
    devices_are_not_mixed,
    what_cuda_cannot_do_is_refused,
    waits_are_counted_where_they_arise,
    copies_are_counted_with_their_bytes,
    memory_is_counted_until_it_is_freed,
    a_limit_fails_the_allocation_that_passes_it,
    a_copy_without_a_wait_comes_late,
    any_error_is_raised_in_any_operation,
    a_lost_device_fails_every_call,
    plain_cuda_is_the_current_device,
    parameters_stay_the_same_objects,
    indices_and_shapes_are_the_cpus,
    bfloat16_can_be_missing,
    no_part_has_a_dtype_that_the_device_lacks,
    diffusers_offloads_groups_with_streams,
)
