"""Checks of what values on paths carry: groups, positions and names that the file knows."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.hypothesis_file.checks.check_circuit import check_node, check_path
from circuitspec.hypothesis_file.checks.scope import Scope, meant
from circuitspec.hypothesis_file.schema.abstraction.scrubbed_block import Scrubbed


def check_carries(scope: Scope) -> None:
    """Note entries about what there is not, and claims to scrub a circuit of which nothing is said to be carried."""
    circuit = scope.parts.circuit
    if circuit is None:
        return
    for key, names in (circuit.carries or {}).items():
        place, before = ("circuit", "carries", key), len(scope.findings)
        if "->" in key:
            check_path(scope, key, place)
        else:
            check_node(scope, key, place)
        at_key = scope.source.span(place, key=True)  # which is what is wrong, and not what stands behind it
        scope.findings[before:] = [replace(one, span=at_key) for one in scope.findings[before:]]
        if isinstance(names, tuple):
            _check_names(scope, names, key)
    _check_claims(scope)


def _check_names(scope: Scope, names: tuple[str, ...], key: str) -> None:
    if scope.parts.task is None or not scope.is_templated:
        return  # columns of a prompts file are known once it is read
    known = [*scope.declared("task", "slots"), *scope.declared("abstraction", "variables")]
    for i, name in enumerate(names):
        if name not in known:
            hint = meant(name, known)
            scope.add("CS197", f"there is no slot or variable {name}", ("circuit", "carries", key, i), hint=hint)


def _check_claims(scope: Scope) -> None:
    for i, claim in enumerate(scope.parts.claims):
        if not isinstance(claim, Scrubbed):
            continue
        if not scope.at("circuit", "paths"):
            message = "scrubbed is about values on the declared paths, and there are none"
            hint = "add circuit: paths: [A -> B<q>, B -> logits]"
            scope.add("CS196", message, ("claims", i, claim.kind), hint=hint, key=True)
        elif scope.at("circuit", "carries") is None and scope.at("circuit", "unnamed") is None:
            message = "scrubbed tests what values on the paths carry, and the file does not say it of any"
            hint = "add circuit: carries: {A: [SLOT], A -> B<q>: [VARIABLE]}"
            scope.add("CS196", message, ("claims", i, claim.kind), hint=hint, key=True)
