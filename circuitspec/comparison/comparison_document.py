"""A comparison as the object that a program reads."""

from __future__ import annotations

from dataclasses import asdict

from circuitspec.comparison.comparison_result import CircuitComparison
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
    }
    return {key: plain(value) for key, value in content.items()}


def _pair(pair: SharedParts) -> dict[str, object]:
    return {
        "first": pair.first,
        "second": pair.second,
        "overlaps": [_overlap(one) for one in pair.overlaps],
        "groups": [asdict(one) for one in pair.groups],
        "nodes": {"both": pair.both, "first": pair.only_first, "second": pair.only_second},
        "edges": {"both": pair.edges_both, "first": pair.edges_first, "second": pair.edges_second},
        "notes": pair.notes,
    }


def _overlap(one: Overlap) -> dict[str, object]:
    return {
        "level": one.level,
        "first": one.first,
        "second": one.second,
        "shared": one.shared,
        "jaccard": one.jaccard,
        "of_first": one.of_first,
        "of_second": one.of_second,
        "random": {
            "shared": one.chance.shared,
            "jaccard": one.chance.jaccard,
            "p_as_many": one.chance.p_as_many,
            "p_as_few": one.chance.p_as_few,
            "draws": one.chance.draws,
        },
    }
