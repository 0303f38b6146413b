"""For all tests."""

from __future__ import annotations

import os

import pytest

from tests.matrix import Case, left_to_nightly

# What is verified is run: results of an earlier session would hide what is wrong now.
os.environ["CIRCUITSPEC_NO_STORE"] = "1"


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `tests/matrix.py` leaves to `make nightly`."""
    cases = []
    for place, item in enumerate(items):
        if not isinstance(item, pytest.Function) or item.get_closest_marker("every_family") is not None:
            continue
        family = item.callspec.params.get("family") if hasattr(item, "callspec") else None
        if isinstance(family, str):
            cases.append(Case(item.module.__name__, item.originalname, family, place))
    for place in left_to_nightly(cases):
        items[place].add_marker(pytest.mark.nightly)
