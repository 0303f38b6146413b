"""Directions that projections are taken along, from files of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.experiments.direction_files import read_numbers
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal, Projection

_NOWHERE: Mapping[str, Span] = MappingProxyType({})


def read_directions(
    metrics: Sequence[Internal], base_dir: Path, d_model: int, places: Mapping[str, Span] = _NOWHERE
) -> dict[str, Tensor]:
    """The direction of every projection by its file's name. `places` says where a file is named.

    Raises CS432 for a file that cannot be read, or that does not hold d_model finite numbers.
    """
    names = [metric.along for metric in metrics if isinstance(metric, Projection)]
    found = read_numbers(dict.fromkeys(names), base_dir, d_model, places)
    return {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in found.items()}
