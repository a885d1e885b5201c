"""Runs the cases of one part in this process: its arguments are PART RESULTS WORK PATTERN.

Prints a JSON line when a case begins and one with its result; nothing else reaches stdout. Ends
with code 75 where the next case needs a new process.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import IO

from bench.gpu import card
from bench.gpu.ledger import Ledger, Line
from bench.gpu.process import ANOTHER_PROCESS, PATIENCE

PARTS = "bench.gpu.parts"
MAX_PROBLEM_CHARS = 600


def main() -> int:
    """Run every case that has no result yet, and return the exit code."""
    name, results, work, pattern = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    # What the libraries print must not mix with the results.
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    card.enter()
    # diffusers keeps what torch.cuda says when it is imported, so these imports come late.
    from bench.gpu.case import Part
    from bench.gpu.session import Session
    from gpu_worker.pipeline.loading import loader

    loader.silence_libraries()
    earlier = Ledger(results).read()
    part: Part = importlib.import_module(f"{PARTS}.{name}" if "." not in name else name).part()
    finished = {line.case for line in earlier if line.part == name}
    session = Session(work, earlier)
    patience = PATIENCE if card.is_make_believe() else 1
    has_run = False
    for case in part.cases:
        if case in finished or not re.search(pattern, case):
            continue
        if has_run and case in part.alone:
            return ANOTHER_PROCESS
        has_run = True
        print(json.dumps({"begin": case, "limit_s": part.case_s * patience}), file=output)
        line = Line(name, case, device=card.name())
        _run(part, session, line, output)
        session.numbers[line.key] = line.numbers
        if case in part.alone:
            return ANOTHER_PROCESS
    return 0


def _run(part: object, session: object, line: Line, output: IO[str]) -> None:
    """Run one case and print its line. An error is a problem of the case, with its cause."""
    from bench.gpu.case import Skip

    start = time.perf_counter()
    try:
        part.cases[line.case](session, line)  # type: ignore[attr-defined]
    except Skip as reason:
        line.skipped = str(reason)
    except Exception as error:
        traceback.print_exc()
        line.problems.append(_sentence(error))
    line.seconds = round(time.perf_counter() - start, 3)
    print(json.dumps(asdict(line)), file=output)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "without a text"
    return f"the case ended with {type(error).__name__}: {text}"[:MAX_PROBLEM_CHARS]


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A card with an error may hang while Python cleans up.
    os._exit(code)
