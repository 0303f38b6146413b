"""Special tokens and chat templates: the tokens that the tokenizer's own functions give, and what reports say of it."""

from __future__ import annotations

import copy
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import PreTrainedTokenizerFast

from circuitspec.analysis.warnings.tasks.task_warnings import TASK_WARNINGS
from circuitspec.cli import main
from circuitspec.hypothesis_file.load_file import digest, parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask, prompts_digest
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.prompts.tokens.answer_forms import answer_forms
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent
from tests.analysis.support import evidence
from tests.prompts.conftest import MAKERS, trained
from tests.prompts.support import ABBA, build, errors_of, one_error, plain, spec

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}Then, {{ m.role }} John {{ m.content }} . {% endfor %}"
    "{% if add_generation_prompt %}Mary{% endif %}"
)
CHAT: dict[str, Any] = {"user": "and Anna, {prompt}"}


def chatty(kind: str, template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(trained(kind))
    tokenizer.chat_template = template
    return tokenizer


def tokens(task: TaskSpec, tokenizer: PreTrainedTokenizerFast, tmp_path: Path = Path()) -> TokenizedTask:
    return tokenize(build(task, tmp_path), task.positions, tokenizer)


@pytest.mark.parametrize("kind", MAKERS)
def test_special_tokens(kind: str) -> None:
    """Auto is what the tokenizer does by itself; none and bos are what one gets without special tokens, by hand."""
    tokenizer = trained(kind)
    by_setting = {how: tokens(spec(prompts=4, special_tokens=how), tokenizer) for how in ("auto", "none", "bos")}
    for i, prompt in enumerate(by_setting["auto"].prompts.prompts):
        for variant, text in prompt.texts.items():
            bare = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            assert by_setting["auto"].ids[variant][i] == tuple(tokenizer(text)["input_ids"])
            assert by_setting["none"].ids[variant][i] == bare
            assert by_setting["bos"].ids[variant][i] == (tokenizer.bos_token_id, *bare)
        ends = {how: task.roles["S2"][i] - task.lengths[i] for how, task in by_setting.items()}
        assert len(set(ends.values())) == 1, "the same word"
    assert by_setting["none"].answers == by_setting["bos"].answers == by_setting["auto"].answers
    assert by_setting["none"].around.in_front == (0, 0)
    assert by_setting["bos"].around.in_front == (1, 1)
    own = int("bos" in kind or kind == "llama-like")
    assert by_setting["auto"].around.in_front == (own, own)


def test_indices_do_not_count_what_is_put_in_front() -> None:
    words = trained("word-level")
    task = tokens(spec(prompts=2, special_tokens="bos", positions={"X": 0, "Y": [0, 1], "Z": "start"}), words)
    assert (task.roles["X"], task.spans["Y"], task.roles["Z"]) == ((1, 1), ((1, 2), (1, 2)), (0, 0))


def test_no_bos_to_put_in_front() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=MAKERS["word-level"](), unk_token="<unk>")
    found = one_error(lambda: tokens(spec(special_tokens="bos"), tokenizer), "CS364")
    assert found.message == "the tokenizer has no BOS token that could be put in front of the prompts"


@pytest.mark.parametrize("system", [None, "Tom gave a ring"])
@pytest.mark.parametrize("kind", ["byte-level", "byte-level-trimmed", "byte-level-bos", "metaspace-bos", "llama-like"])
def test_chat(kind: str, system: str | None) -> None:
    """The ids are those of the template's own text; slots, texts and indices are found inside the prompt."""
    tokenizer = chatty(kind)
    positions = {"first": 0, "and": {"text": "and"}, "END": "last", "who": {"slot": "S1", "tokens": "all"}}
    chat = {**CHAT, **({} if system is None else {"system": system})}
    task = tokens(spec(prompts=4, chat=chat, positions=positions), tokenizer)
    plainly = tokens(spec(prompts=4), tokenizer)
    for i, prompt in enumerate(task.prompts.prompts):
        assert prompt.texts == plainly.prompts.prompts[i].texts, "reports show the prompts"
        messages = [] if system is None else [{"role": "system", "content": system}]
        for variant, text in prompt.texts.items():
            said = [*messages, {"role": "user", "content": f"and Anna, {text}"}]
            whole = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
            assert task.ids[variant][i] == tuple(tokenizer(whole, add_special_tokens=False)["input_ids"])
        for slot in ("IO", "S1", "S2", "place"):
            upto = tokenizer.decode(task.ids[CLEAN][i][: task.roles[slot][i] + 1])
            start, end = prompt.slots[CLEAN][slot]
            assert upto.endswith(prompt.texts[CLEAN][start:end])
            assert prompt.texts[CLEAN][:end] in upto
        named = tokenizer.decode(task.ids[CLEAN][i][: task.roles["and"][i] + 1])
        assert named.endswith(prompt.texts[CLEAN].partition(" and")[0] + " and"), "not the one of the message"
        assert tokenizer.decode([task.ids[CLEAN][i][task.roles["first"][i]]]).strip().startswith("T")
        assert task.roles["END"][i] == task.lengths[i] - 1
    around = task.around
    assert around.chat is not None
    assert around.chat.before.startswith("<s>Then, ")
    assert around.in_front == (0, 0), "the template's own BOS is among its tokens"
    assert around.chat.tokens_before == task.roles["first"][0]
    behind = task.ids[CLEAN][0][task.lengths[0] - around.chat.tokens_behind :]
    assert tokenizer.decode(list(behind)).strip() == ". Mary"


def test_answers_follow_the_whole_conversation() -> None:
    tokenizer = chatty("byte-level")
    task = tokens(spec(prompts=3, chat=CHAT), tokenizer)
    assert [tokenizer.decode([one]) for (one,) in task.answers] == [p.answers[0] for p in task.prompts.prompts]
    ends_in_space = chatty("byte-level", TEMPLATE.replace("Mary{% endif", "Mary {% endif"))
    found = errors_of(lambda: tokens(spec(prompts=1, corruptions={}, chat=CHAT), ends_in_space))
    assert {(d.code, "would stand after two spaces" in d.message) for d in found} == {("CS346", True)}
    assert answer_forms(task, tokenizer) == ()


def test_other_prompts_for_means_are_framed_alike() -> None:
    tokenizer = chatty("byte-level")
    task = spec(prompts=4, chat=CHAT)
    reference = ReferencePrompts(task, None, Path(), None, tokenizer).of(tokens(task, tokenizer), 8).reference
    assert reference is not None
    assert {ids[0] for ids in reference.ids[CLEAN]} == {tokenizer.bos_token_id}


@pytest.mark.parametrize(
    ("template", "changes", "message"),
    [
        (None, {}, "the prompts cannot be put into the chat template: the tokenizer has no chat template"),
        ("{{ raise_exception('no system') }}", {}, "it refuses: no system"),
        ("{{ messages[3].content }}", {}, "it refuses: "),
        ("{{ 'Mary' }}", {}, "the chat template writes the user's message 0 times, not once"),
        ("{{ messages[0].content + messages[0].content }}", {}, "writes the user's message 2 times"),
        ("{{ messages[0].content | upper }}", {}, "writes the user's message 0 times"),
        (
            "{{ messages[0].content | trim }}",
            {"templates": [f"{ABBA} "]},
            "the chat template changes the text of prompt 0 (templates[0]) (clean)",
        ),
    ],
)
def test_templates_that_will_not_do(template: str | None, changes: dict[str, object], message: str) -> None:
    tokenizer = trained("word-level") if template is None else chatty("byte-level", template)
    chat = {} if "trim" in str(template) else CHAT
    found = one_error(lambda: tokens(spec(prompts=1, chat=chat, **changes), tokenizer), "CS364")
    assert message in found.message


DATED = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}" + (
    "Then, {{ date_string }} {% for m in messages %}John {{ m.content }} {% endfor %}{% if loud %}Mary{% endif %}"
)


def test_a_date_of_today_is_not_put_into_prompts() -> None:
    """What a template writes by the clock is refused; a date, or any other name that it knows, can be told to it."""
    tokenizer = chatty("byte-level", DATED)
    found = one_error(lambda: tokens(spec(prompts=2, chat={}), tokenizer), "CS364")
    assert datetime.now().strftime("%d %b %Y") in found.message
    chat = {"variables": {"date_string": "26 Jul 2024", "loud": True}}
    task = tokens(spec(prompts=2, chat=chat), tokenizer)
    for i, prompt in enumerate(task.prompts.prompts):
        whole = f"Then, 26 Jul 2024 John {prompt.texts[CLEAN]} Mary"
        assert task.ids[CLEAN][i] == tuple(tokenizer(whole, add_special_tokens=False)["input_ids"])
    other = {"variables": {"date_string": "27 Jul 2024", "loud": True}}
    assert prompts_digest(build(spec(chat=chat))) != prompts_digest(build(spec(chat=other)))


def test_nothing_is_put_around_token_ids(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"clean": [2, 3]}), encoding="utf-8")
    for setting in ({"special_tokens": "bos"}, {"chat": CHAT}):
        task = plain(file="p.jsonl", **setting)
        found = one_error(lambda task=task: tokens(task, chatty("byte-level"), tmp_path), "CS364")
        assert "the prompts are token ids, which are used as they are" in found.message


def test_two_bos_are_warned_of() -> None:
    (kind,) = [one for one in TASK_WARNINGS if one.code == "CS441"]

    def warnings(task: TokenizedTask) -> list[str]:
        found = evidence(task=task)
        return [w.message for w in kind.find(found)]

    written = spec(prompts=4, templates=[f"<s>{ABBA}"], corruptions={})
    one = tokens(written, trained("word-level"))
    assert (one.ids[CLEAN][0][:1], one.around.bos_twice) == ((0,), 0)
    two = tokens(written, trained("word-level-bos"))
    assert two.ids[CLEAN][0][:2] == (0, 0)
    assert two.around.bos_twice == 4
    assert warnings(one) == []
    assert warnings(two) == ["4 of 4 prompts begin with two BOS tokens"]
    mended = tokens(written.model_copy(update={"special_tokens": "none"}), trained("word-level-bos"))
    assert warnings(mended) == []
    asked = tokens(spec(prompts=4, chat=CHAT, special_tokens="bos"), chatty("byte-level"))
    assert warnings(asked) == ["4 of 4 prompts begin with two BOS tokens"]


def test_digests_of_files_that_say_nothing_of_it_are_as_before() -> None:
    said = {"special_tokens": "auto"}
    assert spec().model_dump() == spec(**said).model_dump()
    assert not {"special_tokens", "chat"} & spec().model_dump().keys()
    ways = [spec(), spec(special_tokens="none"), spec(special_tokens="bos"), spec(chat={}), spec(chat=CHAT)]
    assert len({prompts_digest(build(way)) for way in ways}) == 5
    assert prompts_digest(build(spec(**said))) == prompts_digest(build(spec()))


HYPOTHESIS = """\
circuitspec: 1
name: framed
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
  positions: {END: last}
  prompts: 6
  special_tokens: bos
circuit: {groups: {movers: {nodes: [a3.h0], at: END}}}
ablation: {value: resample, from: abc}
claims: [sufficient: {metric: logit_diff, at_least: -100}]
"""


def test_every_report_says_what_was_put_in_front(tmp_path: Path) -> None:
    file = tmp_path / "h.circuit.yaml"
    file.write_text(HYPOTHESIS, encoding="utf-8")
    check_file(file)
    said = "1 special token put in front (special_tokens: bos)"
    runner = CliRunner()
    environment = {"CIRCUITSPEC_NO_STORE": "1"}
    text = runner.invoke(main, ["verify", "--negatives", "off", str(file)], env=environment)
    assert f"\nprompts: {said}\n" in text.stdout
    page = runner.invoke(main, ["verify", "--negatives", "off", "--format", "html", str(file)], env=environment)
    assert said in page.stdout
    data = runner.invoke(main, ["verify", "--negatives", "off", "--format", "json", str(file)], env=environment)
    assert json.loads(data.stdout)["around_prompts"] == {
        "special_tokens": "bos",
        "in_front": [1, 1],
        "token_ids": False,
        "answer_ids": {},
        "chat": None,
    }


def test_the_numbers_are_those_of_the_prompts_with_a_bos() -> None:
    """`bos` in the file, and a BOS written into the texts: the same tokens, and so the same numbers."""
    framed = parse_hypothesis(HYPOTHESIS, "h.yaml", Path())
    written = parse_hypothesis(
        HYPOTHESIS.replace("special_tokens: bos", "special_tokens: none").replace('"Then', '"<|endoftext|>Then'),
        "h.yaml",
        Path(),
    )
    one, other = (verify(d, VerifyOptions(negatives="off"), Silent()) for d in (framed, written))
    assert one.task.ids == other.task.ids
    assert digest(framed.hypothesis) != digest(written.hypothesis)
    values = [o.verification.records[o.verification.plan.circuit]["logit_diff"].tolist() for o in (one, other)]
    assert values[0] == values[1]


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    document = parse_hypothesis(HYPOTHESIS.replace("special_tokens: bos", "chat: {}"), "h.yaml", Path())
    found = one_error(lambda: verify(document, VerifyOptions(), Silent()), "CS364")
    assert found.span is not None
    assert found.span.line == 16


@pytest.mark.parametrize("user", ['"no prompt"', '"{prompt} {prompt}"', '"{IO}"'])
def test_a_message_names_the_prompt_once(user: str) -> None:
    text = HYPOTHESIS.replace("special_tokens: bos", f"chat: {{user: {user}}}")
    found = one_error(lambda: parse_hypothesis(text, "h.yaml", Path()), "CS178")
    assert found.span is not None
    assert found.span.line == 16
