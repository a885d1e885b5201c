"""The gateway as it is, on a machine whose temporary folder is full."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from typing import Any, NoReturn

from gateway.__main__ import main


def refuse(*arguments: Any, **options: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    tempfile.TemporaryFile = refuse  # type: ignore[assignment,misc]
    tempfile.mkstemp = refuse
    sys.exit(main())
