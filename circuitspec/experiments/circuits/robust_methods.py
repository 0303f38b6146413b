"""The methods under which a claim is to hold (`robust_to`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.circuits.method_grid import (
    Choice,
    Methods,
    Patched,
    all_values,
    own_method,
    plan_methods,
)
from circuitspec.experiments.experiment import Experiment
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import Place
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.schema.claim_block import ChoiceName
from circuitspec.hypothesis_file.yaml.source import SourceText

RobustTo: TypeAlias = Sequence[ChoiceName] | Mapping[ChoiceName, Sequence[str]]
"""Choices of method, all values of which are meant, or their values."""


def claimed_methods(
    robust_to: RobustTo,
    patched: Patched,
    listed: Place,
    ablation: AblationSpec,
    corruptions: Sequence[str],
    graph: CircuitGraph,
    text: SourceText,
) -> Methods:
    """Every combination of the choices that a claim names, with all of their values, or the file's and those given.

    The claim patches this set; what it names (`robust_to`) stands at `listed` in the file. Raises CS167 for a value
    that it gives and that cannot be run, and where nothing but the file's own method can; CS508 for a corruption that
    the prompts do not have.
    """
    named: Iterable[ChoiceName] = robust_to
    given: Mapping[ChoiceName, Sequence[str]] = robust_to if isinstance(robust_to, Mapping) else {}
    problems = [
        Diagnostic(
            "CS508",
            f"the prompts have no corruption `{name}`",
            text.span((*listed, "corruption", i)),
            hint=f"they have: {', '.join(corruptions) or 'none'}",
        )
        for i, name in enumerate(given.get("corruption", ()))
        if name not in corruptions
    ]
    if problems:
        raise CircuitspecError(*problems)
    every = all_values(ablation, corruptions)
    own = own_method(ablation, set_=patched)
    wanted: dict[Choice, tuple[str | None, ...]] = {
        choice: tuple(dict.fromkeys((getattr(own, choice), *given[choice]))) if choice in given else every[choice]
        for choice in named
    }
    found = plan_methods(own, wanted, ablation, graph, text)
    reasons = {one.method: one.reason for one in found.left_out}
    for choice, values in given.items():
        for i, value in enumerate(values):
            if any(getattr(run.method, choice) == value for run in found.runs):
                continue
            why = next((reason for method, reason in reasons.items() if getattr(method, choice) == value), "")
            problems.append(
                Diagnostic(
                    "CS167",
                    f"{choice} {value} cannot be run here" + (f": {why}" if why else ""),
                    text.span((*listed, choice, i)),
                    hint="remove it",
                )
            )
    if not problems and all(run.method == own for run in found.runs):
        problems.append(
            Diagnostic(
                "CS167",
                f"there is no other {' or '.join(named)} to run: "
                + next(iter(reasons.values()), "the file has the only one"),
                text.span(listed, key=True),
                hint="remove robust_to, or name another choice",
            )
        )
    if problems:
        raise CircuitspecError(*problems)
    return found


def fitted_methods(
    methods: Methods, robust_to: RobustTo, listed: Place, refused: Mapping[Experiment, str], text: SourceText
) -> Methods:
    """The methods without those that need a run which these prompts do not allow; `refused` says why.

    The file's own method stays, so that what is wrong with it is told. Raises CS167 where the claim gives by its values
    what is then run nowhere, and where nothing but the file's own method is left.
    """
    left = methods.without(refused)
    own = [run for run in methods.runs if run.method == methods.own]
    if not all(run in left.runs for run in own):
        left = replace(
            left,
            runs=(*own, *left.runs),
            left_out=tuple(one for one in left.left_out if one.method != methods.own),
        )
    gone = {run.method: run for run in methods.runs if run not in left.runs}
    reasons = {one.method: one.reason for one in left.left_out if one.method in gone}
    given: Mapping[ChoiceName, Sequence[str]] = robust_to if isinstance(robust_to, Mapping) else {}
    problems = []
    for choice in given:
        kept = {getattr(run.method, choice) for run in left.runs}
        lost = {getattr(method, choice): why for method, why in reversed(reasons.items())}
        problems += [
            Diagnostic(
                "CS167", f"{choice} {value} cannot be run here: {why}", text.span((*listed, choice)), hint="remove it"
            )
            for value, why in lost.items()
            if value not in kept
        ]
    if not problems and gone and left.runs == tuple(own):
        problems.append(
            Diagnostic(
                "CS167",
                f"there is no other {' or '.join(robust_to)} to run: {next(iter(reasons.values()))}",
                text.span(listed, key=True),
                hint="remove robust_to, or name another choice",
            )
        )
    if problems:
        raise CircuitspecError(*problems)
    return left
