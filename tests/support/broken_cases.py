"""A part of bench/gpu whose cases end in every way: well, with an error, never, and by a signal."""

from __future__ import annotations

import os
import signal

from bench.gpu.case import Part, Skip
from bench.gpu.ledger import Line
from bench.gpu.session import Session


def part() -> Part:
    """The limit of a case is half a second, and without a card so many times as long."""
    cases = {"well": well, "raises": raises, "hangs": hangs, "skips": skips, "dies": dies}
    return Part(cases | {"alone": pid, "last": pid}, case_s=0.5, alone=frozenset({"alone"}))


def well(session: Session, line: Line) -> None:
    print("this must not reach the results")
    line.numbers = {"answer": 42}


def raises(session: Session, line: Line) -> None:
    raise ValueError("an odd error")


def hangs(session: Session, line: Line) -> None:
    signal.pause()


def skips(session: Session, line: Line) -> None:
    raise Skip("there is no such card")


def dies(session: Session, line: Line) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def pid(session: Session, line: Line) -> None:
    line.numbers = {"pid": os.getpid()}
