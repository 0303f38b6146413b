"""What work on a model of a given size takes, before there is a file or a model: memory by part, and forwards.

Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from circuitspec.engine.execution.batch_size import rows_per_batch
from circuitspec.engine.scheduling.memory_parts import MemoryParts, Work, memory_parts
from circuitspec.graph.edges import count_edges
from circuitspec.graph.shape import ModelShape
from circuitspec.runtime.text_columns import aligned

VOCABULARY, TOKENS = 128_256, 16  # where nothing else is said
_SIZE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})x([1-9]\d{0,6})((?:,[a-z]+=[1-9]\d{0,8})*)")
_FURTHER = ("kv", "mlp", "vocab")


@dataclass(frozen=True)
class PlannedModel:
    """A model laid out like Llama, as far as numbers tell it."""

    shape: ModelShape

    @classmethod
    def parse(cls, text: str) -> PlannedModel:
        """`80x64x8192` (layers, heads, channels), `80x64x8192,kv=8,mlp=28672,vocab=128256`; ValueError otherwise."""
        match = _SIZE.fullmatch(text.strip())
        form = "LAYERSxHEADSxCHANNELS, as in 80x64x8192 or 80x64x8192,kv=8,mlp=28672,vocab=128256"
        if match is None:
            raise ValueError(f"{text!r} is not {form}")
        layers, heads, width = (int(match[k]) for k in (1, 2, 3))
        further = dict(one.split("=") for one in match[4].split(",") if one)
        if unknown := [name for name in further if name not in _FURTHER]:
            raise ValueError(f"{unknown[0]} is none of {', '.join(_FURTHER)}: write {form}")
        kv = int(further.get("kv", heads))
        if width % heads or heads % kv:
            raise ValueError(f"{width} channels do not divide into {heads} heads, or heads into {kv} groups")
        mlp, vocabulary = int(further.get("mlp", 7 * width // 2)), int(further.get("vocab", VOCABULARY))
        return cls(ModelShape("llama", layers, heads, kv, width, width // heads, mlp, vocabulary))


def plan_model(model: PlannedModel, dtype: str, prompts: int, tokens: int = TOKENS, rows: int | None = None) -> str:
    """Memory by part of three kinds of work, `rows` prompts at a time (by the engine's rule), and forwards, as text."""
    shape = model.shape
    size = f"{shape.n_layers} layers x {shape.n_heads} heads x {shape.d_model} channels"
    assumed = f"{shape.n_kv_heads} key-value heads, MLPs of {shape.d_mlp:,} neurons, a vocabulary of {shape.n_vocab:,}"
    return "\n\n".join(
        [
            f"{size}   {dtype}   {prompts} prompts of {tokens} tokens\nlaid out like Llama, with {assumed}",
            _memory(shape, dtype, min(prompts, rows or prompts), tokens, given=rows is not None),
            _forwards(shape, prompts),
        ]
    )


def _memory(shape: ModelShape, dtype: str, at_most: int, tokens: int, *, given: bool) -> str:
    rows = {
        edges: at_most if given else min(at_most, rows_per_batch(shape, tokens, dtype, edges=edges))
        for edges in (False, True)
    }
    works: tuple[Work, ...] = ("patched", "estimated", "edges")
    found = [memory_parts(shape, dtype, rows[work == "edges"], tokens, work) for work in works]
    table = [
        ["memory, MiB", "components patched", "all estimated", "edges patched"],
        ["prompts in a forward", *(f"{rows[work == 'edges']}" for work in works)],
        *(_row(label, part, found) for label, part in _PARTS),
        ["in all, at the peak", *(_mib(one.total) for one in found)],
    ]
    return aligned(table) + "\n(a block's own and what metrics take are not held at once: the larger counts)"


_PARTS = (
    ("weights", "weights"),
    ("values patched in", "values"),
    ("one block", "block"),
    ("logits", "logits"),
    ("metrics", "metrics"),
    ("gradients", "gradients"),
    ("senders and readers", "edges"),
)


def _row(label: str, part: str, found: Sequence[MemoryParts]) -> list[str]:
    return [f"   {label}", *(_mib(getattr(one, part)) for one in found)]


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f}" if count >= 10 * 2**20 else f"{count / 2**20:.1f}" if count else "-"


def _forwards(shape: ModelShape, prompts: int) -> str:
    """Passes over all prompts, a backward pass counted as two."""
    heads = shape.n_layers * shape.n_heads
    saved = (shape.n_layers - 1) / (2 * shape.n_layers)
    rows = [
        [f"forwards over all {prompts} prompts", ""],
        ["   sufficient and necessary, with means", "5"],
        ["   sufficient and necessary, with another run's values", "4"],
        ["   every head and MLP estimated", "4"],
        [f"   each of {heads:,} heads by itself", f"{heads + 2:,}, of which {heads * saved:,.0f} are not computed"],
        [f"   any of {count_edges(shape):,} edges patched together", "3"],
    ]
    return aligned(rows)
