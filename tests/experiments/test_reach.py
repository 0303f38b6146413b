"""Paths that roles allow and the tokens of the prompts do not: refused where nothing arrives, else listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import circuitspec
from circuitspec.analysis.warnings.evidence_warnings import edges_that_are_none
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.follow_ups.reach import checked_reach
from circuitspec.experiments.planner import Plan, make_plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask
from tests.graph.test_circuit import FILE, SHAPE

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"
SUFFICIENT = "  - sufficient: {metric: logit_diff, at_least: 0.8}\n"
PATHS = "[m0 -> m1, m1 -> logits]"


def task_of(roles: Mapping[str, tuple[int, ...]], lengths: tuple[int, ...] = (5, 6)) -> TokenizedTask:
    """Prompts of these lengths, of which tokens alone have places."""
    ids = tuple(tuple(range(length)) for length in lengths)
    prompts = tuple(Prompt(i, 0, {"clean": "", "abc": ""}, (), ()) for i in range(len(lengths)))
    nothing = ((),) * len(lengths)
    return TokenizedTask(PromptSet(prompts, ("abc",), ("t",)), {"clean": ids, "abc": ids}, roles, nothing, nothing)


TASK = task_of({"A": (1, 2), "B": (3, 4), "END": (4, 5)})


def checked(
    claim: str = "", paths: str = PATHS, level: str = "edge", task: TokenizedTask = TASK, positions: str = "declared"
) -> Plan:
    """A hypothesis about m0 and m1 everywhere, with one more claim."""
    text = FILE.format(circuit=f"{{groups: {{one: {{nodes: [m0]}}}}, paths: {paths}}}")
    text = text.replace(
        "{value: resample, from: abc}", f"{{value: resample, from: abc, level: {level}, positions: {positions}}}"
    )
    claims = SUFFICIENT + (f"  - {claim}\n" if claim else "")
    given = parse_hypothesis(text.replace(SUFFICIENT, claims), "t.circuit.yaml")
    graph = lay_out(given.hypothesis.circuit, SHAPE, given.source)
    plan = make_plan(given.hypothesis, graph, given.source)
    declared = graph.paths if level != "node" else ()
    return checked_reach(plan, declared, SHAPE, task, given.source)


def path(of: str) -> str:
    return f'path: {{of: "{of}", direction: noising, metric: logit_diff, drop_at_most: 0.1}}'


def mediation(of: str) -> str:
    return f'mediation: {{of: "{of}", metric: logit_diff, direct_at_most: 0.1}}'


def said(claim: str, paths: str = PATHS, task: TokenizedTask = TASK) -> str:
    with pytest.raises(CircuitspecError) as error:
        checked(claim, paths, task=task)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS227"
    assert finding.span is not None
    return finding.message


@pytest.mark.parametrize("level", ["node", "edge", "path"])
def test_what_can_arrive_is_let_pass(level: str) -> None:
    """At the last token; at the same one; earlier ones by keys and values, also where a head attends to itself."""
    for claim in (
        path("a0.h0@END -> logits"),
        path("a0.h0 -> logits"),
        path("a0.h0@A -> a1.h0<q,k,v>@B"),
        path("a0.h0@B -> a1.h0<v>@B"),
        path("a0.h0@A -> a1.h0<v>@END -> m1 -> logits"),
        mediation("input@A -> a0.h0<v>@A -> a1.h0<v>@B"),
    ):
        plan = checked(claim, level=level)
        apart = [pair for pair in plan.impossible if not pair.out_of_order]
        queries = ["a1.h0<q>"] if "<q" in claim else []
        assert [pair.receiver for pair in apart] == queries


def test_logits_are_read_at_the_last_token() -> None:
    """A claim about a head at another one would hold of any model: at most so much, or all of it mediated."""
    message = "writes at A, and the logits are read at the last token, which is another in every prompt"
    whole = f"there is no edge from a0.h0 to logits: a0.h0 {message}"
    assert said(path("a0.h0@A -> logits")) == whole
    assert said(mediation("a0.h0@A -> a1.h0<v>@END -> logits")) == (
        f"mediation compares with the direct path a0.h0@A -> logits, which cannot exist: {whole}"
    )
    assert said("", "['a0.h0@A -> logits']") == whole  # declared
    sometimes = task_of({"A": (1, 5), "B": (3, 4), "END": (4, 5)})
    assert not checked(path("a0.h0@A -> logits"), task=sometimes).impossible


def test_attention_looks_back_only() -> None:
    message = "does not write at END before that acts at A: attention looks back only"
    whole = f"there is no edge from a0.h0 to a1.h0<k>: a0.h0 {message}"
    assert said(path("a0.h0@END -> a1.h0<k,v>@A")) == whole
    assert said(path("a0.h0@END -> a1.h0<k,v>@A -> a2.h0<v>")) == whole
    sometimes = task_of({"A": (1, 5), "B": (3, 4), "END": (4, 5)})
    assert not checked(path("a0.h0@END -> a1.h0<k,v>@A"), task=sometimes).impossible


def test_what_arrives_at_a_middle_must_go_on() -> None:
    """Every two neighbours have an edge, but A reaches the middle at B alone, which is not the last token."""
    of = "a0.h0@B -> a1.h0<q>@{A,B} -> logits"
    assert said(path(of)) == (
        "there is no edge from a1.h0 to logits: a1.h0 has what the path carries at B alone, and the logits are read at "
        "the last token, which is another in every prompt"
    )


def test_a_last_token_among_the_positions_is_not_said_to_be_another() -> None:
    """a1.h0 writes at END too, which is the last token; but what A brings to it is there at A alone."""
    there = "the logits are read at the last token, which is another in every prompt"
    has = "there is no edge from a1.h0 to logits: a1.h0 has what the path carries at"
    assert said(path("a0.h0@A -> a1.h0<q>@{A,END} -> logits")) == f"{has} A alone, and {there}"
    assert said(path("a0.h0@A -> a1.h0<q> -> logits")) == f"{has} some of its tokens alone, and {there}"
    assert said(path("a0.h0@B -> a1.h0<q>@{A,B} -> a2.h0<v>@A")) == (
        "there is no edge from a1.h0 to a2.h0<v>: a1.h0 has what the path carries at B alone, not before that acts at "
        "A: attention looks back only"
    )


def test_single_pairs_are_listed() -> None:
    """CS408: of a claim's path as of declared ones; what nothing reaches is said to be frozen."""
    plan = checked(path("a0.h0@A -> a1.h0<v>@B, a2.h0<q>@END"))
    (warning,) = edges_that_are_none(plan)
    assert warning.code == "CS408"
    assert warning.data == {"pairs": ["a0.h0 -> a2.h0<q>"]}
    assert warning.detail.endswith(
        "nothing is kept between the two; at the end of a claim's path what nothing reaches reads what it does in the "
        "base run"
    )
    plan = checked("", "['a0.h0@END -> a1.h0<k>@A, a1.h1<k>@END', 'a1.h0@A, a1.h1@END -> logits']")
    (warning,) = edges_that_are_none(plan)
    assert warning.data == {"pairs": ["a0.h0 -> a1.h0<k>", "a1.h0 -> logits"]}
    assert warning.detail == (
        "a0.h0 does not write at END before that acts at A: attention looks back only, so that nothing is kept "
        "between the two"
    )


def test_names_that_fall_on_one_token_are_said() -> None:
    """Positions are compared by name: CS408 where that matters, also if the two share another name."""
    task = task_of({"A": (1, 4), "B": (3, 4), "END": (4, 5)})
    (warning,) = edges_that_are_none(
        checked(path("a0.h0@A -> a1.h0@B -> logits"), task=task_of({"A": (4, 5), "B": (4, 5)}))
    )
    assert warning.data == {"pairs": ["a0.h0 -> a1.h0<q>"]}
    assert warning.detail.startswith(
        "a0.h0 writes at A, and that reads at B: positions are compared by name, though different ones are one token "
        "in 2 of 2 prompts, so that nothing is kept"
    )
    (warning,) = edges_that_are_none(checked(path("a0.h0@{A,END} -> m1@{B,END} -> logits"), task=task))
    assert warning.data == {"pairs": ["a0.h0 -> m1"]}
    assert (
        "writes at A and END, and that reads at B and END: positions are compared by name, though different ones "
        in (warning.detail)
    )
    assert "in 1 of 2 prompts" in warning.detail
    assert not edges_that_are_none(checked(path("a0.h0@{A,END} -> m1@{B,END} -> logits")))


def test_positions_all_parts_only_what_the_claim_itself_places() -> None:
    assert not checked(path("a0.h0 -> logits"), positions="all").impossible
    with pytest.raises(CircuitspecError) as error:
        checked(path("a0.h0@A -> logits"), positions="all")
    assert [(finding.code, finding.message) for finding in error.value.diagnostics] == [
        (
            "CS227",
            "there is no edge from a0.h0 to logits: a0.h0 writes at A, and the logits are read at the last token, "
            "which is another in every prompt",
        )
    ]
    plan = checked(path("a0.h0@{A,END} -> logits"), positions="all")
    assert not plan.impossible


def test_verify_refuses_a_mediation_that_any_model_has(tmp_path: Path) -> None:
    """At the subject's second mention no head writes to the logits, whatever it does."""
    text = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text("utf-8")
    claim = '  - mediation: {of: "subject_again -> inhibition<v> -> logits", metric: logit_diff, direct_at_most: 0.2}\n'
    file = tmp_path / "own.circuit.yaml"
    file.write_text(text[: text.index("claims:")] + "claims:\n" + claim, "utf-8")
    with pytest.raises(CircuitspecError) as error:
        circuitspec.verify(file)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS227"
    assert "the direct path subject_again -> logits, which cannot exist" in finding.message
