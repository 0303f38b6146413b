"""What values on paths carry: which entry counts, and what is wrong with entries and draws. No model runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.check import check_document

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"
NOBEL = (TOYS / "nobel-scrubbed.circuit.yaml").read_text("utf-8")
RANDOM = "    random: {first: $words, second: $words}\n"
X_PEACE = (RANDOM, RANDOM + "    x_peace: {first: $words}\n")
EITHER = "scrubbed: {metric: logit_diff, at_least: 0.9, from: [clean, random]}"
CARRIES = NOBEL[NOBEL.index("  carries:\n") : NOBEL.index("ablation:")]


def checked(*changes: tuple[str, str], carries: str = "", claim: str = "") -> tuple[tuple[Diagnostic, ...], str]:
    text = NOBEL
    if carries:
        changes = ((CARRIES, f"  carries: {carries}\n\n"), *changes)
    if claim:
        changes = (*changes, (text[text.index("  - scrubbed:") :], f"  - {claim}\n"))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return check_document(parse_hypothesis(text, str(TOYS / "changed.circuit.yaml")), "changed")


def only(found: tuple[tuple[Diagnostic, ...], str]) -> Diagnostic:
    (one,) = found[0]
    return one


def test_check_lists_every_use_of_a_component_and_what_it_carries() -> None:
    problems, said = checked()
    assert problems == ()
    lines = [line.split("   ") for line in said.splitlines()[3:]]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["value on a path", "carries", "by"],
        ["m1@second -> logits", "first, second", "prize"],
        ["input@second -> m1@second -> logits", "second", "input@second -> prize"],
        ["a0.h0@second -> m1@second -> logits", "first", "previous_token"],
        ["input@first -> a0.h0<v>@second -> m1@second -> logits", "first", "input@first -> previous_token"],
    ]


def test_what_has_no_entry_is_not_tested_unless_something_before_it_is() -> None:
    problems, said = checked(carries="{input@first: [first]}")
    assert problems == ()
    assert [line.rpartition("   ")[2] for line in said.splitlines()[4:]] == [
        "no entry",
        "no entry: not tested",
        "no entry",
        "input@first",
    ]


def test_the_entry_that_names_the_path_the_furthest_counts() -> None:
    carries = "{input@first: everything, input@first -> previous_token: nothing, m1: everything}"
    problems, said = checked(carries=carries)
    assert problems == ()
    assert "nothing" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith("input@first -> previous_token")


@pytest.mark.parametrize(
    ("carries", "code", "said"),
    [
        ("{a0.h1: [first]}", "CS237", "no value on the declared paths is that of a0.h1"),
        ("{prize -> previous_token: [first]}", "CS205", "prize does not come before previous_token"),
        ("{previous_token -> logits: [first]}", "CS237", "that of previous_token -> logits"),
        ("{input@first: [first], previous_token: [second]}", "CS238", "carries first"),
        ("{input@first: [second]}", "CS238", "the embeddings at first"),
        ("{prize: [first, second], previous_token: [first], input@second: nothing}", "CS238", "carry second"),
        ("{previous_token: [first], a0.h0: nothing}", "CS239", "previous_token and a0.h0"),
        ("{a0.h7: [first]}", "CS220", "the model has no a0.h7"),
    ],
)
def test_entries_that_are_wrong(carries: str, code: str, said: str) -> None:
    if code == "CS205":
        from circuitspec.diagnostics.diagnostic import CircuitspecError

        with pytest.raises(CircuitspecError, match=said):
            checked(carries=carries)
        return
    found = only(checked(carries=carries))
    assert found.code == code
    assert said in found.message
    assert found.span is not None
    assert NOBEL.splitlines()[found.span.line - 1 : found.span.line]


def test_a_tree_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitspec.experiments.levels.scrub_tree.MOST", 3)
    found = only(checked())
    assert (found.code, "4 nodes" in found.message) == ("CS240", True)


def test_paths_over_what_no_path_can_pass() -> None:
    """At node level nothing else asks whether paths can be patched."""
    prize = ("{nodes: [m1], at: second}", "{nodes: [m1.n42], at: second}")
    found = checked(prize, ("level: path", "level: node"), carries="{previous_token: [first]}")
    assert {one.code for one in found[0]} == {"CS226"}


def test_variables_are_computed_from_what_their_expressions_name() -> None:
    """`joined` from first and second; and where only one of them leads there, it is lacking."""
    abstraction = (
        "circuit:",
        "abstraction:\n  variables: {joined: first if second == 'Peace' else second, same: joined, "
        "word: \"'Prize' if same == 'Nobel' else 'Treaty'\"}\n"
        '  output: " {word}"\n  pairs: {other: {corruption: random}}\n\ncircuit:',
    )
    inputs = "input@first: [first], previous_token: [first]"
    problems, _ = checked(abstraction, carries=f"{{{inputs}, input@second: [second], prize: [same]}}", claim=EITHER)
    assert problems == ()
    found = only(checked(abstraction, carries=f"{{{inputs}, input@second: nothing, prize: [same]}}"))
    assert (found.code, "carry same" in found.message) == ("CS238", True)


def test_no_prompt_agrees() -> None:
    """A variable that random words never have: its draws are given up, with what to write instead."""
    abstraction = (
        "circuit:",
        "abstraction:\n  variables: {is_nobel: first == 'Nobel', it: \"'Prize' if is_nobel else 'Treaty'\"}\n"
        '  output: " {it}"\n  pairs: {other: {corruption: random}}\n\ncircuit:',
    )
    found = only(checked(abstraction, carries="{input@second: [is_nobel]}"))
    assert found.code == "CS238"  # of what stands elsewhere
    found = only(checked(abstraction, carries="{previous_token: [is_nobel]}"))
    assert found.code == "CS241"
    assert found.hint == "let the claim draw by the task's own rules too: from: [clean, random]"
    assert checked(abstraction, carries="{previous_token: [is_nobel]}", claim=EITHER)[0] == ()


def test_drawn_prompts_are_as_long_as_the_clean_ones() -> None:
    longer = ('verbs: [" won",', 'verbs: [" won the", " won",')
    found = checked(longer)[0]
    assert {one.code for one in found} == {"CS242"}


BOTH = (
    ("    - input@first -> previous_token<v>\n", "    - input@{first,second} -> previous_token<v>\n"),
    ("{nodes: [a0.h0], at: second}", "{nodes: [a0.h0], at: [first, second]}"),
)


@pytest.mark.parametrize("part", ["input@first", "input@first -> previous_token<v>"])
def test_an_entry_about_one_of_the_positions_at_which_a_path_starts(part: str) -> None:
    """The other position is as it would be without that entry."""
    problems, said = checked(*BOTH, carries=f'{{"{part}": [first]}}')
    assert problems == ()
    ways = "-> a0.h0<v>@{first,second} -> m1@second -> logits"
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert f"input@first {ways} first {part}" in rows
    assert f"input@second {ways} everything no entry: not tested" in rows


def test_an_entry_names_all_positions_of_a_value_on_the_way() -> None:
    found = only(checked(*BOTH, carries="{a0.h0@first: [first]}"))
    assert (found.code, "that of a0.h0@first" in found.message) == ("CS237", True)


def test_with_all_positions_a_group_is_its_whole_value() -> None:
    everywhere = ("level: path, positions: declared", "level: path, positions: all")
    assert checked(everywhere, carries="{previous_token: [first], prize: [first, second]}")[0] == ()
    found = checked(everywhere, carries="{a0.h0@second: [first]}")[0]
    assert [one.code for one in found] == ["CS237"]


def test_sources_are_of_the_starts_of_paths() -> None:
    claim = "path: {of: previous_token -> prize, direction: noising, metric: logit_diff, drop_at_least: 0.5, sources: "
    assert checked(X_PEACE, claim=claim + "{previous_token: x_peace}}")[0] == ()
    found = only(checked(X_PEACE, claim=claim + "{prize: x_peace}}"))
    assert (found.code, "no path starts as prize does" in found.message) == ("CS244", True)
    both = claim + "{previous_token: x_peace, a0.h0: random}}"
    assert only(checked(X_PEACE, claim=both)).code == "CS239"
