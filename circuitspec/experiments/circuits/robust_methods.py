"""The methods under which a claim is to hold (`robust_to`)."""

from __future__ import annotations

from collections.abc import Sequence

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.circuits.method_grid import Choice, Methods, all_values, own_method, plan_methods
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Necessary, Sufficient
from circuitspec.hypothesis_file.yaml.source import Source as SourceText


def claimed_methods(
    claim: Sufficient | Necessary,
    ablation: AblationSpec,
    corruptions: Sequence[str],
    graph: CircuitGraph,
    text: SourceText,
    index: int,
) -> Methods:
    """Every combination of the choices that the claim names, with all of their values, or the file's and those given.

    Raises CS167 for a value that it gives and that cannot be run, and where nothing but the file's own method can;
    CS508 for a corruption that the prompts do not have.
    """
    named, given = claim.robust_to or (), claim.robust_to if isinstance(claim.robust_to, dict) else {}
    listed = ("claims", index, claim.kind, "robust_to")
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
    own = own_method(ablation, set_="complement" if isinstance(claim, Sufficient) else "circuit")
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
