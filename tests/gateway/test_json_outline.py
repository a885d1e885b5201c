"""Row 34: nesting and doubled keys, whatever stands in strings."""

from __future__ import annotations

import time

import pytest

from gateway.http.json_outline import MAX_DEPTH, outside_strings
from tests.support.service import Service


def nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + "1" + closing * depth


DEEP = [
    *(nested("[", "]", depth) for depth in (MAX_DEPTH, 100, 1000, 1020, 1022, 5000)),
    *(nested('{"a":', "}", depth) for depth in (100, 1000, 1022)),
    *(nested('[{"a":', "}]", depth) for depth in (100, 500)),
]


@pytest.mark.parametrize("value", DEEP, ids=lambda value: f"{value[:8]}{len(value)}")
@pytest.mark.parametrize("field", ["loras", "image", "unknown", "scheduler_options", "seed"])
def test_row_34_a_deep_value_is_refused(service: Service, field: str, value: str) -> None:
    reply = service.post(f'{{"prompt": "a", "{field}": {value}}}'.encode())
    assert reply.status_code in (400, 422), reply.text
    assert len(reply.content) < 2000
    deep = "more than 32 levels" in reply.text
    assert deep or "recursion" in reply.text.lower() or "depth" in reply.text.lower()


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ('{"prompt": "a", "prompt": "b"}', "prompt"),
        ('{"prompt": "a", "seed": 1, "seed": 1}', "seed"),
        ('{"prompt": "a", "pr\\u006fmpt": "b"}', "prompt"),
        ('{"prompt": "a", "loras": [{"name": "x", "name": "y"}]}', "name"),
        ('{"prompt": "a", "hires": {"scale": 2, "strength": 1, "scale": 3}}', "scale"),
        ('{"prompt": "a", "unknown": {"": 1, "": 2}}', "''"),
        ('{"prompt": ":\\"{,", "\\\\": 1, "\\\\": 2}', "\\"),
        ('{"seed": 1, "prompt": "' + "x" * 3_000_000 + '", "seed": 2}', "seed"),
    ],
    ids=range(8),
)
def test_row_34_a_doubled_key_is_named(service: Service, body: str, key: str) -> None:
    reply = service.post(body.encode())
    assert reply.status_code == 400, reply.text
    assert key.strip("'") in reply.json()["detail"]
    assert "is sent more than once" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("text", "outline"),
    [
        (b'{"a": "b"}', b"{: }"),
        (b'{"a\\"b": "[[\\\\"}', b"{: }"),
        (b'["' + b"\\" * 1000 + b'"]', b"[]"),
        (b'["' + b"\\" * 1001 + b'"]"]', b"[]"),
        (b'["open', b"["),
        (b"", b""),
    ],
)
def test_row_34_strings_are_left_out(text: bytes, outline: bytes) -> None:
    assert outside_strings(text) == outline


def test_row_34_keys_in_strings_do_not_count(service: Service) -> None:
    reply = service.post({"prompt": '{"seed": 1, "seed": 2} [[[[ \\ " ', "seed": -2})
    assert reply.status_code == 422 and "seed" in reply.text


@pytest.mark.parametrize(
    "text",
    [
        *(b" " * (8 << 20), b";" * (8 << 20), b"\\n" * (4 << 20), b'\\"' * (4 << 20)),
        *(b"\\\\" * (4 << 20), b"data:" * (1 << 20), b"=" * (8 << 20), b"-_" * (4 << 20)),
    ],
    ids=lambda text: ascii(text[:5]),
)
def test_row_34_a_large_string_is_refused_quickly(service: Service, text: bytes) -> None:
    begun = time.monotonic()
    reply = service.post(b'{"prompt": "a", "image": "' + text + b'"}')
    assert reply.status_code == 422, reply.text
    assert time.monotonic() - begun < 10
