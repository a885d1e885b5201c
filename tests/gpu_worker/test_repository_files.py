"""The files that `sde pull` chooses, for lists of names as published repositories have them."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_worker.assets import repository_files
from gpu_worker.assets.repository_files import NoModelFound

Index = dict[str, Any]

DIFFUSION, TEXT = "diffusion_pytorch_model", "model"
BPE = ["merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"]


def shards(stem: str, count: int) -> list[str]:
    return [f"{stem}-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]


def in_folder(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{name}" for name in names]


def network(folder: str, stem: str, *variants: str) -> list[str]:
    """A network as older versions uploaded it: safetensors and pickles of each variant."""
    names = [f"{stem}{each}.safetensors" for each in ("", *variants)]
    pickled = [name.replace("safetensors", "bin") for name in names]
    return in_folder(folder, "config.json", *names, *pickled)


CLIP_TEXT, CLIP_TOKENS = ["transformers", "CLIPTextModel"], ["transformers", "CLIPTokenizer"]
UNET, VAE = ["diffusers", "UNet2DConditionModel"], ["diffusers", "AutoencoderKL"]
FLOW = ["diffusers", "FlowMatchEulerDiscreteScheduler"]

SD1: Index = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": CLIP_TEXT,
    "tokenizer": CLIP_TOKENS,
    "unet": UNET,
    "vae": VAE,
}
SD1_FILES = [
    *(".gitattributes", "README.md", "model_index.json", "v1-inference.yaml"),
    *("v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "v1-5-pruned-emaonly.safetensors"),
    "feature_extractor/preprocessor_config.json",
    "scheduler/scheduler_config.json",
    *network("safety_checker", TEXT, ".fp16"),
    "safety_checker/pytorch_model.bin",
    *network("text_encoder", TEXT, ".fp16"),
    *in_folder("tokenizer", *BPE),
    *network("unet", DIFFUSION, ".fp16", ".non_ema"),
    *network("vae", DIFFUSION, ".fp16"),
]

XL: Index = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "add_watermarker": None,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": CLIP_TEXT,
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": CLIP_TOKENS,
    "tokenizer_2": CLIP_TOKENS,
    "unet": UNET,
    "vae": VAE,
}
XL_FILES = [
    *(
        "model_index.json",
        "sd_xl_base_1.0.safetensors",
        "sd_xl_offset_example-lora_1.0.safetensors",
    ),
    "scheduler/scheduler_config.json",
    *[
        name
        for encoder in ("text_encoder", "text_encoder_2")
        for name in (
            *network(encoder, TEXT, ".fp16"),
            *in_folder(encoder, "flax_model.msgpack", "model.onnx", "model.onnx_data"),
            *in_folder(encoder, "openvino_model.bin", "openvino_model.xml"),
        )
    ],
    *in_folder("tokenizer", *BPE),
    *in_folder("tokenizer_2", *BPE),
    *network("unet", DIFFUSION, ".fp16"),
    *in_folder("unet", "model.onnx", "model.onnx_data", "openvino_model.xml"),
    *network("vae", DIFFUSION, ".fp16"),
    *network("vae_1_0", DIFFUSION, ".fp16"),
    *in_folder("vae_decoder", "config.json", "model.onnx", "openvino_model.bin"),
]

SD3: Index = {
    "_class_name": "StableDiffusion3Pipeline",
    "scheduler": FLOW,
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": CLIP_TOKENS,
    "tokenizer_2": CLIP_TOKENS,
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": VAE,
}
T5 = ["special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
SD3_FILES = [
    *("model_index.json", "LICENSE"),
    "scheduler/scheduler_config.json",
    *in_folder("text_encoder", "config.json", "model.safetensors", "model.fp16.safetensors"),
    *in_folder("text_encoder_2", "config.json", "model.safetensors", "model.fp16.safetensors"),
    *in_folder("text_encoder_3", "config.json", "model.safetensors.index.json"),
    *in_folder("text_encoder_3", "model.safetensors.index.fp16.json"),
    *in_folder("text_encoder_3", *shards("model", 2), *shards("model.fp16", 2)),
    *in_folder("tokenizer", *BPE),
    *in_folder("tokenizer_2", *BPE),
    *in_folder("tokenizer_3", *T5),
    *in_folder("transformer", "config.json", f"{DIFFUSION}.safetensors"),
    *in_folder("vae", "config.json", f"{DIFFUSION}.safetensors"),
]

FLUX: Index = {
    "_class_name": "FluxPipeline",
    "scheduler": FLOW,
    "text_encoder": CLIP_TEXT,
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": CLIP_TOKENS,
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": VAE,
}
FLUX_FILES = [
    *("model_index.json", "ae.safetensors", "flux1-schnell.safetensors", "schnell_grid.jpeg"),
    "scheduler/scheduler_config.json",
    *in_folder("text_encoder", "config.json", "model.safetensors"),
    *in_folder("text_encoder_2", "config.json", "model.safetensors.index.json"),
    *in_folder("text_encoder_2", *shards("model", 2)),
    *in_folder("tokenizer", *BPE),
    *in_folder("tokenizer_2", *T5),
    *in_folder("transformer", "config.json", f"{DIFFUSION}.safetensors.index.json"),
    *in_folder("transformer", *shards(DIFFUSION, 3)),
    *in_folder("vae", "config.json", f"{DIFFUSION}.safetensors"),
]

Z_IMAGE: Index = {
    "_class_name": "ZImagePipeline",
    "scheduler": FLOW,
    "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": VAE,
}
QWEN = [*BPE, "added_tokens.json", "chat_template.jinja", "tokenizer.json"]
Z_IMAGE_FILES = [
    *("model_index.json", "assets/leaderboard.png"),
    "scheduler/scheduler_config.json",
    *in_folder("text_encoder", "config.json", "generation_config.json", *shards("model", 3)),
    "text_encoder/model.safetensors.index.json",
    *in_folder("tokenizer", *QWEN, "additional_chat_templates/tools.jinja"),
    *in_folder("transformer", "config.json", f"{DIFFUSION}.safetensors.index.json"),
    *in_folder("transformer", *shards(DIFFUSION, 3)),
    *in_folder("vae", "config.json", f"{DIFFUSION}.safetensors"),
]

KOLORS: Index = {
    "_class_name": "KolorsPipeline",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["kolors", "ChatGLMModel"],
    "tokenizer": ["kolors", "ChatGLMTokenizer"],
    "unet": UNET,
    "vae": VAE,
}
KOLORS_FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    *in_folder("text_encoder", "config.json", "modeling_chatglm.py", *shards("model", 7)),
    *in_folder("text_encoder", "model.safetensors.index.json", *shards("model.fp16", 2)),
    *in_folder("text_encoder", "model.safetensors.index.fp16.json", "pytorch_model.bin.index.json"),
    *in_folder("tokenizer", "tokenizer.model", "tokenizer_config.json", "vocab.txt"),
    *in_folder("tokenizer", "tokenization_chatglm.py"),
    *in_folder("unet", "config.json", f"{DIFFUSION}.fp16.safetensors", f"{DIFFUSION}.safetensors"),
    *in_folder("vae", "config.json", f"{DIFFUSION}.fp16.safetensors"),
]

REPOSITORIES = {
    "sd1": (SD1, SD1_FILES),
    "xl": (XL, XL_FILES),
    "sd3": (SD3, SD3_FILES),
    "flux": (FLUX, FLUX_FILES),
    "z-image": (Z_IMAGE, Z_IMAGE_FILES),
    "kolors": (KOLORS, KOLORS_FILES),
}
WEIGHTS: dict[tuple[str, str | None], list[str]] = {
    ("sd1", None): [
        *in_folder("safety_checker", "model.safetensors"),
        *in_folder("text_encoder", "model.safetensors"),
        *in_folder("unet", f"{DIFFUSION}.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("sd1", "non_ema"): [
        *in_folder("safety_checker", "model.safetensors"),
        *in_folder("text_encoder", "model.safetensors"),
        *in_folder("unet", f"{DIFFUSION}.non_ema.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("xl", None): [
        *in_folder("text_encoder", "model.safetensors"),
        *in_folder("text_encoder_2", "model.safetensors"),
        *in_folder("unet", f"{DIFFUSION}.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("xl", "fp16"): [
        *in_folder("text_encoder", "model.fp16.safetensors"),
        *in_folder("text_encoder_2", "model.fp16.safetensors"),
        *in_folder("unet", f"{DIFFUSION}.fp16.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.fp16.safetensors"),
    ],
    ("sd3", None): [
        *in_folder("text_encoder", "model.safetensors"),
        *in_folder("text_encoder_2", "model.safetensors"),
        *in_folder("text_encoder_3", *shards("model", 2)),
        *in_folder("transformer", f"{DIFFUSION}.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("sd3", "fp16"): [
        *in_folder("text_encoder", "model.fp16.safetensors"),
        *in_folder("text_encoder_2", "model.fp16.safetensors"),
        *in_folder("text_encoder_3", *shards("model.fp16", 2)),
        *in_folder("transformer", f"{DIFFUSION}.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("flux", None): [
        *in_folder("text_encoder", "model.safetensors"),
        *in_folder("text_encoder_2", *shards("model", 2)),
        *in_folder("transformer", *shards(DIFFUSION, 3)),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("z-image", None): [
        *in_folder("text_encoder", *shards("model", 3)),
        *in_folder("transformer", *shards(DIFFUSION, 3)),
        *in_folder("vae", f"{DIFFUSION}.safetensors"),
    ],
    ("kolors", None): [
        *in_folder("text_encoder", *shards("model", 7)),
        *in_folder("unet", f"{DIFFUSION}.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.fp16.safetensors"),
    ],
    ("kolors", "fp16"): [
        *in_folder("text_encoder", *shards("model.fp16", 2)),
        *in_folder("unet", f"{DIFFUSION}.fp16.safetensors"),
        *in_folder("vae", f"{DIFFUSION}.fp16.safetensors"),
    ],
}
FORCED = {("kolors", None): "fp16"}


@pytest.mark.parametrize(("repository", "variant"), WEIGHTS)
def test_each_part_has_one_set_of_weights(repository: str, variant: str | None) -> None:
    index, files = REPOSITORIES[repository]
    selection = repository_files.select(files, index, variant)
    weights = [name for name in selection.files if name.endswith(".safetensors")]
    assert weights == WEIGHTS[repository, variant]
    assert selection.variant == FORCED.get((repository, variant), variant)
    indices = [name for name in selection.files if ".index." in name]
    sharded = {name.partition("/")[0] for name in weights if "-of-" in name}
    assert [name.partition("/")[0] for name in indices] == sorted(sharded)
    assert all((f".{variant}." in name) == (variant == "fp16") for name in indices)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_each_part_has_everything_but_other_weights_and_code(repository: str) -> None:
    index, files = REPOSITORIES[repository]
    selected = repository_files.select(files, index, None).files
    expected = [
        name
        for name in files
        if name.partition("/")[0] in index
        and name.endswith((".json", ".txt", ".model", ".jinja"))
        and ".index." not in name
    ]
    plain = [name for name in selected if not name.endswith(".safetensors")]
    assert {name for name in plain if ".index." not in name} == {*expected, "model_index.json"}


def only(variant: str, part: str, files: list[str]) -> list[str]:
    """The list of a repository whose part has this variant of weights alone."""
    return [
        name
        for name in files
        if not name.startswith(f"{part}/")
        or not name.endswith(".safetensors")
        or f".{variant}." in name
    ]


def test_fp16_is_taken_where_nothing_else_is_there() -> None:
    selection = repository_files.select(only("fp16", "unet", SD1_FILES), SD1, None)
    weights = {name for name in selection.files if name.endswith(".safetensors")}
    assert f"unet/{DIFFUSION}.fp16.safetensors" in weights and selection.variant == "fp16"
    assert f"vae/{DIFFUSION}.safetensors" in weights and len(weights) == 4


@pytest.mark.parametrize(
    ("files", "index", "variant", "sentence"),
    [
        (only("x", "unet", SD1_FILES), SD1, None, r"its unet has no \.safetensors weights"),
        (only("x", "safety_checker", SD1_FILES), SD1, None, "its safety_checker has no"),
        (only("non_ema", "unet", SD1_FILES), SD1, "fp16", "its unet has only non_ema weights"),
        (
            [name for name in FLUX_FILES if "model-00002-of-00003" not in name],
            FLUX,
            None,
            "its transformer has no .*lacks some of the shards",
        ),
        (
            [name for name in FLUX_FILES if ".index." not in name],
            FLUX,
            None,
            "its text_encoder_2 has no .*lacks some of the shards",
        ),
        (
            [name for name in XL_FILES if not name.startswith("tokenizer_2/")],
            XL,
            None,
            "names tokenizer_2, but the repository has no such folder",
        ),
        (
            only("non_ema", "unet", only("fp16", "vae", SD1_FILES)),
            SD1,
            None,
            "no variant of weights in common: unet only non_ema, vae only fp16",
        ),
        (XL_FILES, XL, "int4", r"it has no \.safetensors weights of int4"),
    ],
)
def test_what_cannot_be_loaded_is_not_fetched(
    files: list[str], index: Index, variant: str | None, sentence: str
) -> None:
    with pytest.raises(NoModelFound, match=sentence):
        repository_files.select(files, index, variant)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("model.safetensors", None),
        ("model.fp16.safetensors", "fp16"),
        ("model-00001-of-00002.safetensors", None),
        ("model.fp16-00001-of-00002.safetensors", "fp16"),
        ("diffusion_pytorch_model-00001-of-00002.bf16.safetensors", "bf16"),
        ("diffusion_pytorch_model.non_ema.safetensors", "non_ema"),
        ("config.json", None),
    ],
)
def test_the_variant_is_in_the_name_of_shards_too(name: str, variant: str | None) -> None:
    assert repository_files.variant_of(name) == variant
