"""Checks across a file's parts, one by one. Places and texts are shown by the wrong files."""

from __future__ import annotations

import pytest

from tests.hypothesis_file.support import codes, errors, good_but, parse

NODES = "[a2.h0, a2.h1]"
MOVER = "mover: {nodes: [a3.h0], at: END}"
SLOTS = "{IO: $names, S1: $names, S2: =S1}"
LISTS = "{names: [Mary, John, Tom, James, Anna, Paul]}"
TEMPLATE = '["Then {IO} and {S1} went home. {S2} gave a ring to"]'
CLAIM = "sufficient: {metric: logit_diff, at_least: 0.8}"
PATHS = "    - inhibitor -> mover<q>\n    - mover -> logits\n"
ABC = "{abc: {IO: $names, S1: $names, S2: $names}}"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        # the ablation's source
        (("resample, from: abc", "mean"), []),  # there is one corruption
        ((f"{ABC}\n", "{abc: {IO: =S1}, other: {S1: =IO}}\n"), []),
        (("resample, from: abc", "zero"), []),
        (("resample, from: abc", "gaussian"), ["CS147"]),
        (("resample, from: abc", "gaussian, at: S1"), []),
        (("resample, from: abc", "gaussian, at: [S1, S2, END], std: 2.5, draws: 5, seed: 1"), []),
        (("resample, from: abc", "gaussian, at: [S1, S3]"), ["CS141"]),
        (("resample, from: abc", "gaussian, at: S1, from: abc"), ["CS146"]),
        (("from: abc}", "from: abc, std: 3, draws: 2}"), ["CS147", "CS147"]),
        (("resample, from: abc", "mean, from: clean"), []),
        (("from: abc", "from: clean"), ["CS144"]),
        # positions
        ((MOVER, "mover: {nodes: [a3.h0]}"), []),
        ((MOVER, "mover: {nodes: [a3.h0], at: IO}"), []),
        ((MOVER, "mover: {nodes: [a3.h0], at: [IO, S2, END]}"), []),
        ((MOVER, "mover: {nodes: ['a3.h0@S1', 'a3.h1@{S2,END}']}"), []),
        ((MOVER, "mover: {nodes: ['a3.h0@S3']}"), ["CS141"]),
        ((MOVER, "mover: {nodes: [a3.h0], at: last}"), ["CS141"]),
        ((MOVER, "mover: {nodes: [a3.h0], at: IO#2}"), ["CS143"]),
        ((MOVER, "mover: {nodes: [a3.h0], at: IO#1}"), []),
        (("{END: last}", "{END: last, X: S2 + 1, Y: 3, Z: -1}"), []),
        (("{END: last}", "{END: last, X: END + 1}"), ["CS135"]),
        (("{END: last}", "{END: last, S1#2: last}"), ["CS142"]),
        # repeats: only at positions that meet
        ((MOVER, "mover: {nodes: [a3.h0, a2.h0], at: END}"), ["CS201"]),
        ((MOVER, "mover: {nodes: [a3.h0, a2.h0], at: S2}"), []),
        ((MOVER, "mover: {nodes: [a3.h0, a2.h0]}"), ["CS201"]),
        ((MOVER, "mover: {nodes: ['a3.h0', 'a2.h0@S2', 'a2.h1@END'], at: S1}"), ["CS201"]),
        ((NODES, "['a2.h0@S1', 'a2.h0@S2']"), []),
        ((NODES, "['a2.h0@S1', 'a2.h0@{S1,S2}']"), ["CS200"]),
        ((NODES, "[a2.h*, a2.h1]"), ["CS200"]),
        ((NODES, "[a2.h0, 'a[1-4].h*', m*, m2]"), ["CS200", "CS200", "CS201"]),
        # lists
        ((LISTS, "{names: [Mary, John, Tom, James, Anna]}"), []),
        ((LISTS, "{names: [Mary, John, Tom, James]}"), ["CS137"]),
        ((ABC, "{abc: {IO: =S1}}"), []),
        # paths
        ((PATHS, "    - input -> mover<q> -> logits\n"), []),
        ((PATHS, "    - inhibitor -> m2, m3, a3<k>\n"), []),
        ((PATHS, "    - a2.h0 -> m2\n"), []),
        ((PATHS, "    - m2 -> a2.h0\n"), ["CS205"]),
        ((PATHS, "    - m* -> a1.h0\n"), []),
        ((PATHS, "    - a1.h0 -> m*\n"), []),
        ((PATHS, "    - m* -> a0.h0\n"), ["CS205"]),
        ((PATHS, "    - r3 -> a3.h0<q>\n    - a3.h0 -> r3.mid\n"), []),
        ((PATHS, "    - r3.mid -> a3.h0<q>\n"), ["CS205"]),
        ((PATHS, "    - 'sae:x.f1 -> a0.h0<q>'\n"), ["CS183"]),
        ((PATHS, "    - inhibitor, mover -> mover\n"), ["CS205"]),
        # claims
        ((CLAIM, "cross_section: {nodes: [mover, a1.h0, m*], metric: kl, at_least: 0.8}"), []),
        ((CLAIM, "cross_section: {nodes: [nobody], metric: kl, at_least: 0.8}"), ["CS204"]),
        ((CLAIM, "cross_section: {nodes: [input, 'r2@END', m1.n3], metric: kl, at_least: 0.8}"), []),
        ((CLAIM, "cross_section: {nodes: ['a1.h0@S3'], metric: kl, at_least: 0.8}"), ["CS141"]),
        ((CLAIM, "path: {of: nobody -> logits, direction: noising, metric: kl, drop_at_least: 0.8}"), ["CS204"]),
        ((CLAIM, "sufficient: {metric: kl, at_least: 0.8, at_most: 0.8}"), []),
        (('  wrong: " {S1}"\n', ""), ["CS128"]),
        (('  wrong: " {S1}"\n', "  checks: {accuracy: 1}\n"), ["CS128"]),
        # slots
        ((SLOTS, "{IO: $names, S1: =IO, S2: =S1}"), []),
        ((SLOTS, "{IO: =IO, S1: $names, S2: =S1}"), ["CS136"]),
        ((SLOTS, "{IO: $names, S1: $names, S2: =S3, S3: $names}"), []),
        (('answer: " {IO}"', 'answer: [" {IO}", " it"]'), []),
        (('wrong: " {S1}"', 'wrong: {from: $names, above: S9}'), ["CS131"]),
        (('wrong: " {S1}"', 'wrong: {from: $nobody, above: S1}'), ["CS134"]),
        (('wrong: " {S1}"', 'wrong: {from: $names.first, above: S1}'), ["CS139"]),
    ],
)  # fmt: skip
def test_check(change: tuple[str, str], found: list[str]) -> None:
    text = good_but(change)
    if found:
        assert codes(text) == found
    else:
        parse(text)


def test_wrong_answers_of_a_corruption_need_answers() -> None:
    text = good_but(('  answer: " {IO}"\n', ""), ('wrong: " {S1}"', "wrong: {answer_of: abc}"), ("logit_diff", "kl"))
    assert codes(text) == ["CS128"]


def test_a_slot_used_through_copies_and_corruptions_is_used() -> None:
    text = good_but((SLOTS, "{IO: $names, S1: $names, S2: =S1, X: $names, Y: =X}"), ("S2: $names}}", "S2: =Y}}"))
    parse(text)
    unused = good_but((SLOTS, "{IO: $names, S1: $names, S2: =S1, X: $names, Y: =X}"))
    assert [(one.code, one.message) for one in errors(unused)] == [
        ("CS132", "the slot X is not used"),
        ("CS132", "the slot Y is not used"),
    ]


def test_columns_of_a_corruption_that_draws_from_another_table() -> None:
    change = (
        (TEMPLATE, '["The {C.name} is in {S1} {S2} {IO}"]'),
        (SLOTS, "{IO: $names, S1: $names, S2: =S1, C: $sights}"),
        (
            LISTS,
            "{names: [Mary, John, Tom, James, Anna, Paul], sights: [{name: x, city: y}], seas: [{name: z}], p: [q]}",
        ),
    )
    parse(good_but(*change, (ABC, "{abc: {C: $seas}}")))
    (finding,) = errors(good_but(*change, (ABC, "{abc: {C: $p}}")))
    assert (finding.code, finding.label) == ("CS139", "in the corruption abc")


def test_unusable_lists_are_not_judged_by_size() -> None:
    assert codes(good_but((LISTS, "{names: [Mary, 3, John]}"))) == ["CS113"]
