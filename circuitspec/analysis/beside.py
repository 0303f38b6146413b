"""What was run beside the claims, evaluated: a sweep over methods, tests of the circuit. Neither decides a claim."""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.analysis.methods import MethodSweep, method_sweep
from circuitspec.analysis.random_circuits import CircuitTests, circuit_tests
from circuitspec.engine.records import Records
from circuitspec.plan.beside import Beside
from circuitspec.plan.circuit_tests import TestRuns


@dataclass(frozen=True)
class FoundBeside:
    """None where it was not asked for."""

    sweep: MethodSweep | None = None
    tests: CircuitTests | None = None


def evaluate_beside(planned: Beside, records: Records, metric: str) -> FoundBeside:
    """The sweep and the tests by this metric. Raises CS511 where a value is not finite."""
    sweep = None if planned.methods is None else method_sweep(planned.methods, records, metric)
    match planned.tests:
        case TestRuns():
            return FoundBeside(sweep, circuit_tests(planned.tests, records, metric))
        case str():
            return FoundBeside(sweep, CircuitTests(metric, (), (planned.tests,)))
    return FoundBeside(sweep)
