"""Which slots a hypothesis is about, and which of them a corruption varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from circuitspec.experiments.experiment import Noised, Variant
from circuitspec.hypothesis_file.grammar.fields import template_fields
from circuitspec.hypothesis_file.schema.blocks import Above, AnswerOf, TaskSpec
from circuitspec.hypothesis_file.schema.position_blocks import SlotPosition, anchor_of_position
from circuitspec.prompts.prompt_set import CLEAN, PromptSet
from circuitspec.prompts.templates.template import parse_field, slot_of


def circuit_variables(task: TaskSpec, roles: Iterable[str]) -> frozenset[str]:
    """The slots that matter to the hypothesis: those that its answers are made from, those at or next to which its
    components act (`roles`, the positions that its runs name), and those that a corruption changes along with these.

    Other slots (the place, the object) are scenery, and a corruption that changes nothing else is a control. Where
    neither answers nor positions name a slot, whatever a corruption changes counts. Empty without templates.
    """
    named: set[str] = set()
    for rule in (task.answer, task.wrong):
        match rule:
            case str() | tuple():
                texts = (rule,) if isinstance(rule, str) else rule
                named |= {field.slot for text in texts for field in template_fields(text)}
            case Above():
                named |= {parse_field(text).slot for text in (rule.above, rule.at_most) if text is not None}
            case AnswerOf() | None:
                pass  # the corrupted prompt's answer is made from the same slots as the clean one's
    for role in roles:
        anchor = anchor_of_position(task.positions[role]) if role in task.positions else role
        if anchor is not None:
            named.add(slot_of(anchor))
    known = frozenset(named & task.slots.keys())
    named = set(known)
    for corruption in task.corruptions.values():
        if not known or known & corruption.keys():
            named |= corruption.keys()
    return frozenset(named)


def slots_by_name(task: TaskSpec) -> dict[str, str]:
    """The slots whose own tokens a declared position names: `{slot: S, tokens: all}` is S by another name."""
    return {
        name: slot
        for name, position in task.positions.items()
        if isinstance(position, SlotPosition) and (slot := anchor_of_position(position)) is not None
    }


def kept_slots(
    prompts: PromptSet, corruption: Variant, variables: frozenset[str], by_name: Mapping[str, str] | None = None
) -> frozenset[str]:
    """Those of `variables` that a corruption leaves as they are in at least half of the prompts that have them.

    Noise changes the slots at which it is added, also where a position is one `by_name`, and all of them where it is
    added everywhere.
    """
    if isinstance(corruption, Noised):
        touched = {(by_name or {}).get(role, slot_of(role)) for role in corruption.where.roles}
        inverted = corruption.where.inverted
        return frozenset(slot for slot in variables & _slots(prompts) if (slot in touched) == inverted)
    same: dict[str, list[bool]] = {}
    for prompt in prompts.prompts:
        corrupt = prompt.slots.get(corruption, {})
        for role, span in prompt.slots.get(CLEAN, {}).items():
            if role in corrupt:
                texts = (prompt.texts[CLEAN][slice(*span)], prompt.texts[corruption][slice(*corrupt[role])])
                same.setdefault(slot_of(role), []).append(texts[0] == texts[1])
    return frozenset(slot for slot in variables & same.keys() if 2 * sum(same[slot]) >= len(same[slot]))


def _slots(prompts: PromptSet) -> frozenset[str]:
    return frozenset(slot_of(role) for prompt in prompts.prompts for role in prompt.slots.get(CLEAN, {}))
