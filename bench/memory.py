"""What MACHINE_SIZE needs and costs: Stable Diffusion 1.5, 2.1 and XL, real size, random weights.

Each case is a whole call of the pipeline, prompt in and picture out with guidance, in a process of
its own: a peak of memory cannot be taken back. Prints a markdown table; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.table import markdown, number, ratio

MIB = 1 << 20
PICTURES = (20, 30, 50)
SIZES = ("big", "medium", "little", "tiny")
MODELS = ("sd15", "sd21", "xl")
HEAD: tuple[str, ...] = ("model, px", "size", "weights", "text", "step", "VAE", "peak", "text s")
HEAD += ("step s", "VAE s", *(f"{steps} steps" for steps in PICTURES), "to big")


@dataclass
class Figures:
    """`text_bytes` and so on are peaks above `before_bytes`, which the idle process holds: of the
    device's memory, on a CPU of the process. `whole_s`: a picture of all steps, only on a GPU."""

    title: str
    size: str
    side_px: int
    device: str
    weights_bytes: int
    before_bytes: int
    text_bytes: int
    steps_bytes: int
    vae_bytes: int
    text_s: float
    step_s: float
    vae_s: float
    whole_s: float | None = None
    whole_steps: int = 0


LEGEND = f"""\
MiB: the weights; the peaks of the text encoders, the steps and the VAE above what is in use before
the call; the peak in all, of the GPU or of the process. Then seconds; those of whole pictures are
computed: text + N x step + VAE. Last the {PICTURES[0]} steps' ratio to `big`."""


def in_a_process(model: str, size: str, more: list[str]) -> Figures | str:
    """The case's figures, or why there are none."""
    command = [sys.executable, "-m", "bench.memory_case", model, size, *more]
    # As the worker has it.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error", **os.environ}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode == -9:
        return "killed: it does not fit here"
    if done.returncode:
        raise SystemExit(f"{model} {size}: exit code {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["why_not"] if "why_not" in found else Figures(**found)


def row(found: Figures, big: Figures | None) -> list[str]:
    """As LEGEND says."""
    wholes = [found.text_s + steps * found.step_s + found.vae_s for steps in PICTURES]
    first = None if big is None else big.text_s + PICTURES[0] * big.step_s + big.vae_s
    parts = (found.text_bytes, found.steps_bytes, found.vae_bytes)
    sizes = (found.weights_bytes, *parts, found.before_bytes + max(parts))
    return [
        f"{found.title}, {found.side_px}",
        found.size,
        *(f"{size / MIB:.0f}" for size in sizes),
        *map(number, (found.text_s, found.step_s, found.vae_s, *wholes)),
        "-" if first is None else ratio(wholes[0], first),
    ]


def table(kept: list[Figures | tuple[str, str, str]]) -> str:
    """All rows; a case without figures says why."""
    big = {each.title: each for each in kept if isinstance(each, Figures) and each.size == "big"}
    rows = []
    for each in kept:
        if isinstance(each, Figures):
            rows.append(row(each, big.get(each.title)))
        else:
            model, size, why = each
            rows.append([model, size, why, *[""] * (len(HEAD) - 3)])
    return markdown(HEAD, rows)


def main() -> None:
    """Measure the chosen models at the chosen sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--steps", type=int, help="measured ones; default: 1, on a GPU 10")
    parser.add_argument("--slice-attention", action="store_true", help="at every size")
    parser.add_argument("--rows", type=Path, help="keeps rows in this file and prints all of it")
    options = parser.parse_args()
    kept: list[Figures | tuple[str, str, str]] = []
    if options.rows is not None and options.rows.exists():
        lines = (json.loads(line) for line in options.rows.read_text().splitlines())
        kept = [Figures(**line) if isinstance(line, dict) else tuple(line) for line in lines]
    more = [] if options.steps is None else ["--steps", str(options.steps)]
    more += ["--slice-attention"] if options.slice_attention else []
    for model in options.models:
        for size in options.sizes:
            found = in_a_process(model, size, more)
            kept.append((model, size, found) if isinstance(found, str) else found)
            if options.rows is not None:
                line = kept[-1]
                plain = dataclasses.asdict(line) if isinstance(line, Figures) else line
                with options.rows.open("a") as file:
                    file.write(json.dumps(plain) + "\n")
    print(LEGEND)
    print(table(kept))
    for each in kept:
        if isinstance(each, Figures) and each.whole_s is not None:
            whole = f"{each.whole_steps} steps {each.whole_s:.2f} s a picture (measured)"
            print(f"{each.title} {each.size} on {each.device}: {whole}")


if __name__ == "__main__":
    main()
