"""Saves tiny models as people find them: one file of weights, the rest beside it.

Whole models are in the layout of their original code; transformers alone as diffusers names them,
Z-Image's as its authors do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file

from tests.support.builders import original_layout, tiny_models

Weights = dict[str, torch.Tensor]


def sd1(pipe: Any, path: Path) -> None:
    """As CompVis' code has it."""
    tiny_models.save_single_file(pipe, path)


def sd2(pipe: Any, path: Path) -> None:
    """As Stability's code has it: OpenCLIP reads."""
    text = {original_layout.OPEN_CLIP_PREFIX: open_clip(pipe.text_encoder)}
    _whole(pipe, path, _ldm(pipe) | text)


def xl(pipe: Any, path: Path) -> None:
    """As Stability's code has it: CLIP and OpenCLIP read."""
    text = {
        original_layout.XL_CLIP_PREFIX: tiny_models._ldm_text(pipe.text_encoder),
        original_layout.XL_OPEN_CLIP_PREFIX: open_clip(pipe.text_encoder_2),
    }
    _whole(pipe, path, _ldm(pipe) | text)


def sd3(pipe: Any, path: Path) -> None:
    """As Stability's code has it, with all three text encoders."""
    parts = {
        original_layout.UNET_PREFIX: mmdit(pipe.transformer),
        original_layout.VAE_PREFIX: tiny_models._ldm_vae(pipe.vae),
        "text_encoders.clip_l.transformer.": tiny_models._ldm_text(pipe.text_encoder),
        "text_encoders.clip_g.transformer.": pipe.text_encoder_2.state_dict(),
        "text_encoders.t5xxl.transformer.": pipe.text_encoder_3.state_dict(),
    }
    del parts["text_encoders.clip_l.transformer."]["text_model.text_projection.weight"]
    _whole(pipe, path, parts)


def transformer(pipe: Any, path: Path) -> None:
    """The transformer alone."""
    save_file(_contiguous(pipe.transformer.state_dict()), path)
    _rest(pipe, path)


def z_image(pipe: Any, path: Path) -> None:
    """The transformer alone, in its authors' names."""
    weights = pipe.transformer.state_dict()
    renamed: Weights = {}
    for key, value in weights.items():
        if ".to_q." in key:
            parts = [weights[key.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            renamed[key.replace("to_q", "qkv")] = torch.cat(parts)
        elif not re.search(r"\.to_[kv]\.", key):
            key = key.replace("all_final_layer.2-1", "final_layer")
            key = key.replace("all_x_embedder.2-1", "x_embedder").replace("to_out.0", "out")
            renamed[re.sub(r"norm_([qk])\.", r"\1_norm.", key)] = value
    save_file(_contiguous({original_layout.UNET_PREFIX + k: v for k, v in renamed.items()}), path)
    _rest(pipe, path)


def gguf_transformer(pipe: Any, path: Path, kind: str = "F32", alignment: int = 32) -> None:
    """The transformer alone, in GGUF; `kind` is that of the linear layers' weights, `alignment` of
    the tensors in the file, in bytes."""
    writer = gguf.GGUFWriter(path, "any")
    writer.add_custom_alignment(alignment)
    linear = {
        f"{name}.weight"
        for name, part in pipe.transformer.named_modules()
        if isinstance(part, torch.nn.Linear) and part.in_features % 32 == 0
    }
    for key, value in pipe.transformer.state_dict().items():
        raw = gguf.GGMLQuantizationType[kind if key in linear else "F32"]
        numbers = gguf.quants.quantize(value.float().numpy().copy(), raw)
        writer.add_tensor(key, numbers, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _rest(pipe, path)


def _rest(pipe: Any, path: Path) -> None:
    """Everything but the transformer's weights, in the directory of the same name."""
    pipe.save_pretrained(path.with_suffix(""))
    for weights in (path.with_suffix("") / "transformer").glob("*.safetensors"):
        weights.unlink()


def _whole(pipe: Any, path: Path, parts: dict[str, Weights]) -> None:
    weights = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
    save_file(_contiguous(weights), path)
    pipe.save_pretrained(path.with_suffix(""))
    for config_only in path.with_suffix("").rglob("*.safetensors"):
        config_only.unlink()


def _contiguous(weights: Weights) -> Weights:
    return {key: value.detach().clone().contiguous() for key, value in weights.items()}


def _ldm(pipe: Any) -> dict[str, Weights]:
    unet = {
        key.replace("add_embedding.linear_1", "label_emb.0.0").replace(
            "add_embedding.linear_2", "label_emb.0.2"
        ): value
        for key, value in tiny_models._ldm_unet(pipe.unet).items()
    }
    return {
        original_layout.UNET_PREFIX: unet,
        original_layout.VAE_PREFIX: tiny_models._ldm_vae(pipe.vae),
    }


def open_clip(encoder: Any) -> Weights:
    """The text encoder of OpenCLIP: query, key and value are one matrix, the projection lies."""
    weights = {key.removeprefix("text_model."): v for key, v in encoder.state_dict().items()}
    made: Weights = {}
    for key, value in weights.items():
        name = key
        for ours, theirs in original_layout.OPEN_CLIP:
            name = name.replace(ours, theirs)
        if found := re.search(r"\.q_proj\.(weight|bias)$", name):
            parts = [
                weights[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")
            ]
            made[name.replace(found[0], f".in_proj_{found[1]}")] = torch.cat(parts)
        elif key == "text_projection.weight":
            made["text_projection"] = value.T
        elif not re.search(r"\.[kv]_proj\.", name):
            made[name] = value
    if "text_projection" not in made:
        made["text_projection"] = torch.eye(encoder.config.hidden_size)
    return made


MMDIT = (
    ("pos_embed.pos_embed", "pos_embed"),
    ("pos_embed.proj", "x_embedder.proj"),
    ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
    ("proj_out", "final_layer.linear"),
    ("norm_out.linear", "final_layer.adaLN_modulation.1"),
    (r"transformer_blocks\.(\d+)\.", r"joint_blocks.\1."),
    ("norm1_context.linear", "context_block.adaLN_modulation.1"),
    ("norm1.linear", "x_block.adaLN_modulation.1"),
    ("ff_context.net.0.proj", "context_block.mlp.fc1"),
    ("ff_context.net.2", "context_block.mlp.fc2"),
    ("ff.net.0.proj", "x_block.mlp.fc1"),
    ("ff.net.2", "x_block.mlp.fc2"),
    ("attn.to_out.0", "x_block.attn.proj"),
    ("attn.to_add_out", "context_block.attn.proj"),
)


def mmdit(network: Any) -> Weights:
    """Stable Diffusion 3's transformer; its last norms count shift before scale."""
    weights = network.state_dict()
    last = f"joint_blocks.{network.config.num_layers - 1}.context_block.adaLN_modulation"
    made: Weights = {}
    for key, value in weights.items():
        name = key
        for ours, theirs in MMDIT:
            name = re.sub(ours, theirs, name)
        if ".to_q." in key or ".add_q_proj." in key:
            parts = [weights[re.sub(r"(to_|add_)q", rf"\g<1>{p}", key)] for p in "qkv"]
            block = "x_block" if ".to_q." in key else "context_block"
            name = re.sub(r"attn\.(to_q|add_q_proj)", f"{block}.attn.qkv", name)
            value = torch.cat(parts)
        elif re.search(r"to_[kv]\.|add_[kv]_proj", key):
            continue
        if name.startswith((last, "final_layer.adaLN_modulation")):
            scale, shift = value.chunk(2)
            value = torch.cat([shift, scale])
        made[name] = value
    return made
