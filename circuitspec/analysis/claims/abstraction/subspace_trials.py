"""Claims about subspaces, with the runs along their parts: what these are is known once the model's values are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial, PlannedPairs
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.experiments.levels.interchange_level import interchanging
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.subspaces.natural_states import NaturalStates, PatchedStates, patched_states
from circuitspec.experiments.subspaces.subspace import Subspace
from circuitspec.experiments.subspaces.subspace_parts import (
    ACROSS,
    ALONG,
    BOTH,
    MEANS,
    PCA,
    SubspaceParts,
    mean_directions,
    means_basis,
    pca_basis,
    split,
)
from circuitspec.hypothesis_file.grammar.variable_expressions import Scalar
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.settings import families_of
from circuitspec.prompts.prompt_set import CLEAN


class ValuesAtSite(Protocol):
    """What unpatched runs have at a site, `[pair, width]`: bases, and sources by family."""

    @property
    def base(self) -> NDArray[np.float64]: ...
    @property
    def sources(self) -> Mapping[str, NDArray[np.float64]]: ...


class ReadsSites(Protocol):
    """Runs the bases and the sources of families, and gives what a site has in them."""

    def __call__(self, site: Site, families: tuple[str, ...]) -> ValuesAtSite: ...


def has_subspaces(plan: Plan) -> bool:
    """Whether some claim sets a variable along a subspace."""
    return any(trial.subspaces for one in plan.claims if isinstance(one, PlannedPairs) for trial in one.trials)


def with_parts(plan: Plan, pairs: PairSet, read: ReadsSites) -> tuple[Plan, dict[Experiment, str]]:
    """The plan with the parts of its claims' subspaces and with those that values tell, and the runs along them, named.

    A subspace is split by the mean values, over the bases and sources of all families that claims set its variable
    from, of what the variable is in them.
    """
    trials = [trial for one in plan.claims if isinstance(one, PlannedPairs) for trial in one.trials]
    wanted: dict[tuple[str, Site], dict[str, None]] = {}
    for trial in trials:
        for variable, site in trial.subspaces.items():
            wanted.setdefault((variable, site), {}).update(dict.fromkeys(families_of(trial.setting)))
    known = {key: _Split(*key, read(key[1], tuple(families)), pairs) for key, families in wanted.items()}
    labels: dict[Experiment, str] = {}
    claims = []
    for one in plan.claims:
        if isinstance(one, PlannedPairs):
            found = tuple(_with_parts(trial, known, plan, labels) for trial in one.trials)
            one = replace(one, trials=found)
        claims.append(one)
    return replace(plan.naming(labels), claims=tuple(claims)), labels


class _Split:
    """A variable's subspace with its parts, and the natural states at its site."""

    def __init__(self, variable: str, site: Site, values: ValuesAtSite, pairs: PairSet) -> None:
        assert site.subspace is not None
        self.site, self.basis, self._values = site, site.subspace.basis, values
        told = _told(variable, tuple(values.sources), pairs)
        every = np.concatenate([values.base, *values.sources.values()])
        means, rank = mean_directions(every, told), site.subspace.rank
        self.parts: SubspaceParts | None = None if means is None else split(self.basis, means)
        self._bases = {MEANS: means_basis(every, told, rank), PCA: pca_basis(every, rank)}
        self._bases |= {} if self.parts is None else self.parts.bases
        self._natural = NaturalStates.of(
            values.base,
            tuple(values.sources.values()),
            [prompt.texts[CLEAN] for prompt in pairs.bases],
            [[source.text for source in pairs.families[name]] for name in values.sources],
        )

    def along(self, name: str) -> Site | None:
        """The site along a part alone, or along another subspace that its values tell; None where there is none."""
        basis = self._bases.get(name)
        return None if basis is None else replace(self.site, subspace=Subspace.of(basis))

    def states(self, family: str) -> PatchedStates | None:
        """Of all pairs of a family, patched along the subspace."""
        base, source = self._values.base, self._values.sources[family]
        within = self.basis if self.parts is None else self.parts.both
        return patched_states(self._natural, base, source, range(len(base)), self.basis, within)


def _told(variable: str, families: tuple[str, ...], pairs: PairSet) -> list[Scalar]:
    """What the variable is in all bases, and then in the sources of each family."""
    bases = [pairs.model.run(pairs.slots(i))[variable] for i in range(len(pairs))]
    return bases + [pairs.model.run(one.slots)[variable] for name in families for one in pairs.families[name]]


def _with_parts(
    trial: PairTrial, known: Mapping[tuple[str, Site], _Split], plan: Plan, labels: dict[Experiment, str]
) -> PairTrial:
    """The trial with its runs along parts, where all of its subspaces have two, and along what values tell; of one
    variable with distances too."""
    splits = {variable: known[variable, site] for variable, site in trial.subspaces.items()}
    if not splits:
        return trial
    runs: dict[str, Experiment] = {}
    for name in (MEANS, PCA, ALONG, ACROSS, BOTH):
        sites = {variable: own.along(name) for variable, own in splits.items()}
        if any(site is None for site in sites.values()):
            continue
        patched = {variable: frozenset({site}) for variable, site in sites.items() if site is not None}
        run = replace(interchanging(trial.setting, {**trial.sites, **patched}), expected=trial.patched.expected)
        labels.setdefault(run, f"{plan.labels[trial.patched]}, {name}")
        runs[name] = run
    states = None
    if len(trial.setting) == 1:
        ((variable, family),) = trial.setting
        states = splits[variable].states(family)
    controls = {**trial.controls, **{name: runs.pop(name) for name in (MEANS, PCA) if name in runs}}
    return replace(trial, controls=controls, parts=runs, states=states)
