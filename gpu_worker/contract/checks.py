"""Rules that follow from a request and its model: kept by the gateway and by the worker. A leaf."""

from __future__ import annotations

NO_STEP = "makes strength times num_inference_steps ({steps}) steps, and that is none"


def makes_no_step(strength: float, steps: int, scheduler: str) -> bool:
    """Whether image to image has nothing left to do: diffusers' get_timesteps makes `strength`
    times `steps` of them, cut down; that of flow matching rounds up.

    Args:
        scheduler: the name of its class.
    """
    least = 0.0 if scheduler.startswith("FlowMatch") else 1.0
    return strength == 0 or strength * steps < least


def weighs_words(pipeline: str) -> bool:
    """Whether `(word:1.3)` counts for the pipeline of this class name: Stable Diffusion 1, 2 and XL
    in any mode, which have CLIP encoders and can be given embeddings."""
    return pipeline.startswith("StableDiffusion") and not pipeline.startswith("StableDiffusion3")
