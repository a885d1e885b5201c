"""Text encoders of many kinds with random weights, each with its tokenizer; nothing of a hub."""

from __future__ import annotations

from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5TokenizerFast

from tests.support.builders import tiny_words

WIDTH = 32
CHAT = "{% for message in messages %}user: {{ message.content }}{% endfor %}"


def _words() -> Tokenizer:
    """One token a word of the built-in model's vocabulary, and single letters."""
    words = [(f"\u2581{word}", -3.0) for word in tiny_words.WORDS]
    letters = [(letter, -6.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz0123456789,.()"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("<s>", 0.0)]
    inner = Tokenizer(models.Unigram([*special, *words, *letters], unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return inner


_SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def t5_tokenizer() -> T5TokenizerFast:
    return T5TokenizerFast(tokenizer_object=_words(), extra_ids=0, model_max_length=64, **_SPECIAL)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """As language models have one: with a chat's template."""
    inner = _words()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        chat_template=CHAT,
        model_max_length=2048,
        padding_side="right",
        **_SPECIAL,
    )


def t5(width: int = WIDTH, kind: str = "T5") -> dict[str, Any]:
    """Tokenizer and encoder; `kind` is T5 or UMT5."""
    tokenizer = t5_tokenizer()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=37, num_layers=1, num_heads=2
    )
    encoder = getattr(transformers, f"{kind}EncoderModel")(config)
    return {"tokenizer": tokenizer, "encoder": encoder.eval()}


def clip(*, projected: bool = False, width: int = WIDTH, positions: int = 77) -> dict[str, Any]:
    """Tokenizer and encoder."""
    tokenizer = tiny_words.clip_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return {"tokenizer": tokenizer, "encoder": kind(config).eval()}


def language_model(kind: str, layers: int = 2, model: str = "Model", **more: Any) -> dict[str, Any]:
    """Tokenizer and a decoder of words: Gemma, Gemma2, Glm, Qwen3 ..."""
    tokenizer = chat_tokenizer()
    given = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    config = getattr(transformers, f"{kind}Config")(**given | more)
    encoder = getattr(transformers, f"{kind}{model}")(config)
    return {"tokenizer": tokenizer, "encoder": encoder.eval()}


def bert() -> dict[str, Any]:
    """Tokenizer and encoder."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tiny_words.WORDS]
    tokenizer = transformers.BertTokenizer(
        vocab={word: number for number, word in enumerate(words)}, model_max_length=77
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return {"tokenizer": tokenizer, "encoder": transformers.BertModel(config).eval()}


def byt5() -> dict[str, Any]:
    """Reads bytes."""
    tokenizer = transformers.ByT5Tokenizer()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=37, num_layers=1, num_heads=2
    )
    return {"tokenizer": tokenizer, "encoder": transformers.T5EncoderModel(config).eval()}


def _vl_text(layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(chat_tokenizer()),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": 1,
        "rope_parameters": {
            "mrope_section": [2, 3, 3],
            "rope_type": "default",
            "rope_theta": 1e4,
        },
    }


def qwen3_vl() -> dict[str, Any]:
    """Qwen3-VL, which also reads pictures."""
    config = transformers.Qwen3VLConfig(
        text_config=_vl_text(2) | {"head_dim": 16},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "deepstack_visual_indexes": [0],
        },
    )
    encoder = transformers.Qwen3VLModel(config)
    return {"tokenizer": chat_tokenizer(), "encoder": encoder.eval()}


def qwen_vl(layers: int = 2) -> dict[str, Any]:
    """Qwen2.5-VL, which also reads pictures."""
    config = transformers.Qwen2_5_VLConfig(
        text_config=_vl_text(layers),
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
    )
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config)
    return {"tokenizer": chat_tokenizer(), "encoder": encoder.eval()}
