"""The same search on many subsamples at once: each goes on until it asks for what nobody has measured yet.

A search is a function of values prompt by prompt: the same values give the same circuit. So it may be begun anew
whenever more of them are known. What all searches ask for is then measured in one go, on all prompts, and once where
several ask for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from circuitspec.engine.attribution.partial_estimates import Pieces
from circuitspec.engine.cache.stored_estimates import Numbers, Recalled
from circuitspec.experiments.experiment import Experiment
from circuitspec.exploration.request import ExploreOptions
from circuitspec.exploration.search.circuit_selection import Entry, choose
from circuitspec.exploration.search.component_sweep import ComponentSweep
from circuitspec.exploration.search.effect_estimates import Spot
from circuitspec.exploration.search.exact_sweeps import zoom
from circuitspec.exploration.search.patching_series import PatchingSeries
from circuitspec.exploration.setting import ExplorationSetting
from circuitspec.exploration.stability.subsamples import Subsample
from circuitspec.exploration.stages import HELPFUL, HONEST, Stages
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.runtime.progress import Silent

Computes = Callable[[Pieces], Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Selection:
    """The circuit that a search chose on a subsample: entries, each positive, negative or backup."""

    subsample: Subsample
    kind: str
    entries: Mapping[Entry, str]


@dataclass(frozen=True)
class Repetition:
    """What is repeated: the search that was asked for, with the components that it drew; and for which `kinds`."""

    options: ExploreOptions
    series: tuple[PatchingSeries, ...]
    sample: frozenset[Spot]
    kinds: tuple[str, ...] = (HONEST, HELPFUL)


class _Unmeasured(Exception):
    """A search cannot go on without these runs."""

    def __init__(self, runs: tuple[Experiment, ...]) -> None:
        super().__init__()
        self.runs = runs


class _Unestimated(Exception):
    """A search cannot go on without this estimate."""

    def __init__(self, question: tuple[object, ...], compute: Computes) -> None:
        super().__init__()
        self.question, self.compute = question, compute


class _Asking(Recalled):
    """Answers from what is known; who asks for anything else is interrupted."""

    def __init__(self) -> None:
        super().__init__(None)
        self.known: dict[str, Numbers] = {}

    def get(self, question: Sequence[object], compute: Computes) -> Numbers:
        if repr(question) not in self.known:
            raise _Unestimated(tuple(question), compute)
        return self.known[repr(question)]


@dataclass
class _Repeated(ExplorationSetting):
    """A setting that measures nothing: it knows the values of the prompts that count, as far as they are known.

    `made` are the runs that were put together, by what they keep: all searches ask for many of the same.
    """

    made: dict[tuple[str, frozenset[tuple[Ablatable, Where]]], Experiment] = field(default_factory=dict)

    def run_some(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> tuple[Experiment, ...]:
        missing = tuple(e for e in dict.fromkeys(experiments) if e not in self.records)
        if missing:
            raise _Unmeasured(missing)
        return ()

    def sufficiency(self, kept: Mapping[Ablatable, Where]) -> Experiment:
        key = "sufficiency", frozenset(kept.items())
        if key not in self.made:
            self.made[key] = super().sufficiency(kept)
        return self.made[key]

    def necessity(self, kept: Mapping[Ablatable, Where]) -> Experiment:
        key = "necessity", frozenset(kept.items())
        if key not in self.made:
            self.made[key] = super().necessity(kept)
        return self.made[key]


@dataclass
class _Search:
    """One search on one subsample; what is done of it is not done again."""

    setting: _Repeated
    subsample: Subsample
    repetition: Repetition
    _found: ComponentSweep | None = None
    _done: dict[str, Selection] = field(default_factory=dict)

    def go_on(self) -> tuple[Selection, ...]:
        """The circuit of each kind. Raises what it cannot go on without."""
        options = self.repetition.options
        if self._found is None:
            work = Stages(self.setting, options, Silent(), sample=self.repetition.sample)
            estimated = work.estimates()
            if options.start == "resid":
                work.add(zoom(self.setting, self.repetition.series, neurons=options.neurons))
            self._found = work.effects(estimated)
        for kind in self.repetition.kinds:
            if kind not in self._done:
                honest = kind == HONEST
                choice = choose(self.setting, self._found, options.target, negatives=honest, knee=options.knee)
                self._done[kind] = Selection(self.subsample, kind, dict(choice.entries))
        return tuple(self._done.values())


def repeated(
    setting: ExplorationSetting,
    subsamples: Sequence[Subsample],
    repetition: Repetition,
) -> tuple[Selection, ...]:
    """What the search chooses on each subsample, a circuit of each kind.

    What `setting` measured is used, and what is measured is added to it. Raises AllowanceSpent where its allowance ends
    before all searches are done.
    """
    if not setting.by_prompt:
        raise ValueError("a search can be repeated on some prompts where estimates are kept by prompt")
    asking = _Asking()
    own = {one.name: getattr(setting, one.name) for one in fields(ExplorationSetting) if one.init}
    made: dict[tuple[str, frozenset[tuple[Ablatable, Where]]], Experiment] = {}
    waiting = [
        _Search(
            _Repeated(**{**own, "recalled": asking, "counted": one.counted, "lots": ()}, made=made), one, repetition
        )
        for one in subsamples
    ]
    found: dict[str, tuple[Selection, ...]] = {}
    while waiting:
        runs: dict[Experiment, None] = {}
        estimates: dict[str, _Unestimated] = {}
        still = []
        for search in waiting:
            try:
                found[search.subsample.name] = search.go_on()
            except _Unmeasured as missing:
                runs |= dict.fromkeys(missing.runs)
                still.append(search)
            except _Unestimated as missing:
                estimates[repr(list(missing.question))] = missing
                still.append(search)
        waiting = still
        setting.run(runs)
        for key, one in estimates.items():
            asking.known[key] = setting.recalled.get(one.question, one.compute)
    return tuple(selection for one in subsamples for selection in found[one.name])
