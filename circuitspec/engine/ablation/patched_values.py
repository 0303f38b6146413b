"""How patched values come about: one function for each kind of source, by the name of its row in `ABLATIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from circuitspec.engine.execution.taps import Tap
from circuitspec.hypothesis_file.grammar.ablation_kinds import MEAN, MEAN_PER_TEMPLATE, RESAMPLE, ZERO

Values: TypeAlias = Mapping[Tap, Tensor]
"""By tap, broadcastable to `[row, pos, channel]` of one batch."""


@dataclass(frozen=True)
class Given:
    """What a batch's patched values can be made of; each is computed when it is asked for.

    run: what the run on the source's prompts has. means: of that, over prompts. constant: one number at every tap.
    A row's `made_of` says which of them it asks for, since these are the passes that are planned.
    """

    run: Callable[[], Values]
    means: Callable[[], Values]
    constant: Callable[[float], Values]


def run_values(given: Given) -> Values:
    return given.run()


def mean_values(given: Given) -> Values:
    return given.means()


def zeros(given: Given) -> Values:
    return given.constant(0.0)


STRATEGIES: Mapping[str, Callable[[Given], Values]] = {
    RESAMPLE.name: run_values,
    MEAN.name: mean_values,
    MEAN_PER_TEMPLATE.name: mean_values,
    ZERO.name: zeros,
}
"""For every value whose patched values are its own (`source`)."""
