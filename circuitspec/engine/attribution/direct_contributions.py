"""A run taken apart at its answers: what each component adds to the logits by itself. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuitspec.graph.edges import Sender
from circuitspec.hypothesis_file.grammar.components import Neuron

Part: TypeAlias = Sender | Neuron
"""The embeddings, a head, an MLP, or a neuron that is told apart from its MLP."""


@dataclass(frozen=True)
class DirectRun:
    """The direct effects of one run on a metric that is linear in the logits, in its units, `[prompt]` each.

    `effects[part]` is what the part adds through the final norm as it divides in the clean run; an MLP of which neurons
    are told apart stands for the rest of it. `constant` is what biases add. `patched[part]`, for parts whose value at
    the answer is not the run's own but patched in, says on which prompts. `metric` is what the logits themselves give,
    before a cap on them (Gemma 2's), where there is one.
    """

    effects: Mapping[Part, NDArray[np.float64]]
    constant: NDArray[np.float64]
    patched: Mapping[Part, NDArray[np.bool_]]
    metric: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """The metric with the clean run's divisor of the final norm: in the clean run, the metric itself."""
        return np.asarray(self.constant + sum(self.effects.values()))
