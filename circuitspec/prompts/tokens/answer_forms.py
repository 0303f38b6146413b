"""Other spellings of the right answers: with or without the space before them, capitalised or not. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.prompts.prompt_set import CLEAN, Prompt, TokenizedTask
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.tokens.encoding import encode_ids
from circuitspec.prompts.tokens.framing import frame_of, reader_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerForm:
    """One way to spell the answers otherwise; `ids[i]` are the tokens of prompt i's answers so spelled.

    Empty where that is no single token, or one that the prompt names as right or wrong already.
    """

    name: str  # "with the space before it"
    advice: str  # "with the space before them"
    texts: tuple[tuple[str, ...], ...]
    ids: tuple[tuple[int, ...], ...]


def answer_forms(task: TokenizedTask, tokenizer: PreTrainedTokenizerBase) -> tuple[AnswerForm, ...]:
    """Every other form that some prompt's answers have, in the order in which they are met."""
    findings = TaskFindings()
    frame = frame_of(task.prompts, tokenizer, findings)
    prompts, tokenizer = frame.around(task.prompts).prompts, reader_of(tokenizer, task.prompts.framing, findings)
    spelled = [list(_spellings(answer)) for prompt in prompts for answer in _texts(prompt)]
    names = dict.fromkeys(name for one in spelled for name, _ in one)
    wanted = [
        prompt.texts[CLEAN] + text
        for prompt in prompts
        for answer in _texts(prompt)
        for _, text in _spellings(answer)
        if not _doubled(prompt.texts[CLEAN], text)
    ]
    continued = encode_ids(tokenizer, wanted)
    found = []
    for name in names:
        texts: list[tuple[str, ...]] = []
        ids: list[tuple[int, ...]] = []
        for i, prompt in enumerate(prompts):
            own = task.ids[CLEAN][i]
            known = {*task.answers[i], *task.wrong[i], tokenizer.unk_token_id}
            tokens: dict[int, str] = {}
            for answer in _texts(prompt):
                text = dict(_spellings(answer)).get(name)
                whole = () if text is None else continued.get(prompt.texts[CLEAN] + text, ())
                if text is not None and len(whole) == len(own) + 1 and whole[:-1] == own and whole[-1] not in known:
                    tokens.setdefault(whole[-1], text)
            texts.append(tuple(tokens.values()))
            ids.append(tuple(tokens))
        if any(ids):
            found.append(AnswerForm(name, name.replace("before it", "before them"), tuple(texts), tuple(ids)))
    return tuple(found)


def _texts(prompt: Prompt) -> tuple[str, ...]:
    """The answers that are texts behind a text; token ids have no other spelling."""
    return () if prompt.ids else tuple(answer for answer in prompt.answers if isinstance(answer, str))


def _spellings(answer: str) -> Iterator[tuple[str, str]]:
    """(name, text) of the other forms of one answer."""
    bare = answer.strip(" ")
    spaced = answer.startswith(" ")
    space = "without the space before it" if spaced else "with the space before it"
    turned = bare if spaced else f" {bare}"
    yield space, turned
    first = bare[:1]
    if first.lower() == first.upper():
        return
    letter = "with a small letter" if first.isupper() else "with a capital letter"
    other = (first.lower() if first.isupper() else first.upper()) + bare[1:]
    yield letter, f" {other}" if spaced else other
    yield f"{space} and {letter}", other if spaced else f" {other}"


def _doubled(prompt: str, answer: str) -> bool:
    return prompt.endswith(" ") and answer.startswith(" ")
