"""What became of the rows of a prompts file, and what the values of its columns tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.prompt_groups import by_column, group_scores, runs_of
from circuitspec.analysis.statistics.wording import plural
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.prompts.prompt_set import PromptSet


@dataclass(frozen=True)
class RowFacts:
    """How the rows of a file were read: by which layout, how many were looked at, and how many are left out, by why."""

    file: str
    holds: int
    looked_at: int
    used: int
    layout: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    skips: bool = False  # whether rows may be left out

    def described(self) -> str:
        """`pairs.csv (eap_ig, recognised by correct_idx): 87 of 100 rows; left out 10 repeats, 3 misaligned`."""
        layout = f" ({self.layout})" if self.layout else ""
        if not self.skips:
            return f"{self.file}{layout}"
        rows = plural(self.looked_at, "row")
        if self.looked_at < self.holds:
            rows = f"the first {rows} (of {self.holds})"
        out = ", ".join(f"{count} {why}" for why, count in self.left_out.items())
        return f"{self.file}{layout}: {plural(self.used, 'prompt')} from {rows}, left out: {out or 'none'}"


def row_facts(prompts: PromptSet) -> RowFacts | None:
    """Facts worth a line: where rows may be left out, or the layout is another's; None elsewhere."""
    file, choice = prompts.file, prompts.choice
    if file is None or (choice is None and not prompts.layout):
        return None
    n = len(prompts.prompts)
    if choice is None:
        return RowFacts(file.name, file.holds, n, n, prompts.layout)
    return RowFacts(file.name, file.holds, choice.looked_at, n, prompts.layout, choice.counts, skips=True)


@dataclass(frozen=True)
class BreakdownRow:
    """The prompts with one value: the metric's means over them, and what is recovered (None: there is no ratio)."""

    value: str
    n: int
    clean: float
    patched: float
    recovered: Estimate | None


@dataclass(frozen=True)
class Breakdown:
    """One claim's figure by the values of one column."""

    column: str
    claim: str
    index: int  # of the claim, in the file
    metric: str
    rows: tuple[BreakdownRow, ...]


def breakdowns(
    plan: Plan, claims: tuple[ClaimResult, ...], records: Records, prompts: PromptSet
) -> tuple[Breakdown, ...]:
    """For every column of `by`, the figures of every run and metric that is claimed of the whole circuit.

    Where no claim is about all of it, of every claim that has one recovered performance.
    """
    some: dict[tuple[object, ...], tuple[PlannedClaim, ClaimResult]] = {}
    for planned, claim in zip(plan.claims, claims, strict=True):
        if planned.measure == "recovered" and claim.estimate is not None:
            some.setdefault((planned.patched, planned.clean, planned.corrupt, claim.metric), (planned, claim))
    whole = [pair for pair in some.values() if kind_of(pair[0]).of_circuit] or list(some.values())
    found = []
    for column in prompts.by:
        grouping = by_column(prompts, column)
        for planned, claim in whole:
            runs = runs_of(planned, records, claim.metric)
            clean = records[planned.clean][claim.metric]
            rows = []
            for number, score in enumerate(group_scores(runs, grouping)):
                own = grouping.of(number)
                means = float(clean[own].mean()), float(runs.patched[own].mean())
                rows.append(BreakdownRow(score.label, score.n, *means, score.recovered))
            found.append(Breakdown(column, claim.kind, claim.index, claim.metric, tuple(rows)))
    return tuple(found)
