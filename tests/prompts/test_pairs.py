"""Pairs of prompts and the high-level model, against what is worked out by hand."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.grammar.names import NameSyntaxError
from circuitspec.hypothesis_file.grammar.variable_expressions import (
    NotEvaluated,
    Scalar,
    evaluate,
    kind_of_value,
    parse_expression,
    references,
    spelled,
)
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.models.load import load_model
from circuitspec.pipelines.check import check_file
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet, share
from circuitspec.prompts.pairs.pair_tokens import with_pairs
from circuitspec.prompts.prompt_set import CLEAN, prompts_digest
from circuitspec.prompts.tokens.tokenize import tokenize

HEAD = """\
circuitspec: 1
name: carries
model: {id: zoo:ioi-tiny}
task:
  templates: ["Then, {first} and {second} went to the store. {again} gave a ring to"]
  slots: {first: $names, second: $names, again: =second}
  lists:
    names: [Mary, John, Paul, Anna, Peter, Laura]
  answer: " {first}"
  wrong: " {second}"
  corruptions:
    abc: {first: $names, second: $names, again: $names}
  positions: {END: last}
  prompts: 8
circuit:
  groups:
    inhibition: {nodes: [a2.h2], at: END}
ablation: {value: zero}
abstraction:
  variables:
    position: 0 if again == second else 1
    answer: first if position == 0 else second
  output: answer
  align: {position: {nodes: [inhibition]}, answer: {nodes: ["m3@END"]}}
  pairs:
    flipped: {slots: {again: =first}}
    reversed: {slots: {first: =second, second: =first}}
    other_names: {redraw: [first, second]}
    both: {redraw: [first, second], slots: {again: =first}}
    corrupted: {corruption: abc}
    permuted: {permute: true}
claims:
  - interchange: {variable: position, at_least: 0.8}
"""


def document(*changes: tuple[str, str]) -> Document:
    text = HEAD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return parse_hypothesis(text, "pairs.circuit.yaml")


def pairs_of(*changes: tuple[str, str]) -> PairSet:
    given = document(*changes)
    task = given.hypothesis.task
    prompts = build_prompts(task, Path(), given.source)
    assert given.hypothesis.abstraction is not None
    return draw_pairs(given.hypothesis.abstraction, task, prompts, Path(), given.source)


def refused(*changes: tuple[str, str]) -> list[tuple[str, str]]:
    with pytest.raises(CircuitspecError) as caught:
        pairs_of(*changes)
    return [(found.code, found.message) for found in caught.value.diagnostics]


# -- families ---------------------------------------------------------------------------------------------------------


def test_sources_are_made_of_their_base() -> None:
    """Slots that copy others follow; what is set takes what the base holds, or what was drawn anew."""
    pairs = pairs_of()
    assert len(pairs) == 8
    for i in range(8):
        base = dict(pairs.slots(i))
        first, second = base["first"], base["second"]
        made = {name: dict(sources[i].slots) for name, sources in pairs.families.items()}
        assert made["flipped"] == {"first": first, "second": second, "again": first}
        assert made["reversed"] == {"first": second, "second": first, "again": first}
        for name, repeated in (("other_names", "second"), ("both", "first")):
            drawn = made[name]
            assert len({first, second, drawn["first"], drawn["second"]}) == 4
            assert drawn["again"] == drawn[repeated]
        assert made["corrupted"] == pairs.bases[i].fillings["abc"]
        source = pairs.families["reversed"][i]
        assert source.text == f"Then, {second} and {first} went to the store. {first} gave a ring to"
        assert source.text[slice(*source.spans["again"])] == first
        assert source.named == (f" {second}", f" {first}")


def test_a_permutation_has_every_prompt_as_a_source_once_and_none_as_its_own() -> None:
    pairs = pairs_of()
    bases = [base.texts[CLEAN] for base in pairs.bases]
    sources = [source.text for source in pairs.families["permuted"]]
    assert sorted(sources) == sorted(bases)
    assert all(one != other for one, other in zip(sources, bases, strict=True))
    other = pairs_of(("permute: true", "permute: true, seed: 1")).families["permuted"]
    assert [source.text for source in other] != sources


def test_permutations_stay_within_a_template() -> None:
    pairs = pairs_of(('gave a ring to"]', 'gave a ring to", "When {first} met {second}, {again} gave a ring to"]'))
    for base, source in zip(pairs.bases, pairs.families["permuted"], strict=True):
        assert source.text.split()[0] == base.texts[CLEAN].split()[0]


def test_a_family_is_drawn_from_its_name_and_seed_alone() -> None:
    """More prompts, or another family, leave the sources of the first as they are."""
    before = pairs_of()
    more = pairs_of(("prompts: 8", "prompts: 12"), ("    permuted: {permute: true}\n", ""))
    for name in ("other_names", "both", "corrupted"):
        assert more.families[name][:8] == before.families[name]
    assert pairs_of(("redraw: [first, second]}", "redraw: [first, second], seed: 1}")).families != before.families


def test_pairs_do_not_change_the_prompts() -> None:
    with_, without = document(), document((HEAD[HEAD.index("abstraction:") : HEAD.index("claims:")], ""), _OTHER_CLAIM)
    digests = {prompts_digest(build_prompts(d.hypothesis.task, Path(), d.source)) for d in (with_, without)}
    assert len(digests) == 1


_OTHER_CLAIM = ("interchange: {variable: position, at", "sufficient: {metric: logit, at")


# -- the high-level model ---------------------------------------------------------------------------------------------


def test_what_the_high_level_model_asks_for() -> None:
    """By hand: position 1 answers the second name; an answer from the source is the source's."""
    pairs = pairs_of()
    for i in range(8):
        first, second = (f" {pairs.slots(i)[slot]}" for slot in ("first", "second"))
        other = dict(pairs.families["both"][i].slots)
        assert pairs.base_answers[i] == first
        assert pairs.source_answers("both")[i] == f" {other['second']}"
        assert pairs.expected((("position", "both"),))[i] == second
        assert pairs.expected((("answer", "both"),))[i] == f" {other['second']}"
        assert (
            pairs.expected((("position", "flipped"), ("answer", "other_names")))[i]
            == pairs.source_answers("other_names")[i]
        )  # the answer is set itself, whatever the position
        wanted = {first, second, f" {other['first']}", f" {other['second']}"}
        assert set(pairs.candidates((("position", "both"),))[i]) == wanted


def test_shares_of_pairs_that_can_tell() -> None:
    """A swap of who is repeated changes position and answer alike; other names change the answer alone."""
    pairs = pairs_of()
    one, other = "position", "answer"
    told = {name: share(pairs.told_apart(((one, name),), ((other, name),))) for name in pairs.families}
    assert (told["flipped"], told["other_names"], told["both"]) == (0, 1, 1)
    assert share(pairs.changed((("position", "flipped"),))) == 1
    assert share(pairs.changed((("position", "other_names"),))) == 0
    assert share(()) == 0


def test_a_pair_with_one_candidate_gets_those_of_all() -> None:
    """Without wrong answers, a source that asks for the same answer as its base leaves nothing to choose between."""
    pairs = pairs_of(('  wrong: " {second}"\n', ""), ("redraw: [first, second]}", "redraw: [second]}"))
    setting = (("position", "other_names"),)
    assert all(one == set(pairs.base_answers) for one in map(set, pairs.candidates(setting)))


def test_columns_and_numbers() -> None:
    table = (
        (
            "names: [Mary, John, Paul, Anna, Peter, Laura]",
            'names: [{n: Mary, x: "1"}, {n: John, x: "2"}, {n: Al, x: "10"}]',
        ),
        ("{first} and {second}", "{first.n} and {second.n}"),
        ("{again} gave", "{again.n} gave"),
        ('answer: " {first}"', 'answer: " {first.n}"'),
        ('wrong: " {second}"', 'wrong: " {second.n}"'),
        ("    abc: {first: $names, second: $names, again: $names}", "    abc: {again: =first}"),
        (
            "    other_names: {redraw: [first, second]}\n    both: {redraw: [first, second], slots: {again: =first}}\n",
            "",
        ),
        ("prompts: 8", "prompts: 6"),
        ("0 if again == second else 1", "0 if again.n == second.n else first.x - second.x"),
        ("first if position == 0 else second", "first.n if position == 0 else second.n"),
    )
    pairs = pairs_of(*table)
    for i in range(6):
        slots: Any = pairs.families["flipped"][i].slots
        assert pairs.model.run(slots)["position"] == int(slots["first"]["x"]) - int(slots["second"]["x"])


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_model_that_contradicts_the_task() -> None:
    found = refused(("first if position == 0 else second", "second if position == 0 else first"))
    assert {code for code, _ in found} == {"CS231"}
    assert len(found) == 8
    assert "the high-level model answers ' " in found[0][1]


def test_a_text_that_is_no_number() -> None:
    found = refused(("0 if again == second else 1", "0 if again < 3 else 1"))
    assert {code for code, _ in found} == {"CS230"}
    assert "is not a plain number" in found[0][1]


def test_a_source_whose_text_is_no_number() -> None:
    """Bases have none of the words that the family sets, so that it is told of the sources."""
    other = ("flipped: {slots: {again: =first}}", "flipped: {slots: {again: $words}}")
    lists = ("Peter, Laura]", 'Peter, Laura]\n    words: [seven, "8"]')
    found = refused(other, lists, ("0 if again == second else 1", "0 if again == second else again + 0"))
    assert {code for code, _ in found} == {"CS230"}
    assert found[0][1].startswith("in the source of prompt")


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("{slots: {again: =second}}", "leaves prompt 0"),
        ("{permute: true}", "leaves prompt 0"),
    ],
)
def test_a_source_that_is_its_base(family: str, said: str) -> None:
    found = refused(("prompts: 8", "prompts: 1"), ("flipped: {slots: {again: =first}}", f"flipped: {family}"))
    assert "CS232" in {code for code, _ in found}
    assert said in found[0][1]


def test_a_list_with_nothing_else_to_draw() -> None:
    short = ("[Mary, John, Paul, Anna, Peter, Laura]", "[Mary, John, Paul]")
    corruption = ("{first: $names, second: $names, again: $names}", "{again: =first}")
    found = refused(short, corruption, ("prompts: 8", "prompts: 2"))
    assert [code for code, _ in found] == ["CS327"]


OPENINGS = (
    ("Then, {first} and {second} went", "When {opening} {first} and {second} went"),
    ("again: =second}", "again: =second, opening: $openings}"),
    ("Peter, Laura]", 'Peter, Laura]\n    openings: ["Then,", "Then"]'),
    ("other_names: {redraw: [first, second]}", "other_names: {redraw: [opening]}"),
)


def test_sources_of_another_length(tmp_path: Path) -> None:
    """Tokens correspond by the template's pieces, worked out by hand; `check` refuses what asks for others."""
    text = HEAD
    for old, new in OPENINGS:
        text = text.replace(old, new)
    file = tmp_path / "pairs.circuit.yaml"
    file.write_text(text, "utf-8")
    assert check_file(file)[0] == ()  # aligned at the last token
    given = document(*OPENINGS)
    hypothesis, pairs = given.hypothesis, pairs_of(*OPENINGS)
    tokenizer = load_model(hypothesis.model, Path()).tokenizer
    task = tokenize(build_prompts(hypothesis.task, Path(), given.source), hypothesis.task.positions, tokenizer)
    task = with_pairs(task, pairs, [(("position", "other_names"),)], hypothesis.task.positions, tokenizer)
    for i, (base, source) in enumerate(zip(task.ids["clean"], task.ids["pairs:other_names"], strict=True)):
        assert abs(len(source) - len(base)) == 1  # `When Then , Mary` and `When Then Mary`
        by_hand = (0, *range(2, len(source))) if len(source) > len(base) else (0, -1, *range(1, len(source)))
        assert task.counterparts_of("clean", "pairs:other_names", i) == by_hand
        assert task.of("pairs:other_names").roles["END"][i] == len(source) - 1
    file.write_text(text.replace("{position: {nodes: [inhibition]}", "{position: {nodes: [m0]}"), "utf-8")
    problems = check_file(file)[0]
    assert {problem.code for problem in problems} == {"CS233"}
    (problem,) = [one for one in problems if "pairs:other_names" in one.message]
    assert "a source of pairs:other_names has no token for token 1 of prompt" in problem.message
    assert "(every token): the slot opening: " in problem.message


def test_positions_that_move(tmp_path: Path) -> None:
    """As many tokens in base and source, but a comma has gone from before the first name to behind the second."""
    changes = (
        ("Then, {first} and {second} went", "{before} {first} and {second} {behind} went"),
        ("again: =second}", "again: =second, before: $commas, behind: $plain}"),
        ("Peter, Laura]", 'Peter, Laura]\n    commas: ["Then,", "When,"]\n    plain: [Then, When]'),
        ("flipped: {slots: {again: =first}}", "moved: {slots: {before: =behind, behind: =before}}"),
        ("{nodes: [inhibition]}", "{nodes: [a0.h0], at: first}"),
    )
    text = HEAD
    for old, new in changes:
        text = text.replace(old, new)
    file = tmp_path / "pairs.circuit.yaml"
    file.write_text(text, "utf-8")
    assert check_file(file)[0] == ()
    given, pairs = document(*changes), pairs_of(*changes)
    hypothesis = given.hypothesis
    tokenizer = load_model(hypothesis.model, Path()).tokenizer
    task = tokenize(build_prompts(hypothesis.task, Path(), given.source), hypothesis.task.positions, tokenizer)
    task = with_pairs(task, pairs, [(("position", "moved"),)], hypothesis.task.positions, tokenizer)
    for i in range(len(pairs)):  # Then , A and B When went ... for When A and B Then , went ...
        rest = tuple(range(6, len(task.ids["clean"][i])))
        assert len(task.ids["clean"][i]) == len(task.ids["pairs:moved"][i])
        names = task.counterparts_of("clean", "pairs:moved", i)
        assert names[2:5] == (1, 2, 3)
        assert names[6:] == rest
        assert names[0] == -1
    file.write_text(text.replace(", at: first}", "}"), "utf-8")
    assert [problem.code for problem in check_file(file)[0]] == ["CS233"]


def test_what_is_wrong_with_pairs_is_said_alone(tmp_path: Path) -> None:
    """And not that the prompts lack the pairs that could not be made."""
    file = tmp_path / "pairs.circuit.yaml"
    file.write_text(HEAD.replace("flipped: {slots: {again: =first}}", "flipped: {file: none.csv}"), "utf-8")
    (problem,) = check_file(file)[0]
    assert "none.csv" in problem.message


def test_check_prints_what_variables_come_to(tmp_path: Path) -> None:
    file = tmp_path / "pairs.circuit.yaml"
    file.write_text(HEAD, "utf-8")
    problems, said = check_file(file)
    assert problems == ()
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "position from flipped 1.00 0.00" in lines
    assert "position from other_names 0.00 1.00" in lines
    assert any(line.startswith("prompt position answer asks for") for line in lines)
    shown = r"\d Then, (\w+) and (\w+) went to the store\. (\w+) gave a ring to (\d) (\w+) ' (\w+)'"
    rows = [found.groups() for line in lines if (found := re.fullmatch(shown, line))]
    assert len(rows) == 3 * 7  # prompts, and sources of six families
    for first, second, again, position, answer, asked in rows:
        assert (position, answer) == (("0", first) if again == second else ("1", second))
        assert asked == answer
    assert any(line.startswith("position, answer -") for line in lines)
    file.write_text(HEAD[: HEAD.index("    reversed:")] + HEAD[HEAD.index("claims:") :], "utf-8")
    assert "note: no pair tells position from answer (CS450)" in check_file(file)[1]


# -- expressions ------------------------------------------------------------------------------------------------------

SLOTS: dict[str, Scalar] = {"A": "Mary", "B": "John", "n": "7", "half": "0.5", "x": Decimal(3), "yes": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A == 'Mary'", True),
        ("A != B", True),
        ("A in ('John', \"Mary\")", True),
        ("A not in [B]", True),
        ("n == 7", True),
        ("n == '7'", True),
        ("n == '7.0'", False),  # two texts are compared as texts
        ("n == 7.0", True),
        ("half < 1", True),
        ("2 < x <= 3 < n", True),
        ("n > x and x >= 3", True),
        ("n in (6, 7)", True),
        ("yes == (A == 'Mary')", True),
        ("not yes or A == B", False),
        ("n + half - 1", Decimal("6.5")),
        ("-x + 1", Decimal(-2)),
        ("A if x == 3 else B", "Mary"),
        ("'a' if A == B else 'b' if yes else 'c'", "b"),
        ("  A\n  if yes\n  else B ", "Mary"),
        ("'Ä' if A == 'é' else 'ö'", "ö"),
    ],
)
def test_expressions(text: str, value: Scalar) -> None:
    assert evaluate(parse_expression(text), lambda name, column: SLOTS[name]) == value


NOT_EXPRESSIONS = """\
f(A) | A[0] | A.b.c | (A).b(1) | lambda: 1 | [A for A in B] | A := B | A is B | A in B | A * 2 | A / 2 | A ** B | A % B
~A | f'{A}' | b'x' | 1j | None | ... | {A: B} | A, B | [A] | A in () | 1e400 < 2 | *A | await A | yield | A; B | A = B
import os | __import__('os') | x if y | 'a | 1_000 < A | 0x10 < A | 12345678901234567 < n | +A"""
DEEP = ["(" * 400, "not " * 200 + "A", " + ".join(["A"] * 400), "-" * 300 + "n", "A\x00", ""]


@pytest.mark.parametrize("text", [*NOT_EXPRESSIONS.replace("\n", " | ").split(" | "), *DEEP])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(NameSyntaxError) as caught:
        parse_expression(text)
    assert 0 <= caught.value.offset <= len(text)


def test_where_names_stand() -> None:
    found = references(parse_expression("  'ä' if S.plural == 'é' else q if x < y else z"))
    assert sorted((one.offset, one.length, str(one)) for one in found) == [
        (9, 8, "S.plural"), (30, 1, "q"), (35, 1, "x"), (39, 1, "y"), (46, 1, "z"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["A < 3", "A + 1", "n < A", "A == 3", "yes + 1", "x < yes"])
def test_what_has_no_value(text: str) -> None:
    with pytest.raises(NotEvaluated):
        evaluate(parse_expression(text), lambda name, column: SLOTS[name])


def test_kinds_of_values() -> None:
    kinds: Any = {"x": "number", "yes": "truth"}
    for text, kind in (("A", "text"), ("S.n", "text"), ("x", "number"), ("A == B", "truth"), ("n + 1", "number")):
        assert kind_of_value(parse_expression(text), kinds) == kind
    assert [spelled(value) for value in (Decimal("3.50"), Decimal("-0"), Decimal(100), True, "a")] == [
        "3.5", "0", "100", "true", "a",
    ]  # fmt: skip
