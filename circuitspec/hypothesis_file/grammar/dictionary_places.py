"""The places of a model whose value a dictionary takes apart: `r5`, `r5.mid`, `z3`, `a3`, `m3`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

PlaceKind = Literal["resid", "resid_mid", "z", "attention", "mlp"]
_LETTERS: dict[str, PlaceKind] = {"r": "resid", "z": "z", "a": "attention", "m": "mlp"}
_STAGES: dict[PlaceKind, int] = {"resid": 0, "z": 1, "attention": 1, "resid_mid": 2, "mlp": 3}
_PLACE = re.compile(r"([rzam])(0|[1-9][0-9]{0,3})(\.mid)?")
FORMS = "r5 (the stream entering block 5), r5.mid, z3 (heads' outputs), a3 or m3 (what attention or MLP adds)"


@dataclass(frozen=True)
class DictionaryPlace:
    """What is taken apart, and in which layer.

    `resid` enters the block (or, of the layer after the last, leaves the last block), `resid_mid` lies between its
    attention and its MLP, `z` is the outputs of all heads side by side, `attention` and `mlp` are what these add to
    the residual stream (after a norm of their own, if any).
    """

    kind: PlaceKind
    layer: int

    @classmethod
    def parse(cls, text: str) -> DictionaryPlace:
        """Raises ValueError for anything else."""
        match = _PLACE.fullmatch(text.strip())
        if match is None or (match[3] and match[1] != "r"):
            raise ValueError(f"{text!r} is no place that a dictionary takes apart")
        return cls("resid_mid" if match[3] else _LETTERS[match[1]], int(match[2]))

    @property
    def stage(self) -> int:
        """When the model computes it, in the stages of components (`components.stage`)."""
        return 4 * self.layer + _STAGES[self.kind]

    def __str__(self) -> str:
        if self.kind == "resid_mid":
            return f"r{self.layer}.mid"
        letter = next(letter for letter, kind in _LETTERS.items() if kind == self.kind)
        return f"{letter}{self.layer}"
