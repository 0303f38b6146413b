"""What differs between two plain data structures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.repository.changes import changes


def said(old: Any, new: Any) -> list[tuple[tuple[Any, ...], str]]:
    return [(change.path, str(change)) for change in changes(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": ["x", "y", "z"]}, {"a": ["x", "w", "z"]}, [(("a", 1), "y -> w")]),
        ({"a": ["x", "y", "z"]}, {"a": ["y", "z"]}, [(("a", 0), "x -> nothing")]),
        ({"a": ["x", "z"]}, {"a": ["x", "y", "z"]}, [(("a", 1), "nothing -> y")]),
        ({"a": 1, "b": None}, {"a": 2, "b": False}, [(("a",), "1 -> 2"), (("b",), "null -> false")]),
        ({"a": 1}, {"b": 1}, [(("b",), "nothing -> 1"), (("a",), "1 -> nothing")]),
        ([{"n": ["a"], "at": "S"}], [{"n": ["b"], "at": "S"}], [((0, "n", 0), "a -> b")]),
        ({"a": ""}, {"a": "x"}, [(("a",), '"" -> x')]),
        ({"a": 1}, {"a": True}, []),  # equal in Python; the kinds of values are the schema's to judge
        ({"a": ["x"]}, {"a": "x"}, [(("a",), '["x"] -> x')]),
    ],
)
def test_the_smallest_parts_that_differ(old: Any, new: Any, expected: list[Any]) -> None:
    assert said(old, new) == expected


PLAIN = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@given(PLAIN, PLAIN)
def test_something_differs_exactly_if_they_are_unequal(old: Any, new: Any) -> None:
    assert bool(list(changes(old, new))) == (old != new)
    assert not list(changes(old, old))
