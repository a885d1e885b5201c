"""The networks that stay in RAM between two jobs: which, how long, and with which weights.

The device is named only: nothing here computes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel

from gpu_worker import host_memory
from gpu_worker.assets.model_library import Library
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.recent_networks import RecentNetworks
from tests.support.builders import tiny_adapters, tiny_models

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CUDA = torch.device("cuda")
ROOMY = 1 << 40


def network() -> torch.nn.Module:
    return torch.nn.BatchNorm1d(4)


def job_with(recent: RecentNetworks, *names: str, kind: str = "controlnets") -> list[Any]:
    """The networks that a job got for these identities."""
    with recent.job():
        return [recent.get(kind, name, network) for name in names]


def test_the_next_job_has_the_network_of_the_last() -> None:
    recent = RecentNetworks(CUDA, lambda: ROOMY)
    first = job_with(recent, "a")
    assert job_with(recent, "a") == first
    other = job_with(recent, "b")
    assert job_with(recent, "a") != first, "only the last one is kept"
    assert job_with(recent, "b") != other
    refiner = job_with(recent, "r", kind="refiners")
    job_with(recent, "a")
    assert job_with(recent, "r", kind="refiners") == refiner, "of each kind"


def test_a_network_serves_once_in_a_job() -> None:
    recent = RecentNetworks(CUDA, lambda: ROOMY)
    one, another = job_with(recent, "a", "a")
    assert one is not another
    assert job_with(recent, "a")[0] is one


def test_the_weights_are_those_of_the_files() -> None:
    recent = RecentNetworks(CUDA, lambda: ROOMY)
    with recent.job():
        loaded = recent.get("refiners", "a", network)
        before = {name: value.clone() for name, value in loaded.state_dict().items()}
        places = {name: value.data_ptr() for name, value in loaded.state_dict().items()}
        loaded.to(torch.float64)
    (again,) = job_with(recent, "a", kind="refiners")
    assert again is loaded
    after = again.state_dict()
    assert {name: value.data_ptr() for name, value in after.items()} == places
    assert all(value.dtype == before[name].dtype for name, value in after.items())
    assert all(each.requires_grad for each in again.parameters())


def test_a_job_that_fails_keeps_nothing_and_its_weights_leave_the_device() -> None:
    recent = RecentNetworks(CUDA, lambda: ROOMY)
    (first,) = job_with(recent, "a")
    place = first.weight.data_ptr()
    with contextlib.suppress(KeyboardInterrupt), recent.job():
        recent.get("controlnets", "a", network).to(torch.float64)
        raise KeyboardInterrupt
    assert first.weight.data_ptr() == place
    assert job_with(recent, "a") != [first]


def test_nothing_is_kept_where_memory_is_short_or_the_device_is_a_cpu() -> None:
    for recent in (RecentNetworks(CUDA, lambda: 8), RecentNetworks(torch.device("cpu"))):
        assert job_with(recent, "a") != job_with(recent, "a")
    assert host_memory.available_bytes() > 0


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    tiny_adapters.save_controlnet(tiny_models.build(), tmp_path / "net")
    library = Library.model_validate({"controlnets": {"net": {"source": "net"}}})
    assets = AssetFiles(library, tmp_path, recent=RecentNetworks(CUDA, lambda: ROOMY))

    def load(dtype: torch.dtype = torch.float32) -> Any:
        kinds = {"ControlNetModel": ControlNetModel}
        with assets.recent.job():
            return assets.recent_network("controlnets", "net", kinds, dtype)

    first = load()
    assert load() is first
    assert load(torch.float16) is not first
    first = load()
    tiny_adapters.save_controlnet(tiny_models.build(1), tmp_path / "net")
    assert load() is not first
