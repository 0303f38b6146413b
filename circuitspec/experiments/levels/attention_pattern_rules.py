"""What attention patterns can be replaced by: those of another run whose prompts are as long. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Experiment, Source, Variant, texts_of
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION_PATTERN
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.prompt_set import TokenizedTask


def check_patterns(experiments: Iterable[Experiment], task: TokenizedTask, text: SourceText | None = None) -> None:
    """Raises CS519 for patterns that are to be made of means or zeros, CS514 for runs on prompts of other lengths.

    A pattern has a weight for every token of its own prompt, which add up to one. `text` is the file, where there is
    one.
    """
    found: dict[str, Diagnostic] = {}
    for experiment in experiments:
        if experiment.source is None or not experiment.patches_patterns:
            continue
        name = min(format_name(s.component) for s in experiment.sites if s.component.kind is ATTENTION_PATTERN)
        for problem in _problems(name, experiment.base, experiment.source, task, text):
            found.setdefault(problem.code, problem)
    if found:
        raise CircuitspecError(*found.values())


def _problems(
    name: str, base: Variant, source: Source, task: TokenizedTask, text: SourceText | None
) -> Iterator[Diagnostic]:
    if not source.is_run or source.prompts is None:
        yield Diagnostic(
            "CS519",
            f"{name} cannot be replaced by {source}: an attention pattern is patched with the pattern of another run",
            None if text is None else text.span(("ablation", "value")),
            hint="write `ablation: {value: resample, from: CORRUPTION}`; to take away what the head gives, name the "
            "head itself",
        )
        return
    own, other = task.of(texts_of(base)).ids, task.of(texts_of(source.prompts)).ids
    for number, (here, there) in enumerate(zip(own, other, strict=True)):
        if len(here) != len(there):
            prompt = task.prompts.prompts[number]
            yield Diagnostic(
                "CS514",
                f"{name} cannot be patched: {prompt.described()} has {len(here)} tokens in the run that is patched "
                f"and {len(there)} in the run that the pattern comes from",
                prompt.span,
                hint="an attention pattern has a weight for every token: give prompts of equal token counts, or patch "
                "the head itself",
            )
            return
