"""Clean and corrupted prompts agree token by token; what breaks this is traced to list entries. Imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings, counted
from circuitspec.prompts.templates.template import slot_of
from circuitspec.prompts.tokens.encoding import Encoded, token_strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Filling:
    """What a slot holds in one variant of a prompt, and the tokens of it."""

    slot: str
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Clash:
    """A slot whose clean and corrupted fillings have different numbers of tokens."""

    prompt: Prompt
    corruption: str
    clean: Filling
    corrupt: Filling


def check_alignment(
    prompts: PromptSet, encoded: Mapping[str, Encoded], tokenizer: PreTrainedTokenizerBase, findings: TaskFindings
) -> None:
    """Note (CS343) every list entry that shifts the tokens of a corruption, and every other misaligned prompt."""
    clashes: list[Clash] = []
    for corruption, numbers in misaligned(prompts, encoded).items():
        for prompt in (prompts.prompts[i] for i in numbers):
            clean, corrupt = encoded[prompt.texts[CLEAN]], encoded[prompt.texts[corruption]]
            found = list(_clashes(prompt, corruption, clean, corrupt))
            clashes += found
            if not found:
                _note_prompt(prompt, corruption, clean, corrupt, tokenizer, findings)
    if clashes:
        _note_entries(clashes, _usual_sizes(prompts, encoded), prompts, tokenizer, findings)


def misaligned(prompts: PromptSet, encoded: Mapping[str, Encoded]) -> dict[str, tuple[int, ...]]:
    """By corruption the prompts whose clean text it is not aligned with token by token."""
    found = {
        corruption: tuple(
            i
            for i, prompt in enumerate(prompts.prompts)
            if not _aligned(prompt, corruption, encoded[prompt.texts[CLEAN]], encoded[prompt.texts[corruption]])
        )
        for corruption in prompts.corruptions
    }
    return {corruption: numbers for corruption, numbers in found.items() if numbers}


def _aligned(prompt: Prompt, corruption: str, clean: Encoded, corrupt: Encoded) -> bool:
    if len(clean) != len(corrupt) or clean.before != corrupt.before:
        return False
    corrupt_slots = prompt.slots.get(corruption, {})
    return all(
        clean.tokens_of(*span).stop == corrupt.tokens_of(*corrupt_slots[role]).stop
        for role, span in prompt.slots.get(CLEAN, {}).items()
    )


def _filling(prompt: Prompt, variant: str, role: str, encoded: Encoded) -> Filling:
    start, end = prompt.slots[variant][role]
    tokens = encoded.tokens_since(start, end)
    return Filling(slot_of(role), encoded.text[start:end], encoded.ids[tokens.start : tokens.stop])


def _clashes(prompt: Prompt, corruption: str, clean: Encoded, corrupt: Encoded) -> Iterator[Clash]:
    for role in prompt.slots.get(CLEAN, {}):
        one, other = _filling(prompt, CLEAN, role, clean), _filling(prompt, corruption, role, corrupt)
        if len(one.ids) != len(other.ids):
            yield Clash(prompt, corruption, one, other)


def _usual_sizes(prompts: PromptSet, encoded: Mapping[str, Encoded]) -> Mapping[str, int]:
    """For every list (or slot that is drawn from none) the number of tokens that most of its fillings have."""
    sizes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for prompt in prompts.prompts:
        for variant, slots in prompt.slots.items():
            for role, span in slots.items():
                slot = slot_of(role)
                sizes[prompts.lists.get(slot, slot)][len(encoded[prompt.texts[variant]].tokens_since(*span))] += 1
    return {name: max(counts, key=lambda size: (counts[size], -size)) for name, counts in sizes.items()}


def _note_entries(
    clashes: Sequence[Clash],
    usual: Mapping[str, int],
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    findings: TaskFindings,
) -> None:
    """One finding per entry and number of tokens, with the first prompt that shows it."""
    by_entry: defaultdict[tuple[str, str, int], list[tuple[Clash, Filling, Filling]]] = defaultdict(list)
    for clash in clashes:
        for one, other in ((clash.clean, clash.corrupt), (clash.corrupt, clash.clean)):
            name = prompts.lists.get(one.slot, one.slot)
            if len(one.ids) != usual[name]:
                by_entry[name, one.text, len(one.ids)].append((clash, one, other))
    for (_, text, size), shown in by_entry.items():
        clash, one, other = shown[0]
        drawn_from = prompts.lists.get(one.slot)
        n_prompts = len({clash.prompt.index for clash, _, _ in shown})
        whole = counted(len(prompts.prompts), "prompt")
        at: tuple[str | int, ...] | Span | None = clash.prompt.span
        if at is None:
            at = ("task", "lists", drawn_from) if drawn_from else ("task", "slots", one.slot)
        findings.add(
            "CS343",
            f"{text} is {counted(size, 'token')}, {other.text} is {len(other.ids)}: as {one.slot} of "
            f"{clash.prompt.described()}, the clean prompt and its corruption {clash.corruption} are not aligned",
            at,
            label=f"{token_strings(tokenizer, one.ids)} against {token_strings(tokenizer, other.ids)}",
            hint=f"{_remedy(text, drawn_from)} (it is in {n_prompts} of {whole})",
            data={"entry": text, "slot": one.slot, "prompt": clash.prompt.index, "prompts": n_prompts},
        )


def _remedy(text: str, drawn_from: str | None) -> str:
    if drawn_from is None:
        return "fill the slot with texts of equally many tokens"
    return f"remove {text} from the list {drawn_from}: its entries must have equally many tokens"


def _note_prompt(
    prompt: Prompt,
    corruption: str,
    clean: Encoded,
    corrupt: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    findings: TaskFindings,
) -> None:
    """A prompt that no slot explains: say between which tokens the two texts part."""
    head, tail = _common_ends(clean.ids, corrupt.ids)
    ours = token_strings(tokenizer, clean.ids[head : len(clean) - tail]) or "nothing"
    theirs = token_strings(tokenizer, corrupt.ids[head : len(corrupt) - tail]) or "nothing"
    findings.add(
        "CS343",
        f"{prompt.described()} is {counted(len(clean), 'token')}, its corruption {corruption} is {len(corrupt)}",
        prompt.span or ("task", "templates", prompt.template),
        label=f"from token {head} on: {ours} against {theirs}",
        hint="change the texts so that both have the same number of tokens",
        data={"prompt": prompt.index},
    )


def _common_ends(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """How many tokens two sequences share at the start, and (of the rest) at the end."""
    shortest = min(len(one), len(other))
    head = next((k for k in range(shortest) if one[k] != other[k]), shortest)
    rest = shortest - head
    tail = next((k for k in range(rest) if one[-1 - k] != other[-1 - k]), rest)
    return head, tail
