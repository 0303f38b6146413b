"""`circuitspec.record`: activations and attention patterns of named components, as arrays, by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.taps import port_slots, slots_of
from circuitspec.engine.metrics.recorded_values import Array, Wanted, positions_wanted, record_values
from circuitspec.experiments.experiment import Experiment
from circuitspec.graph.nodes import existing, expand, is_node, nodes_of
from circuitspec.hypothesis_file.grammar.components import Head, Logits
from circuitspec.hypothesis_file.grammar.names import Name, NameSyntaxError, format_name, parse_name
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.interactive.component_patching import label_of
from circuitspec.pipelines.interactive.given_prompts import PromptsLike
from circuitspec.pipelines.interactive.memory_session import laboratory, manners
from circuitspec.pipelines.interactive.named_sites import as_source, check_roles, listed, sites_named
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PATTERN = ".pattern"  # behind a head's name: its attention weights


_WHOLE_ANSWERS = Diagnostic(
    "CS365",
    "with `score: sum_logprob` a prompt runs once with each of its answers behind it, and has no one value",
    hint="take out `score: sum_logprob`: what a run computes on the prompt does not hang on its answers",
)


def record(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: PromptsLike,
    names: str | Sequence[str],
    *,
    patched: str | Sequence[str] = (),
    how: str = "noising",
    corruption: str | Sequence[str] | None = None,
    positions: Mapping[str, str | int] | None = None,
    batch_size: int | None = None,
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> dict[str, dict[str, Array]]:
    """Record what components compute, in the clean run, in every corrupt one and, if asked for, in a patched one.

    Args:
        model, tokenizer, prompts, positions, batch_size, keep_hooks, merge_adapters: as for `circuitspec.patch`.
        names: `"a5.h1@END"` (a head's output before the output projection), `"a5.h1<q>"` (or `<k>`, `<v>`: the
            projection, before any norm and rotation), `"m3"`, `"r5"`, `"m3.n42"`, `"a5.h1.pattern"` (attention
            weights), `"logits"` (of the last token); `"a5.h*"` is every head of the layer, each under its own name.
        patched: components that are patched, all in one run, whose values are recorded as well.
        how, corruption: the way of patching, as for `circuitspec.patch`.

    Returns:
        By run (`"clean"`, each corruption, and the patched runs, which are called as `experiment` in the frames of
        `patch`) and by name an array: `[prompt, token, channel]`; with one position `[prompt, channel]`, with several
        `[prompt, position, channel]` in the order in which they are named. A pattern is
        `[prompt, query token, key token]`, with one position (of the query) `[prompt, key token]`. Tokens count from
        the first of the prompt, with what the tokenizer puts in front; behind the end of a shorter prompt stands NaN.
        A position of several tokens gives all of them: `[prompt, its token, channel]`, NaN behind the last of a shorter
        one.
        float64 where the model is, otherwise float32.

    Raises:
        CircuitspecError: as `circuitspec.patch`, and CS431 where attention weights do not add up to 1.
    """
    texts = listed(names, "names")
    others = listed(patched, "patched")

    def runs(loaded: LoadedModel, task: TokenizedTask) -> dict[str, Experiment]:
        found = {name: Experiment(name) for name in (CLEAN, *task.prompts.corruptions)}
        for one in sites_named(others, loaded.shape, together=True):
            ways = manners(how, corruption, task)
            found |= {label_of(one.label, way): way.patched(one.sites) for way in ways}
        return found

    def experiments(loaded: LoadedModel, task: TokenizedTask) -> list[Experiment]:
        if task.sequences is not None:
            raise CircuitspecError(_WHOLE_ANSWERS)
        check_roles(positions_wanted(_wanted(texts, loaded)), task)
        return list(runs(loaded, task).values())

    with laboratory(
        model,
        tokenizer,
        prompts,
        positions=positions,
        batch_size=batch_size,
        keep_hooks=keep_hooks,
        merge_adapters=merge_adapters,
        check=experiments,
    ) as lab:
        lab.progress.stage("recording")
        wanted = _wanted(texts, lab.loaded)
        found = {}
        for label, run in runs(lab.loaded, lab.task).items():
            arrays = record_values(lab.runner, lab.runner.source_values, run, wanted)
            single = {
                one.name
                for one in wanted
                if one.roles is not None and len(one.roles) == 1 and not {*one.roles} & {*lab.task.spans}
            }
            found[label] = {name: array[:, 0] if name in single else array for name, array in arrays.items()}
        return found


def _wanted(texts: Sequence[str], loaded: LoadedModel) -> list[Wanted]:
    """What the names stand for in this model. Raises CircuitspecError as `sites_named`, with every mistake."""
    source = as_source("record", texts)
    problems: list[Diagnostic] = []
    found: dict[str, Wanted] = {}
    for number, text in enumerate(texts):
        place = ("record", number)
        try:
            name = parse_name(text.replace(PATTERN, "", 1))
        except NameSyntaxError as error:
            problems.append(Diagnostic("CS117", error.message, source.span(place), hint=error.hint))
            continue
        for one in _of_name(name, PATTERN in text, loaded, source, place, problems):
            found.setdefault(one.name, one)
    if problems:
        raise CircuitspecError(*problems)
    return list(found.values())


def _of_name(
    name: Name,
    pattern: bool,
    loaded: LoadedModel,
    source: SourceText,
    place: tuple[str | int, ...],
    problems: list[Diagnostic],
) -> list[Wanted]:
    shape, roles = loaded.shape, name.positions or None
    if isinstance(name.target, Logits) and not pattern and roles is None:
        return [Wanted("logits")]
    if not expand(Name(name.target), shape, source, place, problems):
        return []
    if len(name.ports) > 1 or (pattern and name.ports):
        said = "a pattern has no inputs" if pattern else "one input is recorded at a time"
        hint = "write a5.h1<q>, or a5.h1.pattern for attention weights"
        problems.append(Diagnostic("CS202", said, source.span(place), hint=hint))
        return []
    found = []
    named = existing(Name(name.target), shape, source, place, [])
    for component in (node for one in named for node in nodes_of(one, shape)):
        if (pattern or name.ports) and not isinstance(component, Head):
            hint = "attention weights are those of heads, as in a5.h1.pattern"
            said = f"{format_name(component)} has no {'pattern' if pattern else 'such input'} of its own"
            problems.append(Diagnostic("CS202", said, source.span(place), hint=hint))
            return []
        label = format_name(Name(component, name.ports, name.positions))
        if pattern and isinstance(component, Head):
            bare, at, where = label.partition("@")
            found.append(Wanted(f"{bare}{PATTERN}{at}{where}", pattern=component, roles=roles))
        elif name.ports and isinstance(component, Head):
            port = name.ports[0]
            number = component.head if port == "q" else component.head // (shape.n_heads // shape.n_kv_heads)
            slots = port_slots(port, component.layer, number, loaded.architecture, shape)
            found.append(Wanted(label, slots, roles=roles))
        elif is_node(component):
            found.append(Wanted(label, slots_of(component, loaded.architecture, shape), roles=roles))
    return found
