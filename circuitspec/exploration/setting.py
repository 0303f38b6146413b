"""What an exploration is about: the task on its model, what is patched with what, and how a score becomes a share."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import Anchors, Gap, gap
from circuitspec.engine.cache.stored_estimates import Recalled
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.records import Records
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.experiments.internal_metric_plans import component_of, positions_of
from circuitspec.experiments.levels.node_level import ablating, denoising
from circuitspec.experiments.requirements import overlap
from circuitspec.exploration.forward_budget import Allowance, AllowanceSpent
from circuitspec.graph.dictionary_nodes import in_universe
from circuitspec.graph.nodes import Ablatable, NodeComponent, is_ablatable
from circuitspec.graph.shape import DictionarySite
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import ComponentKind, Counts
from circuitspec.hypothesis_file.grammar.components import Component, Resid, all_of, stage, whole_of
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.prompts.prompt_set import TokenizedTask

CLEAN = Experiment("clean")
EVERYWHERE = "all tokens"  # a place beside the roles; no position can be called so


@dataclass
class ExplorationSetting:
    """One corruption of a task, and everything measured about it so far.

    `claimed` are the components that are searched (the others are free), `roles` the positions that are told apart;
    where the prompts name none (`unnamed`), components are searched at all tokens together too. `source` is what
    ablation patches in, `corrupt` the prompts into which clean values are restored. What is measured counts against the
    `allowance`; estimates are `recalled` where they were computed before. `inside` is the metric, where it is one of
    what the model does inside. Candidates are raced over prompts, which come in in `lots`.

    Figures are of the prompts that are `counted` (None: of all), while `records` have every prompt's values. Estimates
    are too where they are kept `by_prompt`: those that are known are `estimated`, by what they are of,
    `[component at a place, prompt]`. Nothing is raced where some prompts alone count.
    """

    runner: Runner
    stored: StoredRunner
    metric: str
    claimed: tuple[Ablatable, ...]
    roles: tuple[str, ...]
    source: Source
    corrupt: Variant
    allowance: Allowance
    recalled: Recalled = field(default_factory=lambda: Recalled(None))
    inside: Internal | None = None
    unnamed: bool = False
    sites: tuple[DictionarySite, ...] = ()
    kept_out: frozenset[Ablatable] = frozenset()  # what no circuit is to have, though it is ablated with the rest
    records: dict[Experiment, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    counted: NDArray[np.bool_] | None = None
    by_prompt: bool = False
    estimated: dict[Hashable, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    lots: tuple[tuple[int, ...], ...] = ()  # prompts in the order in which a race takes them in; none: all at once
    _partly: dict[Experiment, dict[int, Mapping[str, float]]] = field(default_factory=dict)  # -> by prompt
    _gaps: dict[tuple[Experiment, Experiment], Gap] = field(
        default_factory=dict, init=False
    )  # an interval takes a while

    @property
    def places(self) -> tuple[str, ...]:
        """Where components are searched: at each role, and where no role was named at all tokens together."""
        return (*self.roles, EVERYWHERE) if self.unnamed else self.roles

    @property
    def few(self) -> tuple[int, ...] | None:
        """The prompts by which it is seen what is only described or proposed: those before the last lot. None: all."""
        return tuple(sorted(prompt for lot in self.lots[:-1] for prompt in lot)) or None

    @property
    def streams(self) -> int:
        """How many residual streams (those that enter a block) are there before the metric is read."""
        layers = range(self.runner.loaded.shape.n_layers)
        return sum(matters_to(Resid(layer), self.inside) for layer in layers)

    def read_at(self, where: Where) -> bool:
        """Whether the metric is read at these positions, in some prompt: where it says, or at the last token."""
        task = self.runner.task
        for prompt, length in enumerate(task.lengths):
            read = [length - 1] if self.inside is None else [task.roles[r][prompt] for r in positions_of(self.inside)]
            named = {token for role in where.roles for token in task.tokens_at(role, prompt)}
            if any((place in named) != where.inverted for place in read):
                return True
        return False

    @property
    def all_ablated(self) -> Experiment:
        return self.sufficiency({})

    @property
    def anchor(self) -> Experiment:
        """Where ablation recovers nothing: the corrupt run, or for other values the model with all ablated."""
        return Experiment(self.corrupt) if self.source.is_run else self.all_ablated

    def sufficiency(self, kept: Mapping[Ablatable, Where]) -> Experiment:
        """Everything ablated that is not kept; an MLP of which neurons are kept, neuron by neuron.

        Of dictionaries the features that are kept at some positions one by one, and all others together.
        """
        if self.sites:
            return self._outside_features(kept, kept)
        units = {whole_of(c): c.kind for c in kept if c.kind.part_of is not None}
        claimed = split(self.claimed, units, self.runner.loaded.shape.counts) if units else self.claimed
        return ablating(self.source, {c: ~kept.get(c, Where.at()) for c in claimed})

    def apart(self, kept: Mapping[Ablatable, Where]) -> Experiment:
        """The same run, with everything that is claimed named by itself: for estimates of each."""
        return self._outside_features(kept, {*kept, *self.claimed}) if self.sites else self.sufficiency(kept)

    def _outside_features(self, kept: Mapping[Ablatable, Where], named: Collection[Ablatable]) -> Experiment:
        parts = [part for site in self.sites for part in in_universe(site, named)]
        return ablating(self.source, {part: ~kept.get(part, Where.at()) for part in parts})

    def necessity(self, kept: Mapping[Ablatable, Where]) -> Experiment:
        """What is kept ablated, and nothing else."""
        return ablating(self.source, dict(kept.items()))

    def ablated(self, component: NodeComponent, where: Where) -> Experiment:
        return ablating(self.source, {component: where})

    def denoised(self, component: NodeComponent, where: Where) -> Experiment:
        return denoising(self.corrupt, {component: where})

    def run(self, experiments: Iterable[Experiment]) -> None:
        """Run what has not been run yet. Raises AllowanceSpent where that takes more forwards than are left."""
        if self.run_some(experiments):
            raise AllowanceSpent(self.allowance.reason)

    def run_some(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> tuple[Experiment, ...]:
        """As `run`, as far as the allowance goes; returns what was left out, the last of them.

        Of prompts `among` all, where these are named; what was run on some is then run on the others alone.
        """
        left: list[Experiment] = []
        for prompts, group in self._missing(experiments, among).items():
            left += self._run(group, prompts)
        return tuple(left)

    def _missing(
        self, experiments: Iterable[Experiment], among: Sequence[int] | None
    ) -> dict[tuple[int, ...], list[Experiment]]:
        """By the prompts on which they have not been run yet."""
        wanted = tuple(range(self.runner.task.n) if among is None else among)
        groups: dict[tuple[int, ...], list[Experiment]] = {}
        for experiment in dict.fromkeys(experiments):
            known = self._partly.get(experiment, {})
            missing = tuple(prompt for prompt in wanted if prompt not in known) if known else wanted
            if experiment not in self.records and missing:
                groups.setdefault(missing, []).append(experiment)
        return groups

    def _run(self, experiments: Sequence[Experiment], prompts: tuple[int, ...]) -> tuple[Experiment, ...]:
        n, wanted = self.runner.task.n, tuple(experiments)
        whole = len(prompts) == n
        while wanted:
            count = self.allowance.fitting(wanted, len(prompts) / n)
            if not count:
                break
            found = self.stored.run(wanted[:count], None if whole else prompts).values
            if whole:
                self.records.update(found)
            for experiment, columns in () if whole else found.items():
                self._add(experiment, prompts, columns)
            wanted = wanted[count:]  # what was in the store cost nothing, so that there may be room for more
        return wanted

    def _add(self, experiment: Experiment, prompts: Sequence[int], columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Note what a run gave for some prompts; once all are known it is among the records."""
        known = self._partly.setdefault(experiment, {})
        known |= {prompt: {name: float(of[i]) for name, of in columns.items()} for i, prompt in enumerate(prompts)}
        if len(known) == self.runner.task.n:
            of_each = self._partly.pop(experiment)
            each = [of_each[prompt] for prompt in range(len(of_each))]
            self.records[experiment] = {name: np.array([one[name] for one in each]) for name in columns}

    def values(self, experiment: Experiment) -> NDArray[np.float64]:
        self.run([experiment])
        values = self.records[experiment][self.metric]
        return values if self.counted is None else values[self.counted]

    def columns(self, experiment: Experiment) -> dict[str, NDArray[np.float64]]:
        """Every metric of a run that was made, of the prompts that count: `[prompt]`."""
        columns = self.records[experiment]
        return {name: values if self.counted is None else values[self.counted] for name, values in columns.items()}

    @property
    def templates(self) -> NDArray[np.int64]:
        """The template of each prompt that counts."""
        return self.runner.templates if self.counted is None else self.runner.templates[self.counted]

    def values_among(self, experiment: Experiment, prompts: Sequence[int]) -> NDArray[np.float64]:
        """Scores of these prompts alone, on which a run was made."""
        if experiment in self.records:
            return self.records[experiment][self.metric][list(prompts)]
        known = self._partly[experiment]
        return np.array([known[prompt][self.metric] for prompt in prompts])

    @property
    def gap(self) -> Gap:
        """The difference between the clean run and where ablation recovers nothing."""
        return self.gap_between(CLEAN, self.anchor)

    @property
    def prompt_gap(self) -> Gap:
        """The difference between the clean and the corrupt prompts' runs, which denoising starts from."""
        return self.gap_between(CLEAN, Experiment(self.corrupt))

    def gap_between(self, clean: Experiment, corrupt: Experiment) -> Gap:
        self.run([clean, corrupt])
        if (clean, corrupt) not in self._gaps:
            records = Records({e: self.columns(e) for e in (clean, corrupt)}, self.templates)
            self._gaps[clean, corrupt] = gap(records, self.metric, Anchors(clean, corrupt))
        return self._gaps[clean, corrupt]

    def recovered(self, experiment: Experiment) -> Estimate:
        """Recovered performance of an ablating run, with its interval."""
        return stats.recovered(self.values(experiment), self.values(self.anchor), self.values(CLEAN))

    def share(self, experiment: Experiment) -> float:
        """Recovered performance of an ablating run: the value alone."""
        clean, corrupt = float(self.values(CLEAN).mean()), float(self.values(self.anchor).mean())
        return (float(self.values(experiment).mean()) - corrupt) / (clean - corrupt)

    def drop(self, component: NodeComponent, where: Where) -> float:
        """How far the score falls when the component is ablated there, as a share of clean - corrupt."""
        return 1.0 - self.share(self.ablated(component, where))

    def rise(self, component: NodeComponent, where: Where) -> float:
        """How far the score rises when the component is restored there in the corrupt run, as such a share."""
        corrupt = float(self.values(Experiment(self.corrupt)).mean())
        clean = float(self.values(CLEAN).mean())
        return (float(self.values(self.denoised(component, where)).mean()) - corrupt) / (clean - corrupt)


def where_of(place: str) -> Where:
    """The positions that a place stands for: those of a role, or all."""
    return Where.everywhere() if place == EVERYWHERE else Where.at(place)


def places_of(where: Where) -> tuple[str, ...]:
    """The places that these positions are, in order of their names."""
    return (EVERYWHERE,) if where.is_everywhere else tuple(sorted(where.roles))


def distinct_roles(task: TokenizedTask) -> tuple[str, ...]:
    """The roles without those that fall on the same tokens as an earlier one, in every prompt.

    A position of several tokens stands for those that share a token with it, in any prompt: a token is searched once.
    """
    seen: dict[tuple[int, ...], str] = {}
    for role, at in task.roles.items():
        if role not in task.spans:
            seen.setdefault(at, role)
    spans: list[str] = []
    for role in task.spans:
        if not any(overlap(task, role, other) for other in spans):
            spans.append(role)
    singles = {role for role in seen.values() if not any(overlap(task, role, span) for span in spans)}
    return tuple(role for role in task.roles if role in singles or role in spans)


def split(
    claimed: tuple[Ablatable, ...], units: Mapping[Component, ComponentKind], counts: Counts
) -> tuple[Ablatable, ...]:
    """What is claimed, with some wholes as their units of the kind that is given: MLPs as their neurons."""
    found: list[Ablatable] = []
    for component in claimed:
        kind = units.get(component)
        one_by_one = (component,) if kind is None else all_of(kind, component.layer, counts)
        found += [one for one in one_by_one if is_ablatable(one)]
    return tuple(found)


def matters_to(component: Component, metric: Internal | None) -> bool:
    """Whether a component computes before the metric is read; None stands for one of the output, which all come before.

    Later components change nothing, and what a metric is read from is no news.
    """
    if metric is None:
        return True
    first, second = stage(component), stage(component_of(metric))
    assert first is not None
    assert second is not None
    return first < second
