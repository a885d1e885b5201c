"""Loads a model in a process of its own and draws: its arguments are FOLDER MODEL STEPS.

Prints one JSON line with the seconds of each stage and the digests of the images.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Load, draw twice, and print what it took."""
    start = time.perf_counter()
    folder, model, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from bench.gpu import card

    card.enter()
    from bench.gpu import pictures
    from bench.gpu.session import Session

    session = Session(folder, [])
    marks = [start, time.perf_counter()]
    bench = session.bench(folder, model, MACHINE_SIZE="big")
    marks.append(time.perf_counter())
    digests = []
    for _ in range(2):
        digests += pictures.digests(bench.make(num_inference_steps=steps))
        marks.append(time.perf_counter())
    names = ("import_s", "load_s", "first_s", "second_s")
    pairs = zip(names, marks, marks[1:], strict=False)
    seconds = {name: round(end - begin, 3) for name, begin, end in pairs}
    print(json.dumps({**seconds, "digests": digests}), file=output, flush=True)


if __name__ == "__main__":
    main()
