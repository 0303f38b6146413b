"""A model's size in one word: `12x12x768` is 12 layers of 12 heads, 768 channels."""

from __future__ import annotations

import re
from dataclasses import dataclass

from circuitspec.hypothesis_file.grammar.component_kinds import Counts

_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,6}))?(-parallel)?")


@dataclass(frozen=True)
class ModelSize:
    """As much of a model's size as other tools' circuit files depend on. `d_model` is None where it is not told.

    `parallel`: attention and MLP of a block read the same stream.
    """

    n_layers: int
    n_heads: int
    d_model: int | None = None
    parallel: bool = False

    @classmethod
    def parse(cls, text: str) -> ModelSize:
        """`12x12` (layers, heads), `12x12x768` (and channels), `32x32x4096-parallel`; ValueError for anything else."""
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no LAYERSxHEADS or LAYERSxHEADSxCHANNELS")
        return cls(int(match[1]), int(match[2]), int(match[3]) if match[3] else None, parallel=match[4] is not None)

    def __str__(self) -> str:
        width = "" if self.d_model is None else f"x{self.d_model}"
        return f"{self.n_layers}x{self.n_heads}{width}{'-parallel' if self.parallel else ''}"

    @property
    def counts(self) -> Counts:
        """How many components of each kind there are, as far as this tells."""
        return Counts(self.n_layers, self.n_heads, has_resid_mid=not self.parallel)

    def agrees_with(self, other: ModelSize) -> bool:
        """Whether both can be of one model: the same, but for what one of them does not tell."""
        known = None not in (self.d_model, other.d_model)
        same = (self.n_layers, self.n_heads, self.parallel) == (other.n_layers, other.n_heads, other.parallel)
        return same and (not known or self.d_model == other.d_model)
