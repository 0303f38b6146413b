"""The prompts that means are over, where those are others than the scored ones: drawn by the same rules, or in a file.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, ReferenceFile, TaskSpec
from circuitspec.prompts.files.prompt_files import read_prompts
from circuitspec.prompts.files.reading_rows import ReadAs
from circuitspec.prompts.prompt_set import CLEAN, AnswerSequences, Prompt, PromptSet, TokenizedTask, TokenizedVariant
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.templates.generators import generate_others
from circuitspec.prompts.templates.sampling import draw_others
from circuitspec.prompts.templates.template_task import template_task
from circuitspec.prompts.tokens.tokenize import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from circuitspec.hypothesis_file.yaml.source import SourceText

T = TypeVar("T")

FIRST = 200  # other prompts, at least, that means are over before their error is known, ..
FIRST_TIMES = 2  # .. and so many times the scored ones
MOST = 2000  # at most, unless the file says how many, ..
MOST_TIMES = 32  # .. or so many times the scored ones


def first_size(n: int) -> int:
    """Over how many other prompts means go before it is known how many it takes."""
    return max(FIRST, FIRST_TIMES * n)


def largest_size(n: int) -> int:
    """Over how many other prompts means go at most, where the file does not say over how many."""
    return max(MOST, MOST_TIMES * n)


def is_drawn(task: TaskSpec, ablation: AblationSpec | None) -> bool:
    """Whether means go over other prompts that are drawn."""
    given = None if ablation is None else ablation.reference
    if task.fillings is not None and not isinstance(given, int):  # these prompts are no sample of what lists give
        return False
    return task.file is None and given != "prompts"


class ReferencePrompts:
    """Makes the other prompts of a task, more of them where more are asked for, and fits them to its tokens."""

    def __init__(
        self,
        task: TaskSpec,
        ablation: AblationSpec | None,
        base_dir: Path,
        text: SourceText | None,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._task, self._base_dir, self._text, self._tokenizer = task, base_dir, text, tokenizer
        self._read_as = replace(ReadAs.of(task), by=())
        self._given = None if ablation is None else ablation.reference
        self._drawn = is_drawn(task, ablation)

    @property
    def asked(self) -> int | None:
        """How many the file asks for."""
        return self._given if isinstance(self._given, int) else None

    @property
    def grows(self) -> bool:
        """Whether there may be more of them than at first."""
        return self._drawn and self.asked is None

    def of(self, scored: TokenizedTask, size: int | None = None) -> TokenizedTask:
        """The task with up to `size` other prompts as its reference (unless given, as many as the file asks for).

        Without a reference where means go over the scored prompts: where the file says so, where prompts come from a
        file and it names no other, and where the lists hold fewer other prompts than are scored and it does not ask
        for any number. Raises CircuitspecError as reading prompts does.
        """
        if isinstance(self._given, ReferenceFile):
            return replace(scored, reference=self._fitted(self._from_file(self._given, scored), scored))
        if not self._drawn:
            return replace(scored, reference=None)
        wanted = self.asked or size or first_size(scored.n)
        reference = self._fitted(self._others(scored, wanted), scored)
        if reference.n < wanted:  # some do not fit
            more = 2 * wanted if reference.n == 0 else min(4, wanted / reference.n + 0.1) * wanted
            reference = _first(self._fitted(self._others(scored, round(more)), scored), wanted)
        if self.asked is None and reference.n < min(scored.n, wanted):
            return replace(scored, reference=None)
        return replace(scored, reference=reference)

    def _others(self, scored: TokenizedTask, size: int) -> PromptSet:
        findings = TaskFindings(self._text)
        task, own = self._task, replace(scored.prompts, beside={})
        if task.generate is not None:
            return replace(own, prompts=generate_others(task.generate, size, task.seed, own, findings))
        lists = load_lists(task.lists, self._base_dir, self._text)
        return replace(own, prompts=draw_others(template_task(task, lists, findings), size, task.seed, own))

    def _from_file(self, named: ReferenceFile, scored: TokenizedTask) -> PromptSet:
        findings = TaskFindings(self._text)
        read = read_prompts(
            self._base_dir / named.file, findings, at=("ablation", "reference", "file"), how=self._read_as
        )
        # of these, whatever does not fit the tokens falls out unasked
        read = replace(read, choice=None, score=scored.prompts.score)
        lacking = sorted(set(scored.prompts.corruptions) - set(read.corruptions))
        if lacking:
            findings.add(
                "CS340",
                f"the prompts of {named.file} have no corruption {', '.join(lacking)}, as those that are scored do",
                ("ablation", "reference", "file"),
                hint="give every prompt the same corruptions",
            )
            findings.check()
        taken = {prompt.identity for prompt in scored.prompts.prompts}
        first = {prompt.identity: prompt for prompt in reversed(read.prompts)}  # the first of those that repeat
        labels = scored.prompts.templates
        one = len(read.templates) == len(labels) == 1  # a file's own name, where no template is named
        kept = [
            replace(prompt, template=0 if one else labels.index(read.templates[prompt.template]))
            for prompt in read.prompts
            if prompt.identity not in taken
            and first[prompt.identity] is prompt
            and (one or read.templates[prompt.template] in labels)
        ]
        prompts = tuple(replace(prompt, index=index) for index, prompt in enumerate(kept))
        own = scored.prompts
        return replace(read, prompts=prompts, templates=labels, corruptions=own.corruptions, framing=own.framing)

    def _fitted(self, others: PromptSet, scored: TokenizedTask) -> TokenizedTask:
        """Those that the tokenizer takes as it does those that are scored, and that have the layout of one of them."""
        unlike = [name for name in scored.own if name in scored.prompts.corruptions]
        tokenized = self._sound(others, bool(unlike))
        named = [name for name in scored.roles if name in tokenized.roles] if tokenized.n else []
        also = (CLEAN, *unlike)
        wanted = {_layout(scored, i, named, also) for i in range(scored.n)}
        return chosen(tokenized, [i for i in range(tokenized.n) if _layout(tokenized, i, named, also) in wanted])

    def _sound(self, others: PromptSet, unequal: bool) -> TokenizedTask:
        """All of the prompts that could be scored: what breaks one of them leaves the others as they are.

        With `unequal` their corruptions may have other lengths, as those of the scored ones have.
        """
        parts: list[TokenizedTask] = []
        waiting: list[Sequence[Prompt]] = [others.prompts]
        while waiting:
            prompts = waiting.pop()
            if not prompts:
                continue
            numbered = tuple(replace(prompt, index=index) for index, prompt in enumerate(prompts))
            try:
                parts.append(
                    tokenize(replace(others, prompts=numbered), self._task.positions, self._tokenizer, unequal=unequal)
                )
            except CircuitspecError:
                if len(prompts) > 1:
                    half = len(prompts) // 2
                    waiting += [prompts[half:], prompts[:half]]
        return _joined(others, parts)


def _layout(task: TokenizedTask, prompt: int, roles: Sequence[str], variants: Sequence[str]) -> tuple[object, ...]:
    of = [task.of(variant) for variant in variants]
    places = ((len(own.ids[prompt]), tuple(own.tokens_at(role, prompt) for role in roles)) for own in of)
    return task.prompts.prompts[prompt].template, *places


def _joined(prompts: PromptSet, parts: Sequence[TokenizedTask]) -> TokenizedTask:
    """Parts of one set of prompts, one after the other; with the positions that all of them have."""
    named = [name for name in (parts[0].roles if parts else ()) if all(name in part.roles for part in parts)]
    first = [name for name in named if all(name in part.slot_tokens for part in parts)]
    variants = (CLEAN, *prompts.corruptions)
    spans = [name for name in named if any(name in part.spans for part in parts)]
    return TokenizedTask(
        replace(prompts, prompts=tuple(prompt for part in parts for prompt in part.prompts.prompts)),
        {variant: tuple(ids for part in parts for ids in part.ids[variant]) for variant in variants},
        {name: tuple(at for part in parts for at in part.roles[name]) for name in named},
        tuple(answers for part in parts for answers in part.answers),
        tuple(wrong for part in parts for wrong in part.wrong),
        slot_tokens={name: tuple(at for part in parts for at in part.slot_tokens[name]) for name in first},
        spans={name: tuple(part.tokens_at(name, i) for part in parts for i in range(part.n)) for name in spans},
        sequences=None if prompts.score != "sum_logprob" else _joined_sequences(parts),
        own={
            variant: _joined_variant(variant, parts, named, first, spans)
            for variant in variants
            if any(variant in part.own for part in parts)
        },
    )


def _joined_variant(
    variant: str,
    parts: Sequence[TokenizedTask],
    roles: Sequence[str],
    slots: Sequence[str],
    spans: Sequence[str],
) -> TokenizedVariant:
    of = [part.of(variant) for part in parts]
    pairs = [
        own.pairs or tuple(tuple((k, k) for k in range(len(ids))) for ids in own.ids) for own in of
    ]  # without any, aligned token by token
    return TokenizedVariant(
        tuple(ids for own in of for ids in own.ids),
        tuple(answers for own in of for answers in own.answers),
        tuple(wrong for own in of for wrong in own.wrong),
        {name: tuple(at for own in of for at in own.roles[name]) for name in roles},
        {name: tuple(at for own in of for at in own.slot_tokens[name]) for name in slots},
        {name: tuple(own.tokens_at(name, i) for own in of for i in range(len(own.ids))) for name in spans},
        tuple(of_prompt for part in pairs for of_prompt in part),
    )


def _joined_sequences(parts: Sequence[TokenizedTask]) -> AnswerSequences:
    found = [part.sequences for part in parts if part.sequences is not None]
    return AnswerSequences(
        tuple(one for part in found for one in part.answers), tuple(one for part in found for one in part.wrong)
    )


def chosen(task: TokenizedTask, numbers: Sequence[int]) -> TokenizedTask:
    """Some of the prompts, numbered anew."""

    def pick(values: Sequence[T]) -> tuple[T, ...]:
        return tuple(values[i] for i in numbers)

    prompts = tuple(replace(task.prompts.prompts[i], index=number) for number, i in enumerate(numbers))
    return replace(
        task,
        prompts=replace(
            task.prompts, prompts=prompts, beside={name: pick(texts) for name, texts in task.prompts.beside.items()}
        ),
        ids={variant: pick(ids) for variant, ids in task.ids.items()},
        roles={name: pick(places) for name, places in task.roles.items()},
        answers=pick(task.answers),
        wrong=pick(task.wrong),
        sequences=None
        if task.sequences is None
        else AnswerSequences(pick(task.sequences.answers), pick(task.sequences.wrong)),
        slot_tokens={name: pick(places) for name, places in task.slot_tokens.items()},
        spans={name: pick(places) for name, places in task.spans.items()},
        own={
            variant: TokenizedVariant(
                pick(own.ids),
                pick(own.answers),
                pick(own.wrong),
                {name: pick(places) for name, places in own.roles.items()},
                {name: pick(places) for name, places in own.slot_tokens.items()},
                {name: pick(places) for name, places in own.spans.items()},
                None if own.pairs is None else pick(own.pairs),
                {number: own.unlike[i] for number, i in enumerate(numbers) if i in own.unlike},
            )
            for variant, own in task.own.items()
        },
    )


def _first(task: TokenizedTask, size: int) -> TokenizedTask:
    return chosen(task, range(min(size, task.n)))
