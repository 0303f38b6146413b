"""How the strongest members of a circuit work together: every two of them, noised and denoised alone and together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitspec.analysis.claims.gate_statistics import GateFinding, Part, Trio, find_gate
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels.node_level import ablating, denoising
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
    """The gates between the first `most` members in this order, each with each."""
    pairs = list(itertools.combinations(order[:most], 2))
    parts = [*((c,) for c in order[:most]), *pairs]
    down = {p: ablating(setting.source, {c: members[c] for c in p}) for p in parts}
    up = {p: denoising(setting.corrupt, {c: members[c] for c in p}) for p in parts}
    setting.run([*down.values(), *up.values()])
    clean, corrupt = setting.values(CLEAN), setting.values(Experiment(setting.corrupt))

    def trio(runs: Mapping[tuple[Ablatable, ...], Experiment], pair: tuple[Ablatable, Ablatable]) -> Trio:
        return Trio(*(setting.values(runs[part]) for part in ((pair[0],), (pair[1],), pair)))

    def gate(pair: tuple[Ablatable, Ablatable]) -> GateFinding:
        one, other = (stage(component) or 0 for component in pair)
        earlier: Part | None = None if one == other else "first" if one < other else "second"
        return find_gate(trio(down, pair), trio(up, pair), clean, corrupt, earlier=earlier, resamples=RESAMPLES)

    return tuple(Pair(*pair, gate(pair)) for pair in pairs)
