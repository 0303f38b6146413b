"""Base and source prompts of other lengths: whether every value that is patched has a token to come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import EVERYWHERE, Experiment, Variant, all_readings, texts_of
from circuitspec.graph.where import Where
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask


@dataclass(frozen=True)
class Undefined:
    """A token of a base prompt at which a value is asked for, though no token of the source corresponds to it."""

    base: str
    source: str
    prompt: int
    token: int
    where: Where


def undefined(experiments: Iterable[Experiment], task: TokenizedTask) -> Undefined | None:
    """The first such token; None where there is none. Patched zeros come from no token."""
    asked: dict[tuple[str, str, Where], None] = {}
    for experiment in (run for whole in experiments for run in whole.each):
        source = experiment.source
        if source is not None and source.prompts is not None:
            pair = texts_of(experiment.base), texts_of(source.prompts)
            asked.update({(*pair, where): None for where in patched_at(experiment)})
        for patch in experiment.beside:
            if patch.source.prompts is not None:
                pair = texts_of(experiment.base), texts_of(patch.source.prompts)
                asked.update({(*pair, site.where): None for site in patch.sites})
        sent = (one for reading in all_readings(experiment.readings) for one in reading.senders if one.prompts)
        base = texts_of(experiment.base)
        asked.update({(base, str(one.prompts), EVERYWHERE if one.inputs else one.where): None for one in sent})
    for base, other, where in asked:
        found = undefined_at(task, base, other, [where])
        if found is not None:
            return found
    return None


def undefined_at(task: TokenizedTask, base: Variant, source: Variant, wheres: Collection[Where]) -> Undefined | None:
    """The same for values of one run that are patched into another at these positions."""
    one, other = texts_of(base), texts_of(source)
    tokens = task.counterparts(one, other)
    if tokens is None:
        return None
    own = task.of(one)
    for where in wheres:
        for prompt, its in enumerate(tokens):
            named = {token for role in where.roles for token in own.tokens_at(role, prompt)}
            for token, counterpart in enumerate(its):
                if counterpart < 0 and (token in named) != where.inverted:
                    return Undefined(one, other, prompt, token, where)
    return None


def patched_at(experiment: Experiment) -> frozenset[Where]:
    """Where an experiment reads values of its source."""
    if experiment.rule is not None and experiment.rule.frozen == "source":
        return frozenset({EVERYWHERE})
    sent = (one.where for reading in all_readings(experiment.readings) for one in reading.senders)
    return frozenset({*(site.where for site in experiment.sites), *sent})


def check_counterparts(experiments: Iterable[Experiment], task: TokenizedTask) -> None:
    """Raises CS366 where a value is asked for at a token that has no counterpart, with what makes it so."""
    found = undefined(experiments, task)
    if found is not None:
        raise CircuitspecError(_said(found, task), *task.misfits)


def check_defined_at(task: TokenizedTask, base: Variant, source: Variant | None, wheres: Collection[Where]) -> None:
    """The same for values that are patched, or taken to first order, at these positions."""
    found = None if source is None else undefined_at(task, base, source, wheres)
    if found is not None:
        raise CircuitspecError(_said(found, task), *task.misfits)


def where_and_why(found: Undefined, task: TokenizedTask) -> tuple[str, str]:
    """At which positions a value is asked for, and what makes that it is not defined, in words."""
    unlike = [task.of(v).unlike.get(found.prompt, "") for v in (found.source, found.base) if v != CLEAN]
    piece = next((text for text in unlike if text), "two positions are one token of one prompt, and two of the other")
    if found.where.is_everywhere:
        return "every token", piece
    if found.where.inverted:
        return f"every token but {', '.join(sorted(found.where.roles))}", piece
    return ", ".join(sorted(found.where.roles)), piece


def _said(found: Undefined, task: TokenizedTask) -> Diagnostic:
    prompt = task.prompts.prompts[found.prompt]
    at, piece = where_and_why(found, task)
    return Diagnostic(
        "CS366",
        f"values of the {found.source} prompt are patched into the {found.base} one at {at}, but in "
        f"{prompt.described()} its token {found.token} has no counterpart ({piece})",
        prompt.span,
        hint="patch at named positions alone (`at: END`), ablate with `value: zero` or means of the clean prompts "
        "(`from: clean`); otherwise fill slots with words of equally many tokens, or write `skip: [misaligned]`",
        data={"prompt": found.prompt, "token": found.token, "base": found.base, "source": found.source},
    )
