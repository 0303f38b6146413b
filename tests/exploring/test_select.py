"""Choosing a circuit: the steps of it by hand, on shares that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from circuitspec.exploring.select import Choice, spare_heads
from circuitspec.exploring.setting import Setting
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.spec.components import Head, Mlp

A, B, C = Head(0, 0), Head(1, 0), Head(2, 0)
SHARES = {
    frozenset({A, B, C}): 1.21,
    frozenset({B, C}): 0.95,
    frozenset({A, C}): 1.02,  # closest to the model, though another is smaller in no way
    frozenset({A, B}): 0.5,
    frozenset({C}): 0.91,
    frozenset({A}): 0.89,  # the target is missed
}


class Given:
    """A setting in which an experiment is the set of heads that it keeps."""

    def sufficiency(self, kept: Mapping[Ablatable, Where]) -> frozenset[Ablatable]:
        return frozenset(component for component in kept if isinstance(component, Head))

    def run(self, experiments: Iterable[Any]) -> None:
        for experiment in experiments:
            assert experiment in SHARES

    def share(self, experiment: frozenset[Ablatable]) -> float:
        return SHARES[cast(frozenset[Head], experiment)]


def test_heads_are_spared_as_long_as_the_target_is_met() -> None:
    """A head goes with all of its positions; the way is the one that stays closest to 1, and MLPs are no heads."""
    choice = Choice(cast(Setting, Given()))
    for entry in ((A, "END"), (A, "S2"), (B, "END"), (C, "END"), (Mlp(0), "END")):
        choice.entries[entry] = "positive"
    spare_heads(choice, 0.9)
    assert choice.entries == {(C, "END"): "positive", (Mlp(0), "END"): "positive"}
    assert sorted(choice.tried.values()) == [(2, 1), (4, 2)]  # entries and heads of the circuits on the way
