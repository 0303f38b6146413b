"""The size of a transformer, as far as naming its components needs it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from circuitspec.hypothesis_file.grammar.component_kinds import Counts


@dataclass(frozen=True)
class ModelShape:
    """Layer and head counts of one model; `d_*` are widths."""

    family: str  # the `model_type` of its config, e.g. "gpt2"
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_vocab: int
    max_positions: int | None = None
    has_resid_mid: bool = True  # whether anything lies between attention and MLP: not where both read the block's input

    plain_sum: bool = True  # whether components add to the stream just what they compute: not under a norm after them

    @property
    def has_mlps(self) -> bool:
        """False for an attention-only model, whose MLPs have no neurons."""
        return self.d_mlp > 0

    @cached_property
    def counts(self) -> Counts:
        """How many of every kind of component there are."""
        return Counts(self.n_layers, self.n_heads, self.n_kv_heads, self.d_mlp, self.has_resid_mid)
