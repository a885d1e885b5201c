"""ControlNets of models.toml for one job: the networks, and the arguments of the call."""

from __future__ import annotations

from typing import Any

import diffusers

from gpu_worker.pipeline.families import call_parameters
from gpu_worker.pipeline.loading import machine_size
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

NAMES = ("ControlNetModel", "SD3ControlNetModel", "FluxControlNetModel")
NETWORKS = {name: getattr(diffusers, name) for name in NAMES}


def load(context: GenerationContext) -> Any:
    """The network, or a list of several.

    Raises:
        Unsupported: one was made for another family of models.
        ModelsError: models.toml does not know one, or it is none.
    """
    loaded, networks = context.loaded, []
    for asked in context.request.controlnets:
        network = context.assets.network("controlnets", asked.name, NETWORKS, loaded.pipe.dtype)
        _check_family(loaded, asked.name, network)
        if machine_size.SWITCHES[loaded.size].attention_slicing:
            network.set_attention_slice("auto")
        networks.append(network)
    return networks[0] if len(networks) == 1 else networks


def _check_family(loaded: LoadedModel, name: str, network: Any) -> None:
    core: Any = getattr(loaded.pipe, "unet", None) or loaded.pipe.transformer
    for field in ("cross_attention_dim", "joint_attention_dim"):
        ours, theirs = getattr(core.config, field, None), getattr(network.config, field, None)
        if ours != theirs:
            why = f"is of another family: its {field} is {ours}, this ControlNet's is {theirs}"
            raise unsupported("controlnets", name, loaded.pipe, why)


def arguments(pipe: Any, context: GenerationContext) -> dict[str, Any]:
    """What the call takes for them: their pictures in the size of the canvas, and how they count.

    Raises:
        MissingPicture: a picture is gone or cannot be read.
        Unsupported: the pipeline cannot begin or end a ControlNet on the way.
    """
    nets = context.request.controlnets
    if not nets:
        return {}
    known = call_parameters(pipe)
    images = [context.canvas.fitted(context.images.picture(net.image)) for net in nets]
    given: dict[str, list[Any]] = {
        "control_image" if "control_image" in known else "image": images,
        "controlnet_conditioning_scale": [net.conditioning_scale for net in nets],
    }
    ways = {
        "control_guidance_start": [net.guidance_start for net in nets],
        "control_guidance_end": [net.guidance_end for net in nets],
    }
    if "control_guidance_start" in known:
        given |= ways
    elif any(net.guidance_start > 0 or net.guidance_end < 1 for net in nets):
        raise unsupported("controlnets", ways, pipe, "has them all the way")
    return {key: value[0] if len(nets) == 1 else value for key, value in given.items()}
