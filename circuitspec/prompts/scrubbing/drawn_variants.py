"""Drawn prompts as variants of a tokenized task. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.prompts.pairs.high_level_model import HighLevelModel
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TokenizedTask, TokenizedVariant
from circuitspec.prompts.scrubbing.agreeing_rows import AgreeingRows
from circuitspec.prompts.scrubbing.agreeing_slots import TRIES, AgreeingSlots, NoneAgrees
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.templates.slots import ListTooShort
from circuitspec.prompts.templates.template_task import template_task
from circuitspec.prompts.tokens.tokenize import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from circuitspec.hypothesis_file.yaml.source import SourceText

_PLACE = ("circuit", "carries")


@dataclass(frozen=True)
class ScrubbedTask:
    """What drawing takes: the file, the folder that its lists are relative to, and its prompts."""

    hypothesis: Hypothesis
    base_dir: Path
    text: SourceText

    def with_drawn(
        self, task: TokenizedTask, wanted: Iterable[DrawnPrompts], tokenizer: PreTrainedTokenizerBase
    ) -> TokenizedTask:
        """The task with a variant for each set of drawn prompts.

        Raises CS241 where no prompt that agrees is found, CS242 for one that is not as long as the clean prompt, CS243
        for columns that a prompts file has not, CS327 for lists too short to draw from, and as `tokenize`.
        """
        wanted = tuple(dict.fromkeys(wanted))
        if not wanted:
            return task
        if not self.hypothesis.task.templates:
            return self._of_rows(task, wanted)
        return self._of_templates(task, wanted, tokenizer)

    def _of_rows(self, task: TokenizedTask, wanted: Iterable[DrawnPrompts]) -> TokenizedTask:
        known = {name for prompt in task.prompts.prompts for name in prompt.metadata}
        lost = sorted({name for one in wanted for name in one.carried if name not in known})
        if lost:
            raise CircuitspecError(
                Diagnostic(
                    "CS243",
                    f"the prompts have no column {', '.join(lost)}",
                    self.text.span(_PLACE, key=True),
                    hint=f"their columns are {', '.join(sorted(known)) or 'none'}",
                )
            )
        rows = AgreeingRows(task)
        found, beside = task, dict(task.prompts.beside)
        for one in wanted:
            chosen = rows.of(one)
            own = TokenizedVariant(
                tuple(task.ids[CLEAN][i] for i in chosen),
                task.answers,
                task.wrong,
                task.roles,
                task.slot_tokens,
                task.spans,
            )
            found = found.with_variant(one.variant, own)
            beside[one.variant] = tuple(task.prompts.prompts[i].texts[CLEAN] for i in chosen)
        return replace(found, prompts=replace(found.prompts, beside=beside))

    def _of_templates(
        self, task: TokenizedTask, wanted: Iterable[DrawnPrompts], tokenizer: PreTrainedTokenizerBase
    ) -> TokenizedTask:
        spec, findings = self.hypothesis.task, TaskFindings(self.text)
        drawing = template_task(spec, load_lists(spec.lists, self.base_dir, self.text), findings)
        abstraction = self.hypothesis.abstraction
        model = None if abstraction is None else HighLevelModel.of(abstraction, spec)
        slots = AgreeingSlots(drawing, task.prompts, model)
        made: list[tuple[DrawnPrompts, list[Prompt]]] = []
        for one in wanted:
            try:
                filled = slots.of(one)
            except NoneAgrees as none:
                raise CircuitspecError(self._none(one, none.prompt, task)) from None
            except ListTooShort as short:
                findings.add("CS327", f"the list {short.list} is too short: nothing different is left", _PLACE)
                findings.check()
                raise
            prompts = []
            for base, values in zip(task.prompts.prompts, filled, strict=True):
                text, spans = drawing.templates[base.template].render_with_spans(values)
                where = f"drawn for {base.where}" if base.where else "drawn"
                prompts.append(Prompt(base.index, base.template, {CLEAN: text}, (), (), {CLEAN: spans}, where=where))
            made.append((one, prompts))
        return _tokenized(task, made, spec.positions, tokenizer, self.text)

    def _none(self, drawn: DrawnPrompts, number: int, task: TokenizedTask) -> Diagnostic:
        by = ", ".join(drawn.by)
        return Diagnostic(
            "CS241",
            f"of {TRIES} prompts drawn by {by} for {drawn.spoken}, none agrees with the reference of "
            f"{task.prompts.prompts[number].described()} on {', '.join(drawn.carried)}",
            self.text.span(_PLACE, key=True),
            f"{task.prompts.prompts[number].texts[CLEAN]!r}",
            f"let the claim draw by the task's own rules too: from: [clean, {by}]",
        )


def _tokenized(
    task: TokenizedTask,
    made: list[tuple[DrawnPrompts, list[Prompt]]],
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    text: SourceText,
) -> TokenizedTask:
    """With all drawn prompts tokenized, each different one once."""
    own = task.prompts
    first: dict[tuple[int, str], int] = {}
    different: list[Prompt] = []
    for _, prompts in made:
        for prompt in prompts:
            if first.setdefault((prompt.template, prompt.texts[CLEAN]), len(different)) == len(different):
                different.append(replace(prompt, index=len(different)))
    whole = PromptSet(tuple(different), (), own.templates, lists=own.lists, framing=own.framing)
    tokens = tokenize(whole, positions, tokenizer, text)
    lost = [role for role in task.roles if role not in tokens.roles]
    assert not lost, "templates are those of the task"
    found, beside = task, dict(own.beside)
    for drawn, prompts in made:
        chosen = [first[prompt.template, prompt.texts[CLEAN]] for prompt in prompts]
        ids = tuple(tokens.ids[CLEAN][i] for i in chosen)
        _check_lengths(task, drawn, prompts, ids, text)
        variant = TokenizedVariant(
            ids,
            task.answers,
            task.wrong,
            {name: tuple(each[i] for i in chosen) for name, each in tokens.roles.items()},
            {name: tuple(each[i] for i in chosen) for name, each in tokens.slot_tokens.items()},
            {name: tuple(each[i] for i in chosen) for name, each in tokens.spans.items()},
        )
        found = found.with_variant(drawn.variant, variant)
        beside[drawn.variant] = tuple(prompt.texts[CLEAN] for prompt in prompts)
    return replace(found, prompts=replace(found.prompts, beside=beside))


def _check_lengths(
    task: TokenizedTask,
    drawn: DrawnPrompts,
    prompts: list[Prompt],
    ids: tuple[tuple[int, ...], ...],
    text: SourceText,
) -> None:
    """CS242 for a drawn prompt that is not as long as the clean one."""
    for number, (own, length) in enumerate(zip(ids, task.lengths, strict=True)):
        if len(own) != length:
            base = task.prompts.prompts[number]
            raise CircuitspecError(
                Diagnostic(
                    "CS242",
                    f"a prompt drawn for {drawn.spoken} has {len(own)} tokens, {base.described()} has {length}",
                    text.span(_PLACE, key=True),
                    f"{prompts[number].texts[CLEAN]!r} for {base.texts[CLEAN]!r}",
                    "let lists have entries of equally many tokens",
                )
            )
