"""A comparison as the object that a program reads."""

from __future__ import annotations

from dataclasses import asdict

from circuitspec.comparison.comparison_result import CircuitComparison
from circuitspec.comparison.measured_circuits import CircuitFigure, MeasuredCircuits, OnPrompts
from circuitspec.comparison.shared_parts import Overlap, SharedParts
from circuitspec.reports.machine.json_document import Json, plain

FORMAT_VERSION = 1


def comparison_document(found: CircuitComparison) -> dict[str, Json]:
    """The comparison as plain JSON values; numbers that are not finite become null."""
    content = {
        "format_version": FORMAT_VERSION,
        "circuits": [asdict(one) for one in found.circuits],
        "one_model": found.one_model,
        "pairs": [_pair(pair) for pair in found.pairs],
        "measured": None if found.measured is None else _measured(found.measured),
    }
    return {key: plain(value) for key, value in content.items()}


def _measured(found: MeasuredCircuits) -> dict[str, object]:
    return {
        "prompts": [_on_prompts(on) for on in found.prompts],
        "warnings": [{"code": "CS474", "message": one.message, "detail": one.detail} for one in found.unlike],
        "cost": {
            "experiments": found.experiments,
            "stored": found.stored,
            "forwards": found.forwards,
            "seconds": found.seconds,
        },
    }


def _on_prompts(on: OnPrompts) -> dict[str, object]:
    return {
        "of": on.owners,
        "n": on.n,
        "metric": on.metric,
        "method": on.method,
        "means": {"clean": on.clean, "anchor": on.anchor},
        "circuits": [_figure(one) for one in on.circuits],
        "sets": [
            {"first": one.first, "second": one.second, "taken_out": one.taken_out, **_figure(one.figure)}
            for one in on.sets
        ],
        "outputs": [
            {
                "first": one.first,
                "second": one.second,
                "kl": asdict(one.forth),
                "kl_back": asdict(one.back),
                "same_top": asdict(one.same_top),
                "by_prompt": one.by_prompt,
            }
            for one in on.apart
        ],
        "left_out": [asdict(one) for one in on.left_out],
    }


def _figure(one: CircuitFigure) -> dict[str, object]:
    recovered = None if one.recovered is None else asdict(one.recovered)
    return {"what": one.what, "recovered": recovered, "reason": one.reason, "mean": one.mean, "kl": one.kl}


def _pair(pair: SharedParts) -> dict[str, object]:
    return {
        "first": pair.first,
        "second": pair.second,
        "overlaps": [overlap_data(one) for one in pair.overlaps],
        "groups": [asdict(one) for one in pair.groups],
        "nodes": {"both": pair.both, "first": pair.only_first, "second": pair.only_second},
        "edges": {"both": pair.edges_both, "first": pair.edges_first, "second": pair.edges_second},
        "notes": pair.notes,
    }


def overlap_data(one: Overlap) -> dict[str, object]:
    """One level of an overlap as a flat row."""
    return {
        "level": one.level,
        "first_has": one.first,
        "second_has": one.second,
        "shared": one.shared,
        "jaccard": one.jaccard,
        "of_first": one.of_first,
        "of_second": one.of_second,
        "random_shared": one.chance.shared,
        "random_jaccard": one.chance.jaccard,
        "p_as_many": one.chance.p_as_many,
        "p_as_few": one.chance.p_as_few,
        "draws": one.chance.draws,
    }
