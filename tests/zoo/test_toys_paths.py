"""Toys by their edges and paths: what the oracle finds for the claims of their files is what arithmetic says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from circuitspec.hypothesis_file.grammar.names import parse_path
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection
from circuitspec.hypothesis_file.schema.claims.mediation_block import Mediation
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.declared_edges import (
    Edge,
    Roles,
    Size,
    at_positions,
    declared_edges,
    expand_paths,
    receivers_of,
    stops,
)
from tests.oracle import edge, edge_circuit, families, node, path
from tests.zoo.path_cases import EXPECTED, amplification, mediation, nobel, score
from tests.zoo.toy_cases import (
    CASES,
    HYPOTHESES,
    TOLERANCE,
    Case,
    logit_difference,
    oracle_prompts,
    oracle_sites,
    toy,
)

SIZE = Size(layers=2, heads=4)
BY_NAME = {case.toy: case for case in CASES if case.corruption in ("stopped", "random")}


@dataclass(frozen=True)
class Toy:
    """One file, the model it is about and its first prompts."""

    hypothesis: Hypothesis
    net: families.Net
    prompts: list[node.Prompt]

    @property
    def declared(self) -> dict[Edge, Roles]:
        return declared_edges(self.hypothesis.circuit, SIZE)


def opened(name: str) -> Toy:
    hypothesis = load_hypothesis(HYPOTHESES / f"{name}.circuit.yaml").hypothesis
    loaded, task = toy(name)
    assert hypothesis.ablation.source is not None
    return Toy(hypothesis, families.read(loaded.model), oracle_prompts(task, hypothesis.ablation.source, 2))


# ------------------------------------------------------------------------------------------------------------- edges


def kept_alone(net: families.Net, prompt: node.Prompt, edges: Mapping[Edge, Roles]) -> float:
    """Noising every other edge in the clean run."""
    kept = at_positions(edges, prompt.roles, range(len(prompt.clean)))
    return logit_difference(
        edge.edge_run(net, prompt.clean, edge.contributions(net, prompt.corrupt), kept).logits, prompt
    )


def patched_alone(net: families.Net, prompt: node.Prompt, edges: Mapping[Edge, Roles], *, clean: bool) -> float:
    """Noising these edges in the clean run, or denoising them in the corrupt one."""
    base, source = (prompt.clean, prompt.corrupt) if clean else (prompt.corrupt, prompt.clean)
    patched = at_positions(edges, prompt.roles, range(len(base)))
    kept = {e: [p for p in range(len(base)) if p not in patched.get(e, ())] for e in SIZE.edges}
    return logit_difference(edge.edge_run(net, base, edge.contributions(net, source), kept).logits, prompt)


# ------------------------------------------------------------------------------------------------------------- paths


def by_path(found: Toy, prompt: node.Prompt, claim: PathClaim | Mediation) -> float | tuple[float, float]:
    """The logit difference with the path patched; of mediation, with A -> C patched and with A -> B -> C as well."""
    hops = []
    for (item,) in parse_path(claim.of).hops:
        ((component, roles, ports),) = stops(item, found.hypothesis.circuit, SIZE)
        hops.append((component, [prompt.roles[role] for role in roles or ()], receivers_of(component, ports)))
    base, other = (prompt.clean, prompt.corrupt) if claim.direction == "noising" else (prompt.corrupt, prompt.clean)
    net, source = found.net, node.resample_values(found.net, other)
    (sender, at, _), *between, (_, _, last) = hops
    direct = logit_difference(path.path_patch(net, base, source, sender, last, sender_positions=at), prompt)
    if not between:
        return direct
    ((_, _, (middle,)),), (end,) = between, last
    if isinstance(claim, PathClaim):
        return logit_difference(path.chain(net, base, source, sender, [middle, end], sender_positions=at), prompt)
    # both: the middle component with the value that the first hop brings it, in one pass with the sender's own
    new = {(sender, p): source[sender][p] for p in at}
    everywhere = range(len(base))
    brought = path.direct(net, base, new).reads[middle]
    values = node.forward(net, base, reads={(middle, p): brought[p] for p in everywhere}, record=True).values
    (mediator,) = edge_circuit.owners(net, middle)
    seen = path.direct(net, base, {**new, **{(mediator, p): values[mediator][p] for p in everywhere}}).reads[end]
    run = node.forward(net, base, reads={(end, p): seen[p] for p in everywhere})
    return direct, logit_difference(run.logits, prompt)


@pytest.mark.parametrize("name", EXPECTED)
def test_claims(name: str) -> None:
    """The oracle's numbers are those of arithmetic, and with them every claim of the file holds."""
    found = opened(name)
    for prompt in found.prompts:
        for claim, expected in zip(found.hypothesis.claims, EXPECTED[name], strict=True):
            match claim:
                case Sufficient():
                    measured: float | tuple[float, float] = kept_alone(found.net, prompt, found.declared)
                case Necessary():
                    measured = patched_alone(found.net, prompt, found.declared, clean=True)
                case CrossSection():
                    edges = expand_paths(claim.paths or (), found.hypothesis.circuit, SIZE)
                    measured = patched_alone(found.net, prompt, edges, clean=False)
                case PathClaim() | Mediation():
                    measured = by_path(found, prompt, claim)
            assert measured == pytest.approx(expected, rel=0, abs=TOLERANCE), claim
            assert (claim.at_least or -1) <= score(claim, measured) <= (claim.at_most or 2), claim


# ------------------------------------------------------------------------------------------------ what they are for


def without(name: str, *paths: str) -> dict[Edge, Roles]:
    """The declared edges of a file with these of its paths taken out."""
    circuit = opened(name).hypothesis.circuit
    assert set(paths) < set(circuit.paths)
    return declared_edges(circuit.model_copy(update={"paths": [p for p in circuit.paths if p not in paths]}), SIZE)


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        ("input@first -> previous_token<v>", nobel(0, 1)),
        ("previous_token -> prize", nobel(0, 1)),
        ("input@second -> prize", nobel(1, 0)),
        ("prize -> logits", 8 * 0 - 4),
    ],
)
def test_noising_leaves_the_prize_only_with_all_paths_kept(left_out: str, expected: float) -> None:
    """Section 3.1: two paths restored are enough, and three (with the way out four) must be left clean."""
    found = opened("nobel-edges")
    for prompt in found.prompts:
        measured = kept_alone(found.net, prompt, without("nobel-edges", left_out))
        assert measured == pytest.approx(expected, rel=0, abs=TOLERANCE)


def test_the_direct_path_is_idle_in_one_and_needed_in_the_other() -> None:
    """Section 2.2: both ways round, each model with the edges that are right for the other."""
    one, other = opened("mediation"), opened("amplification")
    assert without("amplification", "switch -> lamp") == one.declared  # the same components by other names
    for prompt in one.prompts:
        assert kept_alone(one.net, prompt, other.declared) == pytest.approx(mediation(1, 1), rel=0, abs=TOLERANCE)
        assert kept_alone(other.net, prompt, one.declared) == pytest.approx(amplification(0, 1), rel=0, abs=TOLERANCE)


def test_noising_components_does_not_tell_them_apart() -> None:
    """From the numbers that `test_toys` confirms with the oracle and the engine."""
    one, other = BY_NAME["mediation"], BY_NAME["amplification"]
    assert (one.noised, one.clean, one.corrupt) == (other.noised, other.clean, other.corrupt)
    differing = {patched for patched in one.denoised if one.denoised[patched] != other.denoised[patched]}
    assert differing == {"a1.h0"}


@pytest.mark.parametrize("case", [BY_NAME["mediation"], BY_NAME["amplification"]], ids=str)
def test_denoising_the_middle_one_is_noising_the_path_past_it(case: Case) -> None:
    """Where A, B and C are all there is: either way B is on and C sees A off."""
    found = opened(case.toy)
    for prompt in found.prompts:
        clean, corrupt = (node.resample_values(found.net, ids) for ids in (prompt.clean, prompt.corrupt))
        denoised = node.noise(found.net, prompt.corrupt, clean, oracle_sites("a1.h0", prompt))
        noised = path.path_patch(found.net, prompt.clean, corrupt, ("head", 0, 0), [("mlp_in", 1)])
        for logits in (denoised, noised):
            assert logit_difference(logits, prompt) == pytest.approx(case.denoised["a1.h0"], rel=0, abs=TOLERANCE)
