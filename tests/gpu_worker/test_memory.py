"""Memory that does not suffice: real limits of the worker's memory, and the worker lives on."""

from __future__ import annotations

import contextlib
import errno
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from diffusers import AutoencoderKL

from gpu_worker.output.result_records import error_message
from gpu_worker.pipeline.execution import machine_size, vae_calls, wider_vae
from gpu_worker.pipeline.execution.device_errors import is_out_of_memory
from tests.support.builders import tiny_models
from tests.support.builders.tiny_families import FAMILIES
from tests.support.service import ROOT, Service, running

MIB = 1 << 20
LARGE = {"width": 2048, "height": 128, "num_inference_steps": 1}
"""It takes more than 165 MiB if decoded in one piece, and 125 in tiles of 768 px.

A limit within 2 MiB of these can make oneDNN fail, after which the worker has to be restarted.
"""
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}
"""glibc gives back at once what is larger: how much is taken does not depend on what was freed."""
SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}


def may_take(service: Service, more_bytes: int) -> None:
    """From here on the worker's writable memory may grow by so much: then malloc returns NULL."""
    worker = psutil.Process(service.children["gpu_worker"].pid)
    limit = worker.memory_info().data + more_bytes
    worker.rlimit(psutil.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def result(service: Service, **asked: Any) -> dict[str, Any]:
    record = service.result(service.submit(**asked))
    service.wait_available()
    return record


def save_model(folder: Path) -> Path:
    """A tiny UNet, and a VAE of four levels: a picture's pixels are what costs memory."""
    pipe = tiny_models.build()
    pipe.vae = AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        sample_size=64,
    )
    pipe.save_pretrained(folder)
    return folder


def with_model(folder: Path) -> contextlib.AbstractContextManager[Service]:
    """A service of its own for each limit: what an earlier job has left free changes the need."""
    real = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cpu", "MACHINE_SIZE": "big"}
    model = str(save_model(folder / "model"))
    return running(folder, "gateway", "gpu_worker", SDE_MODEL=model, **real, **AT_ONCE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_image_that_does_not_fit_is_decoded_in_tiles(folder: Path) -> None:
    with with_model(folder) as service:
        assert result(service, **SMALL)["errors"] == []
        may_take(service, 150 * MIB)
        fitted = result(service, **LARGE)
        assert fitted["errors"] == [] and (fitted["width"], fitted["height"]) == (2048, 128)
        assert fitted["machine_size"] == "big" and fitted["vae_tile_px"] == 768
        after = result(service, **SMALL)
        assert after["errors"] == [] and "vae_tile_px" not in after
        assert service.children["gpu_worker"].poll() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_job_that_fits_at_no_size_says_so_and_the_worker_lives_on(folder: Path) -> None:
    with with_model(folder) as service:
        assert result(service, **SMALL)["errors"] == []
        may_take(service, 8 * MIB)
        failed = result(service, **LARGE)
        way_out = "out of memory with MACHINE_SIZE=big on cpu: try a smaller image"
        assert failed["errors"] == [way_out]
        assert failed["data"] is None and failed["state"] == "failed"
        assert result(service, **SMALL)["errors"] == []
        assert service.children["gpu_worker"].poll() is None


def test_no_room_in_python_itself_is_an_outcome_and_the_worker_lives_on(folder: Path) -> None:
    hoarding = {"SDE_PIPELINE": "tests.pipelines.exhausts_memory:load"}
    with running(folder, "gateway", "gpu_worker", **hoarding, **AT_ONCE) as service:
        for vice in ("make", "write"):
            record = result(service, prompt=vice, width=2048, height=1024)
            assert record["data"] is None and record["state"] == "failed"
            assert record["errors"] == [error_message(MemoryError())]
            assert "request a smaller one" in record["errors"][0]
            assert result(service, prompt="harmless")["errors"] == []
        assert service.children["gpu_worker"].poll() is None


BROKEN = """
import resource, sys, torch
from pathlib import Path
from gpu_worker import pipeline
from gpu_worker.pipeline_api import DeviceLost
from tests.pipelines.exhausts_memory import allow
from tests.support.pipeline_jobs import ignore, job, settings

torch.set_num_threads(1)
ours = pipeline.load(settings(Path(sys.argv[1])))
layer, pixels = torch.nn.Conv2d(32, 32, 3), torch.randn(1, 32, 64, 72)
allow(1)
try:
    layer(pixels)
except RuntimeError as error:
    print(error)
allow(resource.RLIM_INFINITY)
try:
    ours.generate(job(), ignore)
except DeviceLost as error:
    print("lost:", error)
"""


def test_a_cpu_that_computes_nothing_more_is_a_lost_device(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = "could not create a primitive"
    assert done.stdout.splitlines() == [said, f"lost: {said}"], done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    ],
)
def test_what_says_that_memory_did_not_suffice(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = ValueError("cannot be loaded")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(ValueError(str(error)))


def test_a_size_below_decodes_in_smaller_tiles_at_every_models_own_size() -> None:
    """Else falling back would be in vain: a VAE's own tile is as large as its pictures."""
    sides = []
    for size in machine_size.SIZES:
        vae = AutoencoderKL(
            block_out_channels=(32,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=1024,
        )
        machine_size.enable_vae_savings(vae, size)
        assert vae.tile_latent_min_size * 8 == vae.tile_sample_min_size
        sides.append(vae.tile_sample_min_size if vae.use_tiling else 2048)
    assert sides == [2048, 1024, 512, 256]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", ["sd1", "qwen-image", "sana"])
def test_a_larger_size_undoes_what_a_smaller_one_has_enabled(family: str) -> None:
    """Tiles have one side, or height and width with strides, by the autoencoder."""
    direct = {}
    for size in machine_size.SIZES:
        vae = FAMILIES[family].build().vae
        machine_size.enable_vae_savings(vae, size)
        direct[size] = wider_vae.memory_settings(vae)
    assert direct["big"] != direct["tiny"]
    for size in ("tiny", "little", "big", "tiny", "medium"):
        machine_size.enable_vae_savings(vae, size)
        assert wider_vae.memory_settings(vae) == direct[size], size


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tiles_that_sufficed_once_are_no_larger_than_those_of_the_size() -> None:
    vae = tiny_models.build().vae
    vae_calls.install(vae)
    safe = vae_calls.of(vae)
    assert safe is not None
    safe._needs["decode", 64] = 512, safe._clock()
    machine_size.enable_vae_savings(vae, "big")
    assert (safe._needed_side("decode", 64), safe._needed_side("decode", 63)) == (512, None)
    machine_size.enable_vae_savings(vae, "tiny")
    assert safe._needed_side("decode", 64) is None
