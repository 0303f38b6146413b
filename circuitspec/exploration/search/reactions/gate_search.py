"""How the strongest members of a circuit work together: every two of them, noised and denoised alone and together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitspec.analysis.statistics.gate_statistics import GateFinding, Part, Trio, find_gate
from circuitspec.analysis.statistics.stats import Values
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels.node_level import ablating, denoising
from circuitspec.exploration.forward_budget import AllowanceSpent
from circuitspec.exploration.setting import CLEAN, ExplorationSetting
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import stage

RESAMPLES = 999  # a scan has dozens of pairs; a claim of a gate takes as many as every other claim


@dataclass(frozen=True)
class Pair:
    """Two members, and the gate that they form."""

    first: Ablatable
    second: Ablatable
    finding: GateFinding


def scan_gates(
    setting: ExplorationSetting, members: Mapping[Ablatable, Where], order: Sequence[Ablatable], most: int
) -> tuple[Pair, ...]:
    """The gates between the first `most` members in this order, each with each.

    Where prompts are raced they are of the first prompts alone, as the intervals say. Raises AllowanceSpent.
    """
    pairs = list(itertools.combinations(order[:most], 2))
    parts = [*((c,) for c in order[:most]), *pairs]
    down = {p: ablating(setting.source, {c: members[c] for c in p}) for p in parts}
    up = {p: denoising(setting.corrupt, {c: members[c] for c in p}) for p in parts}
    setting.run([CLEAN, Experiment(setting.corrupt)])
    prompts = setting.few
    if setting.run_some([*down.values(), *up.values()], among=prompts):
        raise AllowanceSpent(setting.allowance.reason)

    def values(run: Experiment) -> Values:
        return setting.values(run) if prompts is None else setting.values_among(run, prompts)

    clean, corrupt = values(CLEAN), values(Experiment(setting.corrupt))

    def trio(runs: Mapping[tuple[Ablatable, ...], Experiment], pair: tuple[Ablatable, Ablatable]) -> Trio:
        return Trio(*(values(runs[part]) for part in ((pair[0],), (pair[1],), pair)))

    def gate(pair: tuple[Ablatable, Ablatable]) -> GateFinding:
        one, other = (stage(component) or 0 for component in pair)
        earlier: Part | None = None if one == other else "first" if one < other else "second"
        return find_gate(trio(down, pair), trio(up, pair), clean, corrupt, earlier=earlier, resamples=RESAMPLES)

    return tuple(Pair(*pair, gate(pair)) for pair in pairs)
