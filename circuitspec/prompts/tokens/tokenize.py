"""Prompts -> token ids, aligned between clean and corrupted, with every position and answer found. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TokenizedTask
from circuitspec.prompts.task_findings import TaskFindings, counted
from circuitspec.prompts.tokens.alignment import check_alignment, misaligned
from circuitspec.prompts.tokens.answer_tokens import find_answers
from circuitspec.prompts.tokens.counterparts import unaligned_variant
from circuitspec.prompts.tokens.encoding import Encoded, encode
from circuitspec.prompts.tokens.framing import check_given_ids, frame_of, reader_of, surroundings_of
from circuitspec.prompts.tokens.given_ids import answers_decoded, check_ids, given_as_ids, with_texts
from circuitspec.prompts.tokens.misfits import fitting
from circuitspec.prompts.tokens.roles import find_roles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from circuitspec.hypothesis_file.yaml.source import SourceText


def tokenize(
    prompt_set: PromptSet,
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    source: SourceText | None = None,
    *,
    unequal: bool = False,
) -> TokenizedTask:
    """Tokenize all prompts as the model will see them, and check that they can be compared.

    `positions` are the declared expressions by name. Prompts may differ in length from each other, but
    each has the length and the slot positions of its own corruptions; with `unequal` corruptions may have others, and
    the result says which tokens correspond, as far as they do. Where rows of a file may be left out, those that do not
    fit are, and are no longer among the task's prompts.
    Raises CircuitspecError (CS342 to CS349, CS339, CS357, CS360, CS367) with everything found.
    """
    if prompt_set.choice is not None and not prompt_set.choice.settled:
        unequal = unequal and "misaligned" not in prompt_set.choice.skip
        prompt_set = fitting(
            prompt_set, lambda some: _tokenized(some, positions, tokenizer, None, unequal=unequal), TaskFindings(source)
        )
    return _tokenized(prompt_set, positions, tokenizer, source, unequal=unequal)


def _tokenized(
    prompt_set: PromptSet,
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    source: SourceText | None,
    *,
    unequal: bool,
) -> TokenizedTask:
    findings = TaskFindings(source)
    if not tokenizer.is_fast:
        findings.add(
            "CS342",
            f"{type(tokenizer).__name__} does not say which characters a token stands for",
            ("model", "id"),
            hint="use a model with a fast tokenizer (a tokenizer.json file)",
        )
        findings.check()
    given = prompt_set
    check_ids(given, tokenizer, findings)
    check_given_ids(given, findings)
    frame = frame_of(given, tokenizer, findings)
    prompt_set, tokenizer = frame.around(given), reader_of(tokenizer, given.framing, findings)
    texts = (text for prompt in prompt_set.prompts if not prompt.ids for text in prompt.texts.values())
    encoded = {text: frame.within(tokens) for text, tokens in encode(tokenizer, texts).items()}
    encoded |= given_as_ids(prompt_set)
    _check_surroundings(encoded, findings)
    _check_known(prompt_set, encoded, tokenizer, findings)
    others = misaligned(prompt_set, encoded) if unequal else {}
    if not unequal:
        check_alignment(prompt_set, encoded, tokenizer, findings)
    clean = [encoded[prompt.texts[CLEAN]] for prompt in prompt_set.prompts]
    roles = find_roles(prompt_set, clean, positions, tokenizer, findings)
    answers = find_answers(prompt_set, clean, tokenizer, findings)
    findings.check()
    own = {
        corruption: unaligned_variant(prompt_set, corruption, numbers, encoded, positions, roles, tokenizer, findings)
        for corruption, numbers in others.items()
    }
    findings.check()
    misfits = TaskFindings(source)
    if others:
        check_alignment(prompt_set, encoded, tokenizer, misfits)
    own = {name: replace(one, answers=answers.answers, wrong=answers.wrong) for name, one in own.items()}
    decoded = answers_decoded(given, tokenizer)
    return TokenizedTask(
        prompts=with_texts(given, tokenizer),
        ids={
            variant: tuple(encoded[prompt.texts[variant]].ids for prompt in prompt_set.prompts)
            for variant in (CLEAN, *prompt_set.corruptions)
        },
        roles=roles.of,
        answers=answers.answers,
        wrong=answers.wrong,
        partial_roles=roles.partial,
        slot_tokens=roles.tokens,
        spans=roles.spans,
        decoded=decoded,
        around=replace(surroundings_of(given, clean, frame, tokenizer), answers=tuple(decoded.items())),
        sequences=answers.sequences,
        own=own,
        misfits=misfits.found,
    )


def _check_surroundings(encoded: Mapping[str, Encoded], findings: TaskFindings) -> None:
    """The answer is read at the last token, so that must be one of the text."""
    if any(tokens.after for tokens in encoded.values()):
        findings.add(
            "CS348",
            "the tokenizer puts a token behind every text, so that the answer would be read after it",
            ("model", "id"),
            hint="use a causal language model, whose tokenizer adds nothing at the end",
        )
        findings.check()


def _check_known(
    prompts: PromptSet, encoded: Mapping[str, Encoded], tokenizer: PreTrainedTokenizerBase, findings: TaskFindings
) -> None:
    """Note (CS349) words outside the vocabulary, and corruptions that the tokenizer makes equal to the clean prompt."""
    unknown: Counter[str] = Counter()
    first: dict[str, Prompt] = {}
    for prompt in prompts.prompts:
        words = {word for text in prompt.texts.values() for word in _unknown_words(encoded[text], tokenizer)}
        unknown.update(words)
        first.update({word: prompt for word in words if word not in first})
        clean = encoded[prompt.texts[CLEAN]].ids
        for corruption in prompts.corruptions:
            if not words and encoded[prompt.texts[corruption]].ids == clean:
                findings.add(
                    "CS349",
                    f"{prompt.described()} and its corruption {corruption} are the same tokens",
                    prompt.span or ("task", "corruptions", corruption),
                    hint="the tokenizer does not tell the two texts apart: change another slot",
                )
    for word, count in unknown.items():
        prompt = first[word]
        findings.add(
            "CS349",
            f"{word!r} is not in the vocabulary of the tokenizer (first in {prompt.described()})",
            prompt.span or ("task", "templates", prompt.template),
            label=f"in {count} of {counted(len(prompts.prompts), 'prompt')}",
            hint=f"replace {word}",
        )


def _unknown_words(tokens: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    unknown = tokenizer.unk_token_id
    spans = [span for one, span in zip(tokens.ids, tokens.spans, strict=True) if one == unknown and span[0] < span[1]]
    words = [tokens.text[start:end].strip() for start, end in spans]
    return [word for word in words if word != tokenizer.unk_token]  # GPT-2 calls its end-of-text token so
