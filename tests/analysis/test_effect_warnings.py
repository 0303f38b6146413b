"""Which effects of a circuit's parts are worth a warning, from effects made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circuitspec.analysis.circuit_effects.backup_behaviour import Compensator, Knockout, Standing
from circuitspec.analysis.circuit_effects.component_effects import Ablated, Besides, CircuitEffects, ExaminedPart
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.warnings.effect_warnings import EFFECT_WARNINGS
from circuitspec.graph.members import Effect
from circuitspec.reports.explanations import all_codes
from tests.analysis.support import warned


def at(value: float, half: float = 0.005) -> Estimate:
    return Estimate(value, value - half, value + half, 0.95, 100, "bca")


def part(name: str, declared: Effect = "positive") -> ExaminedPart:
    return ExaminedPart(name, declared, ("group",))


def codes(**found: object) -> list[str]:
    effects = replace(CircuitEffects("logit_diff", (), ()), **found)  # type: ignore[arg-type]
    warnings = warned(EFFECT_WARNINGS, effects=effects)
    assert {w.code for w in warnings} <= set(all_codes())
    assert all(w.detail and w.help for w in warnings)
    return [w.code for w in warnings]


def test_nothing_examined_nothing_said() -> None:
    assert warned(EFFECT_WARNINGS, effects=None) == ()
    assert codes() == []


# -- backups ------------------------------------------------------------------------------------


def out(total: float, *by: tuple[str, Standing, float], direct: float = 10.0) -> Knockout:
    compensators = tuple(Compensator(name, standing, share * direct, share, 1e-4) for name, standing, share in by)
    compensated = sum(share for _, _, share in by)
    return Knockout("main", direct, at(total), at(1 - total / direct), at(compensated) if by else None, compensators, 9)


@pytest.mark.parametrize(
    ("knockout", "expected"),
    [
        (out(3, ("a1.h1", "outside the circuit", 0.7)), ["CS427"]),
        (out(3, ("a1.h1", "in the circuit", 0.7)), ["CS426"]),
        (out(3, ("m1", "free", 0.7)), ["CS426"]),
        (out(3, ("a1.h1", "backup", 0.7)), []),
        (out(3, ("a1.h1", "in the circuit", 0.3), ("a1.h2", "outside the circuit", 0.4)), ["CS426", "CS427"]),
        (out(3, ("a1.h1", "outside the circuit", 0.1), ("a1.h2", "outside the circuit", 0.15)), ["CS427"]),
        (out(3, ("a1.h1", "outside the circuit", 0.15)), []),  # the rest is the final norm's
        (out(3, ("a1.h1", "outside the circuit", 0.19), ("a1.h2", "in the circuit", 0.19)), ["CS426", "CS427"]),
        (out(3, ("m1", "free", 0.1), ("a1.h2", "in the circuit", 0.11)), ["CS426"]),
        (out(3, ("a1.h1", "outside the circuit", 0.04), ("a1.h2", "in the circuit", 0.19)), ["CS426"]),
        (out(3, ("a1.h1", "outside the circuit", 0.1), ("a1.h2", "backup", 0.5)), []),  # the most of it is declared
        (out(3), []),
        (out(8.2, ("a1.h1", "outside the circuit", 0.58)), ["CS427"]),  # it compensates, whatever else is lost
        (out(8.2, ("a1.h1", "in the circuit", 0.58)), []),  # other losses outweigh what it compensates
        (out(9, ("a1.h1", "outside the circuit", 0.7)), ["CS427"]),
        (out(-9, ("a1.h1", "outside the circuit", 1.9)), []),  # no backup, but what the loss sets free
        (out(-3, ("a1.h1", "outside the circuit", 0.7), direct=-10.0), ["CS427"]),
    ],
)
def test_backups_are_warned_of_where_little_is_lost_of_much(knockout: Knockout, expected: list[str]) -> None:
    assert codes(knockouts=(knockout,)) == expected


def test_what_one_knockout_has_named_others_need_not() -> None:
    first = out(3, ("a1.h1", "outside the circuit", 0.7))
    again = replace(first, name="main, other")
    more = replace(out(3, ("a1.h1", "outside the circuit", 0.5), ("a1.h2", "outside the circuit", 0.2)), name="third")
    assert codes(knockouts=(first, again)) == ["CS427"]
    assert codes(knockouts=(first, again, more)) == ["CS427", "CS427"]


# -- what can be lost ---------------------------------------------------------------------------


def silent(declared: Effect = "positive", **found: object) -> Ablated:
    return replace(Ablated(part("a0.h0", declared), 0.0, at(0.0), 1.0), **found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (silent(rise=at(0.0)), ["CS415"]),
        (silent(), ["CS415"]),  # there is nothing to restore it in
        (silent(rise=at(0.0, 0.02)), []),  # it may bring back 2 %
        (silent(rise=at(0.9)), ["CS426"]),
        (silent(rise=at(0.0), besides=Besides("other", at(0.9))), ["CS426"]),
        (silent(rise=at(0.02), besides=Besides("other", at(0.02))), []),  # neither idle nor redundant
        (silent(rise=at(0.9), excused=True), []),
        (silent("backup", rise=at(0.0)), []),
        (silent("negative", rise=at(0.0)), []),
        (Ablated(part("a0.h0"), -0.1, at(0.02), 1e-4), []),
        (Ablated(part("a0.h0"), 0.0, at(0.0, 0.02), 1.0), []),  # not sure to be silent
    ],
)
def test_components_that_can_be_lost_are_idle_or_redundant(one: Ablated, expected: list[str]) -> None:
    assert codes(components=(one,)) == expected


@pytest.mark.parametrize(("rise", "code"), [(0.0, "CS415"), (0.9, "CS426")])
def test_many_components_are_told_in_a_line_that_can_be_read(rise: float, code: str) -> None:
    """Eight are named, three with their figures; how many more there are is said, and all are in the data."""
    many = tuple(replace(silent(rise=at(rise)), part=part(f"a{layer}.h0")) for layer in range(11))
    (warning,) = warned(EFFECT_WARNINGS, effects=CircuitEffects("logit_diff", (), many))
    assert warning.code == code
    assert "a7.h0 and 3 more" in warning.message
    assert [name for name in (one.part.name for one in many) if f"{name}:" in warning.detail] == [
        "a0.h0",
        "a1.h0",
        "a2.h0",
    ]
    assert "; and 8 more" in warning.detail
    assert len(warning.detail) < 700
    assert len(warning.data["components"]) == 11  # type: ignore[arg-type]
    (few,) = warned(EFFECT_WARNINGS, effects=CircuitEffects("logit_diff", (), many[:3]))
    assert "more" not in few.detail


def test_what_makes_up_for_others_is_not_idle() -> None:
    knockout = out(3, ("a0.h0", "backup", 0.7))
    assert codes(components=(silent(rise=at(0.0)),), knockouts=(knockout,)) == []


def test_nothing_is_idle_for_sure_where_slots_are_kept() -> None:
    effects = CircuitEffects("logit_diff", (), (silent(rise=at(0.0)),))
    assert [w.code for w in warned(EFFECT_WARNINGS, effects=effects)] == ["CS415"]
    assert warned(EFFECT_WARNINGS, effects=effects, kept=["B"]) == ()


# -- declared negative --------------------------------------------------------------------------

AGAINST = part("against", "negative")
HELPS = Ablated(AGAINST, -0.5, at(0.1), 1e-6)
HURTS = Ablated(AGAINST, 0.5, at(-0.1), 1e-6)
NEITHER = Ablated(AGAINST, 0.0, at(0.0), 0.8)


def test_a_negative_group_hurts_in_the_model_or_in_the_circuit_alone() -> None:
    """What is negative in the circuit may help in the model, where other components read it."""
    assert codes(groups=(HURTS,)) == []
    assert codes(groups=(HELPS,)) == ["CS428"]
    assert codes(groups=(NEITHER,)) == ["CS428"]
    assert codes(groups=(HELPS,), within=(HURTS,)) == []
    assert codes(groups=(HELPS,), within=(NEITHER,)) == ["CS428"]


# -- negative and not declared ------------------------------------------------------------------

ONE, TWO = ExaminedPart("a0.h0", "positive", ("naming",)), ExaminedPart("a0.h1", "positive", ("naming",))
NAMING = ExaminedPart("naming", "positive", ("naming",))


def rising(of: ExaminedPart, share: float, p_adjusted: float = 1e-6) -> Ablated:
    return Ablated(of, 10 * share, at(-share), p_adjusted)


@pytest.mark.parametrize(
    ("in_model", "in_circuit", "note", "expected"),
    [
        (0.2, 0.1, "negative", ["CS433"]),
        (0.2, 0.05, "negative", ["CS433"]),
        (0.2, 0.04, "negative", []),  # in the circuit too, and by little
        (0.04, 0.2, "negative", []),
        (0.2, 0.009, "ablating it raises the metric", []),
        (0.2, -0.3, "ablating it raises the metric", []),  # in the circuit it helps
        (0.2, None, "ablating it raises the metric", []),  # not looked at there
        (-0.2, 0.3, "", []),
        (0.009, 0.3, "none shown", []),
    ],
)
def test_what_works_against_the_behaviour_does_so_in_the_model_and_in_the_circuit_alone(
    in_model: float, in_circuit: float | None, note: str, expected: list[str]
) -> None:
    """Many a head of a sound circuit stands against others in the model that are not in the circuit."""
    one = rising(ONE, in_model)
    within = () if in_circuit is None else (rising(ONE, in_circuit),)
    assert codes(components=(one,), within=within) == expected
    assert CircuitEffects("logit_diff", (), (one,), within=within).note(one) == note


def test_chance_is_not_negative() -> None:
    for in_model, in_circuit in ((0.06, 1e-6), (1e-6, 0.06)):
        one, alone = rising(ONE, 0.3, in_model), rising(ONE, 0.3, in_circuit)
        assert codes(components=(one,), within=(alone,)) == []


def test_what_is_declared_negative_or_backup_needs_no_such_warning() -> None:
    for declared in ("negative", "backup"):
        one = rising(replace(ONE, declared=declared), 0.3)
        assert codes(components=(one,), within=(one,)) == []
    other, against = rising(ExaminedPart("a0.h0", "positive", ("naming", "against")), 0.3), rising(AGAINST, 0.3)
    assert codes(groups=(against,), components=(other,), within=(against, other)) == []  # one of its roles is


def test_a_group_is_named_where_none_of_its_components_is() -> None:
    group, one, two = rising(NAMING, 0.3), rising(ONE, 0.3), rising(TWO, 0.01)
    (whole,) = warned(EFFECT_WARNINGS, effects=CircuitEffects("logit_diff", (group,), (two,), within=(group, two)))
    assert "`naming` as a whole" in whole.message
    (warning,) = warned(
        EFFECT_WARNINGS, effects=CircuitEffects("logit_diff", (group,), (one, two), within=(group, one, two))
    )
    assert "a0.h0 (naming)" in warning.message
    assert "as a whole" not in warning.message
    assert "a0.h0: by 3.00 in the model, 0.30 [0.29, 0.30] of clean - corrupt, and by 3.00" in warning.detail
    (named,) = warning.data["parts"]  # type: ignore[misc]
    assert (named["name"], named["drop"]["value"], named["in_circuit"]["drop"]["value"]) == ("a0.h0", -0.3, -0.3)
