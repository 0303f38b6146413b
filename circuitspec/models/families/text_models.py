"""Text models inside checkpoints of images and text: which are taken, and under which names their weights are there.

Imports no torch. A checkpoint's config.json describes the text model under `text_config`, and leaves out what is as
transformers has it by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TextModel:
    """A text model inside a checkpoint of another `model_type`.

    `defaults` are the sizes that its config takes where none is written, `renamed` gives patterns of the names of its
    weights and what the text model calls them, and `others` how the names of weights begin that are not its own.
    """

    family: str
    defaults: Mapping[str, int]
    renamed: Mapping[str, str]
    others: tuple[str, ...]


_GEMMA3 = TextModel(
    "gemma3_text",
    {
        "vocab_size": 262_208,
        "hidden_size": 2_304,
        "intermediate_size": 9_216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
    },
    {
        r"^model\.language_model\.": "model.",
        r"^language_model\.model\.": "model.",
        r"^language_model\.lm_head": "lm_head",
    },
    ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
)

_WITH_SOUND = (
    *_GEMMA3.others,
    *(f"{at}{part}." for at in ("", "model.") for part in ("embed_vision", "audio_tower", "embed_audio")),
)

_GEMMA3N = TextModel(
    "gemma3n_text",
    {
        "vocab_size": 262_400,
        "hidden_size": 2_048,
        "intermediate_size": 16_384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "num_kv_shared_layers": 15,
    },
    _GEMMA3.renamed,
    _WITH_SOUND,
)

_GEMMA4 = TextModel(
    "gemma4_text",
    {
        "vocab_size": 262_144,
        "hidden_size": 2_304,
        "intermediate_size": 9_216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 256,
    },
    _GEMMA3.renamed,
    _WITH_SOUND,
)

TEXT_MODELS: Mapping[str, TextModel] = {"gemma3": _GEMMA3, "gemma3n": _GEMMA3N, "gemma4": _GEMMA4}
"""By the checkpoint's `model_type`."""

_SAID_OUTSIDE = ("quantization_config", "auto_map")  # of the whole checkpoint


def text_model_in(config: Mapping[str, object]) -> TextModel | None:
    """The text model inside the checkpoint that a parsed config.json describes, where it can be taken."""
    found = TEXT_MODELS.get(str(config.get("model_type")))
    text = config.get("text_config")
    if found is None or not isinstance(text, Mapping) or text.get("model_type", found.family) != found.family:
        return None
    return found


def own_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """The config of the text model inside, as one by itself would have it; any other config as it is."""
    found, text = text_model_in(config), config.get("text_config")
    if found is None or not isinstance(text, Mapping):
        return config
    outside = {key: config[key] for key in _SAID_OUTSIDE if config.get(key) is not None}
    return {**found.defaults, **text, **outside, "model_type": found.family}


def said_of_text_model(config: Mapping[str, object], supported: tuple[str, ...]) -> str:
    """What is to be said of the text model inside a checkpoint that is not taken; empty where there is none."""
    text = config.get("text_config")
    family = text.get("model_type") if isinstance(text, Mapping) else None
    if not isinstance(family, str):
        return ""
    if family in supported:
        return f"its text model is a {family}, which is supported: save that one by itself"
    return f"its text model is a {family}, which is no supported family"
