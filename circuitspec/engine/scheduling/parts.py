"""What is kept of a run that is not done, for one that is begun again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitspec.experiments.experiment import Experiment


class KeepsParts(Protocol):
    """Keeps what a draw gave for some prompts, batch by batch, for a run that is interrupted and begun again.

    And what a forward with some experiments was seen to take in memory, by which those after it are cut.
    """

    def known(
        self, experiments: Sequence[Experiment], prompts: Sequence[int], draw: int
    ) -> Mapping[Experiment, Mapping[str, NDArray[np.float64]]]: ...
    def keep(
        self, experiment: Experiment, prompts: Sequence[int], draw: int, values: Mapping[str, NDArray[np.float64]]
    ) -> None: ...
    def bytes_taken(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int) -> int | None: ...
    def keep_bytes(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int, taken: int) -> None: ...
