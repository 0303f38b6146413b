"""Which runs edge and path level take: by hand, from drawn circuits to the oracle's numbers, and what they cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import (
    Experiment,
    Noised,
    PathRule,
    Reading,
    Sent,
    Source,
    hop_passes,
    passes,
    runs_of,
)
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Hypothesis
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.prompts.output_metrics import METRICS
from tests.engine.support import Silent, loaded, model, task_of
from tests.graph.drawn import Drawn, distinct, draw
from tests.graph.test_circuit import FILE, SHAPE
from tests.oracle import edge_circuit as oracle
from tests.oracle import families, node, tree

EVERYWHERE, END, A = Where.everywhere(), Where.at("END"), Where.at("A")
BUT_END = Where.except_at("END")
RESAMPLE = Source("resample", "abc")
CLEAN_VALUES = Source("resample", "clean")
CLAIM = "  - sufficient: {metric: logit_diff, at_least: 0.8}\n"
TINY = ModelShape("gpt2", n_layers=2, n_heads=1, n_kv_heads=1, d_model=8, d_head=8, d_mlp=16, n_vocab=50)
LOGITS = Receiver(Logits())
Q1, K1, V1 = Receiver(Head(1, 0), "q"), Receiver(KvHead(1, 0), "k"), Receiver(KvHead(1, 0), "v")
Q0, K0, V0 = Receiver(Head(0, 0), "q"), Receiver(KvHead(0, 0), "k"), Receiver(KvHead(0, 0), "v")


def document(circuit: str, ablation: str, claims: str = CLAIM) -> Document:
    text = FILE.format(circuit=circuit).replace("{value: resample, from: abc}", ablation)
    return parse_hypothesis(text.replace(CLAIM, claims), "t.circuit.yaml")


def planned(circuit: str, ablation: str, claims: str = CLAIM, shape: ModelShape = TINY) -> Plan:
    given = document(circuit, ablation, claims)
    return make_plan(given.hypothesis, lay_out(given.hypothesis.circuit, shape, given.source), given.source)


def readings(by_receiver: dict[Receiver, dict[Sender, Where]]) -> frozenset[Reading]:
    return frozenset(Reading(r, frozenset(Sent(s, w) for s, w in by.items())) for r, by in by_receiver.items())


# ----------------------------------------------------------------------------------------------------- edges, by hand

EDGES = (
    "{groups: {one: {nodes: [a0.h0], at: END}}, free: [m0], paths: [input -> one<v>, one -> a1.h0<k>, a1.h0 -> logits]}"
)
FOUR = """\
  - sufficient: {metric: logit_diff, at_least: 0.8}
  - necessary: {metric: logit_diff, at_most: 0.8}
  - cross_section: {paths: ["one -> a1.h0<k>", "a1.h0@A -> m1"], metric: logit_diff, at_least: 0.8}
  - cross_section: {nodes: [one], metric: logit_diff, at_least: 0.8}
"""


def test_edge_level_by_hand() -> None:
    """Kept: the three declared edges, and with m0 free those between it, the input, one (at END), a1.h0 and logits."""
    made = planned(EDGES, "{value: resample, from: abc, level: edge}", FOUR)
    assert made.edges is not None
    kept: dict[Receiver, dict[Sender, Where]] = {
        V0: {Input(): EVERYWHERE},
        Receiver(Mlp(0)): {Input(): EVERYWHERE, Head(0, 0): END},
        Q1: {Mlp(0): EVERYWHERE},
        K1: {Head(0, 0): END, Mlp(0): EVERYWHERE},
        V1: {Mlp(0): EVERYWHERE},
        LOGITS: {Head(1, 0): EVERYWHERE, Mlp(0): EVERYWHERE},
    }
    assert made.edges.kept == kept
    assert (made.edges.n_declared, made.edges.n_kept, made.edges.n_edges) == (
        3,
        1 + 2 + 1 + 2 + 1 + 2,
        3 + 2 + 3 * 3 + 4 + 5,
    )
    everything: dict[Receiver, list[Sender]] = {Q0: [Input()], K0: [Input()], V0: [Input()]}
    everything[Receiver(Mlp(0))] = [Input(), Head(0, 0)]
    everything |= {receiver: [Input(), Head(0, 0), Mlp(0)] for receiver in (Q1, K1, V1)}
    everything[LOGITS] = [Input(), Head(0, 0), Mlp(0), Head(1, 0), Mlp(1)]  # m1 feeds none that is kept: left out
    ablated = {
        receiver: {s: ~kept.get(receiver, {}).get(s, Where.at()) for s in senders}
        for receiver, senders in everything.items()
    }
    sufficient = readings({r: {s: w for s, w in by.items() if not w.is_nowhere} for r, by in ablated.items()})
    sufficient = frozenset(reading for reading in sufficient if reading.senders)  # all but v0, which reads what it did
    # K1 makes a difference still: to a1.h0, which m1 reads
    necessary = readings({V0: {Input(): EVERYWHERE}, K1: {Head(0, 0): END}, LOGITS: {Head(1, 0): EVERYWHERE}})
    restored = readings({K1: {Head(0, 0): END}, Receiver(Mlp(1)): {Head(1, 0): A}})
    first, second, third, fourth = made.claims
    assert first.patched == Experiment("clean", RESAMPLE, readings=sufficient)
    assert second.patched == Experiment("clean", RESAMPLE, readings=necessary)
    assert third.patched == Experiment("abc", CLEAN_VALUES, readings=restored)
    assert (fourth.patched.level, fourth.patched.base) == ("node", "abc")
    assert {claim.corrupt for claim in made.claims} == {Experiment("abc")}
    assert [(c.text, c.anchor, c.corrupt) for c in made.checks] == [
        (path, Experiment("abc"), Experiment("abc"))
        for path in ("input -> one<v>", "one -> a1.h0<k>", "a1.h0 -> logits")
    ]
    assert made.checks[0].ablated == Experiment("clean", RESAMPLE, readings=readings({V0: {Input(): EVERYWHERE}}))
    assert made.checks[0].restored == Experiment("abc", CLEAN_VALUES, readings=readings({V0: {Input(): EVERYWHERE}}))


def test_the_anchor_of_means_keeps_what_is_free() -> None:
    made = planned(EDGES, "{value: mean_per_template, from: abc, level: edge}")
    ablated = {
        Receiver(Mlp(0)): {Head(0, 0): EVERYWHERE},
        LOGITS: dict.fromkeys((Input(), Head(0, 0), Head(1, 0), Mlp(1)), EVERYWHERE),
    }
    expected = Experiment("clean", Source("mean_per_template", "abc"), readings=readings(ablated))  # type: ignore[arg-type]
    assert made.claims[0].corrupt == made.corrupt == expected
    assert made.labels[expected] == "all ablated"


def test_with_positions_all_groups_act_everywhere() -> None:
    circuit = "{groups: {one: {nodes: [a0.h0], at: END}, two: {nodes: [m0], at: A}}, paths: ['one -> m0 -> logits']}"
    made = planned(circuit, "{value: resample, from: abc, level: edge, positions: all}")
    assert made.edges is not None
    assert made.edges.kept == {Receiver(Mlp(0)): {Head(0, 0): EVERYWHERE}, LOGITS: {Mlp(0): EVERYWHERE}}
    assert {w for e in made.experiments for r in e.readings for s in r.senders for w in (s.where,)} == {EVERYWHERE}


def test_with_positions_all_what_is_written_in_a_path_holds() -> None:
    """m0 is in no group and reads and writes at A, as the path says; free m1 reads it there."""
    circuit = (
        "{groups: {one: {nodes: [a0.h0], at: END}, two: {nodes: [a1.h0], at: A}}, free: [m1], "
        "paths: ['one -> m0@A -> logits', 'a0.h0@B -> two<q>']}"
    )
    made = planned(circuit, "{value: resample, from: abc, level: edge, positions: all}")
    assert made.edges is not None
    assert made.edges.declared == {
        Receiver(Mlp(0)): {Head(0, 0): A},
        LOGITS: {Mlp(0): A},
        Q1: {Head(0, 0): Where.at("B")},
    }
    assert made.edges.free == {
        Receiver(Mlp(1)): {Input(): EVERYWHERE, Head(0, 0): EVERYWHERE, Mlp(0): A, Head(1, 0): EVERYWHERE},
        LOGITS: {Mlp(1): EVERYWHERE},
    }
    ablated = {s.where for r in made.checks[1].ablated.readings for s in r.senders}
    assert ablated == {Where.at("B")}


def test_with_positions_all_claims_about_paths_differ_where_their_positions_do() -> None:
    """Three claims, three runs, each called as it is written; and the group's name means all positions."""
    circuit = "{groups: {one: {nodes: [a0.h0], at: END}}, paths: [one -> a1.h0<k> -> logits]}"
    texts = {
        "input@A -> a1.h0<k,v> -> logits": A,
        "input@B -> a1.h0<k,v> -> logits": Where.at("B"),
        "input -> a1.h0<k,v> -> logits": EVERYWHERE,
    }
    claims = CLAIM + "".join(
        f'  - path: {{of: "{of}", direction: noising, metric: logit_diff, drop_at_least: 0.1}}\n'
        f'  - cross_section: {{paths: ["{of}"], metric: logit_diff, at_least: 0.1}}\n'
        for of in texts
    )
    claims += '  - mediation: {of: "a0.h0@B -> m0 -> logits", metric: logit_diff, direct_at_most: 0.2}\n'
    made = planned(circuit, "{value: resample, from: abc, positions: all}", claims)
    along, sections = made.claims[1:7:2], made.claims[2:7:2]
    for run, section, (text, where) in zip(along, sections, texts.items(), strict=True):
        (to_logits,) = run.patched.readings
        (sent,) = to_logits.senders
        assert {one.where for reading in sent.inputs for one in reading.senders} == {where}
        edges = {(r.receiver, s.component, s.where) for r in section.patched.readings for s in r.senders}
        assert {at for _, component, at in edges if component == Input()} == {where}
        assert made.labels[run.patched] == f"{text} noised"
        assert made.labels[section.patched] == f"{text} restored"
    (reading,) = made.claims[7].patched.readings
    assert {(sent.component, sent.where) for sent in reading.senders} == {(Head(0, 0), Where.at("B"))}


# ----------------------------------------------------------------------------------------------------- paths, by hand


def test_path_level_by_hand() -> None:
    """input -> a0.h0<v> -> a1.h0<q> -> logits in two pieces: a0.h0 computes at END, from the clean input."""
    circuit = "{groups: {one: {nodes: [a0.h0], at: END}}, paths: [input@A -> one<v>, one -> a1.h0<q> -> logits]}"
    both = CLAIM + "  - necessary: {metric: logit_diff, at_most: 0.8}\n"
    made = planned(circuit, "{value: resample, from: abc, level: path, through: []}", both)
    first = Sent(Head(0, 0), END, frozenset({Reading(V0, frozenset({Sent(Input(), A)}))}))
    second = Sent(Head(1, 0), EVERYWHERE, frozenset({Reading(Q1, frozenset({first}))}))
    whole = frozenset({Reading(LOGITS, frozenset({second}))})
    kept = Experiment("clean", RESAMPLE, readings=whole, rule=PathRule("source", through_mlps=False))
    assert [claim.patched for claim in made.claims] == [
        kept,
        Experiment("clean", RESAMPLE, readings=whole, rule=PathRule("base", through_mlps=False)),
    ]
    order = [frozenset(), frozenset({Sent(Input(), A)}), frozenset({first}), frozenset({second})]
    found = [senders for senders, _ in hop_passes(kept)]
    assert sorted(map(order.index, found)) == [0, 1, 2, 3]
    assert [order.index(senders) for senders in found if senders] == [1, 2, 3]
    open_end = made.checks[0].ablated
    assert open_end.readings == {Reading(V0, frozenset({Sent(Input(), A)}), acting=END, head=Head(0, 0))}
    assert [runs_of(e) for e in (kept, made.claims[1].patched, open_end)] == [4, 3, 2]


def test_mlps_that_a_path_names_are_stops_of_it() -> None:
    circuit = "{groups: {one: {nodes: [a0.h0], at: END}}, paths: [one -> m0 -> logits]}"
    made = planned(circuit, "{value: resample, from: abc, level: path}")
    assert made.circuit.rule == PathRule("source", through_mlps=True, named=frozenset({Mlp(0)}))
    through_nothing = planned(circuit, "{value: resample, from: abc, level: path, through: []}")
    assert through_nothing.circuit.rule == PathRule("source", through_mlps=False)


PATHS = """\
  - path: {of: "a0.h0@END -> a1.h0<q>", direction: noising, metric: logit_diff, drop_at_least: 0.1}
  - path: {of: "a0.h0@END -> a1.h0<q>", direction: denoising, metric: kl, rise_at_least: 0.1, through: []}
  - mediation: {of: "input -> m0 -> a1.h0<v>", metric: logit_diff, direct_at_most: 0.1}
  - mediation: {of: "input -> m0 -> a1.h0<v>", direction: denoising, metric: logit_diff, direct_at_most: 0.1}
"""


@pytest.mark.parametrize("level", ["node", "edge"])
def test_claims_about_paths_by_hand(level: str) -> None:
    """At every level of the ablation; the direct path is patched beside a frozen m0, since the claim names it."""
    circuit = "{groups: {one: {nodes: [a0.h0]}}, paths: [one -> logits]}"
    made = planned(circuit, f"{{value: resample, from: abc, level: {level}}}", PATHS)
    clean, corrupt = Experiment("clean"), Experiment("abc")
    noised, denoised, direct, restored = made.claims
    ends = frozenset({Reading(Q1, frozenset({Sent(Head(0, 0), END)}), head=Head(1, 0))})
    assert noised.patched == Experiment("clean", RESAMPLE, readings=ends, rule=PathRule("base", through_mlps=True))
    assert (noised.clean, noised.corrupt, noised.measure, noised.falls) == (clean, corrupt, "drop", True)
    assert denoised.patched == Experiment("abc", CLEAN_VALUES, readings=ends, rule=PathRule("base", through_mlps=False))
    assert (denoised.clean, denoised.corrupt, denoised.measure, denoised.falls) == (clean, corrupt, "rise", False)
    rule = PathRule("base", through_mlps=True, named=frozenset({Mlp(0)}))
    start = Sent(Input(), EVERYWHERE)
    mediated = Sent(Mlp(0), EVERYWHERE, frozenset({Reading(Receiver(Mlp(0)), frozenset({start}))}))
    for claim, base, source in ((direct, "clean", RESAMPLE), (restored, "abc", CLEAN_VALUES)):
        end = frozenset({Reading(V1, frozenset({start, mediated}), head=Head(1, 0))})
        both = Experiment(base, source, readings=end, rule=rule)
        direct_end = frozenset({Reading(V1, frozenset({start}), head=Head(1, 0))})
        assert claim.patched == Experiment(base, source, readings=direct_end, rule=rule)
        anchors = (clean, both) if base == "clean" else (both, corrupt)
        assert (claim.clean, claim.corrupt, claim.measure) == (*anchors, "direct share")
        assert claim.falls == (base == "clean")


# ---------------------------------------------------------------------------------------------------------- mistakes


def refused(circuit: str, ablation: str, claims: str = CLAIM, shape: ModelShape = SHAPE) -> list[tuple[Any, ...]]:
    given = document(circuit, ablation, claims)
    with pytest.raises(CircuitspecError) as error:
        make_plan(given.hypothesis, lay_out(given.hypothesis.circuit, shape, given.source), given.source)
    found = []
    for finding in error.value.diagnostics:
        span = finding.span
        assert span is not None
        end = None if span.end_column is None else span.end_column - 1
        text = given.source.lines[span.line - 1][span.column - 1 : end].strip("'\"")
        found.append((finding.code, finding.message, text, finding.hint))
    return found


PATH_LEVEL = "{value: resample, from: abc, level: path}"


def test_paths_that_lead_nowhere() -> None:
    """Each component at which a path ends for good is named: others may go on from there."""
    groups = "{one: {nodes: [a0.h1], at: END}, two: {nodes: [a1.h0, a1.h1, m1], at: END}}"
    said = "this path ends at {}, and no declared path goes on from there"
    hint = "continue it: add a path that starts there and leads to logits"
    paths = "[one -> two, a1.h1 -> logits, 'a1.h1 -> a2.h0<q>@END', 'a2.h0@A -> logits']"
    assert refused(f"{{groups: {groups}, paths: {paths}}}", PATH_LEVEL) == [
        ("CS228", said.format("a1.h0, m1"), "one -> two", hint),
        ("CS228", said.format("a2.h0"), "a1.h1 -> a2.h0<q>@END", hint),
    ]
    # m1 comes after all of them, and a1.h0 leads only to it: the last one of a line has to be continued
    line = "{groups: {line: {nodes: [a1.h0, m1]}}, paths: [line -> line]}"
    assert refused(line, PATH_LEVEL) == [("CS228", said.format("m1"), "line -> line", hint)]


def test_positions_that_overlap() -> None:
    circuit = "{groups: {one: {nodes: [a0.h0]}, two: {nodes: [a0.h1]}}, paths: ['one -> a1.h0@A -> logits', %s]}"
    message = "a1.h0 has different values at overlapping positions before the same rest of a path"
    hint = "give it the same positions in all paths, or positions that share none"
    expected = [("CS229", message, "one -> a1.h0@A -> logits", hint)]
    assert refused(circuit % "two -> a1.h0 -> logits", PATH_LEVEL) == expected
    assert refused(circuit % "'two -> a1.h0@{A,END} -> logits'", PATH_LEVEL) == expected
    for fine in ("'two -> a1.h0@END -> logits'", "'two -> a1.h0@A -> logits'", "a1.h0 -> logits"):
        assert planned(circuit % fine, PATH_LEVEL, shape=SHAPE).circuit.level == "path"


def test_two_starts_that_overlap_are_one() -> None:
    circuit = "{groups: {one: {nodes: [a0.h0]}}, paths: ['a1.h0@{A,END} -> logits', 'a1.h0@{A,B} -> logits']}"
    (reading,) = planned(circuit, PATH_LEVEL, shape=SHAPE).circuit.readings
    assert reading.senders == {Sent(Head(1, 0), Where.at("A", "B", "END"))}


def test_mediation_needs_a_direct_path_to_compare_with() -> None:
    circuit = "{groups: {one: {nodes: [a0.h0], at: A}, two: {nodes: [a2.h0], at: END}}}"
    claim = '  - mediation: {of: "one -> a1.h0<v>@END -> two<q>", metric: kl, direct_at_most: 0.1}\n'
    message = (
        "mediation compares with the direct path one -> two<q>, which cannot exist: there is no edge from a0.h0 to "
        "a2.h0<q>: a0.h0 writes at A, and that reads at END"
    )
    hint = "that all goes through the middle then needs no claim: claim `path` of the whole path instead"
    expected = [("CS227", message, "one -> a1.h0<v>@END -> two<q>", hint)]
    assert refused(circuit, "{value: resample, from: abc}", claim) == expected
    assert (
        planned(circuit, "{value: resample, from: abc, positions: all}", claim, SHAPE).claims[0].measure
        == "direct share"
    )


def test_claims_about_paths_pass_through_what_the_ablation_says() -> None:
    """`through: []` of the ablation holds for the file's claims too, unless a claim says otherwise."""
    circuit = "{groups: {one: {nodes: [a0.h0]}}, paths: [one -> a1.h0<q> -> logits]}"
    claims = "".join(
        f'  - path: {{of: "one -> a1.h0<q>", direction: noising, metric: kl, drop_at_least: 0.1{more}}}\n'
        f'  - mediation: {{of: "one -> m0 -> a1.h0<q>", metric: kl, direct_at_most: 0.1{more}}}\n'
        for more in ("", ", through: [mlp]")
    )
    made = planned(circuit, "{value: resample, from: abc, level: path, through: []}", claims, SHAPE)
    rules = [claim.patched.rule for claim in made.claims]
    assert [rule is not None and rule.through_mlps for rule in rules] == [False, False, True, True]
    assert len(set(made.labels.values())) == len(made.labels)


@pytest.mark.parametrize("level", ["node", "edge", "path"])
def test_no_two_runs_are_called_the_same(level: str) -> None:
    """A restored path is one run as edges (a cross-section) and another as a path."""
    circuit = "{groups: {one: {nodes: [a0.h0]}}, paths: [one -> a1.h0<q> -> logits]}"
    claims = (
        CLAIM
        + '  - cross_section: {paths: ["one -> a1.h0<q> -> logits"], metric: kl, at_least: 0.1}\n'
        + '  - path: {of: "one -> a1.h0<q> -> logits", direction: noising, metric: kl, drop_at_least: 0.1}\n'
        + '  - mediation: {of: "one -> m0 -> a1.h0<q>", metric: kl, direct_at_most: 0.1}\n'
        + '  - path: {of: "one -> a1.h0<q>", direction: noising, metric: kl, drop_at_least: 0.1}\n'
    )
    made = planned(circuit, f"{{value: resample, from: abc, level: {level}}}", claims, SHAPE)
    assert len(set(made.labels.values())) == len(made.labels)


def test_denoising_without_corrupt_prompts() -> None:
    circuit = "{groups: {one: {nodes: [a0.h0]}}, paths: [one -> logits]}"
    hint = "write `ablation: {value: resample, from: CORRUPTION}`"
    claims = (
        '  - path: {of: "one -> logits", direction: denoising, metric: kl, rise_at_least: 0.1}\n'
        '  - mediation: {of: "one -> m0 -> logits", direction: denoising, metric: kl, direct_at_least: 0.1}\n'
        '  - cross_section: {paths: ["one -> logits"], metric: kl, at_least: 0.1}\n'
    )
    found = refused(circuit, "{value: zero, level: edge}", claims)
    restores = "{} restores components in a corrupt run, and `zero` ablation has no corrupt prompts"
    assert [(code, message, hint_) for code, message, _, hint_ in found] == [
        ("CS509", restores.format(kind), hint) for kind in ("path", "mediation", "cross_section")
    ]


# ------------------------------------------------------------------------------ drawn circuits, to the oracle's numbers


def measured(drawn: Drawn, family: str, prompts: Sequence[node.Prompt], **ablation: Any) -> tuple[Plan, Any] | set[str]:
    """The plan for a drawn circuit with claims of both kinds, and the engine's metrics of each of its runs; or the
    codes with which it is refused."""
    m = model(family, exactly=True)
    base = document("{groups: {one: {nodes: [a0.h0]}}}", "{value: zero}").hypothesis
    spec = AblationSpec.model_validate({"from": None if ablation["value"] == "zero" else "abc", **ablation})
    claims = (Sufficient(metric="kl", at_least=0.5), Necessary(metric="kl", at_most=0.5))
    if ablation["level"] == "edge" and ablation["value"] != "zero":
        claims += (CrossSection(metric="kl", paths=drawn.spec.paths, at_least=0.5),)  # type: ignore[assignment]
    update = {"circuit": drawn.spec, "ablation": spec, "claims": claims}
    hypothesis: Hypothesis = base.model_copy(update=update)
    source = document("{groups: {one: {nodes: [a0.h0]}}}", "{value: zero}").source
    try:
        plan = make_plan(hypothesis, drawn.graph(loaded(m).shape), source)
    except CircuitspecError as error:
        return {finding.code for finding in error.diagnostics}
    runs = {run for claim in plan.claims for run in (claim.patched, claim.corrupt)}
    with borrowed(m):
        return plan, Runner(loaded(m), task_of([*prompts]), rows=3, progress=Silent()).run(runs)


def assert_close(found: Any, expected: dict[str, Any], about: object, *, discrete: bool = True) -> None:
    for metric, values in expected.items():
        if METRICS[metric].discrete and not discrete:
            continue
        np.testing.assert_allclose(found[metric], values, rtol=0, atol=1e-9, err_msg=f"{metric}: {about}")


def prompts_for(value: str) -> list[node.Prompt]:
    """Where a mean is taken, prompts of one length, with the same positions."""
    if value in ("resample", "zero"):
        return distinct((6, 7))
    same = {"A": 1, "B": 3, "END": 5}
    return [
        node.Prompt(p.clean, p.corrupt, i % 2, p.answers, p.wrong, same) for i, p in enumerate(distinct((6, 6, 6, 6)))
    ]


ABLATIONS = ["resample", "mean_per_template", "zero"]


@pytest.mark.parametrize("start", [False, pytest.param(True, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("value", ABLATIONS)
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_drawn_circuits_at_edge_level(family: str, value: str, start: bool) -> None:
    """Sufficient, necessary and restored, with their anchors; with and without `input` in a group."""
    net, prompts, compared = families.read(model(family, exactly=True)), prompts_for(value), 0
    for seed in range(40):
        positions = "all" if seed % 3 == 0 else "declared"
        drawn = draw(loaded(model(family, exactly=True)).shape, seed, start=start)
        found = measured(drawn, family, prompts, value=value, level="edge", positions=positions)
        if isinstance(found, set):
            assert found == {"CS227"}
            continue
        plan, records = found
        smooth = value == "zero"  # all logits of a model without biases may then be zero, and none is the highest
        for keep, claim in zip((True, False), plan.claims, strict=False):
            given = (net, prompts, drawn.paths, drawn.members, drawn.free, value, keep, positions)
            expected = oracle.circuit_experiment(*given)
            assert_close(records[claim.patched], expected.patched, drawn.spec, discrete=not smooth)
            assert_close(records[claim.corrupt], expected.corrupt, drawn.spec, discrete=not smooth)
        if value != "zero":
            section = oracle.cross_section(net, prompts, drawn.paths, drawn.members, positions)
            assert_close(records[plan.claims[2].patched], section.patched, drawn.spec)
        compared += 1
        if compared == 2:
            return
    raise AssertionError("too few circuits could be compared")


@pytest.mark.parametrize("value", ABLATIONS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2"])
def test_drawn_circuits_at_path_level(family: str, value: str) -> None:
    """Sets of paths, in pieces too; where the oracle finds one unfinished, CS228 is raised."""
    net, prompts, compared = families.read(model(family, exactly=True)), prompts_for(value), 0
    for seed in range(1000, 1040):
        through = [] if seed % 2 else ["mlp"]
        positions = "all" if seed % 3 == 0 else "declared"
        drawn = draw(loaded(model(family, exactly=True)).shape, seed, ends=True)
        drawn = Drawn(drawn.spec.model_copy(update={"free": ()}), drawn.paths, drawn.members, [])
        settings = {"value": value, "level": "path", "through": through, "positions": positions}
        pieces = drawn.paths
        members = dict.fromkeys(drawn.members) if positions == "all" else drawn.members
        found = measured(drawn, family, prompts, **settings)
        if isinstance(found, set):
            assert found <= {"CS227", "CS228"}
            if found == {"CS228"}:
                with pytest.raises(ValueError, match="no path leads on from"):
                    tree.complete(net, tree.placed(pieces, members, prompts[0]))
            continue
        plan, records = found
        for keep, claim in zip((True, False), plan.claims, strict=True):
            expected = tree.tree_experiment(net, prompts, pieces, members, value, keep, through)
            assert_close(records[claim.patched], expected.patched, drawn.spec, discrete=value != "zero")
            assert_close(records[claim.corrupt], expected.corrupt, drawn.spec, discrete=value != "zero")
        compared += 1
        if compared == 2:
            return
    raise AssertionError("too few circuits could be compared")


# --------------------------------------------------------------------------------------------------------------- cost

GROUPS = "groups: {one: {nodes: [a0.h0, a0.h1], at: END}, two: {nodes: [a1.h1], at: END}}"
SEVERAL = f"{{{GROUPS}, paths: [input -> one, 'one -> two<q>, m1@END', 'two, m1@END -> a2.h0<k> -> logits']}}"
OF_PATHS = CLAIM + (
    "  - necessary: {metric: logit_diff, at_most: 0.3}\n"
    '  - path: {of: "one -> two<q>", direction: noising, metric: logit_diff, drop_at_least: 0.3}\n'
    '  - mediation: {of: "one -> two<q> -> m2", metric: logit_diff, direct_at_most: 0.3}\n'
)
DENOISING = (
    '  - path: {of: "one -> two<q>", direction: denoising, metric: logit_diff, rise_at_least: 0.3}\n'
    '  - cross_section: {paths: ["one -> two<q>"], metric: logit_diff, at_least: 0.3}\n'
)


@pytest.mark.parametrize("level", ["edge", "path"])
@pytest.mark.parametrize(
    ("family", "value"),
    [
        ("gpt2", "resample, from: abc"),
        ("gpt_neox", "mean_per_template, from: abc"),
        pytest.param("gpt2", "zero", marks=pytest.mark.nightly),
        ("gpt2", "gaussian, at: A, draws: 2"),
    ],
)
def test_passes_are_the_forwards_that_are_run(family: str, level: str, value: str) -> None:
    """All at once and one by one, as `plan` says and as progress is told."""
    m = model(family, exactly=True)
    claims = OF_PATHS + (DENOISING if value != "zero" else "")
    plan = planned(SEVERAL, f"{{value: {value}, level: {level}}}", claims, loaded(m).shape)
    together = plan.experiments
    assert any(e.level == level for e in together)
    task = task_of(prompts_for("mean_per_template"))
    for experiments in (together, *((e,) for e in together)):
        progress = Silent()
        run = Runner(loaded(m), task, rows=4, progress=progress)
        with borrowed(m):
            run.run(experiments)
        assert run.forwards == passes(experiments), [plan.labels[e] for e in experiments]
        assert progress.expected == progress.done == run.forwards * run.task.n


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_progress_is_told_of_heads_that_compute_alone(family: str) -> None:
    """Heads that share keys, or a norm over queries, cannot compute different things in one run."""
    m = model(family, exactly=True)
    claim = (
        '  - path: {of: "a0.h0 -> a1.h0<q>, a1.h1<k> -> logits", direction: noising, metric: kl, drop_at_least: 0}\n'
    )
    circuit = "{groups: {one: {nodes: [a0.h0]}}}"
    made = planned(circuit, "{value: resample, from: abc}", claim, loaded(m).shape)
    progress = Silent()
    run = Runner(loaded(m), task_of(prompts_for("resample")), rows=1, progress=progress)
    with borrowed(m):
        run.run([made.claims[0].patched])
    assert progress.expected == progress.done == (passes((made.claims[0].patched,)) + 1) * run.task.n


def test_passes_by_hand() -> None:
    """Clean and corrupt runs, one for the circuit at edge level; at path level its hops, noise as often as drawn."""
    circuit = "{groups: {one: {nodes: [a0.h0]}}, paths: [input -> one<v> -> logits]}"

    def counted(ablation: str) -> list[int]:
        made = planned(circuit, ablation)
        return [passes((made.circuit,)), passes(made.experiments)]

    # the check of the path is the circuit's complement, and another run restores it
    assert counted("{value: resample, from: abc, level: edge}") == [3, 2 + 1 + 2]
    assert counted("{value: zero, level: edge}") == [2, 1 + 1 + 1 + 1]  # the anchor: all ablated
    # a frozen run, the input sent into it, and the head sent into it
    assert counted("{value: resample, from: abc, level: path}") == [2 + 3, 2 + 3 + 2 * 2]
    noise = counted("{value: gaussian, at: A, draws: 3, level: path}")
    assert noise == [1 + 3 + 3 * 3, 1 + 3 + 3 * 3 + 3 * (2 + 2)]


# ------------------------------------------------------------------------------------------------------------- digests

LIGHT = """
import json, sys
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.analysis.claims.registry import make_plan
from circuitspec.hypothesis_file.load_file import parse_hypothesis
shape = ModelShape(**json.loads(sys.argv[1]))
for text in sys.argv[2:]:
    given = parse_hypothesis(text, "t.circuit.yaml")
    plan = make_plan(given.hypothesis, lay_out(given.hypothesis.circuit, shape, given.source), given.source)
    print(*(run.digest for run in plan.experiments))
"""


def digests(level: str, *changes: tuple[str, str]) -> list[str]:
    """Of every run of a file, in the plan's order; with changes, of the file so changed."""
    circuit = SEVERAL
    for old, new in changes:
        assert old in circuit, old
        circuit = circuit.replace(old, new)
    ablation = f"{{value: resample, from: abc, level: {level}}}"
    return [e.digest for e in planned(circuit, ablation, OF_PATHS + DENOISING, SHAPE).experiments]


def test_digests_do_not_depend_on_how_python_hashes() -> None:
    levels = ("edge", "path")
    given = [
        document(SEVERAL, f"{{value: resample, from: abc, level: {level}}}", OF_PATHS + DENOISING) for level in levels
    ]
    sizes = {name: value for name, value in asdict(SHAPE).items() if isinstance(value, int | str)}
    command = [sys.executable, "-c", LIGHT, json.dumps(sizes), *(one.source.text for one in given)]
    told = set()
    for seed in ("0", "1", "2024"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        told.add(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout)
    assert told == {"".join(" ".join(digests(level)) + "\n" for level in levels)}
    assert all(len(set(digests(level))) == len(digests(level)) > 10 for level in levels)


@pytest.mark.parametrize("level", ["edge", "path"])
def test_digests_do_not_depend_on_the_order_of_names(level: str) -> None:
    """Of members, of items in a hop; that of paths orders the runs."""
    for change in (
        ("[a0.h0, a0.h1]", "[a0.h1, a0.h0]"),
        ("[a0.h0, a0.h1]", "[a0]"),
        ("two<q>, m1@END", "m1@END, two<q>"),
        ("'two, m1@END -> ", "'m1@END, a1.h1@END -> "),
    ):
        assert digests(level, change) == digests(level)
    swapped = digests(level, ("input -> one, 'one -> two<q>, m1@END'", "'one -> two<q>, m1@END', input -> one"))
    assert set(swapped) == set(digests(level))
    for change in (("two<q>", "two<k>"), ("END}, two", "[END, A]}, two"), ("m1@END", "m1"), ("[a1.h1]", "[a1.h0]")):
        assert set(digests(level, change)) != set(digests(level))


def test_what_tells_runs_apart_is_in_their_digest() -> None:
    def run(**changes: Any) -> Experiment:
        reading = changes.pop("reading", Reading(LOGITS, frozenset({Sent(Mlp(0), END)})))
        return Experiment("clean", RESAMPLE, readings=frozenset({reading}), **changes)

    inner = frozenset({Reading(Receiver(Mlp(0)), frozenset({Sent(Input(), END)}))})
    different = [
        run(),
        run(reading=Reading(LOGITS, frozenset({Sent(Mlp(0), A)}))),
        run(reading=Reading(LOGITS, frozenset({Sent(Mlp(0), END)}), END)),
        run(reading=Reading(LOGITS, frozenset({Sent(Mlp(0), END)}), acting=END)),
        run(reading=Reading(V1, frozenset({Sent(Mlp(0), END)}), acting=END)),
        run(reading=Reading(V1, frozenset({Sent(Mlp(0), END)}), acting=END, head=Head(1, 0))),
        run(reading=Reading(V1, frozenset({Sent(Mlp(0), END)}), acting=END, head=Head(1, 1))),
        run(reading=Reading(LOGITS, frozenset({Sent(Mlp(0), END, inner)}))),
        run(reading=Reading(LOGITS, frozenset({Sent(Head(0, 0), END)}))),
        run(reading=Reading(Receiver(Mlp(1)), frozenset({Sent(Mlp(0), END)}))),
        run(rule=PathRule("base", through_mlps=True)),
        run(rule=PathRule("source", through_mlps=True)),
        run(rule=PathRule("base", through_mlps=False)),
        run(rule=PathRule("base", through_mlps=True, named=frozenset({Mlp(0)}))),
        Experiment("clean", Source("resample", Noised(1.0, A, 2, 0)), readings=run().readings),
    ]
    assert len({e.digest for e in different}) == len(different)
