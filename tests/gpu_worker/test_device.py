"""Which device a worker takes, and what it says of one that is not there or does not compute."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from gpu_worker import gpu_environment
from gpu_worker.gpu_environment import Platform
from gpu_worker.pipeline.execution import device as choice
from gpu_worker.pipeline.execution import rounding
from gpu_worker.pipeline.execution.device import DeviceUnavailable, Machine
from gpu_worker.settings import SettingsError, WorkerSettings, load
from tests.support.service import DEADLINE_S, eventually, run_module, running

NO_GPUS = "No CUDA GPUs are available"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040)."
NVIDIA, AMD, WSL = "dev/nvidia0", "dev/kfd", "usr/lib/wsl/lib/libcuda.so.1"
WSL_CONTAINER, WSL_GPU = "usr/lib/wsl/drivers/nv_1/libcuda.so.1.1", "dev/dxg"
ORDER, CUDA, HIP = "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
BUS, GPU_1 = {ORDER: "PCI_BUS_ID"}, {"SDE_GPU": "1"}
EXPANDABLE = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def root(folder: Path, *files: str) -> Path:
    """The root of a machine with these files."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("files", "settings", "environ", "expected"),
    [
        ((NVIDIA,), {}, {}, BUS | EXPANDABLE | {CUDA: "0"}),
        ((NVIDIA,), {"SDE_GPU": "3"}, {ORDER: "FASTEST_FIRST"}, EXPANDABLE | {CUDA: "3"}),
        ((NVIDIA, AMD), GPU_1, {CUDA: "GPU-a, MIG-b"}, BUS | EXPANDABLE | {CUDA: "MIG-b"}),
        ((NVIDIA,), {"SDE_GPUS": "2"}, {CUDA: "5,5"}, BUS | EXPANDABLE | {CUDA: "5"}),
        ((NVIDIA,), {}, {CUDA: "", "PYTORCH_CUDA_ALLOC_CONF": "x"}, BUS),
        ((NVIDIA,), GPU_1, {CUDA: "-1", "PYTORCH_ALLOC_CONF": ""}, BUS),
        ((NVIDIA,), {"SDE_DEVICE": "cpu", "SDE_GPUS": "9"}, {CUDA: "1"}, {}),
        ((AMD,), GPU_1, {}, BUS | {HIP: "1"}),
        ((AMD,), GPU_1, {HIP: "4,6", CUDA: "0,1"}, BUS | {HIP: "6"}),
        ((AMD,), GPU_1, {CUDA: "4,6"}, BUS | {HIP: "6"}),
        ((AMD,), GPU_1, {"ROCR_VISIBLE_DEVICES": "GPU-a,GPU-b"}, BUS | {HIP: "1"}),
        ((WSL,), {"SDE_DEVICE": "cuda"}, {}, BUS | {CUDA: "0"}),
        ((), {"SDE_GPU": "1", "SDE_GPUS": "2"}, {}, BUS | {CUDA: "1"}),
    ],
)
def test_a_worker_sees_its_own_gpu_alone(
    tmp_path: Path,
    files: tuple[str, ...],
    settings: dict[str, str],
    environ: dict[str, str],
    expected: dict[str, str],
) -> None:
    table = load(WorkerSettings, settings)
    variables = gpu_environment.variables(table, environ, root(tmp_path, *files))
    assert variables == expected


@pytest.mark.parametrize(
    ("files", "platforms"),
    [
        ((), set()),
        ((NVIDIA,), {"CUDA"}),
        ((WSL,), {"CUDA"}),
        ((AMD,), {"ROCm"}),
        ((NVIDIA, AMD), {"CUDA", "ROCm"}),
        ((WSL_GPU,), {"ROCm"}),  # of any maker, such as Intel
        ((WSL_GPU, WSL_CONTAINER), {"CUDA", "ROCm"}),
    ],
)
def test_the_files_of_a_driver_show_its_platform(
    tmp_path: Path, files: tuple[str, ...], platforms: set[str]
) -> None:
    assert gpu_environment.drivers(root(tmp_path, *files)) == platforms


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"SDE_GPU": "1"}, "SDE_GPU=1: CUDA_VISIBLE_DEVICES='GPU-a'"),
        ({"SDE_GPUS": "2"}, "SDE_GPUS=2: CUDA_VISIBLE_DEVICES='GPU-a'"),
    ],
)
def test_a_list_of_too_few_gpus_is_refused_before_anything_starts(
    folder: Path, settings: dict[str, str], names: str
) -> None:
    settings = {"CUDA_VISIBLE_DEVICES": "GPU-a", **settings}
    ended = run_module(folder, "gpu_worker", "--check", timeout_s=DEADLINE_S, **settings)
    assert ended.returncode == 78
    assert ended.stderr == f"gpu_worker: {names} lists too few GPUs for it\n"


def test_each_worker_process_has_its_entry_of_the_list(folder: Path) -> None:
    pipeline = {"SDE_PIPELINE": "tests.pipelines.names_gpu:load", "SDE_GPUS": "2"}
    with running(folder, CUDA_VISIBLE_DEVICES="GPU-a,MIG-b/1/0", **pipeline) as service:
        service.start("supervisor")
        service.wait_answering()

        def devices() -> list[str]:
            return [str(each.get("device")) for each in service.get("/server/workers").json()]

        expected = [f"{CUDA}={name} {ORDER}=PCI_BUS_ID" for name in ("GPU-a", "MIG-b/1/0")]
        eventually(lambda: devices() == expected, "each worker has its own GPU")


def machine(
    error: str | None,
    build: Platform | None = "CUDA",
    drivers: Iterable[Platform] = ("CUDA",),
    mps: bool = False,
) -> Machine:
    return Machine(build, frozenset(drivers), error, mps)


@pytest.mark.parametrize(
    ("setting", "here", "expected"),
    [
        ("auto", machine(None), "cuda"),
        ("auto", machine(None, "ROCm", mps=True), "cuda"),
        ("cuda", machine(None, drivers=()), "cuda"),
        ("auto", machine("not compiled", build=None), "cpu"),
        ("auto", machine("not compiled", build=None, drivers=(), mps=True), "mps"),
        ("auto", machine("Found no NVIDIA driver", drivers=()), "cpu"),
        ("auto", machine("Found no NVIDIA driver", drivers=["ROCm"]), "cpu"),  # AMD's graphics
        ("auto", machine("No HIP GPUs are available", "ROCm", ["CUDA"]), "cpu"),
        ("mps", machine("not compiled", build=None, drivers=(), mps=True), "mps"),
        ("cpu", machine(None), "cpu"),
        ("cpu", machine(OLD_DRIVER), "cpu"),
    ],
)
def test_the_cpu_is_taken_where_no_gpu_can_be_meant(
    setting: str, here: Machine, expected: str
) -> None:
    assert choice.choose(setting, 0, here) == expected


@pytest.mark.parametrize(
    ("setting", "here", "error", "sentence"),
    [
        ("auto", machine(OLD_DRIVER), DeviceUnavailable, "driver on your system is too old"),
        ("cuda", machine(OLD_DRIVER), DeviceUnavailable, "SDE_DEVICE=cpu runs on the CPU"),
        ("auto", machine("CUDA unknown error", mps=True), DeviceUnavailable, "unknown error"),
        ("auto", machine(NO_GPUS), SettingsError, f"SDE_GPU=2: .*{NO_GPUS}"),
        (
            "auto",
            machine("No HIP GPUs are available", "ROCm", ["CUDA", "ROCm"]),
            SettingsError,
            "SDE_GPU=2: .*No HIP",
        ),
        ("cuda", machine("x", build=None), SettingsError, "SDE_DEVICE=cuda: .*built for the CPU"),
        ("cuda", machine("x", drivers=()), SettingsError, "SDE_DEVICE=cuda: .*no GPU driver"),
        ("cuda", machine("x", drivers=["ROCm"]), SettingsError, "no GPU driver for CUDA, which"),
        ("mps", machine(None), SettingsError, "SDE_DEVICE=mps: this machine has no such device"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_an_error_and_no_cpu(
    setting: str, here: Machine, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        choice.choose(setting, 2, here)


def test_the_worker_ends_with_the_code_of_a_wrong_setting(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    real = {"SDE_PIPELINE": "gpu_worker.pipeline:load", "SDE_DEVICE": "cuda"}
    with running(folder, **real) as service:
        service.start("gpu_worker")
        assert service.children["gpu_worker"].wait(DEADLINE_S) == 78
        reason = (folder / "run" / "gpu-0.load_error").read_text()
        assert reason.startswith("demo\ndemo: SDE_DEVICE=cuda: ")
        assert "Traceback" not in service.output()


def test_this_machine_is_described_by_torch_itself() -> None:
    here = Machine.current()
    assert (here.gpu_error is None) == torch.cuda.is_available()
    assert here.gpu_error is None or here.gpu_error
    assert choice.start_device("cpu", 0) == torch.device("cpu")


def test_a_driver_that_does_not_answer_is_told() -> None:
    sleep = ctypes.CDLL(None).sleep  # in C, and without the GIL
    with pytest.raises(DeviceUnavailable, match=r"has not answered for 0\.05 s"):
        choice.within(0.05, lambda: sleep(1))
    assert choice.within(DEADLINE_S, lambda: sleep(0)) == 0
    with pytest.raises(SettingsError, match="of its own"):
        choice.within(DEADLINE_S, lambda: choice_error("of its own"))


def choice_error(text: str) -> None:
    raise SettingsError(text)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel",
            f"torch {torch.__version__} has no code for the GPU GTX 980; it has code for: sm_75, "
            "sm_80; install a torch for this GPU",
        ),
        (
            "HIP error: invalid device function\nHIP kernel errors might",
            f"torch {torch.__version__} has no code for the GPU GTX 980; it has code for: sm_75, "
            "sm_80; install a torch for this GPU",
        ),
        (
            "CUDA driver error: operation not supported",
            "the GPU GTX 980 cannot compute: CUDA driver error: operation not supported",
        ),
    ],
)
def test_a_gpu_without_code_of_this_torch_is_told(error: str, sentence: str) -> None:
    assert choice.kernel_error(error, "GTX 980", "sm_75, sm_80") == sentence


def test_a_record_has_what_rounding_on_a_gpu_depends_on(tmp_path: Path) -> None:
    assert rounding.versions("13.0", None, 91400) == {"cuda": "13.0", "cudnn": 91400}
    assert rounding.versions(None, "7.0.5", 3005000) == {"hip": "7.0.5", "miopen": 3005000}
    module = tmp_path / "nvidia" / "version"
    module.parent.mkdir()
    module.write_text("580.65.06\n")
    assert rounding.driver_version("nvidia", tmp_path) == {"driver": "580.65.06"}
    assert rounding.driver_version("amdgpu", tmp_path) == {}


def test_the_order_of_attention_backends_is_torchs_own() -> None:
    assert sorted(rounding.sdpa_backends())[-1] == "overrideable"
    with torch.nn.attention.sdpa_kernel(
        [torch.nn.attention.SDPBackend.MATH, torch.nn.attention.SDPBackend.FLASH_ATTENTION],
        set_priority=True,
    ):
        assert rounding.sdpa_backends() == ["math", "flash_attention"]
