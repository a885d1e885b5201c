"""A prompt is encoded once for all images of a job, and the images are as they are one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.builders.tiny_families import FAMILIES
from tests.support.pipeline_bench import Bench

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

ENCODERS = ("text", "image_encoder")


@pytest.mark.parametrize("name", ["xl", "sd3", "flux", "z-image", "kandinsky22", "kandinsky21"])
def test_a_prompt_is_encoded_once_for_all_images(name: str, tmp_path: Path) -> None:
    FAMILIES[name].build().save_pretrained(tmp_path / "models" / name)
    bench = Bench(tmp_path, name)
    calls: list[str] = []
    for part, network in bench.pipe.components.items():
        if isinstance(network, torch.nn.Module) and any(word in part for word in ENCODERS):
            network.register_forward_hook(lambda *_, part=part: calls.append(part))
    size = {"width": 64, "height": 64}
    alone = bench.pixels(seed=8, **size)
    expected = sorted(calls)
    assert expected
    calls.clear()
    images = bench.make(seed=7, num_images_per_prompt=2, **size)
    assert sorted(calls) == expected
    assert images[1].image.tobytes() == alone
    left = [vars(each) for each in vars(bench.pipe).values() if hasattr(each, "components")]
    assert not any("_encode_prompt" in each for each in left), "its methods are its own again"
