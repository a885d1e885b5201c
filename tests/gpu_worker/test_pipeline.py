"""Loading and generating with the real diffusers: tiny models made here, and the built-in one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_worker import pipeline
from gpu_worker.output import result_records
from gpu_worker.pipeline.execution import machine_size
from gpu_worker.pipeline.execution.machine_size import SIZES
from gpu_worker.pipeline_api import OnStep, OutOfMemory
from tests.support.builders import tiny_models
from tests.support.pipeline_bench import in_own_memory
from tests.support.pipeline_jobs import demo_side_px, ignore, job, settings
from tests.support.service import running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model as `directory/` and as `single.safetensors`."""
    folder = tmp_path_factory.mktemp("tiny")
    pipe = tiny_models.build()
    pipe.save_pretrained(folder / "directory")
    tiny_models.save_single_file(pipe, folder / "single.safetensors")
    return folder


@pytest.fixture(scope="module")
def direct() -> Iterator[Any]:
    """The built-in model as anybody would load it, without our code."""
    from diffusers import StableDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionPipeline.from_pretrained(
            pipeline.DEMO_MODEL, dtype=torch.float32, use_safetensors=True
        )
    in_own_memory(pipe).set_progress_bar_config(disable=True)
    yield pipe


def test_the_built_in_model_gives_the_pixels_of_diffusers_itself(
    direct: Any, tmp_path: Path
) -> None:
    ours = pipeline.load(settings(tmp_path))
    request = {"negative_prompt": "blurry", "guidance_scale": 5.0, "width": 72, "height": 64}
    made = ours.generate(job(**request), ignore)[0].image
    expected = direct(
        "a large red apple on a blue background",
        num_inference_steps=4,
        generator=torch.Generator("cpu").manual_seed(7),
        **request,
    ).images[0]
    assert made.tobytes() == expected.tobytes()
    assert made.size == (72, 64)


def test_a_seed_is_a_picture_and_another_seed_another(tmp_path: Path) -> None:
    ours = pipeline.load(settings(tmp_path))
    first, again, other = (
        ours.generate(job(seed=seed), ignore)[0].image.tobytes() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_progress_counts_the_steps_and_a_stop_between_them_ends_it(tmp_path: Path) -> None:
    ours = pipeline.load(settings(tmp_path))
    seen: list[tuple[int, int]] = []
    ours.generate(job(num_inference_steps=3), lambda *at: seen.append(at[:2]))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    class Halt(BaseException):
        pass

    def halt(step: int, steps: int, preview: object = None) -> None:
        raise Halt

    with pytest.raises(Halt):
        ours.generate(job(), halt)
    assert ours.generate(job(), ignore)[0].image.size == (demo_side_px(),) * 2


def test_a_directory_and_a_single_file_are_the_same_model(tiny: Path) -> None:
    made = []
    for name in ("directory", "single.safetensors"):
        loaded = pipeline.load(settings(tiny, SDE_MODEL=str(tiny / name)))
        assert loaded.metadata["model"] == str(tiny / name)
        made.append(loaded.generate(job(), ignore)[0].image.tobytes())
    assert made[0] == made[1]


def test_the_default_size_is_the_models_own(tiny: Path) -> None:
    loaded = pipeline.load(settings(tiny, SDE_MODEL=str(tiny / "directory")))
    assert loaded._prepare(job()).loaded.default_side_px() == 32
    assert result_records.encode_png(loaded.generate(job(), ignore)[0].image).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{0}/nothing.safetensors", "the file does not exist"),
        ("{0}", "has no model_index.json"),
        ("{0}/model.ckpt", "is not demo"),
        ("/no/such/folder", "is not demo"),
        ("just-a-word", "is not demo"),
        ("a/b/c", "is not demo"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(pipeline.ModelNotFound, match=said) as caught:
        pipeline.load(settings(tmp_path, SDE_MODEL=name.format(tmp_path)))
    assert name.format(tmp_path) in str(caught.value)


def test_a_device_that_is_not_here_is_told(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ValueError, match="SDE_DEVICE=cuda: "):
        pipeline.load(settings(tmp_path, SDE_DEVICE="cuda"))


@pytest.mark.parametrize("size", SIZES)
def test_every_machine_size_makes_the_picture(tiny: Path, size: machine_size.Size) -> None:
    loaded = pipeline.load(settings(tiny, SDE_MODEL=str(tiny / "directory"), MACHINE_SIZE=size))
    switches = machine_size.SWITCHES[size]
    assert loaded._loaded is not None
    pipe = loaded._loaded.pipe
    assert pipe.vae.use_slicing is switches.vae_slicing
    assert pipe.vae.use_tiling is (switches.vae_tile_px is not None)
    assert loaded.metadata["machine_size"] == size
    assert loaded.generate(job(), ignore)[0].image.size == (32, 32)


def test_the_size_follows_from_the_memory() -> None:
    gib = machine_size.GIB
    found = [machine_size.choose_size(n * gib) for n in (80, 23, 12, 8, 4)]
    assert found == ["big", "big", "medium", "little", "tiny"]
    pipe, cuda, cpu = tiny_models.build(), torch.device("cuda"), torch.device("cpu")
    below = {size: machine_size.next_smaller(pipe, size, cuda) for size in SIZES}
    assert below == {"big": "little", "medium": "little", "little": "tiny", "tiny": None}
    assert {machine_size.next_smaller(pipe, size, cpu) for size in SIZES} == {None}


def exhausting(sizes: int) -> OnStep:
    """Runs out of memory in the first so many attempts."""
    left = [sizes]

    def on_step(step: int, steps: int, preview: object = None) -> None:
        if step == 2 and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    return on_step


@pytest.mark.parametrize("size", SIZES)
def test_out_of_memory_on_a_cpu_ends_the_job_only(tiny: Path, size: machine_size.Size) -> None:
    """No MACHINE_SIZE keeps fewer weights in the machine's own memory."""
    loaded = pipeline.load(settings(tiny, SDE_MODEL=str(tiny / "directory"), MACHINE_SIZE=size))
    plain = loaded.generate(job(), ignore)[0]
    sentence = f"^out of memory with MACHINE_SIZE={size} on cpu: try a smaller image$"
    with pytest.raises(OutOfMemory, match=sentence):
        loaded.generate(job(), exhausting(1))
    assert loaded.generate(job(), ignore)[0].image.tobytes() == plain.image.tobytes()


def test_the_built_in_model_through_the_whole_service(folder: Path, direct: Any) -> None:
    import base64
    import io

    from PIL import Image

    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="gpu_worker.pipeline:load", SDE_DEVICE="cpu"
    ) as service:
        asked = job()
        record = service.result(service.submit(asked.request.prompt, seed=7, num_inference_steps=4))
        log = service.output()
    made = Image.open(io.BytesIO(base64.b64decode(record["data"])))
    expected = direct(
        asked.request.prompt,
        num_inference_steps=4,
        guidance_scale=4.0,  # its own default
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    assert made.tobytes() == expected.tobytes()
    assert (record["model"], record["width"], record["height"]) == ("demo", *(demo_side_px(),) * 2)
    assert "arning" not in log and "torchvision" not in log, log
