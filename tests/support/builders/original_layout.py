"""The names of a whole model's tensors in the original code, for networks of any depth.

The rules are those of diffusers' scripts/convert_diffusers_to_original_stable_diffusion.py, the
inverse of what a single file goes through. Files are sparse: their weights are zeros that take no
space.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

Shapes = dict[str, torch.Size]

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
CLIP_PREFIX, OPEN_CLIP_PREFIX = "cond_stage_model.transformer.", "cond_stage_model.model."
"""The text encoders of Stable Diffusion 1 and 2."""

XL_CLIP_PREFIX = "conditioner.embedders.0.transformer."
XL_OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."
REFINER_OPEN_CLIP_PREFIX = "conditioner.embedders.0.model."

FIRST_UNET_WEIGHT = f"{UNET_PREFIX}input_blocks.0.0.weight"
LAST_UNET_BIAS = f"{UNET_PREFIX}out.2.bias"
FIRST_VAE_BIAS = f"{VAE_PREFIX}encoder.conv_in.bias"
VELOCITY_BIAS = f"{UNET_PREFIX}output_blocks.11.1.transformer_blocks.0.norm1.bias"
"""The bias whose deviation shows that a Stable Diffusion 2 predicts velocity."""

BIG_G_BIAS = f"{XL_OPEN_CLIP_PREFIX}transformer.resblocks.9.mlp.c_proj.bias"
SD35_WEIGHT = f"{UNET_PREFIX}joint_blocks.37.x_block.mlp.fc1.weight"
FLUX_SCALE = f"{UNET_PREFIX}double_blocks.0.img_attn.norm.key_norm.scale"
"""Weights by which diffusers recognises XL, Stable Diffusion 3.5 and Flux."""

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")
MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d)")
VAE = (
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up_\1.upsample"),
    (r"up_blocks\.(\d)\.resnets", r"up_\1.block"),
    (r"up_(\d)", lambda level: f"up.{3 - int(level[1])}"),
    (r"mid_block\.resnets\.(\d)", lambda number: f"mid.block_{int(number[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
)
OPEN_CLIP = (
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm.", "ln_final."),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    (".fc1.", ".c_fc."),
    (".fc2.", ".c_proj."),
    (".self_attn.", ".attn."),
    ("text_projection.weight", "text_projection"),
)


def unet_name(name: str, layers: int, has_attention: list[bool]) -> str:
    """`has_attention`: whether the down blocks have it, from the first."""
    for end, original in ENDS.items():
        if name.startswith(f"{end}."):
            return original + name.removeprefix(end)
    if match := MID.match(name):
        place = f"middle_block.{2 * int(match[2]) + (match[1] == 'attentions')}"
    elif match := BLOCK.match(name):
        block, kind, layer = int(match[2]), match[3], int(match[4])
        last = layers if match[1] == "up" else layers - 1
        if match[1] == "down":
            number = block * (layers + 1) + layer + 1
            number = (block + 1) * (layers + 1) if kind == "downsamplers" else number
            side, own = "input_blocks", has_attention[block]
        else:
            number = block * (layers + 1) + (last if kind == "upsamplers" else layer)
            side, own = "output_blocks", has_attention[::-1][block]
        part = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + own}[kind]
        place = f"{side}.{number}.{part}"
    else:
        raise AssertionError(name)
    rest = name[match.end() + 1 :]
    if match[match.re.groups - 1 if match.re is BLOCK else 1] == "resnets":
        inner, _, end = rest.partition(".")
        return f"{place}.{RESNET[inner]}.{end}"
    return f"{place}.{rest.replace('conv.', 'op.', 1) if 'downsamplers' in name else rest}"


def unet(network: Any) -> Shapes:
    attention = ["CrossAttn" in each for each in network.config.down_block_types]
    layers = network.config.layers_per_block
    return {
        UNET_PREFIX + unet_name(name, layers, attention): weight.shape
        for name, weight in network.state_dict().items()
    }


def vae(network: Any) -> Shapes:
    shapes = {}
    for name, weight in network.state_dict().items():
        original = name
        for pattern, new in VAE:
            original = re.sub(pattern, new, original)  # type: ignore[call-overload]
        is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", original)
        shape = torch.Size([*weight.shape, 1, 1]) if is_attention else weight.shape
        shapes[VAE_PREFIX + original] = shape
    return shapes


def clip(encoder: Any, prefix: str) -> Shapes:
    """CLIP as transformers names it, with the former `text_model.`."""
    return {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": weight.shape
        for name, weight in encoder.state_dict().items()
    }


def open_clip(encoder: Any, prefix: str, layers: int) -> Shapes:
    """OpenCLIP: query, key and value are one matrix. `layers`: those of the file, not all read."""
    shapes: Shapes = {}
    for name, weight in encoder.state_dict().items():
        original = name.removeprefix("text_model.")
        for new, old in OPEN_CLIP:
            original = original.replace(new, old)
        shape = weight.shape
        if match := re.search(r"\.q_proj\.(weight|bias)$", original):
            original = original.replace(match[0], f".in_proj_{match[1]}")
            shape = torch.Size([3 * shape[0], *shape[1:]])
        if not re.search(r"\.[kv]_proj\.", original):
            shapes[prefix + original] = shape
    width = encoder.config.hidden_size
    shapes.setdefault(f"{prefix}text_projection", torch.Size([width, width]))
    last = encoder.config.num_hidden_layers - 1
    for name, shape in list(shapes.items()):
        for number in range(last + 1, layers):
            if f".resblocks.{last}." in name:
                shapes[name.replace(f".resblocks.{last}.", f".resblocks.{number}.")] = shape
    return shapes


def write_sparse(
    path: Path, shapes: Shapes, metadata: dict[str, str] | None, values: dict[str, torch.Tensor]
) -> None:
    """A safetensors file in float16 whose weights are a hole in the file, but for `values`."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        size = 2 * shape.numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for name, value in values.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(value.half().numpy().tobytes())
