"""Compared circuits in, what they do on each other's prompts out: one model, the prompts of every file in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.means_error import ENOUGH, largest_share, means_error
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics.scores import mean_of
from circuitspec.comparison.circuit_runs import CircuitRuns, circuit_runs
from circuitspec.comparison.compared_circuits import ComparedCircuit, same_model
from circuitspec.comparison.measured_circuits import (
    MeasuredCircuits,
    OnPrompts,
    OutputsApart,
    figures,
    outputs_apart,
    pairs_of,
    plan_of,
    unlike_circuits,
)
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import read_declared
from circuitspec.engine.cache.stored_estimates import recalled_estimates
from circuitspec.engine.cache.stored_runner import StorePlace
from circuitspec.engine.levels.refusals import refused_means
from circuitspec.engine.metrics.output_divergences import output_divergences
from circuitspec.engine.records import single_runs
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, texts_of
from circuitspec.experiments.planner import CLEAN
from circuitspec.experiments.requirements import refused_runs
from circuitspec.hypothesis_file.grammar.internal_metric_names import is_internal
from circuitspec.hypothesis_file.load_file import Document, with_source
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec
from circuitspec.models.load import LoadedModel
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.pipelines.preparation import beside
from circuitspec.pipelines.session import Session, begin, check_routing_free, from_file, from_memory, opened, tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.output_metrics import check_metrics
from circuitspec.prompts.prompt_set import TokenizedTask, prompts_digest
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape


@dataclass(frozen=True)
class CompareOptions:
    """How to run. `metric` is the one whose recovered performance is compared; None: each file's own."""

    metric: str | None = None
    rows: int | None = None
    device: str = "cpu"
    store: StorePlace = None


@dataclass(frozen=True)
class _Column:
    """The prompts of a file, all that is run on them, and the metric that is compared."""

    owners: tuple[str, ...]
    document: Document
    hypothesis: Hypothesis
    task: TokenizedTask
    runs: CircuitRuns
    metric: str


def compare(
    circuits: Sequence[ComparedCircuit],
    options: CompareOptions,
    progress: Progress,
    *,
    loaded: LoadedModel | None = None,
) -> MeasuredCircuits:
    """Run every circuit, and what every two of them share and do not, on the prompts of each file.

    The model is the one that all files name, or the one that is `loaded` already. Raises CS582 where they name several,
    and as `verify` does for a file's prompts and circuit.
    """
    started = time.monotonic()
    if loaded is None and not same_model(circuits):
        raise CircuitspecError(_several_models(circuits))
    for one in circuits:
        check_routing_free(one.document)
    first = circuits[0].document
    loading = from_file(first, first.hypothesis, options.device, progress) if loaded is None else from_memory(loaded)

    def prepared(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> tuple[_Column, ...]:
        return _columns(circuits, options, shape, tokenizer)

    loaded, columns = opened(loading, prepared)
    loaded = _with_dictionaries(loaded, circuits)
    done = [_run(column, loaded, options, progress) for column in columns]
    return MeasuredCircuits(
        tuple(one.found for one in done),
        tuple(unlike for one in done for unlike in unlike_circuits(one.found)),
        sum(one.experiments for one in done),
        sum(one.stored for one in done),
        round(sum(one.forwards for one in done)),
        time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Done:
    found: OnPrompts
    experiments: int
    stored: int
    forwards: float


def _run(column: _Column, loaded: LoadedModel, options: CompareOptions, progress: Progress) -> _Done:
    """One file's prompts."""
    hypothesis, document, runs, task, metric = (
        column.hypothesis,
        column.document,
        column.runs,
        column.task,
        column.metric,
    )
    text = document.source
    others = ReferencePrompts(hypothesis.task, hypothesis.ablation, document.base_dir, text, loaded.tokenizer)
    averages = any(run.averages for run in (*runs.runs, runs.anchor))
    if averages:
        task = others.of(task)
    runs = runs.without({**refused_means(runs.runs, task), **refused_runs(runs.runs, task)})
    plan = plan_of(runs, metric, sets=True)
    edges = hypothesis.ablation.level == "edge"
    session = Session(loaded, progress, rows=options.rows, edges=edges, parted=True, store=options.store)
    with session.tested(task, edges=any(run.readings for run in runs.runs)) as (runner, _), ExitStack() as stack:
        progress.stage(f"running the circuits on the prompts of {' and '.join(column.owners)}")
        # how many prompts means go over is decided by the circuits, as `verify` decides it
        begun = begin(plan_of(runs, metric, sets=False), runner, session, others if averages else None, stack)
        runner, records = begun.runner, begun.stored.run(plan.experiments)
        error = means_error(plan, runner.task, begun.stored)
        if error is not None and error.reference and largest_share(judge(plan, records, error)) > ENOUGH:
            error = means_error(plan, runner.task, begun.stored, halves=True)
        progress.stage("comparing the circuits' outputs prompt by prompt")
        apart = _apart(runs, runner, options)
    judged = judge(plan, records, error)
    circuits, sets = figures(runs, plan, judged, records, metric)
    told = {*single_runs((*records.values, *(() if error is None else error.records.values)))}
    on = OnPrompts(
        column.owners,
        task.n,
        metric,
        _method(column),
        mean_of(records[CLEAN][metric]),
        mean_of(records[runs.anchor][metric]),
        circuits,
        sets,
        apart,
        runs.left_out,
    )
    return _Done(on, len(told), begun.stored.recalled, begun.forwards + runner.forwards)


def _apart(runs: CircuitRuns, runner: Runner, options: CompareOptions) -> tuple[OutputsApart, ...]:
    """How far the outputs of every two circuits lie apart; what was compared before is looked up."""
    pairs = pairs_of(runs)
    if not pairs:
        return ()
    of = [(runs.circuits[a], runs.circuits[b]) for a, b in pairs]
    question = ["divergences", *(run.digest for pair in of for run in pair)]
    with recalled_estimates(runner, options.store) as recalled:
        values = recalled.get(
            question,
            lambda _: {
                f"{name} {number}": list(getattr(one, name))
                for number, one in enumerate(output_divergences(runner, of))
                for name in _KINDS
            },
        )
    texts = [prompt.described() for prompt in runner.task.prompts.prompts]
    return tuple(
        outputs_apart(a, b, {name: values[f"{name} {number}"] for name in _KINDS}, texts)
        for number, (a, b) in enumerate(pairs)
    )


_KINDS = ("forth", "back", "same_top")


def _columns(
    circuits: Sequence[ComparedCircuit],
    options: CompareOptions,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[_Column, ...]:
    """The prompts of every file, once where files have the same and run circuits in the same way."""
    found: dict[tuple[object, ...], _Column] = {}
    for one in circuits:
        document = one.document
        prompts = build_prompts(document.hypothesis.task, document.base_dir, document.source)
        hypothesis = with_source(document.hypothesis, prompts.corruptions, document.source)
        metric = options.metric or _metric(hypothesis)
        check_metrics([metric], prompts)
        runs = circuit_runs(one, circuits, hypothesis.ablation)
        task = tokens_of(document, hypothesis, prompts, shape, tokenizer, unequal=True)
        ablation = hypothesis.ablation.model_dump_json()
        key = (prompts_digest(task.prompts), ablation, runs.anchor.digest, metric, tuple(sorted(task.roles.items())))
        if key in found:
            known = found[key]
            found[key] = replace(known, owners=(*known.owners, one.letter))
        else:
            found[key] = _Column((one.letter,), document, hypothesis, task, _possible(runs, task), metric)
    return tuple(found.values())


def _metric(hypothesis: Hypothesis) -> str:
    """The file's own: that of its first claim of sufficiency, or of its first claim about the output."""
    claims = [claim for claim in hypothesis.claims if not is_internal(claim.metric)]
    claims.sort(key=lambda claim: claim.kind != "sufficient")
    return claims[0].metric if claims else "logit_diff"


def _possible(runs: CircuitRuns, task: TokenizedTask) -> CircuitRuns:
    """Without the runs at positions, or from corruptions, that these prompts do not have."""
    refused: dict[Experiment, str] = {}
    for run in runs.runs:
        lacking = sorted(run.roles - task.roles.keys())
        variants = [texts_of(one) for one in run.variants if texts_of(one) not in task.ids]
        if lacking:
            refused[run] = f"the prompts of {runs.owner} have no position {', '.join(lacking)} in every prompt"
        elif variants:
            refused[run] = f"the prompts of {runs.owner} have no corruption {', '.join(variants)}"
    return runs.without(refused)


def _method(column: _Column) -> str:
    ablation = column.hypothesis.ablation
    source = f" from {ablation.source}" if ablation.source else ""
    return f"{ablation.level} level, {ablation.value}{source}, {ablation.positions} positions"


def _with_dictionaries(loaded: LoadedModel, circuits: Sequence[ComparedCircuit]) -> LoadedModel:
    """The model with the dictionaries that files declare beside it. Raises CS583 where these differ about them."""
    declared = [one.document for one in circuits if one.document.hypothesis.dictionaries]
    if not declared:
        return loaded
    first = declared[0]
    written = {
        tuple(
            (name, _place_of(spec, one.base_dir), spec.model_dump_json(exclude={"source"}))
            for name, spec in sorted(one.hypothesis.dictionaries.items())
        )
        for one in declared
    }
    if len(written) > 1:
        raise CircuitspecError(
            Diagnostic(
                "CS583",
                "the files declare different dictionaries, so that their features are not those of one model",
                first.source.span(("dictionaries",)),
                hint="declare the same dictionaries in all of them, under the same names",
            )
        )
    shape, found = read_declared(
        first.hypothesis.dictionaries, first.base_dir, loaded.shape, first.source, fetch_folder
    )
    return beside(loaded, shape, found)


def _place_of(spec: DictionarySpec, base_dir: Path) -> str:
    """Where a dictionary's files lie: a path on this machine, or a folder on the hub."""
    return str((base_dir / spec.source).resolve()) if isinstance(spec.source, str) else spec.named


def _several_models(circuits: Sequence[ComparedCircuit]) -> Diagnostic:
    named = dict.fromkeys(
        f"{one.document.hypothesis.model.id} ({one.document.hypothesis.model.dtype})" for one in circuits
    )
    other = next(one for one in circuits if not same_model((circuits[0], one)))
    return Diagnostic(
        "CS582",
        f"the circuits are of several models: {', '.join(named)}",
        other.document.source.span(("model", "id")),
        hint="leave `--run` out, or name one model in all files",
    )
