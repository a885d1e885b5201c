"""Runs calls of litellm in a process of its own, because it logs, warns and starts threads.

Usage: python -m tests.support.litellm_calls BASE_URL KEY. Standard input is a PNG. Its last line is
JSON: for each case the images as base64, or the error.
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
        "variation": lambda: litellm.image_variation(image=image, size="64x64", **own),
        "refusal": lambda: litellm.image_generation(**asked | {"size": "65x64"}),
        "wrong key": lambda: litellm.image_generation(**asked | {"api_key": "wrong"}),
    }


def _outcome(call: Callable[[], Any]) -> object:
    try:
        return [each.b64_json for each in call().data]
    except Exception as error:
        status = getattr(error, "status_code", None)
        return {"kind": type(error).__name__, "status": status, "words": str(error)}


def main() -> None:
    """Run all cases and print what came of each."""
    base, key = sys.argv[1:]
    own = {"model": "openai/demo", "api_base": base, "api_key": key, "max_retries": 0}
    cases = _cases(sys.stdin.buffer.read(), **own)
    print(json.dumps({name: _outcome(call) for name, call in cases.items()}))


if __name__ == "__main__":
    main()
