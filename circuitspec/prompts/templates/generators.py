"""Prompts made by a rule that no template can say, registered by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files

from circuitspec.hypothesis_file.schema.blocks import Generate, RepeatedTokens
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.templates.slots import Dice
from circuitspec.prompts.templates.template import CharSpans


@dataclass(frozen=True)
class Generator:
    """A named way to make prompts: which corruptions it gives, and how many prompts it makes from a seed."""

    description: str
    corruptions: tuple[str, ...]
    make: Callable[[Generate, int, int, TaskFindings, tuple[str, ...]], PromptSet]  # number, seed; stream


def generate_others(
    options: Generate, n: int, seed: int, scored: PromptSet, findings: TaskFindings
) -> tuple[Prompt, ...]:
    """`n` prompts of the same generator, from a stream of their own, less those that are among the `scored` ones."""
    (named,) = (name for name in GENERATORS if getattr(options, name) is not None)
    taken = {prompt.texts[CLEAN] for prompt in scored.prompts}
    made = GENERATORS[named].make(options, n, seed, findings, ("reference",)).prompts
    others = {prompt.texts[CLEAN]: prompt for prompt in made if prompt.texts[CLEAN] not in taken}
    return tuple(replace(prompt, index=index) for index, prompt in enumerate(others.values()))


def generate(options: Generate, n: int, seed: int, findings: TaskFindings) -> PromptSet:
    """Prompts of the one generator that `options` names. Raises CircuitspecError (CS341)."""
    (named,) = (name for name in GENERATORS if getattr(options, name) is not None)
    return GENERATORS[named].make(options, n, seed, findings, ())


def common_words() -> tuple[str, ...]:
    """Short English words that common tokenizers keep in one piece, with and without a space in front."""
    text = files("circuitspec.prompts.templates").joinpath("common_words.txt").read_text(encoding="utf-8")
    return tuple(text.split())


def _repeated_tokens(
    options: Generate, n: int, seed: int, findings: TaskFindings, stream: tuple[str, ...]
) -> PromptSet:
    """`length` different words, then the same words again up to one of them; the next word is the answer.

    Slots: `A` is the last word's first occurrence, `A#2` the last word, `B` what followed `A` (the answer).
    Corruptions: `other_next` puts another word in place of `B` (it is the wrong answer), `no_repeat` one in
    place of the first `A`, `unrelated` replaces the whole first sequence.
    """
    assert isinstance(options.repeated_tokens, RepeatedTokens)
    length, words = options.repeated_tokens.length, common_words()
    longest = (len(words) - 2) // 2
    if length > longest:
        message = f"a sequence of {length} different words is too long: there are words for {longest}"
        findings.add(
            "CS341", message, ("task", "generate", "repeated_tokens", "length"), hint=f"write {longest} or less"
        )
        findings.check()
    prompts = tuple(
        _repeated(index, length, words, Dice(seed, *stream, index, "repeated_tokens")) for index in range(n)
    )
    return PromptSet(prompts, GENERATORS["repeated_tokens"].corruptions, ("repeated_tokens",))


def _repeated(index: int, length: int, words: tuple[str, ...], dice: Dice) -> Prompt:
    drawn = dice.sample(words, 2 * length + 2)
    first, unrelated, (other, fresh) = drawn[:length], drawn[length : 2 * length], drawn[2 * length :]
    at = dice.below(length - 1)  # A; B follows it
    again = first[: at + 1]
    sequences = {
        CLEAN: first,
        "other_next": [*first[: at + 1], other, *first[at + 2 :]],
        "no_repeat": [*first[:at], fresh, *first[at + 1 :]],
        "unrelated": unrelated,
    }
    texts = {variant: " ".join(sequence + again) for variant, sequence in sequences.items()}
    slots = {variant: _word_spans(sequence + again, at) for variant, sequence in sequences.items()}
    answers, wrong = (f" {first[at + 1]}",), (f" {other}",)
    return Prompt(index, 0, texts, answers, wrong, slots, where="repeated_tokens")


def _word_spans(words: list[str], at: int) -> CharSpans:
    starts = [sum(len(word) + 1 for word in words[:k]) for k in range(len(words))]
    named = {"A": at, "B": at + 1, "A#2": len(words) - 1}
    return {name: (starts[k], starts[k] + len(words[k])) for name, k in named.items()}


GENERATORS: Mapping[str, Generator] = {
    "repeated_tokens": Generator(
        "random words, repeated: the next word is known only from the first time round (induction)",
        ("other_next", "no_repeat", "unrelated"),
        _repeated_tokens,
    ),
}
