"""The small texts inside a task: position expressions, template fields, slot rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.hypothesis_file.grammar.fields import (
    Copy,
    Draw,
    TemplateField,
    parse_list_reference,
    parse_slot_rule,
    template_fields,
)
from circuitspec.hypothesis_file.grammar.names import NameSyntaxError
from circuitspec.hypothesis_file.grammar.positions import PositionExpr, format_position, parse_position


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("S1", PositionExpr("S1")),
        ("S1 + 1", PositionExpr("S1", 1, 1)),
        ("S1+1", PositionExpr("S1", 1, 1)),
        ("S1 - 2", PositionExpr("S1", 1, -2)),
        ("S#2", PositionExpr("S", 2)),
        (" S#2 -1 ", PositionExpr("S", 2, -1)),
        ("last", PositionExpr("last")),
        ("last - 3", PositionExpr("last", 1, -3)),
        ("start + 3", PositionExpr("start", 1, 3)),
        ("start", PositionExpr("start")),
        (0, PositionExpr("start", indexed=True)),
        (5, PositionExpr("start", 1, 5, indexed=True)),
        (-1, PositionExpr("last")),
        (-3, PositionExpr("last", 1, -2)),
    ],
)
def test_positions(written: str | int, meant: PositionExpr) -> None:
    assert parse_position(written) == meant


@pytest.mark.parametrize("slot", ["S1", "_x"])
def test_which_slot(slot: str) -> None:
    assert parse_position(f"{slot} + 1").slot == slot
    assert parse_position("last").slot is None
    assert parse_position(3).slot is None


@pytest.mark.parametrize(
    "written",
    ["", "S1 + S2", "S1 ++ 1", "1", "S#0", "last#2", "last + 1", "start - 1", "S 1", "@END", 100_000, -100_000],
)
def test_wrong_positions(written: str | int) -> None:
    with pytest.raises(NameSyntaxError):
        parse_position(written)


@given(
    st.builds(
        PositionExpr,
        st.from_regex(r"[A-Z][A-Za-z0-9_]*", fullmatch=True),
        st.integers(1, 9999),
        st.integers(-99999, 99999),
    )
    | st.builds(PositionExpr, st.just("last"), st.just(1), st.integers(-99999, 0))
    | st.builds(PositionExpr, st.just("start"), st.just(1), st.integers(0, 99999))
)
def test_positions_round_trip(position: PositionExpr) -> None:
    assert parse_position(format_position(position)) == position


def test_a_token_index_is_spelled_as_one() -> None:
    assert format_position(parse_position(5)) == "5"


def test_template_fields() -> None:
    assert template_fields("a {S1}{{x}} {C.city name}") == (
        TemplateField("S1", None, 2, 4),
        TemplateField("C", "city name", 12, 13),
    )
    assert template_fields("no slots") == ()
    assert template_fields("{{{S}") == (TemplateField("S", None, 2, 3),)


@pytest.mark.parametrize(
    ("text", "offset"),
    [("a {S1", 2), ("a S1}", 4), ("{}", 0), ("x {S 1}", 2), ("{S1!r}", 0), ("{S1:3}", 0), ("{S1.}", 0), ("{a{b}}", 0)],
)  # fmt: skip
def test_wrong_templates(text: str, offset: int) -> None:
    with pytest.raises(NameSyntaxError) as caught:
        template_fields(text)
    assert caught.value.offset == offset


@given(st.text(alphabet="{}S1.:! a", max_size=12))
def test_fields_agree_with_the_standard_library(text: str) -> None:
    """Whatever is accepted formats to the same fields with `str.format`'s own parser."""
    from string import Formatter

    try:
        fields = template_fields(text)
    except NameSyntaxError:
        return
    names = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    assert names == [one.slot if one.column is None else f"{one.slot}.{one.column}" for one in fields]


def test_slot_rules() -> None:
    assert parse_slot_rule("$names") == Draw("names")
    assert parse_slot_rule(" =S1 ") == Copy("S1")
    assert parse_slot_rule("$t.city") == Draw("t", "city")
    assert parse_slot_rule("=S.two words") == Copy("S", "two words")


@pytest.mark.parametrize("text", ["names", "$", "=", "$a b", "==S1", "", "$t.", "=S.a.b", "= 1"])
def test_wrong_slot_rules(text: str) -> None:
    with pytest.raises(NameSyntaxError):
        parse_slot_rule(text)


def test_list_references() -> None:
    assert parse_list_reference("$years") == ("years", None)
    assert parse_list_reference("$t.two words") == ("t", "two words")
    for wrong in ("years", "$", "$t.", "$a b"):
        with pytest.raises(NameSyntaxError):
            parse_list_reference(wrong)
