"""A quick round of benchmarks/warning_rates.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "warning_rates.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("warning_rates", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_toys_say_what_they_are_built_to(benchmark: ModuleType) -> None:
    """Half of what is said is the margin, on average: ` nothing` has the other half as its logit."""
    for seed in (0, 1, 2):
        planted = benchmark.random_circuit(seed)
        found = benchmark.examined(planted)
        clean, corrupt = (found.records[run]["logit_diff"] for run in (found.plan.clean, found.plan.corrupt))
        said = 2 * float(planted.toy.logits[" nothing"]["one"])
        assert clean.mean() == pytest.approx(said / 2, rel=0.25)  # things differ by a tenth
        assert corrupt.mean() == pytest.approx(-said / 2, rel=0.25)


def test_a_seed_is_a_circuit(benchmark: ModuleType) -> None:
    assert benchmark.random_circuit(5) == benchmark.random_circuit(5)
    assert benchmark.random_circuit(5).text != benchmark.random_circuit(6).text


@pytest.mark.nightly
def test_what_is_planted_is_found_and_nothing_else(benchmark: ModuleType) -> None:
    rates = benchmark.measure(range(100, 108))
    for one in benchmark.PROPERTIES:
        assert rates[one].planted > 0
        assert rates[one].others > 0
        assert (rates[one].found, rates[one].false) == (rates[one].planted, 0), one
    assert rates["any other"].false == 0
