"""What is said of model families that are not supported: what of them a hypothesis could not express, if anything."""

from __future__ import annotations

import re
from collections.abc import Iterable

_STATE_SPACE = (
    "its layers (some or all) keep a recurrent state in place of attention: there are no heads to name, so that its "
    "circuits cannot be written down here"
)
_ENCODER_DECODER = (
    "it is an encoder-decoder: answers are read from a second text, and cross-attention leads from one to the other, "
    "which hypotheses have no words for"
)
_ENCODER = "it is an encoder: it predicts no next token, which every claim is about"
_MULTIMODAL = (
    "it is a text model within a model of images or sound: save the text model by itself, if that is of a supported "
    "family"
)
_EXPERTS = (
    "its MLPs are choices among experts, of a layout that is not known; to add it, write its Architecture with "
    "`experts` in circuitspec/models/families/expert_families.py"
)

_LATENT = (
    "its heads share one latent of keys and values, in which no key-value head lies by itself, and their keys are of "
    "another width than values: hypotheses have no words for such heads yet"
)
_KINDS = {
    _STATE_SPACE: """
        mamba mamba2 falcon_mamba jamba zamba zamba2 rwkv xlstm recurrent_gemma nemotron_h lfm2_moe minimax falcon_h1
    """,
    _ENCODER_DECODER: """
        t5 mt5 umt5 longt5 switch_transformers t5gemma bart mbart plbart pegasus pegasus_x bigbird_pegasus marian
        blenderbot m2m_100 nllb-moe led prophetnet fsmt whisper speech_to_text encoder-decoder
    """,
    _ENCODER: """
        bert roberta xlm-roberta distilbert albert electra deberta deberta-v2 modernbert camembert mpnet longformer
        big_bird ernie funnel esm
    """,
    _MULTIMODAL: """
        gemma3 gemma3n gemma4 llava llava_next mllama llama4 paligemma idefics idefics2 idefics3 smolvlm qwen2_vl
        qwen2_5_vl qwen3_vl qwen3_5 qwen3_5_moe qwen2_audio
        mistral3 pixtral phi4_multimodal blip-2 vision-encoder-decoder
    """,
    _EXPERTS: """
        dbrx ernie4_5_moe dots1 hunyuan_v1_moe solar_open minimax_m2
    """,
    _LATENT: """
        deepseek_v2 minicpm3
    """,
}
_OF = {family: said for said, families in _KINDS.items() for family in families.split()}


def said_of(family: str) -> str:
    """Why a family that is not supported could not be written about; empty where nothing is known against it."""
    return _OF.get(family, "")


def spelt_otherwise(family: str, supported: Iterable[str]) -> str | None:
    """The supported family of which this is another spelling, such as `gpt-2`; other families are never guessed."""

    def letters(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    return next((name for name in supported if letters(name) == letters(family)), None)
