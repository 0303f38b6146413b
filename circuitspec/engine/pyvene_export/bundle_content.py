"""A plan as a bundle that pyvene runs by itself: config, unit locations, prompts, means, a runner.

No pyvene is imported to write it. The runner, `bundle/run.py`, is copied as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.pyvene_export.plain_pyvene import Patch, PlainPart, check_plain, config, patches, positions
from circuitspec.engine.runner import Runner
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Source, Variant, texts_of

FORMAT_VERSION = 1
RUNNER = "run.py"


@dataclass(frozen=True)
class Bundle:
    """What is written: JSON documents, tensors and texts, by file name.

    `names` are the experiments' names in it, `counts` how many interventions each has.
    """

    documents: Mapping[str, object]
    tensors: Mapping[str, Mapping[str, Tensor]]
    texts: Mapping[str, str]
    names: Mapping[Experiment, str]
    counts: Mapping[str, int]


def make_bundle(labels: Mapping[Experiment, str], runner: Runner, about: Mapping[str, object]) -> Bundle:
    """Everything that running these experiments takes, without circuitspec.

    `about` is said of model and hypothesis in `sources/prompts.json`. Runs the model only for means. Use
    within `borrowed(model)`. Raises CS530 and CS531 for what pyvene cannot do, CS368 for answers of several
    tokens and prompts of unequal lengths, CS521 and CS522 for means.
    """
    loaded, task = runner.loaded, runner.task
    if task.sequences is not None or any(own.pairs is not None for own in task.own.values()):
        raise CircuitspecError(
            Diagnostic(
                "CS368",
                "a bundle for plain pyvene has one token where answers are read, and prompts of equal lengths",
                hint="use answers of one token, and texts of equally many tokens",
            )
        )
    check_plain(labels, loaded.architecture)
    named = _distinct(labels)
    used = {e: patches(e, loaded.architecture, loaded.shape) for e in labels}
    parts = sorted(
        {patch.part for chosen in used.values() for patch in chosen},
        key=lambda part: (part.tap, -1 if part.head is None else part.head, part.copy),
    )
    number = {part: i for i, part in enumerate(parts)}
    sources = dict.fromkeys(e.source for e in labels if e.source is not None)
    means = {
        source: _Means(f"means-{i}.safetensors", grouping(task, source.kind).scored)
        for i, source in enumerate(s for s in sources if s.is_mean)
    }
    variants = dict.fromkeys(texts_of(v) for e in labels for v in e.variants)
    return Bundle(
        {
            "config.json": config(parts),
            "unit_locations.json": {
                "interventions": [part.name for part in parts],
                "experiments": {named[e]: _locations(chosen, number, runner, e.base) for e, chosen in used.items()},
            },
            "sources/prompts.json": {
                "format_version": FORMAT_VERSION,
                **about,
                "variants": {variant: task.ids[variant] for variant in variants},
                "experiments": [
                    {"name": named[e], "base": texts_of(e.base), "source": _source(e.source, means)} for e in labels
                ],
            },
        },
        {
            f"sources/{known.file}": known.tensors(
                source, {p.part for e, chosen in used.items() if e.source == source for p in chosen}, runner
            )
            for source, known in means.items()
        },
        {
            RUNNER: resources.files("circuitspec.engine.pyvene_export")
            .joinpath("bundle", RUNNER)
            .read_text(encoding="utf-8")
        },
        named,
        {named[e]: len(chosen) for e, chosen in used.items()},
    )


def _distinct(labels: Mapping[Experiment, str]) -> dict[Experiment, str]:
    """A name for each experiment; where two have the same label, the second gets a number."""
    named: dict[Experiment, str] = {}
    for experiment, label in labels.items():
        same = sum(other == label for other in list(labels.values())[: len(named)])
        named[experiment] = f"{label} ({same + 1})" if same else label
    return named


def _locations(
    chosen: Sequence[Patch], number: Mapping[PlainPart, int], runner: Runner, base: Variant
) -> dict[str, object]:
    """Per prompt `[intervention, unit locations]`, without interventions that have no position in that prompt."""
    prompts: list[list[Any]] = []
    for prompt in range(runner.task.n):
        at = [(patch.part, positions(runner.task, prompt, patch.where, base)) for patch in chosen]
        prompts.append([[number[part], part.locations(tokens)] for part, tokens in at if tokens])
    return {
        "channels": {str(number[p.part]): p.channels for p in chosen if p.channels is not None},
        "locations": prompts,
    }


@dataclass(frozen=True)
class _Means:
    """One source's means: in which file, and which prompt takes which group's."""

    file: str
    groups: tuple[int, ...]

    def tensors(self, source: Source, parts: set[PlainPart], runner: Runner) -> dict[str, Tensor]:
        """By a part's name `[group, token, channel]`; tokens beyond a group's prompts are zero."""
        taps = frozenset(part.tap for part in parts)
        runner.expect(runner.task.averaged.n)
        groups = [self._values(source, taps, group, runner) for group in range(max(self.groups) + 1)]
        longest = max(runner.task.lengths)
        found = {}
        for part in parts:
            of_head = slice(None) if part.head is None else slice(part.head * part.width, (part.head + 1) * part.width)
            padded = torch.zeros(len(groups), longest, part.width, dtype=runner.dtype)
            for row, values in zip(padded, groups, strict=True):
                mean = values[part.tap][0, :, of_head]
                row[: len(mean)] = mean
            found[part.name] = padded
        return found

    def _values(self, source: Source, taps: frozenset[Tap], group: int, runner: Runner) -> Mapping[Tap, Tensor]:
        """A group's means, as its first prompt is given them: all of its prompts are equally long."""
        first = self.groups.index(group)
        length = runner.task.lengths[first]
        return runner.source_values(Batch((first,), (length,), length, "right"), source, taps)


def _source(source: Source | None, means: Mapping[Source, _Means]) -> dict[str, object] | None:
    """Where an experiment's patched values come from."""
    if source is None:
        return None
    if source in means:
        return {"kind": source.kind, "of": source.prompts, "file": means[source].file, "groups": means[source].groups}
    if source.prompts is None:
        return {"kind": source.kind}
    return {"kind": "run", "prompts": source.prompts}
