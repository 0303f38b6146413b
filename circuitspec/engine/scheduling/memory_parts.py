"""How much memory work on a model takes, by part: arithmetic on its shape, before there is a model. Imports no torch.

Numbers are those held at the peak of one forward, counted for models laid out like Llama (norms without bias, gated
MLPs, fused attention): a `token` is a row's, `width` the residual stream's, and what is said of a layer was counted
tensor by tensor, and is held against measured runs (benchmarks/memory.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuitspec.engine.execution.batch_size import BYTES
from circuitspec.graph.shape import ModelShape

Work = Literal["patched", "estimated", "edges"]
"""Single components patched; all estimated by a backward pass; edges patched."""

WHOLE_LOGITS, PART_LOGITS = 2**23, 2**22  # as `engine.execution.worked_out.readout` has them, which imports torch


@dataclass(frozen=True)
class MemoryParts:
    """Bytes by part; `weights` are the model's, all others of one forward at its peak.

    values: the other run's at all heads and MLPs, which are patched in. block: what one block computes. logits: those
    that are held. metrics: what these make of logits, when blocks are done. gradients: what a backward pass needs of
    all blocks. edges: what every sender adds to the stream, and what receivers read.
    """

    weights: int
    values: int
    block: int
    logits: int
    metrics: int
    gradients: int = 0
    edges: int = 0

    @property
    def activations(self) -> int:
        """All but the weights."""
        return self.values + self.logits + self.gradients + self.edges + max(self.block, self.metrics)

    @property
    def total(self) -> int:
        return self.weights + self.activations


def memory_parts(shape: ModelShape, dtype: str, rows: int, positions: int, work: Work) -> MemoryParts:
    """What a forward of so many rows of so many tokens takes, and the model's weights."""
    size, tokens = BYTES[dtype], rows * positions
    width, hidden = shape.d_model, shape.d_mlp
    z, shared = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
    values = shape.n_layers * (z + width)
    block = 3 * hidden + 4 * width
    gradients = edges = 0
    if work == "estimated":
        upcast = {4: 10.35, 2: 12.45, 8: 9.35}[size]  # norms compute in float32, and keep their copies
        gradients = int(shape.n_layers * (upcast * width + 1.75 * shared + 3 * hidden)) - values - 7 * width
    if work == "edges":
        edges = int(shape.n_layers * (shape.n_heads + 3.19) * width + 2.2 * width)
    logits, metrics = _logit_bytes(rows, shape.n_vocab, size, estimated=work == "estimated")
    a_token = tokens * size
    return MemoryParts(
        _weights(shape) * size,
        a_token * values,
        a_token * block,
        logits,
        metrics,
        a_token * gradients,
        a_token * edges,
    )


def _logit_bytes(rows: int, n_vocab: int, size: int, *, estimated: bool) -> tuple[int, int]:
    """Of logits that are held, and of what metrics make of some of them at once."""
    whole, some = 4 * rows * n_vocab, min(4 * rows * n_vocab, PART_LOGITS)
    if whole > WHOLE_LOGITS:
        return 0, (4 if estimated else 5) * some
    held = rows * n_vocab * max(size, 4)
    return (3 * held, 0) if estimated else (4 * held, 3 * some)


def _weights(shape: ModelShape) -> int:
    """How many weights: with an unembedding of its own."""
    z, shared = shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
    block = 2 * shape.d_model * (z + shared) + 3 * shape.d_model * shape.d_mlp + 2 * shape.d_model
    return shape.n_layers * block + 2 * shape.n_vocab * shape.d_model + shape.d_model
