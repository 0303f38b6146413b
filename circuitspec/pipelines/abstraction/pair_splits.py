"""Prompts for training, validation and test that share no words: a task as three, with disjoint lists and templates.

Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.checks.word_lists import Row, load_lists
from circuitspec.hypothesis_file.grammar.fields import Copy, Draw, parse_list_reference, parse_slot_rule
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.blocks import Above, TaskSpec
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.prompt_set import PromptSet

SPLITS = ("training", "validation", "test")
_TOO_FEW = tuple(f"CS{number}" for number in range(327, 332))  # nothing different is left to draw
_FEWEST = 16


@dataclass(frozen=True)
class SplitPairs:
    """One split: its prompts and pairs, and the words of each list that slots draw from."""

    prompts: PromptSet
    pairs: PairSet
    words: Mapping[str, tuple[Row, ...]]


@dataclass(frozen=True)
class Splits:
    """The three, by name, and in words what was split and what was not; `shared` are the lists that were not."""

    parts: Mapping[str, SplitPairs]
    told: tuple[str, ...]
    shared: frozenset[str] = frozenset()

    def shared_by(self, variable: str, task: TaskSpec) -> tuple[str, ...]:
        """Of the lists that were not split, those that a variable is read from: by slots that draw from them."""
        rules = {slot: parse_slot_rule(text) for slot, text in task.slots.items()}
        found = set()
        for slot in self.parts[SPLITS[0]].pairs.model.slots_read(variable):
            rule = rules.get(slot)
            while isinstance(rule, Copy):
                rule = rules[rule.slot]
            found |= {rule.list} if rule is not None else set()
        return tuple(sorted(found & self.shared))


def split_pairs(task: TaskSpec, spec: AbstractionSpec, base_dir: Path, text: SourceText, seed: int = 0) -> Splits:
    """Draw prompts and pairs for each split, as many as the task has prompts, fewer where its words give no more.

    A list is split in halves and quarters where each quarter has two entries for every slot that is drawn from it; with
    two templates the test has the second, with more all splits have their own. Families from files are left out: their
    bases are not these prompts. Raises as `build_prompts` and `draw_pairs` do, and CS524 where that leaves no family.
    """
    if not task.templates:
        said = "the prompts have no slots whose words could be held out, as those of templates have"
        raise CircuitspecError(Diagnostic("CS524", said, text.span(("task",), key=True), hint="write the task so"))
    lists = load_lists(task.lists, base_dir, text)
    shares, told, shared = _shared(task, lists, seed)
    templates = _templates(len(task.templates))
    told = (*told, _template_words(len(task.templates)))
    if task.fillings is not None:
        told = (*told, f"prompts: drawn from the lists, not those of {task.fillings}")
    spec, from_files = _drawn_families(spec, text)
    told = (*told, *(f"pairs {name}: from a file, so of no split: not learned or tested on" for name in from_files))
    parts = {}
    for number, name in enumerate(SPLITS):
        own = task.model_copy(
            update={
                "lists": {**lists, **{one: words[number] for one, words in shares.items()}},
                "templates": tuple(task.templates[i] for i in templates[number]),
                "seed": task.seed + seed + number,
                "fillings": None,
            }
        )
        words = {one: lists[one] for one in shared} | {one: given[number] for one, given in shares.items()}
        parts[name] = _drawn(own, spec, base_dir, text, words)
    return Splits(parts, told, shared)


def _drawn_families(spec: AbstractionSpec, text: SourceText) -> tuple[AbstractionSpec, tuple[str, ...]]:
    """The families that can be drawn anew for any prompts, and the names of the others. Raises CS524."""
    drawn = {name: family for name, family in spec.pairs.items() if family.file is None}
    if not drawn:
        said = "all pairs are from files, and splits of disjoint words need pairs that are drawn"
        hint = "add a family that redraws slots: pairs: {other: {redraw: [SLOT]}}"
        raise CircuitspecError(Diagnostic("CS524", said, text.span(("abstraction", "pairs"), key=True), hint=hint))
    return spec.model_copy(update={"pairs": drawn}), tuple(name for name in spec.pairs if name not in drawn)


def _drawn(
    task: TaskSpec, spec: AbstractionSpec, base_dir: Path, text: SourceText, words: Mapping[str, tuple[Row, ...]]
) -> SplitPairs:
    """As many prompts as there are, at most as the task asks for."""
    while True:
        try:
            prompts = build_prompts(task, base_dir, text)
            return SplitPairs(prompts, draw_pairs(spec, task, prompts, base_dir, text), words)
        except CircuitspecError as error:
            if task.prompts // 2 < _FEWEST or not any(found.code in _TOO_FEW for found in error.diagnostics):
                raise
            task = task.model_copy(update={"prompts": task.prompts // 2})


def _shared(
    task: TaskSpec, lists: Mapping[str, tuple[Row, ...]], seed: int
) -> tuple[dict[str, tuple[tuple[Row, ...], ...]], tuple[str, ...], frozenset[str]]:
    """The words of each list for each split, what is said of it, and the lists that all splits share."""
    rules = [parse_slot_rule(text) for text in task.slots.values()]
    drawn = Counter(rule.list for rule in rules if isinstance(rule, Draw))
    fixed = {parse_list_reference(one.source)[0] for one in (task.answer, task.wrong) if isinstance(one, Above)}
    shares: dict[str, tuple[tuple[Row, ...], ...]] = {}
    told = []
    for number, (name, rows) in enumerate(sorted(lists.items())):
        quarter = len(rows) // 4
        if name not in drawn or name in fixed or quarter < 2 * drawn[name]:
            if name in drawn:
                why = f"{len(rows)} entries; {8 * drawn[name]} are needed to split it"
                why = "answers are compared in it" if name in fixed else why
                told.append(f"list {name}: shared by all splits ({why})")
            continue
        order = np.random.default_rng([seed, number]).permutation(len(rows)).tolist()
        cuts = (order[2 * quarter :], order[:quarter], order[quarter : 2 * quarter])
        shares[name] = tuple(tuple(rows[i] for i in sorted(cut)) for cut in cuts)
        told.append(
            f"list {name}: " + ", ".join(f"{len(cut)} {split}" for cut, split in zip(cuts, SPLITS, strict=True))
        )
    return shares, tuple(told), frozenset(set(drawn) & set(lists) - set(shares))


def _templates(n: int) -> tuple[tuple[int, ...], ...]:
    """Which templates each split has."""
    every = tuple(range(n))
    if n < 2:
        return (every,) * 3
    if n == 2:
        return (every[:1], every[:1], every[1:])
    quarter = max(1, n // 4)
    return (every[: n - 2 * quarter], every[n - 2 * quarter : n - quarter], every[n - quarter :])


def _template_words(n: int) -> str:
    if n < 2:
        return "templates: shared by all splits (there is one)"
    if n == 2:
        return "templates: the test has the second, training and validation share the first"
    return "templates: " + ", ".join(f"{len(own)} {name}" for own, name in zip(_templates(n), SPLITS, strict=True))
