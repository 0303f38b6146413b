"""Whole files: the format's own example, tasks of every kind, what is kept canonical, and the digest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Span
from circuitspec.hypothesis_file.load_file import digest, load_hypothesis, parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import Above, AnswerOf
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.hypothesis_file.starter_file import starter_text
from tests.hypothesis_file.support import GOOD, HYPOTHESES, codes, errors, good_but, parse

IOI = """\
# yaml-language-server: $schema=./circuitspec.schema.json
circuitspec: 1
name: ioi-gpt2-small
source: arXiv:2211.00593

model:
  id: openai-community/gpt2      # hub id | local directory | zoo:NAME | package:MODULE/FILE.gguf
  revision: 607a30d783dfa663caf39e06633721c8d4cfcd7e
  dtype: float32

task:
  templates:
    - "Then, {IO} and {S1} went to the {place}. {S2} gave a {object} to"
    - "Then, {S1} and {IO} went to the {place}. {S2} gave a {object} to"
  slots:
    IO: $names
    S1: $names
    S2: =S1
    place: $places
    object: $objects
  lists: {names: names.txt, places: [store, park], objects: [ring, kiss]}
  answer: " {IO}"
  wrong: " {S1}"
  corruptions:
    abc:  {IO: $names, S1: $names, S2: $names}
    flip: {IO: =S1, S1: =IO, S2: =IO}
  positions: {S1+1: S1 + 1, END: last}
  prompts: 100
  seed: 0

circuit:
  groups:
    duplicate_token:     {nodes: [a0.h1, a0.h10, a3.h0], at: S2}
    previous_token:      {nodes: [a2.h2, a4.h11], at: S1+1}
    induction:           {nodes: [a5.h5, a5.h8, a5.h9, a6.h9], at: S2}
    s_inhibition:        {nodes: [a7.h3, a7.h9, a8.h6, a8.h10], at: END}
    name_mover:          {nodes: [a9.h9, a9.h6, a10.h0], at: END}
    negative_name_mover: {nodes: [a10.h7, a11.h10], at: END, effect: negative}
    backup_name_mover:
      {nodes: [a9.h0, a9.h7, a10.h1, a10.h2, a10.h6, a10.h10, a11.h2, a11.h9], at: END, effect: backup}
  free: [m*]
  paths:
    - previous_token -> induction<k,v>
    - duplicate_token, induction -> s_inhibition<v>
    - s_inhibition -> name_mover<q>, negative_name_mover<q>, backup_name_mover<q>
    - name_mover, negative_name_mover, backup_name_mover -> logits

ablation: {value: mean_per_template, from: abc, level: node, positions: declared}

claims:
  - sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}
  - necessary:  {metric: logit_diff, at_most: 0.3}
  - path: {of: s_inhibition -> name_mover<q>, direction: noising, metric: logit_diff, drop_at_least: 0.3}
  - cross_section: {nodes: [name_mover, negative_name_mover, backup_name_mover], metric: logit_diff, at_least: 0.8}
"""


def test_the_full_example(tmp_path: Path) -> None:
    file = tmp_path / "ioi.circuit.yaml"
    file.write_text(IOI, encoding="utf-8")
    (tmp_path / "names.txt").write_text("Mary\nJohn\nTom\nJames\nAnna\n", encoding="utf-8")
    document = load_hypothesis(file)
    hypothesis = document.hypothesis
    assert hypothesis.model.revision == "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    assert hypothesis.task.corruptions["flip"] == {"IO": "=S1", "S1": "=IO", "S2": "=IO"}
    assert hypothesis.task.positions == {"S1+1": "S1 + 1", "END": "last"}
    assert hypothesis.circuit.groups["negative_name_mover"].effect == "negative"
    assert sum(len(group.nodes) for group in hypothesis.circuit.groups.values()) == 26
    assert hypothesis.ablation.source == "abc"
    assert hypothesis.claims == (
        Sufficient(metric="logit_diff", at_least=0.8, at_most=1.2),
        Necessary(metric="logit_diff", at_most=0.3),
        PathClaim(of="s_inhibition -> name_mover<q>", direction="noising", metric="logit_diff", drop_at_least=0.3),
        CrossSection(
            nodes=("name_mover", "negative_name_mover", "backup_name_mover"), metric="logit_diff", at_least=0.8
        ),
    )
    assert document.lists["names"] == ("Mary", "John", "Tom", "James", "Anna")
    assert document.source.span(("circuit", "groups", "induction", "nodes", 2)) == Span(str(file), 35, 49, 54)
    assert document.base_dir == tmp_path


def test_four_names_are_too_few_for_the_full_example(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Mary\nJohn\nTom\nJames\n", encoding="utf-8")
    with pytest.raises(CircuitspecError, match="CS137"):
        parse_hypothesis(IOI, "ioi.circuit.yaml", tmp_path)


TAIL = """
circuit: {groups: {mover: {nodes: [a3.h0]}}}
ablation: {value: resample, from: FROM}
claims:
  - sufficient: {metric: METRIC, at_least: 0.8}
"""

TASKS = {
    "greater_than": (
        """
task:
  templates: ["The {noun} lasted from the year {XX}{YY} to the year {XX}"]
  slots: {noun: $nouns, XX: $centuries, YY: $starts}
  lists:
    nouns: [war, plague, reign]
    centuries: ["16", "17", "18"]
    starts: ["02", "03", "45", "97"]
    years: ["01", "02", "03", "04", "45", "46", "97", "98", "99"]
    first: ["01"]
  answer: {from: $years, above: YY}
  wrong: {from: $years, at_most: YY}
  corruptions: {01: {YY: $first}}
  positions: {END: last, XX2: "XX#2"}
""".replace("{01:", '{"01":'),
        '"01"',
        "prob_diff",
    ),
    "docstring": (
        '''
task:
  templates:
    - |
      def {name}(self, {A}, {B}, {C}):
          """{verb} the {noun}

          :param {A2}: {word1}
          :param {B2}: {word2}
          :param
  slots:
    {name: $verbs, A: $arguments, B: $arguments, C: $arguments, A2: =A, B2: =B, verb: $verbs, noun: $words,
     word1: $words, word2: $words}
  lists:
    verbs: [load, send, parse, walk]
    arguments: [files, obj, state, size, shape, option, limit, first]
    words: [report, table, number, street, heart]
  answer: " {C}"
  wrong: [" {A}", " {B}"]
  corruptions:
    random_doc: {A2: $arguments, B2: $arguments}
    random_def: {A: $arguments, B: $arguments, C: $arguments}
  positions: {B_doc: B2, C_def: C, B_def+1: B + 1, END: last}
''',
        "random_doc",
        "logit_diff",
    ),
    "factual_recall": (
        """
task:
  templates: ["The {C.name} is in the city of", "{C.name} can be found in the city of"]
  slots: {C: $landmarks}
  lists:
    landmarks:
      - {name: Colosseum, city: Rome}
      - {name: Louvre, city: Paris}
      - {name: Kremlin, city: Moscow}
  answer: " {C.city}"
  wrong: {answer_of: swap}
  corruptions: {swap: {C: $landmarks}}
  positions: {END: last}
  checks: {accuracy: 0.9}
""",
        "swap",
        "logit_diff",
    ),
    "induction": (
        """
task:
  generate: {repeated_tokens: {length: 24}}
  prompts: 50
""",
        "no_repeat",
        "logprob",
    ),
    "agreement": (
        """
task:
  templates: ["The {noun.one} near the {other.many} {adverb}", "The {noun.one} that saw the {other.many}"]
  slots: {noun: $nouns, other: $nouns, adverb: $adverbs}
  lists:
    nouns: {one: [key, boy, cabinet, author], many: [keys, boys, cabinets, authors]}
    adverbs: [really, often]
  answer: [" is", " was", " has"]
  wrong: [" are", " were", " have"]
  corruptions: {other: {noun: $nouns}}
  positions: {SUBJECT: noun, END: last}
""",
        "other",
        "prob_diff",
    ),
    "induction_in_words": (
        """
task:
  templates: ["{A} {B} {C} {A}", "{C} {A} {B} {C} {A}"]
  slots: {A: $words, B: $words, C: $words}
  lists: {words: [red, blue, green, black, white, brown, grey, pink]}
  answer: " {B}"
  corruptions: {other: {B: $words}}
  positions: {AGAIN: "A#2", AFTER: A + 1}
""",
        "other",
        "logprob",
    ),
    "from_a_file": (
        """
task: {file: prompts.jsonl, positions: {FIRST: 0, THIRD: start + 2, PENULTIMATE: -2}}
""",
        "corrupt",
        "kl",
    ),
}


def whole_file(kind: str) -> str:
    """A hypothesis about one of TASKS."""
    task, corruption, metric = TASKS[kind]
    tail = TAIL.replace("FROM", corruption).replace("METRIC", metric)
    return f"circuitspec: 1\nname: {kind}\nmodel: {{id: gpt2}}\n{task}{tail}"


@pytest.mark.parametrize("kind", TASKS)
def test_tasks_of_every_kind(kind: str) -> None:
    hypothesis = parse(whole_file(kind)).hypothesis
    assert hypothesis.name == kind
    if kind == "greater_than":
        assert hypothesis.task.answer == Above(source="$years", above="YY")
        assert hypothesis.task.wrong == Above(source="$years", at_most="YY")
    if kind == "factual_recall":
        assert hypothesis.task.wrong == AnswerOf(answer_of="swap")


def test_positions_from_a_prompts_file_are_not_known_yet() -> None:
    text = f"circuitspec: 1\nname: x\nmodel: {{id: gpt2}}\ntask: {{file: p.jsonl}}{TAIL}"
    text = text.replace("METRIC", "logit_diff").replace("FROM", "any").replace("[a3.h0]", "[a3.h0], at: SOMEWHERE")
    assert parse(text).hypothesis.circuit.groups["mover"].at == "SOMEWHERE"


def test_names_are_kept_in_canonical_spelling() -> None:
    text = good_but(
        ("[a2.h0, a2.h1]", '[L2H0, " a2.h1 "]'),
        ("inhibitor -> mover<q>", "inhibitor->mover< v,q >"),
        ("{END: last}", "{END: last, NEXT: S1+1}"),
    )
    hypothesis = parse(text).hypothesis
    assert hypothesis.circuit.groups["inhibitor"].nodes == ("a2.h0", "a2.h1")
    assert hypothesis.circuit.paths[0] == "inhibitor -> mover<q,v>"
    assert hypothesis.task.positions["NEXT"] == "S1 + 1"


def test_digest_is_about_meaning() -> None:
    written = parse(GOOD).hypothesis
    same = good_but(
        ("name: small", 'name: "small"  # a comment'),
        ("{value: resample, from: abc}", "{level: node, from: abc, value: resample}"),
        ("[a3.h0]", "[L3H0]"),
        ("inhibitor -> mover<q>", "inhibitor->mover<q>"),
        ("at_least: 0.8", "at_least: 0.80"),
    )
    # the order of keys, also of groups, says nothing
    lines = same.splitlines()
    groups = next(i for i, line in enumerate(lines) if "inhibitor: {" in line)
    lines[groups], lines[groups + 1] = lines[groups + 1], lines[groups]
    assert digest(parse("\n".join(lines)).hypothesis) == digest(written)
    assert len(digest(written)) == 64
    for change in (
        ("at_least: 0.8", "at_least: 0.81"),
        ("[a3.h0]", "[a3.h1]"),
        ("resample", "mean"),
        ('"Then', '"When'),
        ("Mary, John", "John, Mary"),
    ):
        assert digest(parse(good_but(change)).hypothesis) != digest(written)


def test_digest_is_the_same_in_another_process() -> None:
    code = (
        "import sys; from circuitspec.hypothesis_file.load_file import *; "
        "print(digest(parse_hypothesis(sys.stdin.read()).hypothesis))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=GOOD, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(parse(GOOD).hypothesis)


def test_the_starter_file_is_valid() -> None:
    document = parse(starter_text())
    assert document.hypothesis.model.id == "zoo:ioi-tiny"
    assert starter_text().startswith("# yaml-language-server: $schema=./circuitspec.schema.json\n")


@pytest.mark.parametrize("file", sorted(HYPOTHESES.glob("*.circuit.yaml")), ids=lambda file: file.name)
def test_the_hypotheses_of_the_repository_are_valid(file: Path) -> None:
    assert load_hypothesis(file).hypothesis.circuit.groups


def test_hypotheses_are_frozen() -> None:
    hypothesis = parse(GOOD).hypothesis
    with pytest.raises(ValueError, match="frozen"):
        hypothesis.name = "other"  # type: ignore[misc]


def test_keys_are_those_of_the_file_and_not_of_the_model() -> None:
    assert codes(good_but(("from: abc", "source: abc"))) == ["CS110"]


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_key_that_a_claim_lacks_is_told_with_an_example(claim: str) -> None:
    """Of an empty claim: each hint shows a value."""
    found = errors(good_but(("sufficient: {metric: logit_diff, at_least: 0.8}", f"{claim}: {{}}")))
    assert found
    for one in found:
        assert one.code != "CS111" or re.fullmatch(r"add it, as in \w+: .+", one.hint), one.message


def test_one_error_hides_no_other() -> None:
    text = good_but(
        ("[a2.h0, a2.h1]", "[9.1, a2.h0, bad, a2.h0]"),
        (
            "  - sufficient",
            "  - sufficient: {metric: nope, at_least: 1}\n"
            "  - cross_section: {nodes: [nobody], metric: kl, at_most: 1}\n"
            "  - sufficient",
        ),
        ("- mover -> logits", "- '' \n    - nobody -> logits"),
    )  # fmt: skip
    found = [(one.code, one.span.line if one.span else 0) for one in errors(text)]
    assert found == [
        ("CS112", 14),
        ("CS117", 14),
        ("CS200", 14),
        ("CS203", 19),
        ("CS204", 20),
        ("CS114", 23),
        ("CS204", 24),
    ]


def test_what_is_declared_wrongly_counts_as_declared() -> None:
    """A mistake in a declaration is told there, and not again wherever the name is used."""
    text = good_but(
        ("mover: {nodes: [a3.h0], at: END}", "mover: {nodes: [9.1], at: END}"), ("END: last", "END: [last]")
    )
    assert codes(text) == ["CS113", "CS112"]
    assert codes(good_but(("{names: [Mary, John, Tom, James, Anna, Paul]}", "{names: 3}"))) == ["CS113"]
    assert codes(good_but(("{abc: {IO: $names, S1: $names, S2: $names}}", "{abc: 3}"))) == ["CS113"]


def test_errors_are_told_once_for_an_aliased_value() -> None:
    text = good_but(
        ("inhibitor: {nodes: [a2.h0, a2.h1], at: END}", "inhibitor: &x {nodes: [nope], at: END}"),
        ("mover: {nodes: [a3.h0], at: END}", "mover: *x"),
    )
    assert codes(text) == ["CS117"]


def test_no_more_errors_than_a_person_can_read() -> None:
    text = good_but(("[a3.h0]", "[" + ", ".join(["nope"] * 1000) + "]"))
    found = errors(text)
    assert len(found) == 201
    assert (found[-1].severity, found[-1].message) == ("note", "800 more errors are not shown")


def test_reading_is_light() -> None:
    """Nothing heavy is imported, whatever the file."""
    code = (
        "import sys\n"
        "from circuitspec.hypothesis_file.load_file import parse_hypothesis\n"
        "from circuitspec.hypothesis_file.schema.json_schema import json_schema\n"
        "parse_hypothesis(sys.stdin.read())\n"
        "json_schema()\n"
        "heavy = 'torch transformers pyvene pandas scipy networkx numpy'\n"
        "print([module for module in heavy.split() if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=GOOD, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
