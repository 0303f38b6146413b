"""After a claim of sufficiency: a circuit that does as well and shares nothing, or little, with the declared one.

What could stand in for a circuit is looked for in the model without it: which components lose most there when they are
ablated too, and bring most when all else is ablated. Of these a circuit is grown as an exploration grows one. It is
chosen on one half of the prompts and judged on the other, so that being picked does not flatter it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.circuit_effects.alternative_circuits import LIMIT, AlternativeCircuit, Found
from circuitspec.analysis.claims.claim_result import MIN_PROMPTS, ClaimResult, place
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.split_sample import Halves, halves
from circuitspec.analysis.statistics.wording import plural
from circuitspec.engine.cache.stored_estimates import Recalled
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.metrics.output_divergences import output_divergences
from circuitspec.engine.runner import Runner
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import CLEAN, Plan, PlannedClaim
from circuitspec.exploration.forward_budget import Allowance, AllowanceSpent
from circuitspec.exploration.search.circuit_selection import Choice, Entry, choose, closeness
from circuitspec.exploration.search.component_sweep import MATERIAL, ComponentSweep, Effect
from circuitspec.exploration.search.effect_estimates import estimate_noising, estimate_restorations
from circuitspec.exploration.search.estimable import inestimable
from circuitspec.exploration.setting import ExplorationSetting, distinct_roles, places_of, where_of
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.dictionary_nodes import is_of_dictionary
from circuitspec.graph.nodes import Ablatable, is_ablatable
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec

EXACT = 30  # components at positions that are patched exactly, both ways
SLACK = 0.05  # of recovered performance: what is not worse by more than this is as good


@dataclass
class _Split(ExplorationSetting):
    """A setting that knows one half of the prompts' values alone; estimates are of all prompts."""

    half: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    def values(self, experiment: Experiment) -> NDArray[np.float64]:
        return super().values(experiment)[self.half]


@dataclass(frozen=True)
class _Attempt:
    """What a search came to: its circuit, what the model recovers without what was excluded, and how many components
    at positions it chose from and patched."""

    choice: Choice
    rest: float
    candidates: int
    exact: int


def alternative_circuits(
    plan: Plan,
    claims: tuple[ClaimResult, ...],
    graph: CircuitGraph,
    ablation: AblationSpec,
    runner: Runner,
    stored: StoredRunner,
    recalled: Recalled,
    share: float,
) -> tuple[AlternativeCircuit, ...]:
    """For every supported claim that the circuit suffices, whether another does; it may have `share` of its components.

    What is run is in none of the plan's records. Raises as running experiments does.
    """
    return tuple(
        _searched(planned, graph, ablation, runner, stored, recalled, share)
        for planned, claim in zip(plan.claims, claims, strict=True)
        if kind_of(planned).claims_sufficiency and claim.status == "SUPPORTED"
    )


def _searched(
    planned: PlannedClaim,
    graph: CircuitGraph,
    ablation: AblationSpec,
    runner: Runner,
    stored: StoredRunner,
    recalled: Recalled,
    share: float,
) -> AlternativeCircuit:
    """The search for one claim."""
    none = AlternativeCircuit(planned.index, planned.claim.metric, "not looked for")
    parts = halves(runner.templates)
    if why := _why_not(planned, graph, ablation, runner, parts):
        return replace(none, reason=why)
    before = runner.forwards
    setting = _Split(
        runner,
        stored,
        planned.claim.metric,
        graph.claimed,
        distinct_roles(runner.task),
        ablation_source(ablation),
        corrupt_prompts(ablation) or "clean",
        Allowance(LIMIT, lambda: runner.forwards - before, stored.most_passes),
        recalled,
        half=parts.search,
    )
    declared = {c: where for c, where in graph.circuit.items() if is_ablatable(c)}
    allowed = math.floor(share * len(declared) + 1e-9)
    target = max(planned.claim.at_least or 0.0, min(1.0, setting.share(planned.patched)) - SLACK)
    best: _Attempt | None = None
    tried: set[Experiment] = set()
    stopped = ""
    try:
        for spared in _spared(setting, declared, allowed):
            found = _attempt(setting, declared, spared, target)
            tried |= found.choice.tried.keys()
            if best is None or _close(found) > _close(best):
                best = found
            if found.choice.recovered() >= target:
                best = found
                break
            stopped = found.choice.stopped
    except AllowanceSpent as spent:
        stopped = str(spent)
    if best is None:
        return replace(none, status="none found", reason=stopped, allowed=allowed, forwards=runner.forwards - before)
    return _judged(none, planned, setting, best, declared, parts, allowed, len(tried), stopped, before)


def _why_not(planned: PlannedClaim, graph: CircuitGraph, ablation: AblationSpec, runner: Runner, parts: Halves) -> str:
    """Why no other circuit can be looked for; empty where one can."""
    if ablation.level != "node":
        return f"circuits of {ablation.level}s are not searched: at {ablation.level} level a circuit is its paths"
    if ablation.positions == "all":
        return "components are searched at named positions, and with `positions: all` the circuit is kept at every one"
    if not distinct_roles(runner.task):
        return "the prompts name no position at which components could be searched"
    if why := inestimable(planned.claim.metric):
        return f"what to take in is chosen by estimates, and {planned.claim.metric} has none: {why}"
    if planned.claim.at_least is None:
        return "the claim has no lower bound that another circuit could meet"
    if any(is_of_dictionary(component) for component in graph.claimed):
        return "features of dictionaries are not searched"
    if parts.n_search < MIN_PROMPTS or parts.n_judge < MIN_PROMPTS:
        return (
            f"{plural(parts.n_search + parts.n_judge, 'prompt')} are too few to choose a circuit on one half and judge "
            f"it on the other: {2 * MIN_PROMPTS} are needed"
        )
    return ""


def _spared(
    setting: ExplorationSetting, declared: Mapping[Ablatable, Where], allowed: int
) -> Iterator[frozenset[Ablatable]]:
    """Which of the declared components an alternative may have: none, and then those without which the rest of the
    model does least, one more at a time."""
    spared: frozenset[Ablatable] = frozenset()
    yield spared
    for _ in range(min(allowed, len(declared) - 1)):
        left = sorted(declared.keys() - spared, key=sort_key)
        runs = {one: setting.necessity(_without(declared, spared | {one})) for one in left}
        setting.run(runs.values())
        spared |= {max(left, key=lambda one: setting.share(runs[one]))}
        yield spared


def _without(declared: Mapping[Ablatable, Where], spared: frozenset[Ablatable]) -> dict[Ablatable, Where]:
    return {c: where for c, where in declared.items() if c not in spared}


def _attempt(
    setting: ExplorationSetting, declared: Mapping[Ablatable, Where], spared: frozenset[Ablatable], target: float
) -> _Attempt:
    """Grow a circuit that has none of the declared components but those spared, with which it begins."""
    excluded = _without(declared, spared)
    setting.kept_out = frozenset(excluded)
    out, nothing = setting.necessity(excluded), setting.sufficiency({})
    rest, start = setting.share(out), dict.fromkeys(_entries(declared, spared), "positive")
    gap = setting.gap.difference.value
    bring = estimate_restorations(setting, nothing)
    ablated = {site.component for site in nothing.sites}
    entries = [
        (component, role)
        for component in setting.claimed
        for role in setting.places
        if component in ablated and component not in declared
    ]
    lose: Mapping[Entry, float] = {}
    if rest >= MATERIAL:
        lose = estimate_noising(setting, out, setting.necessity(dict.fromkeys(setting.claimed, Where.everywhere())))
    effects = [
        Effect(component, where_of(role), -lose.get((component, role), 0.0) / gap, bring[component, role] / gap)
        for component, role in entries
    ]
    effects.sort(key=lambda effect: (-effect.estimated, sort_key(effect.component), effect.where.canonical()))
    exact = _exactly(setting, excluded, rest, effects[:EXACT])
    exact.sort(key=lambda effect: (-effect.size, sort_key(effect.component), effect.where.canonical()))
    choice = choose(
        setting, ComponentSweep((*exact, *effects[EXACT:]), (None, None)), target, negatives=False, start=start
    )
    return _Attempt(choice, rest, len(entries), len(exact))


def _exactly(
    setting: ExplorationSetting, excluded: Mapping[Ablatable, Where], rest: float, effects: Sequence[Effect]
) -> list[Effect]:
    """What components do at their places in the model without the excluded ones: ablated too, and restored alone."""
    runs = [
        (setting.necessity({**excluded, e.component: e.where}), setting.sufficiency({e.component: e.where}))
        for e in effects
    ]
    nothing = setting.sufficiency({})
    setting.run([nothing, *(run for pair in runs for run in pair)])
    return [
        replace(e, drop=rest - setting.share(out), rise=setting.share(alone) - setting.share(nothing))
        for e, (out, alone) in zip(effects, runs, strict=True)
    ]


def _entries(declared: Mapping[Ablatable, Where], spared: frozenset[Ablatable]) -> list[Entry]:
    return [(c, place_) for c in sorted(spared, key=sort_key) for place_ in places_of(declared[c])]


def _close(found: _Attempt) -> float:
    return closeness(found.choice.recovered())


def _judged(
    none: AlternativeCircuit,
    planned: PlannedClaim,
    setting: ExplorationSetting,
    best: _Attempt,
    declared: Mapping[Ablatable, Where],
    parts: Halves,
    allowed: int,
    tried: int,
    stopped: str,
    before: float,
) -> AlternativeCircuit:
    """The circuit on the other half of the prompts, beside the declared one."""
    metric, run = planned.claim.metric, setting.sufficiency(best.choice.kept)
    setting.run([run, planned.patched, setting.anchor, CLEAN])

    def recovered(one: Experiment) -> Estimate:
        scores = (setting.records[which][metric][parts.judge] for which in (one, setting.anchor, CLEAN))
        patched, zero, clean = scores
        return stats.recovered(patched, zero, clean)

    own = recovered(run)
    verdict = None if own.interval is None else place(own.interval, planned.claim.at_least, planned.claim.at_most)
    words: dict[str | None, Found] = {"SUPPORTED": "found", "INCONCLUSIVE": "undecided"}
    status = words.get(verdict, "none found")
    apart = setting.recalled.get(
        ["alternative", run.digest, planned.patched.digest],
        lambda _: {"forth": list(output_divergences(setting.runner, [(planned.patched, run)])[0].forth)},
    )
    kept = best.choice.kept
    return replace(
        none,
        status=status,
        reason="" if status == "found" else stopped,
        nodes=tuple(_named(c, kept[c]) for c in sorted(kept, key=sort_key)),
        shared=tuple(_named(c, kept[c]) for c in sorted(kept.keys() & declared.keys(), key=sort_key)),
        allowed=allowed,
        recovered=own,
        declared=recovered(planned.patched),
        rest=best.rest,
        kl=float(np.mean(apart["forth"][parts.judge])),
        candidates=best.candidates,
        exact=best.exact,
        tried=tried,
        forwards=setting.runner.forwards - before,
    )


def _named(component: Ablatable, where: Where) -> str:
    return format_name(component) + ("" if where.is_everywhere else where.canonical())
