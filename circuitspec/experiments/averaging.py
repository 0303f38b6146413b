"""Over which prompts means are taken: whose mean each prompt is given, and parts of them. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Own, Part, SourceKind, Without
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

Layout = tuple[int, int, tuple[int, ...]]  # template, length, role positions

BLOCKS = 4  # parts of reference prompts that means are compared between
CELLS = 12  # parts of the scored prompts, at most, without which means are taken: halves and quarters are whole cells
_SEED = 0  # of the parts


def layouts(task: TokenizedTask, kind: SourceKind, roles: Iterable[str], variant: str = CLEAN) -> tuple[Layout, ...]:
    """What decides over which others a prompt is averaged: positions must mean the same in all of them.

    These are the layouts of the variant's prompts, whose runs are averaged.
    """
    own = task.of(variant)
    lengths = [len(ids) for ids in own.ids]
    if not ABLATIONS[kind].by_template:
        return tuple((0, length, ()) for length in lengths)
    named = sorted(roles)
    spans = [name for name in named if name in own.spans]

    def places(prompt: int) -> tuple[int, ...]:
        """The last token of every position, then of those that are several how many there are, and which."""
        several = (own.spans[name][prompt] for name in spans)
        return (*(own.roles[name][prompt] for name in named), *(n for at in several for n in (len(at), *at)))

    return tuple((task.prompts.prompts[i].template, length, places(i)) for i, length in enumerate(lengths))


@dataclass(frozen=True)
class MeanGroups:
    """Which prompts' mean each prompt is given, by numbers of groups, and into which parts these are divided.

    `scored` has the group of each prompt that is run, `averaged` that of each prompt that means are over (None for one
    like which none is run), `cells` the part of each of the latter. Parts are drawn at random, equally large in each
    group. `blocks[i]` says whose part's mean a prompt is given, where it is one part's: its own, or where other prompts
    are averaged, any.
    """

    scored: tuple[int, ...]
    averaged: tuple[int | None, ...]
    cells: tuple[int, ...]
    blocks: tuple[int, ...]
    n_cells: int

    def first(self, n: int) -> MeanGroups:
        """The same for the first `n` prompts that are run, where others are averaged."""
        return replace(self, scored=self.scored[:n], blocks=self.blocks[:n])

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Over how many prompts the mean of each group goes."""
        counts = Counter(self.averaged)
        return tuple(counts[group] for group in range(max(self.scored) + 1))

    @property
    def used(self) -> tuple[int, ...]:
        """The prompts that some mean goes over."""
        return tuple(i for i, group in enumerate(self.averaged) if group is not None)

    @cached_property
    def members(self) -> Mapping[tuple[int, int], int]:
        """How many prompts there are of each group and cell; not those of which there are none."""
        pairs = ((group, cell) for group, cell in zip(self.averaged, self.cells, strict=True) if group is not None)
        return dict(sorted(Counter(pairs).items()))

    @cached_property
    def _cells_of(self) -> Mapping[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {}
        for group, cell in self.members:
            found.setdefault(group, []).append(cell)
        return {group: tuple(cells) for group, cells in found.items()}

    def taken(self, prompt: int, part: Part | None) -> tuple[tuple[int, int], ...]:
        """The groups and cells that the mean of a prompt that is run goes over."""
        group = self.scored[prompt]
        cells: Iterable[int] = self._cells_of[group]
        match part:
            case Without(left_out, _):
                cells = [cell for cell in cells if cell != left_out]
            case Own(blocks):
                there = sorted({cell % blocks for cell in cells})
                mine = there[(self.blocks[prompt] % blocks) % len(there)]
                cells = [cell for cell in cells if cell % blocks == mine]
        return tuple((group, cell) for cell in cells)

    def spread(self, part: Part | None) -> float:
        """The mean over the prompts that are run of one over the number of prompts that their mean goes over."""
        counts = [sum(self.members[one] for one in self.taken(i, part)) for i in range(len(self.scored))]
        return float(np.mean([1 / count for count in counts]))


def grouping(task: TokenizedTask, kind: SourceKind, variant: str = CLEAN) -> MeanGroups:
    """How means over the runs on a variant are taken for the prompts of a task, over its reference or over themselves.

    A mean is taken position by position, so positions must mean the same in all prompts of a group:
    `mean_per_template` groups prompts by template and, where a template's prompts tokenise differently,
    by length and positions of the roles; `mean` takes all prompts as one group and demands one length.
    Raises CS521 where lengths differ, CS522 where a group has a single prompt (its mean would be a single prompt's
    value, a resample ablation under another name) or none.
    """
    own = layouts(task, kind, task.roles, variant)
    numbers = {key: number for number, key in enumerate(sorted(set(own)))}
    if not ABLATIONS[kind].by_template and len(numbers) > 1:
        lengths = sorted({length for _, length, _ in numbers})
        raise CircuitspecError(
            Diagnostic(
                "CS521",
                f"ablation value `{kind}` averages position by position, but the prompts are {lengths} tokens long",
                hint="write `value: mean_per_template`, or use prompts of one length",
            )
        )
    scored = tuple(numbers[key] for key in own)
    averaged: tuple[int | None, ...] = scored
    if task.reference is not None:
        averaged = tuple(numbers.get(key) for key in layouts(task.reference, kind, task.roles, variant))
    counts = Counter(averaged)
    lonely = [i for i, group in enumerate(scored) if counts[group] < 2]
    if lonely:
        raise CircuitspecError(_single(_lonely(task, lonely), task.reference is not None))
    n_cells = mean_cells(task)
    cells = _divided(averaged, n_cells)
    blocks = cells if task.reference is None else _divided(scored, n_cells)
    return MeanGroups(scored, averaged, cells, blocks, n_cells)


def _single(where: str, reference: bool) -> Diagnostic:
    if reference:
        return Diagnostic(
            "CS522",
            f"fewer than two reference prompts have the token layout of a prompt, for {where}: there is no mean for it",
            hint="ask for more (`reference: N`), list entries that tokenise to the same length, or write "
            "`value: resample`",
        )
    return Diagnostic(
        "CS522",
        f"the mean would be over a single prompt for {where}",
        hint="raise `prompts`, use fewer templates, or list entries that tokenise to the same length; "
        "or write `value: resample`",
    )


def _lonely(task: TokenizedTask, alone: Sequence[int]) -> str:
    """The templates all of whose prompts are named, and those of which prompts have a token layout of their own."""
    of = [prompt.template for prompt in task.prompts.prompts]
    single = sorted({of[i] for i in alone if of.count(of[i]) == 1})
    layouts = [of[i] for i in alone if of.count(of[i]) > 1]

    def among(templates: Sequence[int]) -> str:
        return ", ".join(repr(task.prompts.templates[t]) for t in sorted(set(templates))[:3])

    parts = [f"{len(single)} template(s), among them {among(single)}"] if single else []
    if layouts:
        parts.append(
            f"{len(layouts)} token layout(s) (a length, with the tokens of its positions), among them of "
            f"{among(layouts)}"
        )
    return ", and for ".join(parts)


def mean_cells(task: TokenizedTask) -> int:
    """Into how many parts the prompts that means are over are divided."""
    return min(task.n, CELLS) if task.reference is None else BLOCKS


def _divided(groups: tuple[int | None, ...], parts: int) -> tuple[int, ...]:
    """A part for each prompt: as many of each group in every part as go, drawn at random."""
    shuffled = np.random.default_rng(_SEED).permutation(len(groups))
    order = sorted(shuffled, key=lambda i: (groups[i] is None, groups[i] or 0))
    found = [0] * len(groups)
    for rank, prompt in enumerate(order):
        found[prompt] = rank % parts
    return tuple(found)
