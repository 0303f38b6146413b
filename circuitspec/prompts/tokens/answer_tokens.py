"""Answers as tokens, in the context of their prompt: one each, their first, or all. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.prompts.prompt_set import CLEAN, AnswerSequences, Prompt, PromptSet, TokenIds
from circuitspec.prompts.task_findings import Path, TaskFindings, counted
from circuitspec.prompts.tokens.encoding import Encoded, alone, encode_ids, token_strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Side = Literal["answer", "wrong"]
Ids = tuple[TokenIds, ...]
Sequences = tuple[tuple[TokenIds, ...], ...]


@dataclass(frozen=True)
class AnswerIds:
    """Token ids per prompt."""

    answers: Ids
    wrong: Ids
    sequences: AnswerSequences | None = None


def find_answers(
    prompts: PromptSet, encoded: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, findings: TaskFindings
) -> AnswerIds:
    """The tokens of every answer; `encoded` are the clean prompts, in order.

    An answer is the one token that prompt + answer has more than the prompt; its first where the score of the prompts
    is `first_token`. With `sum_logprob` all its tokens count, and the result has `sequences` alone. Notes CS346 where
    an answer has no such tokens, and CS347 where an answer and a wrong answer have the same.
    """
    wanted = [
        prompt.texts[CLEAN] + answer
        for prompt in prompts.prompts
        for answer in (*prompt.answers, *prompt.wrong)
        if isinstance(answer, str) and not prompt.ids
    ]
    finder = _Finder(prompts, encoded, encode_ids(tokenizer, wanted), tokenizer, findings)
    answers, wrong = finder.side("answer"), finder.side("wrong")
    for prompt, right, others in zip(prompts.prompts, answers, wrong, strict=True):
        if both := set(right) & set(others):
            findings.add(
                "CS347",
                f"an answer and a wrong answer of {prompt.described()} {_SAME[prompts.score]}",
                prompt.span or ("task", "wrong"),
                label=token_strings(tokenizer, sorted(token for one in both for token in one)),
                hint=_APART[prompts.score],
            )
    if prompts.score == "sum_logprob":
        none: Ids = ((),) * len(prompts.prompts)
        return AnswerIds(none, none, AnswerSequences(answers, wrong))
    firsts = [tuple(tuple(one[0] for one in row) for row in side) for side in (answers, wrong)]
    return AnswerIds(firsts[0], firsts[1])


_SAME = {None: "are the same token", "first_token": "begin with the same token", "sum_logprob": "are the same tokens"}
_APART = {
    None: "choose answers that differ in their token",
    "first_token": "choose answers that differ in their first token, or write `score: sum_logprob`, which reads all",
    "sum_logprob": "choose answers that differ in their tokens",
}


@dataclass(frozen=True)
class _Finder:
    prompts: PromptSet
    encoded: Sequence[Encoded]
    continued: Mapping[str, tuple[int, ...]]  # token ids by prompt + answer
    tokenizer: PreTrainedTokenizerBase
    findings: TaskFindings

    def side(self, side: Side) -> Sequences:
        """What counts of each answer's tokens, without repetitions."""
        rows = []
        bad: defaultdict[str, list[int]] = defaultdict(list)  # answer -> prompts
        for prompt, tokens in zip(self.prompts.prompts, self.encoded, strict=True):
            row: dict[TokenIds, None] = {}
            for answer in prompt.answers if side == "answer" else prompt.wrong:
                if isinstance(answer, int):  # an id of the vocabulary, taken as it is
                    row[(answer,)] = None
                    continue
                one = None if _doubled(prompt, answer) else self._counting(tokens.ids, self._continued(prompt, answer))
                if one is None:
                    bad[answer].append(prompt.index)
                else:
                    row[one] = None
            rows.append(tuple(row))
        for answer, where in bad.items():
            self._note(side, answer, where)
        return tuple(rows)

    def _continued(self, prompt: Prompt, answer: str) -> tuple[int, ...]:
        if prompt.ids:  # a prompt without a text: the answer's own tokens
            return prompt.ids[CLEAN] + alone(self.tokenizer, answer)
        return self.continued[prompt.texts[CLEAN] + answer]

    def _counting(self, prompt: TokenIds, continued: TokenIds) -> TokenIds | None:
        """Those tokens of an answer that its score counts; None where there are none that are known."""
        if self.prompts.score is None:
            one = self._token(prompt, continued)
            return None if one is None else (one,)
        own = continued[len(prompt) :]
        if continued[: len(prompt)] != prompt or not own or self._unknown in own:
            return None
        return own[:1] if self.prompts.score == "first_token" else own

    def _token(self, prompt: tuple[int, ...], continued: tuple[int, ...]) -> int | None:
        alone = len(continued) == len(prompt) + 1 and continued[:-1] == prompt
        return continued[-1] if alone and continued[-1] != self._unknown else None

    @property
    def _unknown(self) -> int | None:
        unknown = self.tokenizer.unk_token_id
        return None if unknown is None else int(unknown)

    def _note(self, side: Side, answer: str, where: Sequence[int]) -> None:
        prompt, tokens = self.prompts.prompts[where[0]], self.encoded[where[0]]
        continued = self._continued(prompt, answer)
        kept = continued[: len(tokens)] == tokens.ids
        own = continued[len(tokens) :]
        if _doubled(prompt, answer):
            said = "would stand after two spaces"
        elif kept and self._unknown is not None and self._unknown in own and self.prompts.score is not None:
            said = "has a token that is not in the vocabulary of the tokenizer"
        elif kept and self._unknown is not None and own == (self._unknown,):
            said = "is not in the vocabulary of the tokenizer"
        elif kept:
            said = f"is {counted(len(own), 'token')}, not one"
        else:
            said = "changes the tokens of the prompt before it"
        shared = next((k for k, (a, b) in enumerate(zip(tokens.ids, continued, strict=False)) if a != b), len(tokens))
        start = len(tokens) if kept else max(0, shared)
        label = token_strings(self.tokenizer, continued[start:]) or "nothing"
        if not kept:
            label += f" where the prompt has {token_strings(self.tokenizer, tokens.ids[start:]) or 'nothing'}"
        noun = "the answer" if side == "answer" else "the wrong answer"
        at: Path | Span = prompt.span or ("task", side)
        self.findings.add(
            "CS346",
            f"{noun} {answer!r} {said}, after {prompt.described()} (… {_tail(prompt)!r})",
            at,
            label=label,
            hint=f"{self._remedy(prompt, answer)} ({len(where)} of {counted(len(self.encoded), 'prompt')} ask for it)"
            + (_SEVERAL if kept and len(own) > 1 and self.prompts.score is None else ""),
            data={"answer": answer, "prompt": prompt.index, "prompts": len(where)},
        )

    def _remedy(self, prompt: Prompt, answer: str) -> str:
        """The first change of spaces that really gives a single token, otherwise to drop the answer."""
        if prompt.ids:
            return "give the answer as the id of its token, as the prompt is given"
        text, bare, trimmed = prompt.texts[CLEAN], answer.strip(), prompt.texts[CLEAN].rstrip()
        tries = [
            (text, f" {bare}", f'write " {bare}", with the space before it'),
            (text, bare, f'write "{bare}", without the space'),
        ]
        if text != trimmed:
            tries = [(trimmed, f" {bare}", f'the prompt ends in a space: remove it, and write " {bare}"')]
        for start, ending, advice in tries:
            both = encode_ids(self.tokenizer, [start, start + ending])
            if (
                bare
                and (start, ending) != (text, answer)
                and self._token(both[start], both[start + ending]) is not None
            ):
                return advice
        if self.prompts.score is not None:
            return f"change the answer, or the end of the prompt: remove {bare or repr(answer)}"
        return f"use answers of one token: remove {bare or repr(answer)}"


_SEVERAL = (
    "; or write `score: sum_logprob` (all tokens of an answer count) or `score: first_token`, or leave such prompts "
    "out: `skip: [split_answers]`"
)


def _doubled(prompt: Prompt, answer: str) -> bool:
    """Two spaces in a row may well be tokens, but not those that the model was trained to continue with."""
    return not prompt.ids and prompt.texts[CLEAN].endswith(" ") and answer.startswith(" ")


def _tail(prompt: Prompt) -> str:
    return prompt.texts[CLEAN][-20:]
