"""Data sets of base and source as CausalAbstraction and causalab have them, as prompts and pairs of ours. No torch.

A row is `{"input": {...}, "counterfactual_inputs": [{...}]}`, where an input has the prompt as `raw_input`, the causal
model's answer as `raw_output`, and values of variables under their own names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.exchange.loss import Loss, counted
from circuitspec.prompts.files.given_rows import GivenRow
from circuitspec.prompts.files.prompt_files import read_rows
from circuitspec.prompts.task_findings import TaskFindings

PROMPT, ANSWER = "raw_input", "raw_output"
_BASE, _SOURCES = "input", "counterfactual_inputs"
_GIVE = (
    f'give each input as an object, with the prompt and its answer: {{"{PROMPT}": "...", "{ANSWER}": "...", '
    '"VARIABLE": "..."}'
)


@dataclass(frozen=True)
class CausalPairs:
    """The lines of a prompts file, and those of a file of pairs for each of the sources that a base has."""

    prompts: str
    pairs: tuple[str, ...]
    n: int
    losses: tuple[Loss, ...]


class _NoPair(Exception):
    """A row that says no pair, and why."""


def read_causal_pairs(path: Path) -> CausalPairs:
    """The pairs of a file (JSON, JSON lines, parquet, or the folder of a data set).

    Raises CircuitspecError: CS334 to CS338 for the file, CS570 for rows that do not say enough.
    """
    findings = TaskFindings()
    given = read_rows(path, findings, None, ())
    findings.check()
    seen: dict[str, None] = {}
    prompts: list[str] = []
    families: list[list[str]] = []
    problems: list[Diagnostic] = []
    repeated, dropped = 0, set[str]()
    for row in given.rows:
        try:
            base, sources = _pair(row)
        except _NoPair as error:
            place = row.span or Span(str(path), 1, 1)
            problems.append(Diagnostic("CS570", f"{row.place}: {error}", place, hint=_GIVE))
            continue
        text = str(base[PROMPT])
        if text in seen:
            repeated += 1
            continue
        seen[text] = None
        dropped |= {key for one in (base, *sources) for key, value in one.items() if isinstance(value, list | Mapping)}
        prompts.append(_line(base))
        families = families or [[] for _ in sources]
        if len(sources) != len(families):
            said = f"{row.place}: the base has {counted(len(sources), 'source')}, and the first one {len(families)}"
            problems.append(Diagnostic("CS570", said, row.span, hint="give every base as many sources"))
            continue
        for family, source in zip(families, sources, strict=True):
            family.append(json.dumps({"base": text, "source": _scalars(source)}, ensure_ascii=False))
    if not given.rows:
        problems.append(Diagnostic("CS570", f"{path} holds no rows", hint=_GIVE))
    if problems:
        raise CircuitspecError(*problems[:20])
    losses = [Loss("variables", "how variables and answers follow from each other is code, not data")]
    if repeated:
        said = f"{counted(repeated, 'row')} whose base an earlier row has left out: a base has one source a family"
        losses.append(Loss("pairs", said))
    if dropped:
        losses.append(
            Loss("variables", f"values that are no text, number or truth left out: {', '.join(sorted(dropped))}")
        )
    lines = tuple("".join(f"{line}\n" for line in family) for family in families)
    return CausalPairs("".join(f"{line}\n" for line in prompts), lines, len(prompts), tuple(losses))


def _pair(row: GivenRow) -> tuple[Mapping[str, object], list[Mapping[str, object]]]:
    content = row.content
    if not isinstance(content, Mapping) or _BASE not in content or _SOURCES not in content:
        raise _NoPair(f"it has no `{_BASE}` and `{_SOURCES}`")
    listed = content[_SOURCES]
    if isinstance(listed, str):
        listed = _parsed(listed)
    if not isinstance(listed, list) or not listed:
        raise _NoPair(f"`{_SOURCES}` is no list with a source in it")
    return _input(content[_BASE], f"`{_BASE}`"), [_input(one, "a source") for one in listed]


def _input(value: object, what: str) -> Mapping[str, object]:
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, Mapping):
        raise _NoPair(f"{what} is a text alone: which answer it has, and the values of its variables, it does not say")
    for key in (PROMPT, ANSWER):
        if not isinstance(value.get(key), str) or not str(value[key]).strip():
            raise _NoPair(f"{what} has no text as `{key}`")
    return value


def _parsed(text: str) -> object:
    """What a column of JSON holds; the text where it is none."""
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except (ValueError, RecursionError):
        return text


def _scalars(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is None or isinstance(value, str | int | float)}


def _line(values: Mapping[str, object]) -> str:
    return json.dumps(_scalars(values), ensure_ascii=False)
