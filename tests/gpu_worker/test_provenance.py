"""What made a picture: digests of weights, libraries, attention, memory, in the real pipeline."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file

from gpu_worker import pipeline
from gpu_worker.assets.file_digests import FileDigests
from gpu_worker.assets.model_library import FileAsset, Library, ModelAsset, NetworkAsset
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.output.result_records import pixels_sha256
from gpu_worker.pipeline.capabilities.provenance import Provenance, attention
from gpu_worker.pipeline.capabilities.weight_files import loaded_files
from gpu_worker.pipeline.execution.memory import PeakMemory, bytes_in_use
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.pipeline_jobs import ignore, job, settings
from tests.support.service import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CPU = torch.device("cpu")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_picture_says_what_made_it(tmp_path: Path) -> None:
    ours = pipeline.load(settings(tmp_path))
    (made,) = ours.generate(job(), ignore)
    said = ours.metadata | made.metadata
    files = sorted(p for p in pipeline.DEMO_MODEL.rglob("*.safetensors"))
    lines = "".join(
        f"{path.relative_to(pipeline.DEMO_MODEL).as_posix()}\t{sha256(path.read_bytes())}\n"
        for path in files
    )
    assert len(files) == 3 and said["weights_sha256"] == sha256(lines.encode())
    assert (said["seed"], said["rng"], said["device"]) == (7, "cpu", "cpu")
    assert said["attention"] == "AttnProcessor2_0"
    assert {"torch", "diffusers", "transformers", "dtype", "scheduler", "cpu_threads"} <= {*said}
    assert 50e6 < said["peak_memory_bytes"] < 1e12
    again = ours.generate(job(), ignore)[0]
    assert pixels_sha256(again.image) == pixels_sha256(made.image)


def test_a_single_file_has_the_digest_that_others_know_it_by(tmp_path: Path) -> None:
    pipe = tiny_models.build()
    file = tmp_path / "single.safetensors"
    tiny_models.save_single_file(pipe, file)
    ours = pipeline.load(settings(tmp_path, SDE_MODEL=str(file)))
    (made,) = ours.generate(job(), ignore)
    assert made.metadata["weights_sha256"] == sha256(file.read_bytes())


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, memory = tmp_path / "a.safetensors", tmp_path / "run" / "weights.sqlite"
    file.write_bytes(b"one")
    assert FileDigests(memory).of(file) == sha256(b"one")
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileDigests(memory).of(file) == sha256(b"one"), "it was not read again"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert FileDigests(memory).of(file) == sha256(b"two")
    for broken in (b"{", b"[]", b'{"x": 1}'):
        memory.write_bytes(broken)
        assert FileDigests(memory).of(file) == sha256(b"two")


def test_a_directory_is_its_weights_and_nothing_else(tmp_path: Path) -> None:
    model, digests = tmp_path / "model", FileDigests(tmp_path / "weights.sqlite")
    (model / "unet").mkdir(parents=True)
    (model / "unet" / "b.safetensors").write_bytes(b"b")
    before = digests.of(model)
    (model / "model_index.json").write_text("{}")
    assert digests.of(model) == before
    (model / "a.gguf").write_bytes(b"a")
    lines = f"a.gguf\t{sha256(b'a')}\nunet/b.safetensors\t{sha256(b'b')}\n"
    assert digests.of(model) == sha256(lines.encode())


HASHING = """
import sys
from pathlib import Path
from gpu_worker.assets.file_digests import FileDigests
digests = FileDigests(Path(sys.argv[1]))
print(*[digests.of(file) for file in sorted(Path(sys.argv[2]).iterdir())])
"""


def test_several_workers_share_one_store(tmp_path: Path) -> None:
    memory, files = tmp_path / "run" / "weights.sqlite", tmp_path / "files"
    files.mkdir()
    for number in range(12):
        (files / f"{number:02}.safetensors").write_bytes(bytes([number]) * 5000)
    command = [sys.executable, "-c", HASHING, str(memory), str(files)]
    workers = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    listed = sorted(files.iterdir())
    right = " ".join(sha256(file.read_bytes()) for file in listed)
    assert [worker.communicate() for worker in workers] == [(right + "\n", "")] * 4
    for file in listed:
        state = file.stat()
        file.write_bytes(bytes(5000))
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert " ".join(map(FileDigests(memory).of, listed)) == right, "they were not read again"


def test_only_what_is_loaded_is_read(tmp_path: Path) -> None:
    models = tmp_path / "models"
    tiny_models.build().save_pretrained(models / "sd")
    tiny_models.build(seed=9).save_pretrained(models / "sd", variant="fp16")

    def digest(variant: str | None) -> str:
        library = Library(models={"sd": ModelAsset(source="sd", variant=variant)})
        provenance = Provenance(settings(tmp_path), library)
        provenance.read_model("sd", variant)
        return str(provenance.metadata(tiny_models.build(), CPU)["weights_sha256"])

    def listed(ending: str) -> str:
        files = [
            path for path in models.rglob(f"*{ending}") if path.name.count(".") == ending.count(".")
        ]
        lines = sorted(
            f"{path.relative_to(models / 'sd').as_posix()}\t{sha256(path.read_bytes())}\n"
            for path in files
        )
        assert len(lines) == 3
        return sha256("".join(lines).encode())

    plain, half = listed(".safetensors"), listed(".fp16.safetensors")
    assert (digest(None), digest("fp16"), digest("bf16")) == (plain, half, plain)
    for leftover in ("all.safetensors", "old_unet/model.safetensors", "unet/ema.safetensors"):
        file = models / "sd" / leftover
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"left over")
    assert (digest(None), digest("fp16")) == (plain, half)


def test_a_refiner_is_its_own_parts(tmp_path: Path) -> None:
    for name in (
        "unet/model.safetensors",
        "vae/model.safetensors",
        "text_encoder/model.safetensors",
    ):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_bytes(b"x")
    names = [path.parent.name for path in loaded_files(tmp_path, "refiners", None)]
    assert names == ["unet", "vae"]
    assert len(loaded_files(tmp_path, "controlnets", None)) == 3
    assert loaded_files(file, "loras", None) == [file]


def test_a_generated_image_waits_for_no_file(tmp_path: Path) -> None:
    """A file that is gone before the first step has ended still has its digest in the record."""
    lora = tmp_path / "models" / "ink.safetensors"
    tiny_models.build().save_pretrained(tmp_path / "models" / "sd")
    tiny_adapters.save_lora(tiny_models.build(), lora)
    (tmp_path / "models" / "models.toml").write_text(
        '[models.sd]\nsource = "sd"\n[loras.ink]\nsource = "ink.safetensors"\n'
    )
    ours = pipeline.load(settings(tmp_path, SDE_MODEL="sd"))
    digest = sha256(lora.read_bytes())

    def remove(step: int, steps: int, preview: object = None) -> None:
        shutil.rmtree(tmp_path / "models", ignore_errors=True)

    (image,) = ours.generate(job(loras=[{"name": "ink"}]), remove)
    assert image.metadata["parts_sha256"] == {"loras/ink": digest}
    assert len(image.metadata["weights_sha256"]) == 64


def test_a_loras_notes_do_not_change_its_name(tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "weights.sqlite")
    found = []
    for note in ("one", "quite another"):
        file = tmp_path / f"{note}.safetensors"
        save_file({"x": torch.arange(4.0)}, file, metadata={"note": note})
        found.append((digests.of(file), digests.of_tensors(file)))
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1] == sha256(torch.arange(4.0).numpy().tobytes())


def test_what_a_request_adds_is_named_with_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "nets" / "canny").mkdir(parents=True)
    (folder / "pixel").mkdir()
    save_file({"x": torch.ones(2)}, folder / "pixel" / "any.safetensors")
    (folder / "nets" / "canny" / "model.safetensors").write_bytes(b"net")
    (folder / "big.safetensors").write_bytes(b"big")
    library = Library(
        models={"big": ModelAsset(source="big.safetensors", revision="v1")},
        loras={"pixel": FileAsset(source="pixel")},
        controlnets={
            "canny": NetworkAsset(source="nets", subfolder="canny"),
            "gone": NetworkAsset(source="nowhere.safetensors"),
        },
    )
    asked: dict[str, Any] = {
        "prompt": "x",
        "loras": [{"name": "pixel"}],
        "controlnets": [
            {"name": name, "image": "sha256:" + "0" * 64} for name in ("canny", "gone")
        ],
    }
    provenance = Provenance(settings(tmp_path), library)
    provenance.read_model("big")
    metadata = provenance.metadata(tiny_models.build(), CPU)
    metadata |= provenance.asset_metadata(GenerationRequest(**asked))
    assert (metadata["weights_sha256"], metadata["revision"]) == (sha256(b"big"), "v1")
    assert metadata["parts_sha256"] == {
        "loras/pixel": sha256((folder / "pixel" / "any.safetensors").read_bytes()),
        "controlnets/canny": sha256(b"net"),
    }
    assert metadata["lora_hashes"] == {"pixel": sha256(torch.ones(2).numpy().tobytes())}


def test_a_hub_models_commit_is_known_from_its_snapshot(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    repo = tmp_path / "model_cache" / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "w.safetensors").write_bytes(b"w")
    provenance = Provenance(settings(tmp_path), Library())
    provenance.read_model("owner/name")
    metadata = provenance.metadata(tiny_models.build(), CPU)
    assert metadata["revision"] == commit
    lines = f"w.safetensors\t{sha256(b'w')}\n"
    assert metadata["weights_sha256"] == sha256(lines.encode())


def test_files_that_are_not_there_are_no_fault_of_the_job(tmp_path: Path) -> None:
    provenance = Provenance(settings(tmp_path), Library())
    for name in ("owner/never-fetched", "no such thing"):
        provenance.read_model(name)
        metadata = provenance.metadata(tiny_models.build(), CPU)
        assert "weights_sha256" not in metadata


def test_the_attention_is_named_as_it_is_switched() -> None:
    pipe = tiny_models.build()
    assert attention(pipe) == "AttnProcessor2_0"
    pipe.unet.set_attn_processor(AttnProcessor())
    assert attention(pipe) == "AttnProcessor"


def test_the_peak_counts_what_has_been_let_go() -> None:
    peak = PeakMemory(CPU)
    with mmap.mmap(-1, 256 << 20) as block:  # malloc may keep what is freed
        block.write(os.urandom(1 << 20) * 256)
        held = bytes_in_use(CPU)
    left = bytes_in_use(CPU)
    assert held and left and held - left > 200 << 20
    assert peak.read() - left > 200 << 20
