"""Positions of several tokens: by index, by slot, by text; in a hypothesis and in a prompts file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from circuitspec.analysis.variables import kept_slots, slots_by_name
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.experiments.experiment import Noised
from circuitspec.exploration.setting import distinct_roles
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.position_blocks import NamedText, Position, SlotPosition
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask, prompts_digest
from circuitspec.prompts.reference_prompts import ReferencePrompts, chosen
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent
from tests.prompts.support import build, errors_of, one_error, plain, spec

LINE = {"clean": "Then, Mary and John went to the store. Mary", "answers": [" John"], "wrong": [" Mary"]}


def words_at(task: TokenizedTask, role: str, tokenizer: PreTrainedTokenizerFast, prompt: int = 0) -> list[str]:
    """The words at a position, as the tokenizer spells them without spaces."""
    return [tokenizer.decode([task.ids[CLEAN][prompt][k]]).strip() for k in task.tokens_at(role, prompt)]


def from_file(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, positions: object, declared: dict[str, Position] | None = None
) -> TokenizedTask:
    (tmp_path / "p.jsonl").write_text(json.dumps({**LINE, "positions": positions}), encoding="utf-8")
    return tokenize(build(plain(file="p.jsonl"), tmp_path), declared or {}, tokenizer)


def test_in_a_prompts_file(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    given = {
        "pair": [4, 2],
        "all": {"text": "went to the store", "tokens": "all"},
        "last": {"text": "went to the store"},
        "one": [4],
    }
    task = from_file(tmp_path, words, given, {"next": "pair + 1"})
    assert words_at(task, "pair", words) == ["Mary", "John"]
    assert words_at(task, "all", words) == ["went", "to", "the", "store"]
    assert words_at(task, "last", words) == ["store"]
    assert words_at(task, "next", words) == ["went"], "a position of several tokens is counted from by its last"
    assert task.roles["pair"] == (4,)
    assert set(task.spans) == {"pair", "all"}, "one token is a position as any other"


def test_in_a_csv_file(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    rows = [
        "clean,position:pair,position:all",
        '"Then, Mary and John","[4, 2]","{""text"": ""and John"", ""tokens"": ""all""}"',
    ]
    (tmp_path / "p.csv").write_text("\n".join(rows), encoding="utf-8")
    task = tokenize(build(plain(file="p.csv"), tmp_path), {}, words)
    assert task.spans == {"pair": ((2, 4),), "all": ((3, 4),)}


def test_under_every_tokenizer(any_tokenizer: PreTrainedTokenizerFast) -> None:
    """By slot and by text the same characters are named, however many tokens they are."""
    made = build(spec(prompts=8))
    declared: dict[str, Position] = {
        "names": SlotPosition(slot="S1", tokens="all"),
        "again": SlotPosition(slot="S2"),
        "went": NamedText(text="went to the", tokens="all"),
    }
    task = tokenize(made, declared, any_tokenizer)
    assert task.roles["again"] == task.roles["S2"]
    assert task.roles["names"] == task.roles["S1"]
    for i, prompt in enumerate(task.prompts.prompts):
        start, end = prompt.slots[CLEAN]["S1"]
        for role, said in (("names", prompt.texts[CLEAN][start:end]), ("went", "went to the")):
            ids = [task.ids[CLEAN][i][k] for k in task.tokens_at(role, i)]
            assert any_tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip() == said
            assert list(task.tokens_at(role, i)) == sorted(task.tokens_at(role, i))


def test_slots_of_different_lengths(words: PreTrainedTokenizerFast) -> None:
    task = tokenize(
        build(
            plain(
                templates=["Then, {A} and {B}", "Then, {B} and {A} went"],
                slots={"A": "$long", "B": "$short"},
                lists={"long": ["Mary Mary", "John", "the ring to"], "short": ["Tom"]},
                answer=" Anna",
                prompts=6,
            )
        ),
        {"whole": SlotPosition(slot="A", tokens="all"), "two": (0, -1)},
        words,
    )
    for i, prompt in enumerate(task.prompts.prompts):
        start, end = prompt.slots[CLEAN]["A"]
        assert words_at(task, "whole", words, i) == prompt.texts[CLEAN][start:end].split()
        assert task.tokens_at("two", i) == (0, task.lengths[i] - 1)
    assert {len(at) for at in task.spans["whole"]} == {1, 2, 3}
    few = chosen(task, [4, 1])
    assert few.spans["whole"] == (task.spans["whole"][4], task.spans["whole"][1])


def test_the_prompts_that_means_are_over_have_them_too(words: PreTrainedTokenizerFast) -> None:
    task = spec(prompts=4, positions={"start": [0, 1], "who": {"slot": "S1", "tokens": "all"}})
    scored = tokenize(build(task), task.positions, words)
    found = ReferencePrompts(task, None, Path(), None, words).of(scored, 8).reference
    assert found is not None
    assert found.spans["start"] == ((0, 1),) * found.n
    assert "who" not in found.spans, "of one token each"


@pytest.mark.parametrize("kind", ["p.jsonl", "p.csv", "p.json"])
def test_a_hypothesis_names_texts_in_every_format(kind: str, tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    """Positions by text in the hypothesis hold for all prompts, in auto-circuit's files as in others."""
    clean, corrupt = "Then, Mary and John went", "Then, Tom and John went"
    both = {"clean": clean, "corrupt": corrupt}
    texts = {
        "p.jsonl": json.dumps(both),
        "p.csv": f'clean,corrupt\n"{clean}","{corrupt}"\n',
        "p.json": json.dumps({"prompts": [{**both, "answers": [" Anna"], "wrong_answers": [" Paul"]}]}),
    }
    (tmp_path / kind).write_text(texts[kind], encoding="utf-8")
    task = plain(
        file=kind, positions={"who": {"text": "John"}, "both": {"text": "and John", "tokens": "all"}, "two": [0, 2]}
    )
    found = tokenize(build(task, tmp_path), task.positions, words)
    assert words_at(found, "who", words) == ["John"]
    assert words_at(found, "both", words) == ["and", "John"]
    assert words_at(found, "two", words) == ["Then", "Mary"]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({"X": [0, 40]}, "the position X of prompt 0 (p.jsonl:1) is token 40, but the prompt has"),
        ({"X": {"text": "Paul", "tokens": "all"}}, "is occurrence 1 of 'Paul', which the clean text holds 0 times"),
    ],
)
def test_what_is_not_there(tmp_path: Path, words: PreTrainedTokenizerFast, positions: object, message: str) -> None:
    found = errors_of(lambda: from_file(tmp_path, words, positions))
    assert message in found[0].message
    assert found[0].code in {"CS345", "CS360"}


def test_forms_that_are_no_positions(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    for bad in ([], [1.5], {"text": "Mary", "tokens": "some"}, [[1]]):
        found = one_error(lambda bad=bad: from_file(tmp_path, words, {"X": bad}), "CS338")
        assert "`positions` is not an object of token indices" in found.message


def test_digests_tell_spans_apart_and_leave_others_as_they_were(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    def of(positions: object) -> str:
        return prompts_digest(from_file(tmp_path, words, positions).prompts)

    text = {"text": "Mary", "nth": 1}
    assert of({"X": text}) == of({"X": {**text, "tokens": "last"}})
    assert len({of({"X": text}), of({"X": {**text, "tokens": "all"}}), of({"X": [1, 2]}), of({"X": 2})}) == 4


HYPOTHESIS = """\
circuitspec: 1
name: spans
model: {id: "zoo:ioi-tiny"}
task:
  templates: ["Then, {IO} and {S1} went to the {place}. {S2} gave a ring to"]
  slots: {IO: $names, S1: $names, S2: =S1, place: $places}
  lists:
    names: [Mary, John, Paul, Anna, Peter, Laura]
    places: [store, park, school]
  answer: " {IO}"
  wrong: " {S1}"
  corruptions:
    abc: {IO: $names, S1: $names, S2: $names}
  positions: {END: last, FIRST: {text: "and", tokens: all}, HEAD: [1, 2, 3], WHO: {slot: S1, tokens: all}}
  prompts: 12
circuit:
  groups:
    movers: {nodes: [a3.h0], at: END}
    early: {nodes: [a0.h0, a0.h1], at: HEAD}
ablation: {value: resample, from: abc}
claims:
  - sufficient: {metric: logit_diff, at_least: -100}
"""


def refused(was: str, now: str) -> tuple[Diagnostic, ...]:
    assert HYPOTHESIS.count(was) == 1
    document = parse_hypothesis(HYPOTHESIS.replace(was, now), "h.circuit.yaml", Path())
    return errors_of(lambda: verify(document, VerifyOptions(negatives="off"), Silent()))


def test_a_hypothesis_with_spans_runs() -> None:
    document = parse_hypothesis(HYPOTHESIS, "h.circuit.yaml", Path())
    found = verify(document, VerifyOptions(), Silent())
    assert found.task.spans["HEAD"] == ((1, 2, 3),) * 12
    assert found.verification.plan.circuit.roles == {"END", "HEAD"}


def test_a_metric_of_one_token_is_not_read_at_several() -> None:
    (found,) = refused("metric: logit_diff", "metric: {attention: a3.h0, from: END, to: HEAD}")
    assert (found.code, found.span and found.span.line) == ("CS361", 22)
    assert found.label == "it is 3 tokens in some prompt"


def test_one_component_at_positions_that_share_a_token() -> None:
    (found,) = refused("at: HEAD", "at: [HEAD, IO]")
    assert found.code == "CS362"
    assert "the positions HEAD and IO share tokens" in found.message


@pytest.mark.parametrize(
    ("was", "now", "code", "line"),
    [
        ("{slot: S1, tokens: all}", "{slot: last, tokens: all}", "CS177", 14),
        ("{slot: S1, tokens: all}", "{slot: S1 + 1, tokens: all}", "CS177", 14),
        ("{slot: S1, tokens: all}", "{slot: S9, tokens: all}", "CS135", 14),
        ("{slot: S1, tokens: all}", "{slot: S1, tokens: some}", "CS114", 14),
        ("[1, 2, 3]", "[1, two]", "CS113", 14),
        ("[1, 2, 3]", "[]", "CS115", 14),
        ("[1, 2, 3]", "1.5", "CS113", 14),
        ('text: "and"', 'txt: "and"', "CS111", 14),
    ],
)
def test_mistakes_in_a_hypothesis(was: str, now: str, code: str, line: int) -> None:
    found = errors_of(lambda: parse_hypothesis(HYPOTHESIS.replace(was, now), "h.circuit.yaml", Path()))
    assert code in [d.code for d in found], found
    assert {d.span.line for d in found if d.span} == {line}


def test_a_position_of_the_prompts_is_no_slot(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    declared: dict[str, Position] = {"Y": SlotPosition(slot="X", tokens="all")}
    found = one_error(lambda: from_file(tmp_path, words, {"X": [1, 2]}, declared), "CS345")
    assert found.message == "Y: X is a position of the prompts, and no slot of a template"


def test_noise_at_all_tokens_of_a_slot_leaves_nothing_of_it() -> None:
    task = spec(positions={"WHO": {"slot": "S1", "tokens": "all"}, "NEXT": "S1 + 1"})
    made, variables = build(task), frozenset({"S1", "IO"})
    by_name = slots_by_name(task)
    assert by_name == {"WHO": "S1"}
    for at, kept in (("WHO", {"IO"}), ("S1", {"IO"}), ("NEXT", {"IO", "S1"})):
        assert kept_slots(made, Noised(3.0, Where.at(at), 1, 0), variables, by_name) == kept


def test_what_is_searched_when_positions_share_tokens(words: PreTrainedTokenizerFast) -> None:
    """The one of several tokens stands for those within it; two that share a token for one another."""
    task = spec(prompts=4, positions={"HEAD": [0, 1, 2], "MORE": [2, 3], "LAST": "last", "END": "last"})
    found = distinct_roles(tokenize(build(task), task.positions, words))
    assert "HEAD" in found
    assert "MORE" not in found
    assert ("LAST" in found, "END" in found) == (True, False)
    assert not {"IO", "S1"} & set(found), "at token 2 or 4 of each prompt, and so in some within HEAD"
    assert {"S2", "place", "object"} < set(found)


def test_check_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "h.circuit.yaml"
    file.write_text(HYPOTHESIS, encoding="utf-8")
    check_file(file)
