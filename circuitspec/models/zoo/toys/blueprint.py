"""What a toy model is made of: features of the residual stream, and who reads and writes them. Imports no torch.

A *feature* is a named number in the residual stream. Heads and neurons read linear combinations of features and
write multiples of features; logits are linear combinations too. The feature `one` is 1 everywhere and is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

ONE = "one"

N_LAYERS = 2
N_HEADS = 4
D_MODEL = 32
D_HEAD = D_MODEL // N_HEADS
D_MLP = 64
N_POSITIONS = 16
MAX_FEATURES = D_MODEL // 2 - 1  # a pair of channels each; one pair holds the constant

Combination: TypeAlias = Mapping[str, float]  # feature -> coefficient


@dataclass(frozen=True)
class Match:
    """A term of a head's attention score: `query` of the position that looks, times `key` of the one looked at."""

    query: Combination
    key: Combination


@dataclass(frozen=True)
class HardHead:
    """A head that looks at the one position with the highest sum of matches, and copies features from there.

    `copies` maps each feature read there to what is written here for every unit of it. Where positions share the
    highest sum, the head reads their average. A head without matches reads the average of all positions so far.
    """

    layer: int
    head: int
    matches: tuple[Match, ...]
    copies: Mapping[str, Combination]


@dataclass(frozen=True)
class ToyNeuron:
    """A ReLU neuron: max(0, `reads`) times `writes`."""

    layer: int
    index: int
    reads: Combination
    writes: Combination


@dataclass(frozen=True)
class Toy:
    """A whole model. `tokens` (with their leading spaces) and `positions` give what their embeddings write.

    All that is not mentioned (other heads, neurons, positions, logits) is zero. Raises ValueError for a feature that is
    not among `features`, for a component that does not exist or is given twice, and for more than there is room for.
    """

    name: str
    description: str
    features: tuple[str, ...]
    tokens: Mapping[str, Combination]
    positions: Mapping[int, Combination]
    heads: tuple[HardHead, ...]
    neurons: tuple[ToyNeuron, ...]
    logits: Mapping[str, Combination]

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ValueError(f"toy {self.name}: " + "; ".join(problems))

    def config(self) -> dict[str, object]:
        """What its config.json would say."""
        return {
            "model_type": "gpt2",
            "n_layer": N_LAYERS,
            "n_head": N_HEADS,
            "n_embd": D_MODEL,
            "n_inner": D_MLP,
            "n_positions": N_POSITIONS,
            "vocab_size": len(self.tokens) + 2,  # and the tokenizer's two special tokens
            "activation_function": "relu",
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }

    def _problems(self) -> Iterator[str]:
        if len(self.features) > MAX_FEATURES or len(set(self.features)) < len(self.features) or ONE in self.features:
            yield f"there can be {MAX_FEATURES} features, all different and none called {ONE}"
        for where, combination, reading in self._combinations():
            known = {*self.features, ONE} if reading else set(self.features)
            for feature in sorted(set(combination) - known):
                yield f"{where} {'reads' if reading else 'writes'} {feature}, which is no feature"
        yield from self._misplaced()

    def _combinations(self) -> Iterator[tuple[str, Combination, bool]]:
        """(where, combination, whether it is read rather than written)."""
        for token, written in self.tokens.items():
            yield f"token {token!r}", written, False
        for position, written in self.positions.items():
            yield f"position {position}", written, False
        for head in self.heads:
            where = f"a{head.layer}.h{head.head}"
            for match in head.matches:
                yield where, match.query, True
                yield where, match.key, True
            yield where, dict.fromkeys(head.copies, 1.0), True
            for written in head.copies.values():
                yield where, written, False
        for neuron in self.neurons:
            yield f"m{neuron.layer}.n{neuron.index}", neuron.reads, True
            yield f"m{neuron.layer}.n{neuron.index}", neuron.writes, False
        for token, read in self.logits.items():
            yield f"the logit of {token!r}", read, True

    def _misplaced(self) -> Iterator[str]:
        heads = [(head.layer, head.head) for head in self.heads]
        neurons = [(neuron.layer, neuron.index) for neuron in self.neurons]
        for kind, places, count in (("head", heads, N_HEADS), ("neuron", neurons, D_MLP)):
            for layer, index in places:
                if not (0 <= layer < N_LAYERS and 0 <= index < count):
                    yield f"there is no {kind} {index} in layer {layer}"
            if len(set(places)) < len(places):
                yield f"a {kind} is given twice"
        for head in self.heads:
            if len(head.matches) > D_HEAD or len(head.copies) > D_HEAD:
                yield f"a{head.layer}.h{head.head} has room for {D_HEAD} matches and {D_HEAD} copied features"
        for position in self.positions:
            if not 0 <= position < N_POSITIONS:
                yield f"there is no position {position}"
        for token in self.logits:
            if token not in self.tokens:
                yield f"{token!r} has a logit and is no token"
