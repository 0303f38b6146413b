"""Base and source prompts with what the high-level model says of them. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from circuitspec.hypothesis_file.grammar.variable_expressions import Scalar
from circuitspec.prompts.pairs.high_level_model import HighLevelModel
from circuitspec.prompts.pairs.settings import Setting, families_of
from circuitspec.prompts.prompt_set import Place, Prompt
from circuitspec.prompts.templates.template import CharSpans, Values


@dataclass(frozen=True)
class SourcePrompt:
    """The source of a pair: its slots, its text, where the slots stand in it, and the answers, right and wrong, that
    the task's own rules make of its slots.

    Of prompts from a file, `slots` are the columns beside it, `named` its own answers; `positions` are those that its
    row says, `ids` its tokens where these are given.
    """

    slots: Values
    text: str
    spans: CharSpans
    named: tuple[str, ...]
    positions: Mapping[str, Place] = field(default_factory=dict)
    ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PairSet:
    """A source for each base prompt in every family; base i is prompt i of the task.

    Everything here is said by the high-level model alone: nothing was run.
    """

    model: HighLevelModel
    bases: tuple[Prompt, ...]
    families: Mapping[str, tuple[SourcePrompt, ...]]

    def __len__(self) -> int:
        return len(self.bases)

    def first(self, n: int) -> PairSet:
        """The pairs of the first `n` base prompts."""
        return replace(self, bases=self.bases[:n], families={name: own[:n] for name, own in self.families.items()})

    def slots(self, base: int) -> Values:
        """The slots of a base prompt."""
        return self.bases[base].values

    @cached_property
    def base_answers(self) -> tuple[str, ...]:
        """What is answered to each base prompt."""
        return tuple(self.model.answer(self.slots(i)) for i in range(len(self)))

    def source_answers(self, family: str) -> tuple[str, ...]:
        """What is answered to each source of a family."""
        return tuple(self.model.answer(source.slots) for source in self.families[family])

    def expected(self, setting: Setting) -> tuple[str, ...]:
        """What is answered to each base prompt where these variables have the values that they have in sources."""
        return self._worked_out(setting)

    @cached_property
    def _worked_out(self) -> Callable[[Setting], tuple[str, ...]]:
        """`expected`, each worked out once."""

        @cache
        def answers(setting: Setting) -> tuple[str, ...]:
            return tuple(self.model.answer(self.slots(i), self._put(setting, i)) for i in range(len(self)))

        return answers

    def changed(self, setting: Setting) -> tuple[bool, ...]:
        """Of each pair, whether the answer must change."""
        return tuple(new != old for new, old in zip(self.expected(setting), self.base_answers, strict=True))

    def told_apart(self, one: Setting, other: Setting) -> tuple[bool, ...]:
        """Of each pair, whether the two interventions ask for different answers."""
        return tuple(a != b for a, b in zip(self.expected(one), self.expected(other), strict=True))

    def candidates(self, setting: Setting) -> tuple[tuple[str, ...], ...]:
        """Of each pair, the answers among which the model's is looked for.

        The answers to base and sources, those under an intervention on any one variable or on all of the setting, and
        what the task's own rules call right or wrong for base and sources. A pair that has a single one gets those of
        all pairs.
        """
        families = families_of(setting)
        single = [self.expected(((name, family),)) for family in families for name in self.model.variables]
        columns = [self.base_answers, *map(self.source_answers, families), *single]
        columns += [self.expected(setting)] if len(setting) > 1 else []
        found = []
        for i, base in enumerate(self.bases):
            named = [text for family in families for text in self.families[family][i].named]
            found.append(
                tuple(
                    dict.fromkeys(
                        [
                            *(column[i] for column in columns),
                            *(one for one in base.wrong if isinstance(one, str)),
                            *named,
                        ]
                    )
                )
            )
        every = tuple(dict.fromkeys(text for own in found for text in own))
        return tuple(own if len(own) > 1 else every for own in found)

    def _put(self, setting: Setting, base: int) -> dict[str, Scalar]:
        return {name: self.model.run(self.families[family][base].slots)[name] for name, family in setting}


def share(flags: Sequence[bool]) -> float:
    """The share of true ones; 0 of none."""
    return sum(flags) / len(flags) if flags else 0.0
