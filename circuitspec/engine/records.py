"""What a run measured: one value per experiment, metric and prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitspec.experiments.experiment import Experiment

PromptValues = Mapping[str, NDArray[np.float64]]  # metric -> [prompt]


@dataclass(frozen=True)
class SelfTest:
    """Largest deviations of answer logits, in standard deviations of those logits (0 is exact)."""

    own_values: float  # every component patched with its own value, against the plain run
    all_patched: float  # input and every component patched from another run, against that run


@dataclass(frozen=True)
class Records:
    """Metrics per prompt for every experiment that was run.

    `values[experiment][metric]` has one entry per prompt, in the order of the task's prompts;
    `templates[prompt]` numbers the prompt's template.
    """

    values: Mapping[Experiment, PromptValues]
    templates: NDArray[np.int64]

    def __getitem__(self, experiment: Experiment) -> PromptValues:
        return self.values[experiment]

    @property
    def n_prompts(self) -> int:
        return len(self.templates)

    def first(self, n: int) -> Records:
        """The same of the first `n` prompts."""
        if n == self.n_prompts:
            return self
        values = {run: {name: column[:n] for name, column in own.items()} for run, own in self.values.items()}
        return Records(values, self.templates[:n])

    def merged(self, other: Records) -> Records:
        """Both sets of experiments; they must be over the same prompts."""
        if not np.array_equal(self.templates, other.templates):
            raise ValueError("records over different prompts cannot be merged")
        return Records({**self.values, **other.values}, self.templates)


def single_runs(experiments: Iterable[Experiment]) -> tuple[Experiment, ...]:
    """These, and in place of what is repeated its runs, each once."""
    return tuple(dict.fromkeys(one for experiment in experiments for one in experiment.each))


def with_means(found: Records, experiments: Iterable[Experiment]) -> Records:
    """What was `found` of `single_runs`, as metrics of the experiments themselves."""

    def values(experiment: Experiment) -> PromptValues:
        if not experiment.repeated:
            return found[experiment]
        runs = [found[one] for one in experiment.each]
        return {metric: np.mean([run[metric] for run in runs], axis=0) for metric in runs[0]}

    return Records({experiment: values(experiment) for experiment in experiments}, found.templates)


class RunsExperiments(Protocol):
    """What runs experiments for those who judge them; a protocol, so that reading results needs no torch."""

    def run(self, experiments: Iterable[Experiment]) -> Records: ...
