"""Every family by every route through one running service: as diffusers itself draws it."""

from __future__ import annotations

import base64
import functools
import inspect
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from tests.support.builders.tiny_adapters import drawing, mask
from tests.support.builders.tiny_families import FAMILIES, Family
from tests.support.masked_images import with_sent_pixels
from tests.support.pipeline_bench import PROMPT, in_own_memory, write_library
from tests.support.service import ROOT, Service, running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

FILES = [(name, suffix) for name, family in FAMILIES.items() for suffix in family.files]
FAST = {"num_inference_steps": 2, "guidance_scale": 0.0}
TRAILING = {
    "scheduler": "EulerDiscreteScheduler",
    "scheduler_options": {"timestep_spacing": "trailing"},
}


@pytest.fixture(scope="module")
def models() -> Iterator[Path]:
    """A model of each family, as a directory and as files, named in models.toml."""
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    named: dict[str, dict[str, Any]] = {}
    for name, family in FAMILIES.items():
        pipe = family.build()
        pipe.save_pretrained(folder / "models" / name)
        named[name] = {"source": name}
        for suffix, save in family.files.items():
            file = f"{name}-{suffix[1:]}{suffix}"
            save(pipe, folder / "models" / file)
            named[f"{name}{suffix}"] = {"source": file}
    named["turbo"] = {"source": "xl", "defaults": FAST}
    named["lightning"] = {"source": "xl", "defaults": FAST | TRAILING}
    write_library(folder, models=named)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[Service]:
    with running(
        models,
        "gateway",
        "gpu_worker",
        SDE_PIPELINE="gpu_worker.pipeline:load",
        SDE_DEVICE="cpu",
        SDE_QUEUE_SIZE="4",
    ) as found:
        yield found


def tasks(family: Family, kind: str) -> dict[str, str]:
    """diffusers' class for each task."""
    words = kind if family.text else ""
    found = {"txt2img": words, "img2img": family.image, "inpaint": family.inpaint}
    return {task: name for task, name in found.items() if name}


def parameters(kind: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(diffusers, kind).__call__).parameters)


def asked(family: Family, task: str, kind: str) -> dict[str, Any]:
    """What a direct call and the service are asked alike, but pictures."""
    known = parameters(kind)
    given: dict[str, Any] = {"num_inference_steps": 2}
    if "width" in known:
        given |= {"width": family.side, "height": family.side}
    if "strength" in known and task != "txt2img":
        given["strength"] = 0.8
    if "negative_prompt" in known and task == "txt2img":
        given["negative_prompt"] = "blurry"
    return given


def pictures(task: str) -> dict[str, Image.Image]:
    found = {"image": drawing(), "mask_image": mask()}
    return dict(list(found.items())[: ("txt2img", "img2img", "inpaint").index(task)])


@functools.cache
def direct(folder: Path, kind: str, task: str, name: str) -> tuple[tuple[int, int], bytes]:
    """What diffusers draws when it is called by hand: size and pixels."""
    family = FAMILIES[name]
    pipe = in_own_memory(getattr(diffusers, kind).from_pretrained(folder, use_safetensors=True))
    pipe.set_progress_bar_config(disable=True)
    more = dict(family.takes)
    if kind == "FluxKontextInpaintPipeline":
        more["_auto_resize"] = False
    if name == "lightning":
        more["guidance_scale"] = 0.0
    generator = torch.Generator("cpu").manual_seed(7)
    image = pipe(
        prompt=PROMPT, generator=generator, **asked(family, task, kind), **pictures(task), **more
    ).images[0]
    if task == "inpaint":
        sent = drawing().resize(image.size, Image.Resampling.LANCZOS)
        image = with_sent_pixels(image, sent, mask().resize(image.size, Image.Resampling.NEAREST))
    return image.size, image.tobytes()


def base64_of(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def submitted(service: Service, model: str, task: str, given: dict[str, Any]) -> str:
    images = {key: base64_of(image) for key, image in pictures(task).items()}
    return service.submit(PROMPT, model=model, seed=7, **given, **images)


def drawn(record: dict[str, Any]) -> tuple[tuple[int, int], bytes]:
    assert record["errors"] == []
    image = Image.open(io.BytesIO(base64.b64decode(record["data"])))
    assert image.size == (record["width"], record["height"])
    return image.size, image.tobytes()


def kind_of(models: Path, name: str) -> str:
    found = json.loads((models / "models" / name / "model_index.json").read_text())
    kind: str = found["_class_name"]
    return kind


def test_the_table_says_what_is_run() -> None:
    table = (ROOT / "docs" / "models.md").read_text()
    assert [family.row for family in FAMILIES.values() if family.row not in table] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_drawn_as_diffusers_draws_it(name: str, service: Service, models: Path) -> None:
    family, kind = FAMILIES[name], kind_of(models, name)
    wanted = tasks(family, kind)
    given = {task: asked(family, task, each) for task, each in wanted.items()}
    if name == "lightning":
        given = {
            task: {k: v for k, v in g.items() if k != "num_inference_steps"}
            for task, g in given.items()
        }
    uuids = {task: submitted(service, name, task, given[task]) for task in wanted}
    digests = set()
    for task, each in wanted.items():
        record = service.result(uuids[task])
        assert drawn(record) == direct(models / "models" / name, each, task, name), task
        assert (record["model"], record["pipeline"]) == (name, kind)
        assert record["num_inference_steps"] == 2
        digests.add(record["weights_sha256"])
    assert len(digests) == 1 and len(digests.pop()) == 64
    service.wait_available()
    said = service.get("/server/models").json()["models"][name]
    assert said["loaded"] and said["pipeline"] == kind
    assert set(said["modes"]) == set(wanted)
    names = said["schedulers"]
    if names and names[0].startswith("FlowMatch"):
        task = next(iter(wanted))
        uuids = {
            each: submitted(service, name, task, given[task] | {"scheduler": each})
            for each in names
        }
        for each, uuid in uuids.items():
            record = service.result(uuid)
            assert (record["scheduler"], record["errors"]) == (each, []), "as it is listed"


def test_a_models_own_defaults_hold(service: Service, models: Path) -> None:
    given = {"width": 64, "height": 64}
    record = service.result(submitted(service, "turbo", "txt2img", given))
    assert (record["num_inference_steps"], record["guidance_scale"]) == (2, 0.0)
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(models / "models" / "xl")
    in_own_memory(pipe)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(7)
    assert (
        drawn(record)[1] == pipe(PROMPT, generator=generator, **FAST, **given).images[0].tobytes()
    )


def test_what_a_family_cannot_do_is_told(service: Service) -> None:
    images = {key: base64_of(image) for key, image in pictures("inpaint").items()}
    for model in ("chroma", "kandinsky22"):
        refused = service.post({"prompt": PROMPT, "model": model, **images})
        assert refused.status_code == 422
        assert [fault["field"] for fault in refused.json()["errors"]] == ["mask_image"]
        assert f"{model} (" in refused.json()["detail"]
    refused = service.post({"prompt": PROMPT, "model": "nope"})
    assert refused.status_code == 422 and "the models are: demo" in refused.json()["detail"]


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_a_file_is_the_directorys_model(
    name: str, suffix: str, service: Service, models: Path
) -> None:
    family, kind = FAMILIES[name], kind_of(models, name)
    task, each = next(iter(tasks(family, kind).items()))
    record = service.result(submitted(service, name + suffix, task, asked(family, task, each)))
    assert drawn(record) == direct(models / "models" / name, each, task, name)
    assert (record["model"], record["pipeline"]) == (name + suffix, kind)
    assert len(record["weights_sha256"]) == 64
