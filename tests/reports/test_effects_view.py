"""Parts of a circuit as text and as plain values, from effects made up."""

from __future__ import annotations

import json
from dataclasses import replace

from circuitspec.analysis.circuit_effects.backup_behaviour import BackupCheck, Compensator, Knockout
from circuitspec.analysis.circuit_effects.component_effects import (
    Ablated,
    Besides,
    CircuitEffects,
    ExaminedPart,
    SetScore,
)
from circuitspec.analysis.circuit_effects.negative_components import NegativeSearch
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.reports.machine.json_document import render_json
from circuitspec.reports.text.effects_table import effects_text
from circuitspec.reports.text.text_report import render_text
from tests.reports.support import example


def at(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value, value - half, value + half, 0.95, 100, "bca")


def alike(value: float) -> Estimate:
    return Estimate(value, value, value, 0.95, 100, "constant")


NAMING, AGAINST = ExaminedPart("naming", "positive", ("naming",)), ExaminedPart("against", "negative", ("against",))
FIRST, SECOND = ExaminedPart("a3.h0", "positive", ("naming",)), ExaminedPart("a3.h2", "positive", ("naming",))
ONLY = ExaminedPart("a3.h1", "negative", ("against",))

EFFECTS = CircuitEffects(
    metric="logit_diff",
    groups=(Ablated(NAMING, -3.0, at(0.7), 1e-9), Ablated(AGAINST, 0.5, at(-0.12), 1e-4)),
    components=(
        Ablated(FIRST, -3.0, at(0.7), 1e-9),
        Ablated(SECOND, 0.0, at(0.0, 0.005), 1.0, rise=at(0.3), besides=Besides("a3.h0", at(0.2))),
        Ablated(ONLY, 0.5, at(-0.12), 1e-4),
    ),
    knockouts=(
        Knockout(
            "naming",
            8.0,
            at(3.0),
            at(0.62),
            at(0.55),
            tuple(Compensator(f"a3.h{i}", "outside the circuit", 1.0, 0.11, 0.001) for i in range(3, 8)),
            5,
        ),
        Knockout("naming, other", 9.0, at(9.0), at(0.0), None, (), 5),
    ),
    backups=(BackupCheck("stand_in", "naming", at(2.0), 0.001, True, None),),
    sets=(
        SetScore("as declared", (), at(1.0), 0.1, alike(0.98)),
        SetScore("all negatives out", ("a3.h1",), at(1.3), None, None),
    ),
    within=(Ablated(AGAINST, 0.5, at(-0.12), 1e-4),),
)


def test_the_table_of_parts() -> None:
    """Groups; those components that hurt or can be lost, unless they are a whole group; what else was knocked out."""
    parts, sets = effects_text(replace(example(), effects=EFFECTS))
    assert parts.splitlines() == [
        "per-component ablation of the circuit in the clean run: node level, mean_per_template from abc, "
        "declared positions",
        "(drop: share of the clean - corrupt difference; direct effect: in logits; negative: in the circuit alone too)",
        "",
        "                   declared   logit_diff drop                     direct effect   compensated by",
        "  naming           positive   0.70 [0.68, 0.72]                   8.00            0.62 [0.60, 0.64], by "
        "a3.h3 0.11 (outside the circuit), a3.h4 0.11 (outside the circuit), a3.h5 0.11 (outside the circuit), "
        "a3.h6 0.11 (outside the circuit) and 1 more",
        "  against          negative   -0.12 [-0.14, -0.10]   negative     -               -",
        "  a3.h2 (naming)   positive   0.00 [-0.01, 0.01]     none shown   -               -",
        "  naming, other                                                   9.00            0.00 [-0.02, 0.02]",
    ]
    assert sets.splitlines() == [
        "the circuit with and without negative components",
        "",
        "  circuit                     recovered logit_diff   kl (nats)   recovered kl",
        "  as declared                 1.00 [0.98, 1.02]      0.10        0.98",
        "  all negatives out (a3.h1)   1.30 [1.28, 1.32]      -           -",
    ]


def test_what_hurts_in_the_full_model_alone_is_said_in_other_words() -> None:
    parts, _ = effects_text(replace(example(), effects=replace(EFFECTS, within=())))
    assert (
        "  against          negative   -0.12 [-0.14, -0.10]   ablating it raises the metric   -               -"
        in parts
    )
    assert "negative: in the circuit alone too" not in parts


def test_at_path_level_it_is_said_why_no_negatives_were_looked_for() -> None:
    along = replace(example(), negatives=NegativeSearch("not along paths"))
    assert "at path level no component is ablated as a whole" in render_text(along)


def test_the_report_has_it_and_without_it_nothing() -> None:
    shown = render_text(replace(example(), effects=EFFECTS))
    assert all(block in shown for block in effects_text(replace(example(), effects=EFFECTS)))
    assert effects_text(example()) == ()
    assert "per-component ablation" not in render_text(example())


def test_why_direct_effects_are_not_known_is_said() -> None:
    unknown = replace(EFFECTS, knockouts=(), sets=(), direct_unknown="layer 0 has an adapter")
    _, said = effects_text(replace(example(), effects=unknown))
    assert said == "direct effects were not looked at: layer 0 has an adapter"


def test_components_that_were_not_taken_one_by_one_are_counted() -> None:
    many = replace(EFFECTS, components=(), sets=(), within=(), untaken=26)
    _, said = effects_text(replace(example(), effects=many))
    assert said == (
        "26 components of the circuit were not ablated one by one, and of the groups only those declared negative or "
        "backup; --negatives exact takes all"
    )
    (alone,) = effects_text(replace(example(), effects=replace(many, groups=(), knockouts=())))
    assert alone == said  # no table without rows
    together = (Ablated(ExaminedPart("one, two", "negative", ("one", "two")), 0.5, at(-0.12), 1e-4),)
    *_, joint = effects_text(replace(example(), effects=replace(many, groups=together)))
    assert "only those declared negative (these all together) or backup; --negatives exact takes all" in joint
    (bare,) = effects_text(replace(example(), effects=replace(many, groups=(), knockouts=(), backups=())))
    assert bare == (
        "26 components of the circuit were not ablated one by one, and of the groups only those declared negative or "
        "backup; nothing was knocked out to see what compensates; --negatives exact does it all"
    )


def test_components_that_were_not_taken_are_estimated() -> None:
    estimated = tuple(
        Ablated(replace(ONLY, name=f"a2.h{i}", declared="positive"), 0.5, at(-0.1 * i), 1e-4) for i in (1, 2)
    )
    declared = (Ablated(ONLY, 0.5, at(-0.3), 1e-4), Ablated(FIRST, -3.0, at(0.7), 1e-9))
    many = replace(EFFECTS, components=(), groups=(), knockouts=(), within=(), untaken=4)
    both = ExaminedPart("a2.h1, a2.h2", "positive", ("naming",))
    named = (
        "by first-order estimates in the circuit alone, the loss of 2 components that the hypothesis does not call "
        "negative should raise logit_diff (drop): a2.h2 -0.20, a2.h1 -0.10; "
    )
    for joint, told in (
        ((), "little in all, and not tried"),
        ((at(-0.2), at(-0.3)), "tried all at once, their loss does: -0.30 [-0.32, -0.28]"),
        (
            (at(-0.2), at(0.3)),
            "tried all at once, their loss does not: 0.30 [0.28, 0.32]. The estimates are wrong about some; "
            "--negatives exact tells about each",
        ),
    ):
        tried = tuple(Ablated(both, -one.value, one, 1e-4) for one in joint)
        found = replace(many, estimated=(*estimated, *declared), joint=tried)
        assert effects_text(replace(example(), effects=found))[1] == named + told
    said = effects_text(replace(example(), effects=replace(many, estimated=declared)))[1]
    assert said == "by first-order estimates in the circuit alone, no component is negative but those declared so"
    document = json.loads(render_json(replace(example(), effects=replace(many, estimated=estimated))))["effects"]
    assert [(one["name"], one["sign"], one["drop"]["value"]) for one in document["estimated"]] == [
        ("a2.h1", "hurts", -0.1),
        ("a2.h2", "hurts", -0.2),
    ]


def test_the_document_has_every_number() -> None:
    said = json.loads(render_json(replace(example(), effects=EFFECTS)))["effects"]
    assert said["metric"] == "logit_diff"
    assert [(one["name"], one["sign"], one["drop"]["value"]) for one in said["groups"]] == [
        ("naming", "helps", 0.7),
        ("against", "hurts", -0.12),
    ]
    silent = said["components"][1]
    assert (silent["name"], silent["groups"], silent["rise"]["value"]) == ("a3.h2", ["naming"], 0.3)
    assert (silent["besides"]["name"], silent["besides"]["drop"]["value"]) == ("a3.h0", 0.2)
    first, second = said["knockouts"]
    assert (first["direct"], first["total"]["value"], first["compensated"]["value"]) == (8.0, 3.0, 0.62)
    assert len(first["components"]) == 5
    assert first["components"][0]["standing"] == "outside the circuit"
    assert (second["by_components"], second["components"]) == (None, [])
    assert said["backups"][0]["holds"] is True
    assert [(one["name"], one["negatives"], one["kl"]) for one in said["sets"]] == [
        ("as declared", [], 0.1),
        ("all negatives out", ["a3.h1"], None),
    ]
    assert said["direct_unknown"] is None
