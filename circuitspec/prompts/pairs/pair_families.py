"""Families of pairs, drawn: a source for each of the task's prompts. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.grammar.fields import Copy, Draw, SlotRule, parse_slot_rule
from circuitspec.hypothesis_file.grammar.variable_expressions import NotEvaluated
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec, PairFamily
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.files.given_rows import GivenRow
from circuitspec.prompts.files.prompt_files import read_rows
from circuitspec.prompts.pairs.high_level_model import HighLevelModel
from circuitspec.prompts.pairs.listed_prompts import listed_sources
from circuitspec.prompts.pairs.pair_files import slots_of_sources
from circuitspec.prompts.pairs.pair_set import PairSet, SourcePrompt
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings, meant
from circuitspec.prompts.templates.answer_rules import NotANumber, Numbers, Texts
from circuitspec.prompts.templates.sampling import TRIES
from circuitspec.prompts.templates.slots import Dice, ListTooShort, copied, draw_corruption, with_copies
from circuitspec.prompts.templates.template import Values
from circuitspec.prompts.templates.template_task import TemplateTask, template_task

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.yaml.source import SourceText


def draw_pairs(
    spec: AbstractionSpec, task: TaskSpec, prompts: PromptSet, base_dir: Path, text: SourceText | None = None
) -> PairSet:
    """The pairs of a checked hypothesis: a source for each of the `prompts`, which are its task's, in every family.

    The source of prompt i depends on the family's name and seed, and on i alone (of a permutation, on how many prompts
    there are); of a family from a file, on what its row says. Raises CS230, CS231, CS232, CS327 for lists too short to
    draw from, and CS334 to CS338, CS379 and CS378 for files.
    """
    findings = TaskFindings(text)
    if task.file is not None:
        return _listed(spec, task, prompts, base_dir, findings)
    drawing = template_task(task, load_lists(task.lists, base_dir, text), findings)
    model = HighLevelModel.of(spec, task)
    _check_bases(model, prompts, findings)
    families: dict[str, tuple[SourcePrompt, ...]] = {}
    for name, family in spec.pairs.items():
        given = None
        if family.file is not None:
            rows = read_rows(base_dir / family.file, findings, None, ("abstraction", "pairs", name, "file"))
            some = task.fillings is not None and "prompts" in task.model_fields_set
            given = slots_of_sources(rows, drawing, prompts, name, findings, some=some)
            findings.check()
        families[name] = tuple(_Sources(name, family, drawing, prompts, findings, given))
    findings.check()
    pairs = PairSet(model, prompts.prompts, families)
    _check_sources(pairs, findings)
    return pairs


def _listed(
    spec: AbstractionSpec, task: TaskSpec, prompts: PromptSet, base_dir: Path, findings: TaskFindings
) -> PairSet:
    """The same of prompts from a file."""
    model = HighLevelModel.of(spec, task)
    if prompts.choice is not None and not prompts.choice.settled:
        said = "rows are left out once the prompts are tokens, and pairs are made of prompts before that"
        findings.add("CS378", said, ("task", "skip"), hint="skip `repeats` alone, and remove other rows from the file")
    for name in model.reads:
        lacking = next((prompt for prompt in prompts.prompts if name not in prompt.values), None)
        if lacking is not None:
            hint = meant(name, lacking.values) or "columns that are read as prompts, answers or positions are no names"
            said = f"{lacking.described()} has no column {name} beside it, which variables or the output read"
            findings.add("CS188", said, ("abstraction", "variables"), hint=hint)
    findings.check()
    _check_bases(model, prompts, findings)
    families = {}
    for name, family in spec.pairs.items():
        partners = _partners(name, family.seed, prompts) if family.permute else {}
        families[name] = listed_sources(name, family, partners, task, prompts, base_dir, findings)
        _check_listed(families[name], name, model, prompts, findings)
    pairs = PairSet(model, prompts.prompts, families)
    _check_sources(pairs, findings)
    return pairs


def _check_listed(
    sources: Sequence[SourcePrompt], name: str, model: HighLevelModel, prompts: PromptSet, findings: TaskFindings
) -> None:
    """CS379 for sources that lack a column that variables are made of, or a position of their base."""
    for base, source in zip(prompts.prompts, sources, strict=True):
        lacking = [f"column {one}" for one in model.reads if one not in source.slots]
        lacking += [f"position {one}" for one in base.positions if one not in source.positions]
        if lacking:
            said = f"the source of {base.described()} has no {lacking[0]}"
            hint = f"add source.{lacking[0].removeprefix('column ').replace('position ', 'position:')} to the file"
            findings.add("CS379", said, ("abstraction", "pairs", name), label=f"{source.text!r}", hint=hint)
            findings.check()


def _partners(family: str, seed: int, prompts: PromptSet) -> dict[int, int]:
    """For each prompt another one of its template: all of these in a circle, in an order by the seed."""
    found: dict[int, int] = {}
    for number in range(len(prompts.templates)):
        own = [str(prompt.index) for prompt in prompts.prompts if prompt.template == number]
        order = [int(text) for text in Dice(seed, "pairs", family, number).sample(own, len(own))]
        if len(order) > 1:
            found |= dict(zip(order, [*order[1:], order[0]], strict=True))
    return found


def _check_bases(model: HighLevelModel, prompts: PromptSet, findings: TaskFindings) -> None:
    """CS230 and CS231: the high-level model has an answer to each prompt, and it is a right one."""
    for prompt in prompts.prompts:
        try:
            said = model.answer(prompt.values)
        except NotEvaluated as error:
            findings.add("CS230", f"in {prompt.described()} {error}", ("abstraction", "variables"))
            continue
        if said not in prompt.answers:
            right = ", ".join(map(repr, prompt.answers)) or "nothing"
            findings.add(
                "CS231",
                f"to {prompt.described()} the high-level model answers {said!r}, the task {right}",
                ("abstraction", "output"),
                label=f"{prompt.texts[CLEAN]!r}",
                hint="correct the variables or the output: `circuitspec check` prints what they come to",
            )
    findings.check()


def _check_sources(pairs: PairSet, findings: TaskFindings) -> None:
    """CS230: the high-level model has an answer to each source, also with any variable taken from it."""
    for name, sources in pairs.families.items():
        for base, source in zip(pairs.bases, sources, strict=True):
            try:
                pairs.model.answer(source.slots)
            except NotEvaluated as error:
                findings.add("CS230", f"in the source of {base.described()} {error}", ("abstraction", "pairs", name))
                break
    findings.check()


class _Sources:
    """The sources of one family, in the order of the prompts."""

    def __init__(
        self,
        name: str,
        family: PairFamily,
        task: TemplateTask,
        prompts: PromptSet,
        findings: TaskFindings,
        given: Mapping[int, tuple[Values, GivenRow]] | None,
    ) -> None:
        self._name, self._family, self._task, self._prompts = name, family, task, prompts
        self._findings, self._given = findings, given
        rules = {slot: parse_slot_rule(text) for slot, text in family.slots.items()}
        drawn: dict[str, SlotRule] = {slot: task.rules[slot] for slot in family.redraw}
        self._drawn = {**drawn, **{slot: rule for slot, rule in rules.items() if isinstance(rule, Draw)}}
        self._set = {slot: rule for slot, rule in rules.items() if isinstance(rule, Copy)}
        self._place = ("abstraction", "pairs", name)

    def __iter__(self) -> Iterator[SourcePrompt]:
        partner = _partners(self._name, self._family.seed, self._prompts) if self._family.permute else {}
        for prompt in self._prompts.prompts:
            slots = self._slots(prompt, partner)
            if slots is None and self._given is not None:
                self._given[prompt.index][1].note(
                    self._findings, "CS232", f"the source is {prompt.described()} itself, which is the base"
                )
                continue
            if slots is None:
                self._findings.add(
                    "CS232",
                    f"the family {self._name} leaves {prompt.described()} as it is",
                    self._place,
                    label=f"{prompt.texts[CLEAN]!r}",
                    hint="set or redraw slots that every template has",
                )
                return
            text, spans = self._task.templates[prompt.template].render_with_spans(slots)
            yield SourcePrompt(slots, text, spans, self._named(slots))

    def _slots(self, prompt: Prompt, partner: dict[int, int]) -> Values | None:
        """The source's slots; None where its text would be the base's."""
        if self._family.corruption is not None:
            return prompt.fillings[self._family.corruption]
        if self._family.permute:
            other = partner.get(prompt.index)
            return None if other is None else self._prompts.prompts[other].fillings[CLEAN]
        template = self._task.templates[prompt.template]
        if self._given is not None:
            slots = self._given[prompt.index][0]
            return None if template.render(slots) == prompt.texts[CLEAN] else slots
        dice = Dice(self._family.seed, "pairs", self._name, prompt.index)
        for _ in range(TRIES if self._drawn else 1):
            try:
                slots = self._filled(prompt.fillings[CLEAN], dice)
            except ListTooShort as short:
                self._findings.add(
                    "CS327", f"the list {short.list} is too short: nothing different is left to draw", self._place
                )
                self._findings.check()
            if template.render(slots) != prompt.texts[CLEAN]:
                return slots
        return None

    def _filled(self, base: Values, dice: Dice) -> Values:
        """Slots drawn afresh, then those that are set from others, each time with those that copy them."""
        fresh = draw_corruption(self._drawn, self._task.rules, base, self._task.lists, dice)
        fresh = with_copies(fresh, self._task.rules, but=self._drawn)
        chosen = {**fresh, **{slot: copied(fresh[rule.slot], rule.column) for slot, rule in self._set.items()}}
        return with_copies(chosen, self._task.rules, but={**self._drawn, **self._set})

    def _named(self, slots: Values) -> tuple[str, ...]:
        """The answers, right and wrong, that the task's rules make of the slots."""
        rules = (self._task.answer, self._task.wrong)
        try:
            return tuple(text for rule in rules if isinstance(rule, Texts | Numbers) for text in rule.read(slots))
        except NotANumber as error:
            self._findings.add("CS230", f"{error}, and an answer is told by it", self._place)
            return ()
