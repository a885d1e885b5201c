"""Prompts that people send, in every script and with every bracket, draw an image."""

from __future__ import annotations

import pytest

from gpu_worker import pipeline
from tests.support.pipeline_jobs import demo_side_px, ignore, job, settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPTS = [
    "x",
    ".",
    ",",
    "0",
    "null",
    "-",
    "--help",
    "a cat, " * 500,
    "x" * 3999,
    "a\tb\nc",
    "\n\n a red circle \n\n",
    "line one\r\nline two",
    "ein roter Kreis, größer als ein blauer",
    "un café à côté de l'été",
    "красный круг",
    "一个红色的圆圈",
    "赤い円、青い背景",
    "빨간 원",
    "دائرة حمراء",
    "עיגול אדום",
    "लाल वृत्त",
    "วงกลมสีแดง",
    "κόκκινος κύκλος",
    "🦊🌈👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 and é",
    "zero\u200bwidth\u200djoiner\ufeff",
    "right\u202eto left",
    "\u0378\ue000\U000f0000",
    "Ⓐ ﬁ ½ ℃",
    "a" + "\u0301" * 200,
    "(a)",
    "((a))",
    "[a]",
    "[[a]]",
    "{a|b|c}",
    "(a:1.2)",
    "(a:1.2",
    "a:1.2)",
    "(:1.2)",
    "(a:)",
    "()",
    "(" * 300 + "a" + ")" * 300,
    ")" * 99 + "(" * 99,
    "(a:0)",
    "(a:-1)",
    "(a:1e0)",
    "[a:b:0.5]",
    "[a|b]",
    "a BREAK b",
    "a AND b",
    "<lora:name:0.8> a cat",
    "<|startoftext|> a cat <|endoftext|>",
    "embedding:name, a cat",
    "a_(series), b",
    r"a \(b\) \\ \[c\] \:",
    "\\",
    "a cat++ and (a dog)--",
    '("a cat", "a dog").and()',
    "$PATH `id` %s %d {0} {name!r}",
    "<script>alert(1)</script> & &amp;",
    "'; DROP TABLE jobs; --",
    "../../etc/passwd",
    "C:\\Users\\a.png",
    "https://example.org/?a=1&b=2#c",
    '{"prompt": "a"}',
]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> pipeline.DiffusersPipeline:
    """The built-in model."""
    return pipeline.load(settings(tmp_path_factory.mktemp("odd")))


@pytest.mark.parametrize("negative", [False, True], ids=["prompt", "negative"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda text: ascii(text)[:40])
def test_an_image_is_drawn(ours: pipeline.DiffusersPipeline, prompt: str, negative: bool) -> None:
    words = {"prompt": "a cat", "negative_prompt": prompt} if negative else {"prompt": prompt}
    made = ours.generate(job(num_inference_steps=1, **words), ignore)[0]
    assert made.image.size == (demo_side_px(),) * 2
    low, high = made.image.convert("L").getextrema()
    assert low < high
