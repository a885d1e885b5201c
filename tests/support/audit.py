"""Asks the advisory database for known faults of the packages in requirements.lock (pip-audit).

Exit code 1: there are some. Where the database cannot be reached, it says so and ends with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.licenses import LOCK

COMMAND = ("-m", "pip_audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip")


def main() -> int:
    """Print each known fault, and return the exit code."""
    command = [sys.executable, *COMMAND, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print("audit: the advisory database cannot be reached, so nothing was checked")
        return 0
    checked = [package for package in packages if "vulns" in package]
    faults = [(each["name"], each["version"], v["id"]) for each in checked for v in each["vulns"]]
    for fault in faults:
        print("audit:", *fault)
    print(f"audit: {len(checked)} of {len(packages)} packages checked, {len(faults)} known faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
