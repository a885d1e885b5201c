"""Runs one call of litellm in a process of its own, because it logs, warns and starts threads.

Usage: python -m tests.support.litellm_calls CASE BASE_URL KEY. Standard input is a PNG. It prints
JSON: the images as base64, or the error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the internet

import litellm

SMALL = {"n": 2, "size": "64x64"}


def _cases(image: bytes, **own: Any) -> dict[str, Callable[[], Any]]:
    asked = {"prompt": "a cat", **SMALL, **own}
    return {
        "generate": lambda: litellm.image_generation(**asked),
        "generate async": lambda: asyncio.run(litellm.aimage_generation(**asked)),
        "edit": lambda: litellm.image_edit(image=[image], **asked),
        "variation": lambda: litellm.image_variation(image=image, **SMALL, **own),
        "refusal": lambda: litellm.image_generation(**asked | {"size": "65x64"}),
        "wrong key": lambda: litellm.image_generation(**asked | {"api_key": "wrong"}),
    }


def main() -> None:
    """Run a case and print what came of it."""
    case, base, key = sys.argv[1:]
    own = {"model": "openai/demo", "api_base": base, "api_key": key, "max_retries": 0}
    try:
        reply = _cases(sys.stdin.buffer.read(), **own)[case]()
    except Exception as error:
        status = getattr(error, "status_code", None)
        print(json.dumps({"kind": type(error).__name__, "status": status, "words": str(error)}))
        return
    print(json.dumps([each.b64_json for each in reply.data]))


if __name__ == "__main__":
    main()
