"""Minimal pairs for calls on a model in memory, and what plain hooks give for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tests.oracle import hooked, node
from tests.oracle.metrics import metrics

WORDS = [("Mary", "John", "Paul", "Anna"), ("Peter", "Laura", "David", "Emma"), ("Emma", "Paul", "John", "Mary")]
ROWS: list[dict[str, Any]] = [
    {
        "clean": f"When {a} and {b} met at the store, {b} handed a ring to",
        "corrupt": {"abc": f"When {a} and {c} met at the store, {d} handed a ring to"},
        "answers": [f" {a}"],
        "wrong": [f" {b}"],
        "positions": {"S2": {"text": b, "nth": 2}},
    }
    for a, b, c, d in WORDS
]
S2 = 9  # its token in every prompt


class ByHooks:
    """The prompts by plain hooks: what every component has in both runs, and metrics of any patched run."""

    def __init__(self, model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]] = ROWS) -> None:
        self.model = model
        self.clean = [tokenizer(row["clean"]).input_ids for row in rows]
        self.corrupt = [tokenizer(row["corrupt"]["abc"]).input_ids for row in rows]
        self.targets = [[tokenizer(row[key][0]).input_ids[-1] for key in ("answers", "wrong")] for row in rows]
        self.runs = {name: [self.run(ids) for ids in getattr(self, name)] for name in ("clean", "corrupt")}

    def run(self, ids: list[int], patches: Any = None) -> node.Run:
        return hooked.forward(self.model, ids, hooked.GPT2, patches)

    def patched(self, sites: list[Any], base: str, source: str | None) -> list[torch.Tensor]:
        """Logits at the last token of each prompt; values are the source run's, or zeros."""
        found = []
        for ids, values in zip(getattr(self, base), self.runs[source or "clean"], strict=True):
            new = {(site, place % len(ids)): values.values[site][place] * (source is not None) for site, place in sites}
            found.append(self.run(ids, new).logits[-1])
        return found

    def score(self, logits: list[torch.Tensor]) -> dict[str, np.ndarray]:
        rows = [
            metrics(one.numpy(), [answer], [wrong], clean.logits[-1].numpy())
            for one, (answer, wrong), clean in zip(logits, self.targets, self.runs["clean"], strict=True)
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}
