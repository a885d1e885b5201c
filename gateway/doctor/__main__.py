"""`python -m gateway.doctor`: checks an installation, and says what to do about each problem."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from gateway.doctor import host
from gateway.doctor.finding import Report
from gpu_worker.store.log_format import SecretFilter, printable

EX_PROBLEMS = 1
EX_INTERRUPTED = 130
"""128 plus the number of SIGINT, as in bash(1), EXIT STATUS."""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print all findings; return 0 without a problem, else 1."""
    parser = argparse.ArgumentParser(prog="sde doctor", description="Check the installation.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    hide = SecretFilter(environ)
    report = Report(lambda text: printable(hide(text)), as_json=options.json)
    report.add(host.check())
    if not host.lacks_packages():
        # These import packages that are known to be there only now.
        importlib.import_module("gateway.doctor.service_checks").check(report, environ)
    return EX_PROBLEMS if report.close() else os.EX_OK


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except KeyboardInterrupt:
        sys.exit(EX_INTERRUPTED)
