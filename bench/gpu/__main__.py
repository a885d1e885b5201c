"""Runs the parts one by one and prints the table: `python -m bench.gpu --out DIR`.

It imports no torch: a card that hangs must not hang what watches over it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from bench.gpu import report
from bench.gpu.ledger import Ledger, Line

PARTS = {
    "facts": 60,
    "smoke": 300,
    "faults": 270,
    "memory_faults": 120,
    "dtype": 150,
    "syncs": 90,
    "previews": 90,
    "sameness": 120,
    "time": 180,
    "loading": 150,
    "memory": 240,
    "engine": 600,
}
"""The parts in their order, the cheap ones and the faults first, with their limits in seconds."""

NEEDED = (
    *("accelerate", "compel", "diffusers", "einops", "falcon", "gguf", "huggingface_hub", "numpy"),
    *("orjson", "peft", "PIL", "psutil", "pydantic", "requests", "safetensors", "sentencepiece"),
    *("spandrel", "supervisor", "tokenizers", "tomlkit", "torch", "tqdm", "transformers"),
    *("waitress", "zmq"),
)
"""The modules that the parts import; bench/gpu.sh installs what is missing."""


TEST_PACKAGES = ("einops", "psutil", "requests")
ROOT = Path(__file__).parents[2]


def missing() -> list[str]:
    """Return the needed modules that this Python does not have."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def requirements() -> list[str]:
    """Return what pip must install beside a torch that is there already."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*extras["gateway"], *extras["worker"], *TEST_PACKAGES]
    return [each for each in wanted if not each.startswith("torch>")]


def main() -> int:
    """Run the chosen parts that have no result yet; return 1 if a case has a problem."""
    options = _options()
    if options.missing or options.requirements:
        print(*(missing() if options.missing else requirements()))
        return 0
    if lacks := missing():
        raise SystemExit(f"bench.gpu needs {', '.join(lacks)}; bench/gpu.sh installs them")
    # So that a stop from outside also ends the part that runs.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    _environment(options)
    ledger = Ledger(options.out / "gpu.jsonl")
    if options.retry:
        ledger.drop_failures()
    ends = time.monotonic() + options.minutes * 60
    left = [part for part in options.parts if not _run(part, options, ends)]
    if not left and not options.keep and options.work is None:
        shutil.rmtree(_work(options), ignore_errors=True)
    text = report.text(ledger.read())
    (options.out / "gpu.md").write_text(text + "\n")
    print(text)
    if left:
        print(f"\nCases of {', '.join(left)} are left. The same command goes on with them.")
    return any(line.problems for line in ledger.read())


def _run(part: str, options: argparse.Namespace, ends: float) -> bool:
    """Run one part until its limit or that of the whole; return whether none of it is left."""
    # The watcher of a part needs psutil, which a bare machine may lack.
    from bench.gpu.process import PATIENCE, PartProcess

    start = time.monotonic()
    if start >= ends:
        return False
    work = _work(options)
    (work / "models").mkdir(parents=True, exist_ok=True)

    def tell(line: Line) -> None:
        print(report.progress(line), flush=True)

    process = PartProcess(
        part,
        options.out / "gpu.jsonl",
        work,
        options.out / "gpu.log",
        min(ends, start + PARTS[part] * (PATIENCE if options.make_believe else 1)),
        tell,
        options.cases,
    )
    is_complete = process.run()
    if not is_complete:
        print(f"{part}: cut off after {time.monotonic() - start:.0f} s", flush=True)
    return is_complete


def _work(options: argparse.Namespace) -> Path:
    """Return the folder of models; without --work one of this run's kind, which later runs find.

    A short name: the path of a unix socket has at most 107 bytes.
    """
    kind = "b" if options.make_believe else "g"
    default = Path(tempfile.gettempdir()) / f"sde-gpu-{os.getuid()}{kind}"
    work: Path = default if options.work is None else options.work
    return work.absolute()


def _environment(options: argparse.Namespace) -> None:
    """Set what the processes of all parts read, some of it as the worker does."""
    # A bare Python, which is only asked what it lacks, has no pydantic.
    from gpu_worker import gpu_environment
    from gpu_worker.settings import WorkerSettings, load

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # The second start of a compiled model finds the kernels of the first one here.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_work(options) / "compiled")
    worker = load(WorkerSettings, {"SDE_DATA_DIR": str(_work(options))})
    os.environ.update(gpu_environment.variables(worker, os.environ))
    os.environ["BENCH_MAKE_BELIEVE"] = "1" if options.make_believe else "0"
    if options.make_believe:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("gpu-results"), help="the folder of the results"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--cases", default="", help="a pattern of the names of cases to run")
    parser.add_argument("--minutes", type=float, default=24.0, help="for all parts together")
    parser.add_argument("--make-believe", action="store_true", help="no card, tiny models")
    parser.add_argument("--retry", action="store_true", help="run cases with problems again")
    parser.add_argument("--work", type=Path, help="the folder of models; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the folder of models at the end")
    parser.add_argument("--missing", action="store_true", help="only print the missing modules")
    parser.add_argument(
        "--requirements", action="store_true", help="only print what pip installs beside torch"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
