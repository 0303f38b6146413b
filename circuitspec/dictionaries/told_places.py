"""The places that files of other tools name, in our words: a dictionary of one place says nothing of the next."""

from __future__ import annotations

import re

from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace, PlaceKind

_HOOKS: tuple[tuple[str, PlaceKind, int], ...] = (  # of TransformerLens and of Hugging Face modules; layers further on
    (r"blocks\.(\d+)\.hook_resid_pre", "resid", 0),
    (r"blocks\.(\d+)\.hook_resid_mid", "resid_mid", 0),
    (r"blocks\.(\d+)\.hook_resid_post", "resid", 1),
    (r"blocks\.(\d+)\.attn\.hook_z", "z", 0),
    (r"blocks\.(\d+)\.hook_attn_out", "attention", 0),
    (r"blocks\.(\d+)\.hook_mlp_out", "mlp", 0),
    (r"blocks\.(\d+)\.mlp\.hook_in", "mlp", 0),
    (r"model\.layers\.(\d+)\.output", "resid", 1),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.input", "z", 0),
    (r"model\.layers\.(\d+)\.(?:pre|post)_feedforward_layernorm\.output", "mlp", 0),
    (r"(?:layers|h)\.(\d+)", "resid", 1),  # what a block gives out
    (r"(?:layers|h)\.(\d+)\.mlp", "mlp", 0),
)
_OTHERWISE = {
    r"blocks\.\d+\.ln2\.hook_normalized": "the stream after its norm but before the norm's weight",
    r"blocks\.\d+\.hook_mlp_in": "the stream before the MLP's norm",
}


def place_told(hook: str) -> DictionaryPlace | None:
    """The place that a file names; None for words that are not known here."""
    for pattern, kind, further in _HOOKS:
        if match := re.fullmatch(pattern, hook):
            return DictionaryPlace(kind, int(match[1]) + further)
    return None


def read_otherwise(hook: str) -> str:
    """What a transcoder of this hook reads, where that is not what enters the MLP; empty where nothing is known."""
    return next((what for pattern, what in _OTHERWISE.items() if re.fullmatch(pattern, hook)), "")
