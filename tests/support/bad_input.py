"""Requests that no service should accept, and none should stumble over."""

from __future__ import annotations

import json
from typing import Any

UUID = "00000000-0000-4000-8000-000000000001"


def _deep(levels: int) -> bytes:
    return b'{"prompt": "x", "scheduler_options": ' + b"[" * levels + b"]" * levels + b"}"


def _body(**fields: Any) -> bytes:
    return json.dumps({"prompt": "x", **fields}).encode()


BODIES: list[bytes] = [
    b"",
    b"\x00",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b'{"prompt": "x"} x',
    b'\xef\xbb\xbf{"prompt": "x"}',
    b'{"prompt": "\xff"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": NaN}',
    b'{"prompt": "x", "seed": 1e999}',
    b'{"prompt": "x", "seed": ' + b"9" * 400 + b"}",
    b'{"prompt": "x", "prompt": 5}',
    _deep(500),
    _deep(1000),
    _deep(100_000),
    _body(width=0),
    _body(width=-8),
    _body(width=63),
    _body(width=True),
    _body(width="512"),
    _body(width=10**9),
    _body(num_inference_steps=0),
    _body(num_inference_steps=10**6),
    _body(guidance_scale=-1),
    _body(num_images_per_prompt=0),
    _body(scheduler="../../etc/passwd"),
    _body(scheduler="__class__"),
    _body(model="http://127.0.0.1/x"),
    _body(loras=[{"name": "../x"}] * 9),
    _body(image="AAAA"),
    _body(image="data:image/svg+xml;base64,PHN2Zy8+"),
    _body(unknown_field=1),
    _body(prompt="x" * 100_000),
    _body(prompt="\x00"),
]
"""Each is refused with 4xx by POST /image/generate."""

PATHS: list[tuple[str, str]] = [
    ("GET", "/nothing"),
    ("GET", "/image/files/..%2f..%2fetc%2fpasswd"),
    ("GET", "/image/files/x.png"),
    ("GET", f"/image/files/{UUID}-99999999999999999999.png"),
    ("GET", "/image/jobs/%00"),
    ("GET", "/image/jobs/not-a-uuid"),
    ("GET", f"/image/jobs/{UUID}?wait=NaN"),
    ("GET", f"/image/jobs/{UUID}/inputs/..%2f"),
    ("GET", "/image/generate?limit=-1"),
    ("GET", "/image/generate?limit=1&limit=2"),
    ("GET", "/image/generate?unknown=1"),
    ("GET", f"/image/generate?generation_uuid={UUID}&before=x"),
    ("DELETE", "/image/generate"),
    ("DELETE", f"/image/generate?generation_uuid={UUID}"),
    ("DELETE", f"/image/jobs/{UUID}"),
    ("POST", "/server/status"),
    ("PUT", "/image/generate"),
    ("PATCH", "/image/jobs"),
    ("POST", "/server/models/..%2f/load"),
    ("DELETE", "/server/keys/nobody"),
]
"""Each is answered with 4xx."""
