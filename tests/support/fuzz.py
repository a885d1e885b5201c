"""Feeds bytes to the decoders of records, journal and protocol: they raise what they document.

    python -m tests.support.fuzz --seconds 60

It uses atheris (libFuzzer, guided by coverage) where it is installed, else changed examples. It
prints the inputs and the seconds of each decoder. The exit code is 1 after an undocumented error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from gateway.jobs import journal
from gateway.store import journal_event, tombstones
from gpu_worker.contract import protocol
from gpu_worker.contract.protocol import ProtocolError
from gpu_worker.store import durable, in_flight, record_line
from gpu_worker.store.durable import DamagedLine, StoreTooNew

GOLDEN = Path(__file__).parent.parent / "golden"


@dataclass(frozen=True)
class Target:
    """A decoder, the errors that it documents, and files with valid inputs, one a line."""

    decode: Callable[[bytes], object]
    documented: tuple[type[Exception], ...]
    examples: str

    def run(self, data: bytes) -> None:
        """Decode once. Any other error is raised."""
        with contextlib.suppress(*self.documented):
            self.decode(data)


def _journal(data: bytes) -> None:
    """As the journal is read: a line as it came, and once more with a right checksum."""
    for line in (data, _checked(data)):
        with contextlib.suppress(DamagedLine):
            event = journal_event.decode(line)
            if event["event"] == "accepted":
                journal.read_job(event["job"])
            tombstones.encode(str(event.get("uuid")), None)


def _record(data: bytes) -> None:
    """As a segment is read: a line as it came, and once more with a right checksum."""
    for line in (data, _checked(data)):
        with contextlib.suppress(DamagedLine):
            parsed = record_line.parse(line)
            record_line.verify(line, parsed.uuid)


def _checked(data: bytes) -> bytes:
    body = data[: -durable.TAIL_BYTES] if data.endswith(b'"}\n') else data
    return durable.with_checksum(body)


def _note(data: bytes) -> None:
    path = Path(tempfile.gettempdir()) / f"sde-fuzz-{os.getpid()}"
    path.write_bytes(data)
    try:
        in_flight.read_note(path)
    finally:
        path.unlink()


TARGETS = {
    "request": Target(protocol.decode_request, (ProtocolError,), "protocol/request-*"),
    "reply": Target(protocol.decode_reply, (ProtocolError,), "protocol/reply-*"),
    "journal": Target(_journal, (), "journal/*"),
    "record": Target(_record, (), "record/*.jsonl"),
    "note": Target(_note, (StoreTooNew,), "record/in_flight.json"),
}


def examples(target: Target) -> list[bytes]:
    """Valid inputs of a decoder."""
    texts = [path.read_bytes() for path in sorted(GOLDEN.glob(target.examples))]
    return [line for text in texts for line in text.splitlines(keepends=True)]


def mutated(example: bytes, chance: random.Random) -> bytes:
    """An example with some bytes changed, removed, doubled, or replaced by what is hard to read."""
    data = bytearray(example)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((0, 1, 1, 4, 40, 400)))
        data[start:end] = chance.choice(
            (
                *(b"", chance.randbytes(1), chance.randbytes(8), bytes(data[start:end]) * 2),
                *(b"9" * 5000, b"-1", b"1e999", b"NaN", b"true", b"null", b'"', b"\\ud800"),
                *(b"{" * 600, b"[" * 2000, b',"v":2', b'"format":2', b"\x00", b"\xff\xfe", b"\n"),
            )
        )
    return bytes(data)


def run_plain(name: str, seconds: float, seed: int = 0) -> int:
    """Mutate the examples for so long; return how many inputs were decoded."""
    target, chance, count = TARGETS[name], random.Random(seed), 0
    valid, ends = examples(TARGETS[name]), time.monotonic() + seconds
    while time.monotonic() < ends:
        target.run(mutated(chance.choice(valid), chance))
        count += 1
    return count


def run_atheris(name: str, seconds: float) -> None:
    """Run libFuzzer in this process, which it ends."""
    import atheris

    target = TARGETS[name]
    for module in (durable, in_flight, journal, journal_event, protocol, record_line):
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as corpus:
        for number, example in enumerate(examples(target)):
            (Path(corpus) / str(number)).write_bytes(example)
        arguments = [sys.argv[0], f"-max_total_time={max(1, round(seconds))}", "-max_len=8192"]
        atheris.Setup([*arguments, "-print_final_stats=1", "-verbosity=0", corpus], target.run)
        atheris.Fuzz()


def _in_child(name: str, seconds: float) -> tuple[int, int]:
    """Run atheris in a child; return its exit code and the inputs that it decoded."""
    command = [sys.executable, "-m", "tests.support.fuzz", "--target", name]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    lines = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    return done.returncode, int(lines[0].rpartition(":")[2]) if lines else 0


def main(arguments: list[str]) -> int:
    """Fuzz every decoder, or in a child of this program one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all decoders together")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--target", choices=sorted(TARGETS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.target:
        run_atheris(options.target, options.seconds)
        return 0
    guided = not options.plain and importlib.util.find_spec("atheris") is not None
    print(f"with {'atheris' if guided else 'mutated examples'}")
    failed = 0
    for name in TARGETS:
        start = time.monotonic()
        code, count = 0, 0
        share = options.seconds / len(TARGETS)
        if guided:
            code, count = _in_child(name, share)
        else:
            count = run_plain(name, share, seed=random.randrange(1 << 32))
        failed = failed or code
        passed = time.monotonic() - start
        print(f"{name}: {count} inputs in {passed:.1f} s, {'an error' if code else 'no error'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
