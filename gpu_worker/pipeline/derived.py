"""Makes pipelines of another task from a pipeline's own parts; no weights are copied.

They live for one job: nothing is kept, so nothing can leak. Knows no request.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
)

Task = Literal["text", "image", "inpaint"]

AUTO: dict[Task, Any] = {
    "text": AutoPipelineForText2Image,
    "image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}


def parameters(pipe: Any) -> dict[str, inspect.Parameter]:
    """What the pipeline can be called with."""
    return dict(inspect.signature(pipe.__call__).parameters)


def made(pipe: Any, task: Task, **parts: Any) -> Any | None:
    """A new pipeline for the task, with `parts` (vae, controlnet) instead of its own; None when
    diffusers has none of this family. `controlnet=None` takes one away."""
    try:
        new = AUTO[task].from_pipe(pipe, **parts)
    except ValueError:  # AutoPipeline knows no such class
        if parts.get("controlnet") is not None or not _serves(pipe, task):
            return None
        new = _copy(pipe, parts)
    new.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return new


def _serves(pipe: Any, task: Task) -> bool:
    """Families of one class for everything: it takes pictures itself."""
    known = parameters(pipe)
    if task == "text":
        return "image" not in known or known["image"].default is not inspect.Parameter.empty
    return ("image" if task == "image" else "mask_image") in known


def _copy(pipe: Any, parts: dict[str, Any]) -> Any:
    components, options = type(pipe)._get_signature_keys(type(pipe))
    given = {name: parts.get(name, part) for name, part in pipe.components.items()}
    given = {name: part for name, part in given.items() if name in components}
    config = {name: pipe.config[name] for name in options if name in pipe.config}
    return type(pipe)(**given, **config)
