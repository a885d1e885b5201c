"""The gateway as it is, but for its patience: so that a test need not wait a minute."""

from __future__ import annotations

import sys

from gateway.__main__ import main
from gateway.http.server import listener

PATIENCE_S = 2.0

if __name__ == "__main__":
    listener.STALLED_S = PATIENCE_S
    sys.exit(main())
