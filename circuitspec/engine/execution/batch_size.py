"""How many prompts fit in one forward, and how much memory that takes: arithmetic on the model's shape."""

from __future__ import annotations

from circuitspec.graph.shape import ModelShape

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
BUDGET = 512 * 2**20  # bytes of activations
LARGEST = 64  # more rows make no forward faster on the machines tried
READ_IN = 24  # tokens that are computed while a block's weights are read, on the machines tried
STARTED_IN = 20_000_000  # weights times tokens that are computed while a block's operations are started
STARTED_IN_ELSEWHERE = 10_000_000_000  # on other devices than a processor: they compute faster, and start no sooner


def activation_bytes(shape: ModelShape, positions: int, dtype: str, *, edges: bool = False) -> int:
    """Bytes that one prompt's run holds at its peak, sources and the screen's backward pass included.

    Counted per layer and position: the recorded taps (z and MLP output), twice, for source and copy in
    flight; and what the backward pass keeps of a block (about a dozen tensors of the model's width, three
    of the MLP's, and the attention pattern). Then the logits at the answer, in float32 and more than once. With
    dictionaries, their features: as they are, as they become, the source's and a mask. With
    `edges`, each sender's contribution too, and what every input of a layer's heads reads, before and after its norm.
    """
    taps = shape.n_heads * shape.d_head + shape.d_model
    kept = 12 * shape.d_model + 3 * shape.d_mlp + 2 * shape.n_heads * positions
    per_position = shape.n_layers * (2 * taps + kept)
    per_position += sum(4 * ((one.n_features or 0) + shape.d_model) for one in shape.dictionaries)
    if edges:
        readers = shape.n_heads + 2 * shape.n_kv_heads
        per_position += (1 + shape.n_layers * (shape.n_heads + 1) + 3 * readers) * shape.d_model
    return BYTES[dtype] * per_position * positions + 6 * 4 * shape.n_vocab


def late_bytes(shape: ModelShape, positions: int, column: int, dtype: str) -> int:
    """As `activation_bytes`, of a run that computes none of the positions before `column`.

    Of those it has the keys and values, in three copies at most: the base run's for each experiment, the cache's, and
    the attention's, which puts the new ones behind them.
    """
    keys_values = 3 * 2 * shape.n_layers * shape.n_kv_heads * shape.d_head * column
    return activation_bytes(shape, positions - column, dtype) + BYTES[dtype] * keys_values


def rows_per_batch(shape: ModelShape, positions: int, dtype: str, budget: int = BUDGET, *, edges: bool = False) -> int:
    """The batch size in prompts, at least one, so that their activations stay within `budget` bytes."""
    return max(1, min(LARGEST, budget // activation_bytes(shape, positions, dtype, edges=edges)))


def block_weights(shape: ModelShape) -> int:
    """The weights of a block, roughly: a gated MLP is taken for granted."""
    attention = shape.d_model * shape.d_head * (2 * shape.n_heads + 2 * shape.n_kv_heads)
    return attention + 3 * shape.d_model * shape.d_mlp


def weight_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of the weights, roughly: an embedding that also unembeds is taken for granted."""
    return BYTES[dtype] * (shape.n_layers * block_weights(shape) + shape.n_vocab * shape.d_model)


def tokens_beside(shape: ModelShape, device: str) -> int:
    """How many tokens a block computes in the time that it takes beside them: to read its weights from memory, which
    is as for some tokens whatever their number, and to start its operations."""
    return READ_IN + (STARTED_IN if device == "cpu" else STARTED_IN_ELSEWHERE) // block_weights(shape)
