"""The size of a transformer, as far as naming its components needs it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from circuitspec.hypothesis_file.grammar.component_kinds import Counts, Lacking
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace


@dataclass(frozen=True)
class DictionarySite:
    """A dictionary of features and the value that it takes apart; how many features it has, once it was read.

    `error_stays`: what its features leave over is kept where all outside a circuit is ablated, unless the circuit has
    it inside. `error_left_out`: wherever it is patched, nothing is put in its place, whatever values other parts take.
    `skips_first`: it says nothing of a prompt's first token.
    """

    name: str
    place: DictionaryPlace
    n_features: int | None = None
    reads_input: bool = False
    error_stays: bool = True
    error_left_out: bool = False
    skips_first: bool = False


_NO_PATTERNS_OF_PAIRS = "heads take the difference of two attention patterns, and norm what that gives"
_NO_PATTERNS_OF_GATED = "heads multiply what they attend to by a gate"


@dataclass(frozen=True)
class LatentWidths:
    """How wide the parts are of keys and values that come of one latent: the latent, and of each key what is rotated
    (which all heads share) and what is not (each head's own)."""

    latent: int
    rotated: int
    unrotated: int


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
    joint_qk_norm: bool = False  # whether the queries of a layer's heads are normed together, and their keys
    n_experts: int = 0  # among which a router chooses, in MLPs that are made of experts; these have no neurons
    dense_layers: frozenset[int] = frozenset()  # those with one MLP for all tokens, in a model with experts
    has_shared: bool = False  # whether one more expert serves every token
    d_expert: int = 0  # neurons of an expert
    d_shared: int = 0  # neurons of the one that serves every token
    latent: LatentWidths | None = None  # where one latent is the key-value head of all heads; `d_head` is of values
    mixers: frozenset[int] = frozenset()  # layers with a mixer of tokens in place of heads
    query_gates: bool = False  # whether the projection of queries gives each head a gate of its output too
    paired_heads: bool = False  # whether a head is two of the projections', of which it takes the difference
    joint_head_norm: bool = False  # whether a layer's heads are normed together before they are projected
    dictionaries: tuple[DictionarySite, ...] = ()  # whose features a hypothesis may name
    d_heads: tuple[int, ...] = ()  # layer by layer, where they differ
    d_mlps: tuple[int, ...] = ()  # the same of MLPs; those of another width than `d_mlp` have no neurons by name
    keys_from: tuple[int, ...] = ()  # the layer whose keys and values each layer's heads read, where not all their own
    absent: tuple[Lacking, ...] = ()  # components that the family lacks and others have
    why_no_edges: str = ""  # why what single components add cannot be told apart, where it cannot

    def d_head_of(self, layer: int) -> int:
        """The channels of a head of this layer."""
        return self.d_heads[layer] if self.d_heads else self.d_head

    def keys_of(self, layer: int) -> int:
        """The layer whose keys and values this layer's heads read."""
        return self.keys_from[layer] if self.keys_from else layer

    @property
    def has_streams(self) -> bool:
        """Whether the residual stream can be patched: not where blocks hand on several."""
        return all(one.kind != "resid" for one in self.absent)

    @property
    def heads_hang_together(self) -> bool:
        """Whether what a head adds depends on its layer's others: by a norm after them, or one of their queries."""
        return self.joint_qk_norm or self.joint_head_norm or not self.plain_sum

    @property
    def slices_of_head(self) -> int:
        """Into how many slices of a projection's output a head's query, key or value falls."""
        return 2 if self.paired_heads else 1

    @property
    def layers_with_heads(self) -> tuple[int, ...]:
        """Those without a mixer in their place."""
        return tuple(layer for layer in range(self.n_layers) if layer not in self.mixers)

    @property
    def d_query(self) -> int:
        """The width of a query, which is that of a value but where keys and values come of a latent."""
        return self.d_head if self.latent is None else self.latent.unrotated + self.latent.rotated

    def d_query_of(self, layer: int) -> int:
        """The width of a query of this layer."""
        return self.d_head_of(layer) if self.latent is None else self.d_query

    @property
    def has_mlps(self) -> bool:
        """False for an attention-only model, whose MLPs have no neurons."""
        return self.d_mlp > 0 or self.n_experts > 0

    def dictionary(self, name: str) -> DictionarySite | None:
        """The dictionary of this name."""
        return next((one for one in self.dictionaries if one.name == name), None)

    @cached_property
    def counts(self) -> Counts:
        """How many of every kind of component there are."""
        return Counts(
            self.n_layers,
            self.n_heads,
            self.n_kv_heads,
            self.d_mlp,
            self.has_resid_mid,
            self.n_experts,
            self.has_shared,
            self.dense_layers,
            self.mixers,
            _NO_PATTERNS_OF_PAIRS if self.paired_heads else _NO_PATTERNS_OF_GATED if self.query_gates else "",
            self.absent,
            self.d_expert,
            self.d_shared,
        )
