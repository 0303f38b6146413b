"""For all tests."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

from tests.matrix import Case, left_to_nightly, of_further_families, of_quick

# What is verified is run: results of an earlier session would hide what is wrong now.
os.environ["CIRCUITSPEC_NO_STORE"] = "1"

# How many examples a test draws that does not say it: `make nightly` takes the second.
settings.register_profile("few", max_examples=50, deadline=None)
settings.register_profile("many", max_examples=300, deadline=None)
settings.load_profile("few")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: looking through it again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tiers of `tests/matrix.py`."""
    cases = [_case(item, place) for place, item in enumerate(items) if isinstance(item, pytest.Function)]
    thinned = [case for case in cases if not _marked(items[case.place], "every_family", "nightly")]
    for place in left_to_nightly(thinned) | of_further_families(cases):
        items[place].add_marker(pytest.mark.nightly)
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
    for place in of_quick(cases):
        items[place].add_marker(pytest.mark.quick)


def _marked(item: pytest.Item, *marks: str) -> bool:
    return any(item.get_closest_marker(mark) for mark in marks)


def _case(item: pytest.Function, place: int) -> Case:
    family = item.callspec.params.get("family") if hasattr(item, "callspec") else None
    return Case(item.module.__name__, item.originalname, family if isinstance(family, str) else None, place)
