"""Filling templates, and where the slots then stand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circuitspec.prompts.templates.template import occurrence, parse_template, slot_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.fixed_dictionaries({"A": texts, "B": texts, "C": st.fixed_dictionaries({"x": texts, "y": texts})})
pieces = st.lists(
    st.one_of(texts.map(lambda t: ("text", t)), st.sampled_from(["A", "B", "C.x", "C.y"]).map(lambda f: ("field", f)))
)


def test_occurrences_of_a_slot_are_numbered_in_order_whatever_their_column() -> None:
    template = parse_template("{C.name}, {X}, {C.city}, {X}")
    text, spans = template.render_with_spans({"C": {"name": "Louvre", "city": "Paris"}, "X": "or"})
    assert text == "Louvre, or, Paris, or"
    assert spans == {"C": (0, 6), "X": (8, 10), "C#2": (12, 17), "X#2": (19, 21)}


def test_doubled_braces_are_braces() -> None:
    assert parse_template("{{{X}}} {{}}").render({"X": "a"}) == "{a} {}"


@given(pieces, values)
def test_rendering_is_plain_concatenation_and_spans_hold_the_slots(
    parts: list[tuple[str, str]], filled: dict[str, str | dict[str, str]]
) -> None:
    def fill(field: str) -> str:
        slot, _, column = field.partition(".")
        value = filled[slot]
        return value if isinstance(value, str) else value[column]

    written = "".join(t.replace("{", "{{").replace("}", "}}") if kind == "text" else f"{{{t}}}" for kind, t in parts)
    text, spans = parse_template(written).render_with_spans(filled)
    assert text == "".join(t if kind == "text" else fill(t) for kind, t in parts)
    fields = [t for kind, t in parts if kind == "field"]
    seen: dict[str, int] = {}
    expected = []
    for field in fields:
        slot = field.partition(".")[0]
        seen[slot] = seen.get(slot, 0) + 1
        expected.append((occurrence(slot, seen[slot]), fill(field)))
    assert [(role, text[a:b]) for role, (a, b) in spans.items()] == expected


def test_the_slot_of_an_occurrence() -> None:
    assert [slot_of(occurrence("S", n)) for n in (1, 2, 10)] == ["S", "S", "S"]
