"""Loads the ControlNets of one job from models.toml, and builds their call arguments."""

from __future__ import annotations

from typing import Any

import diffusers

from gpu_worker.pipeline.families import call_parameters, denoiser_of
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported

NAMES = ("ControlNetModel", "SD3ControlNetModel", "FluxControlNetModel")
NETWORKS = {name: getattr(diffusers, name) for name in NAMES}


def load(context: GenerationContext) -> Any:
    """Return the network, or a list of networks where the request names several.

    Raises:
        Unsupported: one is made for another model family.
        ModelsError: a name is not in models.toml, or is not a ControlNet.
    """
    loaded, networks = context.loaded, []
    for requested in context.request.controlnets:
        network = context.assets.recent_network(
            "controlnets", requested.name, NETWORKS, loaded.dtype
        )
        _check_family(loaded, requested.name, network)
        networks.append(network)
    return networks[0] if len(networks) == 1 else networks


def _check_family(loaded: LoadedModel, name: str, network: Any) -> None:
    denoiser = denoiser_of(loaded.pipe)
    for field in ("cross_attention_dim", "joint_attention_dim"):
        model_dim, network_dim = (
            getattr(denoiser.config, field, None),
            getattr(network.config, field, None),
        )
        if model_dim != network_dim:
            reason = (
                f"is of another model family: its {field} is {model_dim}, "
                f"this ControlNet's is {network_dim}"
            )
            raise unsupported("controlnets", name, loaded.pipe, reason)


def arguments(pipe: Any, context: GenerationContext) -> dict[str, Any]:
    """Return the call arguments: the images at the canvas size, and each network's weights.

    Raises:
        MissingImage: an image is missing or cannot be read.
        Unsupported: the pipeline cannot limit a ControlNet to some of the steps.
    """
    nets = context.request.controlnets
    if not nets:
        return {}
    parameters = call_parameters(pipe)
    images = [context.canvas.fit(context.images.image(net.image)) for net in nets]
    values: dict[str, list[Any]] = {
        "control_image" if "control_image" in parameters else "image": images,
        "controlnet_conditioning_scale": [net.conditioning_scale for net in nets],
    }
    guidance = {
        "control_guidance_start": [net.guidance_start for net in nets],
        "control_guidance_end": [net.guidance_end for net in nets],
    }
    if "control_guidance_start" in parameters:
        values |= guidance
    elif any(net.guidance_start > 0 or net.guidance_end < 1 for net in nets):
        reason = "applies ControlNets in every step: guidance_start must be 0, guidance_end 1"
        raise unsupported("controlnets", guidance, pipe, reason)
    return {key: value[0] if len(nets) == 1 else value for key, value in values.items()}
