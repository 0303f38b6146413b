"""Recovered performance as charts: by claim, by metric, and by template, with the numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import shorten

from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.prompt_groups import (
    Grouping,
    GroupScore,
    by_answer_order,
    by_column,
    by_template,
    group_scores,
    runs_of,
)
from circuitspec.analysis.statistics.scores import Anchors
from circuitspec.analysis.statistics.wording import MISSING, briefly
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.reports.figures import IntervalPoint, IntervalSeries, intervals
from circuitspec.reports.html.html_frontier import frontier_view
from circuitspec.reports.html.html_subsets import subset_charts
from circuitspec.reports.many_run_tables import main_estimate
from circuitspec.reports.text.breakdown_tables import breakdown_tables
from circuitspec.reports.text.data_frames import metric_names
from circuitspec.reports.views import Chart, Table

_MOST_CLAIMS, _MOST_SERIES, _MOST_GROUPS = 40, 4, 16
_CHARACTERS = 36  # of a series' name
_RESAMPLES = 1999  # of intervals that decide nothing
_SHARE = "share of clean - corrupt"
_NO_SWEEP = (
    "By ablation, level and the other choices of method: run circuitspec verify --methods, which adds that chart here."
)

_Pair = tuple[PlannedClaim, ClaimResult]


def charts(found: Verification, prompts: PromptSet | None) -> tuple[tuple[Chart, ...], tuple[Table, ...]]:
    """The charts of a verification, and the tables of the groups of prompts that they show."""
    pairs = list(zip(found.plan.claims, found.claims, strict=True))
    drawn, tables = [], []
    if pairs:
        drawn.append(_by_claim(pairs))
    whole = _whole_circuit(pairs)
    templates = by_template(found.records.templates, prompts)
    if prompts is None:
        templates = replace(templates, labels=tuple(_names(templates)))
    columns = () if prompts is None else prompts.by
    by_columns = [] if prompts is None else [by_column(prompts, name) for name in columns]
    groupings = [templates, None if prompts is None else by_answer_order(prompts), *by_columns]
    several = [g for g in groupings if g is not None and len(g.labels) > 1]
    scored = [(g, [(pair, _scores(found, pair, g)) for pair in whole]) for g in several]
    if whole and scored:
        few = [(g, scores) for g, scores in scored if len(g.labels) <= _MOST_GROUPS]
        if few:
            drawn.append(_by_group(found, few))
        tables = [_group_table(found, g, scores) for g, scores in scored if g.name not in columns]
    tables += breakdown_tables(found)
    if whole:
        drawn.append(_by_metric(found, whole))
    if found.sweep is None and drawn:
        drawn[-1] = replace(drawn[-1], note=f"{drawn[-1].note} {_NO_SWEEP}")
    drawn += subset_charts(found)
    by_size, rows = frontier_view(found)
    return (*drawn, *by_size), (*tables, *rows)


def _by_claim(pairs: Sequence[_Pair]) -> Chart:
    shown = pairs[:_MOST_CLAIMS]
    points = []
    for place, (planned, claim) in enumerate(shown):
        if kind_of(planned).alike(claim):
            points.append(
                IntervalPoint(f"{place + 1} {_subject(planned)}", main_estimate(claim), claim.at_least, claim.at_most)
            )
        elif claim.parts:
            named = ((f"{place + 1} {claim.kind}: {part.name}", part) for part in claim.parts)
            points += [IntervalPoint(name, part.estimate, part.at_least, part.at_most) for name, part in named]
        else:
            points.append(
                IntervalPoint(f"{place + 1} {_subject(planned)}", claim.estimate, claim.at_least, claim.at_most)
            )
    note = "Points are the claims' values with their confidence intervals; shaded is what each claim allows."
    if len(shown) < len(pairs):
        note += f" The first {len(shown)} of {len(pairs)} claims."
    return Chart(
        intervals([IntervalSeries("claims", tuple(points))], title="Claims and their bounds", quantity=_SHARE), note
    )


def _subject(planned: PlannedClaim) -> str:
    return kind_of(planned).subject(planned.claim)


def _whole_circuit(pairs: Sequence[_Pair]) -> list[_Pair]:
    """Claims about all of the circuit that have a figure, one a run and metric; else the first cross-sections."""
    found = {
        (planned.patched, planned.clean, planned.corrupt, claim.metric): (planned, claim)
        for planned, claim in reversed(pairs)
        if planned.measure == "recovered" and claim.estimate is not None
    }
    some = list(found.values())[::-1]
    whole = [(planned, claim) for planned, claim in some if kind_of(planned).of_circuit]
    return (whole or some)[:_MOST_SERIES]


def _label(found: Verification, pair: _Pair) -> str:
    planned, claim = pair
    return shorten(f"{claim.kind}: {found.plan.labels.get(planned.patched, claim.kind)}", _CHARACTERS)


def _by_metric(found: Verification, whole: Sequence[_Pair]) -> Chart:
    metrics = metric_names(found.records, [claim.metric for claim in found.claims])
    runs = {(planned.patched, planned.clean, planned.corrupt): (planned, claim) for planned, claim in reversed(whole)}
    series = []
    for pair in reversed(runs.values()):
        planned, _ = pair
        own = {claim.metric: claim for other, claim in whole if other.patched == planned.patched}
        points = []
        for metric in metrics:
            claim = own.get(metric)
            if claim is None:
                points.append(IntervalPoint(metric, _recovered(found, planned, metric)))
            else:
                points.append(IntervalPoint(metric, claim.estimate, claim.at_least, claim.at_most))
        series.append(IntervalSeries(_label(found, pair), tuple(points)))
    picture = intervals(series, title="Recovered performance by metric", quantity=f"recovered ({_SHARE})")
    return Chart(
        picture, "1 is the clean run, 0 the run with all ablated or corrupt; bounds are those of claimed metrics."
    )


def _recovered(found: Verification, planned: PlannedClaim, metric: str) -> Estimate | None:
    gap = found.denominators[Anchors(planned.clean, planned.corrupt)].get(metric)
    if gap is None or gap.state != "sound" or metric not in found.records[planned.patched]:
        return None
    runs = runs_of(planned, found.records, metric)
    return stats.recovered(runs.patched, runs.zero, runs.one, resamples=_RESAMPLES)


def _scores(found: Verification, pair: _Pair, grouping: Grouping) -> tuple[GroupScore, ...]:
    planned, claim = pair
    return group_scores(runs_of(planned, found.records, claim.metric), grouping)


def _names(grouping: Grouping) -> list[str]:
    """Groups by their labels, templates as the file has them; by number where there is none or they are alike."""
    labels = list(grouping.labels)
    if grouping.name != "template" or (all(labels) and len({*labels}) == len(labels)):
        return labels
    return [f"template {place + 1}" for place in range(len(labels))]


def _told_apart(names: list[str]) -> list[str]:
    """Names with their numbers in front where their beginnings, which a chart has room for, are alike."""
    alike = len({name[:_CHARACTERS] for name in names}) < len(names)
    return [f"{place}. {name}" for place, name in enumerate(names, 1)] if alike else names


_Scored = tuple[Grouping, list[tuple[_Pair, tuple[GroupScore, ...]]]]


def _by_group(found: Verification, scored: Sequence[_Scored]) -> Chart:
    points: dict[str, list[IntervalPoint]] = {}
    for grouping, by_claim in scored:
        for pair, scores in by_claim:
            _, claim = pair
            points.setdefault(_series_name(found, pair), []).extend(
                IntervalPoint(name, score.recovered, claim.at_least, claim.at_most)
                for name, score in zip(_told_apart(_names(grouping)), scores, strict=True)
            )
    what = " and ".join(grouping.name for grouping, _ in scored)
    series = [IntervalSeries(name, tuple(own)) for name, own in points.items()]
    title = f"Recovered performance by {what}"
    return Chart(
        intervals(series, title=title, quantity=f"recovered ({_SHARE})"),
        "Each group is placed between its own anchors. One figure over all prompts can hide that groups disagree.",
    )


def _series_name(found: Verification, pair: _Pair) -> str:
    return f"{_label(found, pair)}, {pair[1].metric}"


def _group_table(
    found: Verification, grouping: Grouping, by_claim: Sequence[tuple[_Pair, tuple[GroupScore, ...]]]
) -> Table:
    names = _names(grouping)
    texts = grouping.labels if grouping.labels != tuple(names) else None
    rows = []
    for place, name in enumerate(names):
        values = (scores[place].recovered for _, scores in by_claim)
        cells = [MISSING if value is None else briefly(value) for value in values]
        said = [] if texts is None else [texts[place]]
        rows.append((name, *cells, str(by_claim[0][1][place].n), *said))
    series = (_series_name(found, pair) for pair, _ in by_claim)
    columns = (grouping.name, *series, "prompts", *([] if texts is None else ["text"]))
    prose = () if texts is None else (len(columns) - 1,)
    return Table(f"Recovered by {grouping.name}", columns, tuple(rows), prose=prose)
