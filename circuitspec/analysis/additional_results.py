"""What was run beside the claims, evaluated: a sweep over methods, tests of the circuit. Neither decides a claim."""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.analysis.claims.method_sweep import MethodSweep, method_sweep
from circuitspec.analysis.claims.random_circuit_tests import CircuitTests, circuit_tests
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.additional_runs import Beside
from circuitspec.experiments.circuits.circuit_tests import TestRuns


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
