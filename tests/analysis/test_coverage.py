"""A quick round of benchmarks/coverage.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
REPETITIONS = 400


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_scenarios_recover_what_they_say(benchmark: ModuleType) -> None:
    assert len(benchmark.SCENARIOS) == 7
    for scenario in benchmark.SCENARIOS:
        patched, corrupt, clean = scenario.draw(np.random.default_rng(0), 1_000_000)
        drawn = (patched.mean() - corrupt.mean()) / (clean.mean() - corrupt.mean())
        assert drawn == pytest.approx(scenario.truth, abs=5e-3), scenario.name


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("number", range(7))
def test_intervals_hold_the_truth(benchmark: ModuleType, number: int, n: int) -> None:
    scenario = benchmark.SCENARIOS[number]
    found = benchmark.coverage(scenario, n, REPETITIONS, 999)
    error = (0.95 * 0.05 / REPETITIONS) ** 0.5
    assert 0.93 - 2 * error < found.holds < 0.97 + 2 * error
    assert found.below + found.above == pytest.approx(1 - found.holds)
