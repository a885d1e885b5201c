"""Loads one model in a process of its own, whose environment says what it may ask of the hub.

The arguments are the data directory and a source: a file in its models folder, or a hub id. One
JSON object comes out.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch  # noqa: E402

from gpu_worker import quantization_libraries  # noqa: E402

quantization_libraries.hide_unused("none")

from gpu_worker.assets.model_library import Library, ModelAsset  # noqa: E402
from gpu_worker.pipeline.loading import loader, sources  # noqa: E402
from tests.support.pipeline_jobs import settings  # noqa: E402


def main(folder: Path, name: str) -> dict[str, object]:
    given = settings(folder, SDE_DTYPE="float16")
    library = Library(models={"it": ModelAsset(source=name)})
    loader.silence_libraries()
    source = sources.find("it", library, given)
    pipe = loader.load(source, given, torch.device("cpu"))
    networks = {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
    }
    on_meta = [
        f"{name}.{key}"
        for name in networks
        for key, weight in getattr(pipe, name).state_dict().items()
        if weight.device.type == "meta"
    ]
    tokens = {
        name: part("a photo of a cat", padding="max_length").input_ids[:9]
        for name, part in pipe.components.items()
        if name.startswith("tokenizer") and part is not None
    }
    scheduler = {"class": type(pipe.scheduler).__name__, **pipe.scheduler.config}
    return {
        "class": type(pipe).__name__,
        "networks": networks,
        "on_meta": on_meta,
        "tokens": tokens,
        "scheduler": {key: value for key, value in scheduler.items() if not key.startswith("_")},
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
