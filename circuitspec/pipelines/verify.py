"""A hypothesis file in, a verification out: the whole pipeline as one function, one stage a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from circuitspec.analysis import metric_choice
from circuitspec.analysis.additional_results import FoundBeside, evaluate_beside
from circuitspec.analysis.circuit_effects.alternative_circuits import AlternativeCircuit
from circuitspec.analysis.circuit_effects.circuit_parts import COMPONENTS, CircuitParts
from circuitspec.analysis.circuit_effects.component_effects import CircuitEffects
from circuitspec.analysis.circuit_effects.examination import examine, foreseen
from circuitspec.analysis.circuit_effects.model_negatives import ModelNegatives, model_negatives, places_outside
from circuitspec.analysis.circuit_effects.negative_components import (
    NegativeFinding,
    NegativeSearch,
    Search,
    candidates,
    negative_components,
)
from circuitspec.analysis.circuit_effects.path_effects import path_effects
from circuitspec.analysis.claims.abstraction.subspace_trials import has_subspaces, with_parts
from circuitspec.analysis.claims.kinds.beats_random import with_matched
from circuitspec.analysis.claims.kinds.stable import PlannedStable, Reselected, reselected
from circuitspec.analysis.claims.registry import claims_sufficiency, search_claims
from circuitspec.analysis.claims.sequences.sequence_facts import SequenceFacts
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.dictionary_figures import dictionaries_used
from circuitspec.analysis.methodology import methodology, model_facts, reference_facts
from circuitspec.analysis.prompt_rows import breakdowns, row_facts
from circuitspec.analysis.task_behaviour import (
    AnswerStanding,
    Instead,
    form_advice,
    form_said,
    other_form,
)
from circuitspec.analysis.variables import circuit_variables, kept_slots, slots_by_name
from circuitspec.analysis.verification_result import Cost, Verification
from circuitspec.analysis.warnings.all_warnings import find_warnings
from circuitspec.analysis.warnings.evidence import Evidence
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.attribution.direct_logit_attribution import direct_effects
from circuitspec.engine.attribution.feature_activity import feature_activity, moved_features
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.attribution.restoration_screen import (
    Screen,
    screen_both,
    screen_edge_restorations,
    screen_restorations,
)
from circuitspec.engine.cache.stored_estimates import recalled_estimates
from circuitspec.engine.cache.stored_runner import StorePlace
from circuitspec.engine.directions import read_directions
from circuitspec.engine.levels.refusals import no_edges, refused_means
from circuitspec.engine.metrics.answer_shares import answer_shares
from circuitspec.engine.metrics.first_prompts import shown_first
from circuitspec.engine.metrics.site_values import site_values
from circuitspec.engine.records import PromptValues, Records, RunsExperiments, single_runs
from circuitspec.engine.runner import Runner
from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.circuits.additional_runs import plan_beside
from circuitspec.experiments.direction_files import direction_places
from circuitspec.experiments.experiment import means_of, texts_of
from circuitspec.experiments.follow_ups.declared_paths import labels_of, path_checks
from circuitspec.experiments.follow_ups.reach import acting, checked_reach
from circuitspec.experiments.follow_ups.restorations import FEW, Restorations, restorations
from circuitspec.experiments.levels.patched_tokens import undefined
from circuitspec.experiments.levels.whole_circuit import anchor_of, whole_circuit
from circuitspec.experiments.planner import PathCheck, Plan
from circuitspec.experiments.requirements import fitted, refused_runs
from circuitspec.exploration.asked.held_out_prompts import split_prompts
from circuitspec.exploration.search.alternative_search import alternative_circuits
from circuitspec.exploration.stability.declared_members import chosen_again
from circuitspec.exploration.stability.subsamples import FEWEST
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import unfed
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import OtherFeatures
from circuitspec.hypothesis_file.grammar.internal_metric_names import Activation, is_internal, parse_internal
from circuitspec.hypothesis_file.load_file import Document, digest
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.models.load import LoadedModel
from circuitspec.models.tokenizers.tokenizer_files import other_than_filed
from circuitspec.pipelines.abstraction.scrub_follow_up import FollowedUp, scrubbed_apart
from circuitspec.pipelines.preparation import Prepared, prepare, prompts_of, with_dictionaries
from circuitspec.pipelines.sequential import (
    Sequential,
    check_sequential,
    draw_until_decided,
    prompts_to_draw,
    with_reference,
)
from circuitspec.pipelines.session import (
    ExecutorOf,
    Loading,
    Session,
    begin,
    behaviour,
    from_file,
    from_memory,
    opened,
)
from circuitspec.prompts.own_metrics import OwnMetric
from circuitspec.prompts.prompt_set import CLEAN, PromptSet, TokenizedTask, prompts_digest
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class VerifyOptions:
    """How to run, as far as the result does not depend on it (but for the search for negatives)."""

    negatives: Search = "screen"
    rows: int | None = None  # the batch size; None: by memory
    device: str = "cpu"
    store: StorePlace = None  # where experiments are looked up and kept; None: nowhere
    sweep: bool = False  # run the circuit under every combination of the six choices of method
    tests: bool = False  # test it statistically, against the model and against random circuits
    executor: ExecutorOf | None = None  # what runs the model; None: this process
    alternatives: float | None = None  # look for other circuits, with at most this share of the declared components
    sequential: Sequential | None = None  # draw prompts until every claim is decided; None: as many as the file asks
    own: Mapping[str, OwnMetric] = field(default_factory=dict)  # metrics of the caller's, beside those of the table


@dataclass(frozen=True)
class Outcome:
    """The verification, and the task it was run on."""

    verification: Verification
    task: TokenizedTask


def verify(
    document: Document,
    options: VerifyOptions,
    progress: Progress,
    *,
    loaded: LoadedModel | None = None,
    loading: Loading | None = None,
) -> Outcome:
    """Run the hypothesis on its model, on one that is `loaded` already, or on the one that `loading` gives.

    Raises CircuitspecError, with every finding of the stage that failed, where the file, the prompts or
    the model do not allow a run.
    """
    base_dir = document.base_dir
    started = time.monotonic()
    told_digest, to_draw = digest(document.hypothesis), None
    if options.sequential is not None:
        to_draw = prompts_to_draw(document, options.sequential)
        document = to_draw.document
    prompts, hypothesis = prompts_of(document)
    if to_draw is not None:
        prompts = to_draw.prompts
    given = loaded is not None  # so that what does not fit it is no fault of the file's `model: id`

    def prepared_for(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> Prepared:
        with nullcontext() if given else document.blamed_on("model", "id"):
            return prepare(hypothesis, document, prompts, shape, tokenizer)

    if loaded is not None:
        loading = from_memory(loaded)
    loading = loading or from_file(document, hypothesis, options.device, progress)
    loaded, prepared = opened(loading, prepared_for)
    loaded = with_dictionaries(loaded, prepared)
    loaded = _routed(loaded, hypothesis, prepared.plan, document.source)
    internals, graph, plan, task = prepared.internals, prepared.graph, prepared.plan, prepared.task
    prompts = task.prompts  # without those that do not fit the tokenizer, where the file leaves them out
    places_of_files = direction_places(hypothesis, document.source)
    directions = read_directions(internals, base_dir, loaded.shape.d_model, places_of_files)
    others = ReferencePrompts(hypothesis.task, hypothesis.ablation, base_dir, document.source, loaded.tokenizer)
    averages = options.sweep or any(experiment.averages for experiment in plan.experiments)
    if averages and to_draw is None:
        task = others.of(task)
    elif averages and to_draw is not None:
        task = with_reference(task, others, to_draw.asked)
    if to_draw is not None:
        check_sequential(plan, task)
    plan = fitted(plan, refused_means(plan.experiments, task), document.source)
    beside = plan_beside(
        hypothesis.ablation,
        graph,
        document.source,
        prompts.corruptions,
        sweep=options.sweep,
        tests=options.tests,
        refused=lambda experiments: {**refused_means(experiments, task), **refused_runs(experiments, task)},
        no_edges=_without_edges(loaded) if options.sweep else "",
    )
    _check_neurons(plan, loaded, document.source)
    plan = checked_reach(plan, acting(graph.paths, hypothesis.ablation), loaded.shape, task, document.source)
    with document.blamed_on("ablation", "value"):
        _check_means(plan, task)
    checks = _node_level_paths(hypothesis, graph, document.source, options.negatives, loaded)
    if refused_runs(labels_of(checks), task) or loaded.frozen_routing:
        checks = ()
    looked_at: Search = options.negatives
    if undefined((plan.circuit,), task) is not None:  # what is outside the circuit has no values to be ablated with
        looked_at = "off"
    planned = (*plan.experiments, *beside.labels, *labels_of(checks))
    session = Session(
        loaded,
        progress,
        rows=options.rows,
        edges=any(e.level == "edge" for e in planned),
        internals=internals,
        directions=directions,
        parted=True,
        store=options.store,
        executor=options.executor,
        own=options.own,
    )
    with session.tested(task, edges=any(e.readings for e in planned)) as (runner, tested):
        if any(planned.still_drawn for planned in plan.claims):
            progress.stage("seeing how active features are")
            plan = with_matched(plan, partial(feature_activity, runner))
        progress.stage("running")
        said: list[tuple[AnswerStanding | None, Instead | None]] = []

        def check(found: Records) -> None:
            if not said:  # the clean run hangs on no means
                said.append(behaviour(runner, found[plan.clean]))
                _check_accuracy(hypothesis, found[plan.clean], *said[0])

        sequence: SequenceFacts | None = None
        pairs = prepared.pairs
        with ExitStack() as stack:
            if to_draw is None:
                begun = begin(plan, runner, session, others if averages else None, stack, check)
            else:
                begun, sequence = draw_until_decided(plan, runner, session, to_draw.asked, stack)
                plan, pairs = plan.first(sequence.used), None if pairs is None else pairs.first(sequence.used)
                looked_at = "off" if sequence.stopped == "interrupted" else looked_at
            runner, stored, records, error = begun.runner, begun.stored, begun.records, begun.error
            task, prompts = runner.task, runner.task.prompts
            if to_draw is not None:
                check(records)
            stands, instead = said[0]
            search: Search | Literal["not along paths"] = looked_at
            if plan.circuit.level == "path" and search != "off":
                search = "not along paths"
            everywhere = hypothesis.ablation.positions == "all"
            moved = moved_features(runner, plan.circuit) if search != "off" and _many_features(plan) else None
            outside = restorations(plan, graph, everywhere=everywhere, moved=moved) if search != "off" else None
            parts = CircuitParts.of(graph, hypothesis.ablation, every=options.negatives == "exact")
            finding, screen, plan, records = _negatives(plan, records, runner, stored, search, outside, parts, progress)
            in_model: ModelNegatives | None = None
            if finding is not None and outside is not None:
                in_model, plan, records = _in_model(plan, records, finding.metric, runner, stored, search, outside)
            effects: CircuitEffects | None = None
            if looked_at != "off":
                progress.stage("ablating the circuit part by part")
                direct = partial(direct_effects, runner)
                effects, plan, records = examine(plan, records, parts, stored, direct, finding, outside, screen)
            if checks:
                progress.stage("patching the declared paths one by one")
                named = labels_of(checks)
                plan, records = replace(plan.naming(named), checks=checks), records.merged(stored.run(named))
            shares = answer_shares(runner)
            shown = shown_first(runner, graph, hypothesis)
            dictionaries = dictionaries_used(plan, records, graph, runner, stored)
            if any(planned.searches for planned in plan.claims):
                progress.stage("searching for subsets of the circuit that tell most")
                plan, records = search_claims(plan, records, stored)
            plan, searched = _chosen_again(plan, graph, hypothesis, document, session, task, options, progress)
            if pairs is not None and has_subspaces(plan):
                progress.stage("patching the parts of subspaces")
                plan, named = with_parts(plan, pairs, partial(site_values, runner, runner.source_values))
                records = records.merged(stored.run(named))
            found_beside = FoundBeside()
            if options.sweep or options.tests:
                progress.stage("running the circuit under other methods, and random circuits")
                plan, records = plan.naming(beside.labels), records.merged(stored.run(beside.labels))
                plan = plan if beside.methods is None else replace(plan, beside=beside.methods.anchored)
                found_beside = evaluate_beside(beside, records, metric_choice.for_other_methods(plan, records))
            alternatives: tuple[AlternativeCircuit, ...] | None = None
            if options.alternatives is not None:
                progress.stage("looking for other circuits that do as well")
                recalled = stack.enter_context(recalled_estimates(runner, options.store))
                decided, ran = judge(plan, records, error), (runner, stored, recalled)
                share = options.alternatives
                alternatives = alternative_circuits(plan, decided, graph, hypothesis.ablation, *ran, share)
            apart = FollowedUp(plan, records, task)
            if looked_at != "off":
                every = looked_at == "exact"
                apart = scrubbed_apart(plan, records, error, hypothesis, document, session, task, every=every)
                plan, records, task = apart.plan, apart.records, apart.task
    claims = judge(plan, records, error)
    standing_in = frozenset() if effects is None else effects.standing_in
    paths = path_effects(plan, records, metric_choice.for_paths(plan, records), standing_in)
    at_edge_level = hypothesis.ablation.level == "edge" and bool(claims_sufficiency(plan))
    unfed_members = unfed(plan.edges, graph) if at_edge_level and plan.edges is not None else ()
    variables = circuit_variables(hypothesis.task, plan.circuit.roles)
    ablated_from = ablation_source(hypothesis.ablation)
    by_name = slots_by_name(hypothesis.task)
    kept = (
        () if not ablated_from.is_recorded else kept_slots(prompts, ablated_from.prompts or CLEAN, variables, by_name)
    )
    in_memory = loaded.provenance.path is None
    evidence = Evidence(
        plan,
        records,
        claims,
        prompts=prompts,
        task=task,
        variables=variables,
        by_name=by_name,
        kept=kept,
        negatives=finding,
        in_model=in_model,
        paths=paths,
        unfed=unfed_members,
        effects=effects,
        means_error=error,
        asked=others.asked,
        shares=shares,
        standing=stands,
        instead=instead,
        foreign=loaded.foreign,
        own_metrics=tuple(options.own),
        pairs=pairs,
        learned_on=prepared.learned_on,
        dictionaries=dictionaries,
        alternatives=alternatives or (),
        sequence=sequence,
        other_tokens=other_than_filed(loaded.tokenizer, _texts(prompts)) if in_memory else None,
    )
    told = {*single_runs((*records.values, *(() if error is None else error.records.values)))}
    verification = Verification(
        name=hypothesis.name,
        digest=told_digest,
        prompts_digest=prompts_digest(prompts),
        model=model_facts(loaded),
        methodology=methodology(hypothesis, graph, plan, task),
        plan=plan,
        records=records,
        claims=claims,
        warnings=find_warnings(evidence),
        cost=Cost(
            len(told),
            round(begun.forwards + runner.forwards + apart.forwards + searched),
            time.monotonic() - started,
            len((stored.looked_up - begun.measured | apart.looked_up) & told),
        ),
        self_test=tested,
        negatives=NegativeSearch(search, finding) if claims_sufficiency(plan) else None,
        paths=paths,
        effects=effects,
        sweep=found_beside.sweep,
        tests=found_beside.tests,
        scrubs=apart.costs,
        reference=reference_facts(task),
        rows=row_facts(prompts),
        breakdowns=breakdowns(plan, claims, records, prompts),
        alternatives=alternatives,
        dictionaries=dictionaries,
        graph=graph,
        around=task.around,
        shown=shown,
        sequence=sequence,
    )
    return Outcome(verification, task)


def _chosen_again(
    plan: Plan,
    graph: CircuitGraph,
    hypothesis: Hypothesis,
    document: Document,
    session: Session,
    task: TokenizedTask,
    options: VerifyOptions,
    progress: Progress,
) -> tuple[Plan, float]:
    """The plan with what searches on other prompts choose for claims of stability, and the forwards that this took."""
    waiting = [one for one in plan.claims if isinstance(one, PlannedStable)]
    if not waiting:
        return plan, 0.0
    progress.stage("searching for the circuit again, on other prompts")
    base_dir, text, tokenizer = document.base_dir, document.source, session.loaded.tokenizer
    split = split_prompts(task, hypothesis.task, base_dir, text, tokenizer, max(task.n, 2 * FEWEST))
    if split.held_out is None:
        none = Reselected(split.described, 0, why=f"there are no other prompts to search on: {split.described}")
        found = {one.index: reselected(one, none) for one in waiting}
        return replace(plan, claims=tuple(found.get(one.index, one) for one in plan.claims)), 0.0
    other = split.held_out
    if task.reference is not None:
        other = ReferencePrompts(hypothesis.task, hypothesis.ablation, base_dir, text, tokenizer).of(other)
    runner = session.runner(other)
    with session.kept(runner) as stored, recalled_estimates(runner, options.store) as recalled:
        ran = (graph, hypothesis.ablation, runner, stored, recalled, split.described)
        found = {one.index: reselected(one, chosen_again(one, *ran)) for one in waiting}
    return replace(plan, claims=tuple(found.get(one.index, one) for one in plan.claims)), runner.forwards


def _texts(prompts: PromptSet) -> tuple[str, ...]:
    """Every text that the tokenizer is given, once."""
    return tuple(dict.fromkeys(text for one in prompts.prompts if not one.ids for text in one.texts.values()))


def _node_level_paths(
    hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText, search: Search, loaded: LoadedModel
) -> tuple[PathCheck, ...]:
    """The declared paths to be patched one by one at node level: of small circuits, and of all where all is asked for.

    The other levels patch theirs anyway. None where the model's edges cannot be told apart.
    """
    ablation = hypothesis.ablation
    few = len(graph.circuit) <= COMPONENTS
    if ablation.level != "node" or search == "off" or not (few or search == "exact"):
        return ()
    if not graph.paths or no_edges(loaded):
        return ()
    anchor = anchor_of(ablation_source(ablation), whole_circuit(ablation, graph, text))
    return path_checks(ablation, graph, text, anchor)


def _check_means(plan: Plan, task: TokenizedTask) -> None:
    """Raises CS521 and CS522 for means that cannot be taken over these prompts."""
    for source in means_of(plan.experiments):
        grouping(task, source.kind, texts_of(source.prompts or CLEAN))


def _negatives(
    plan: Plan,
    records: Records,
    runner: Runner,
    stored: RunsExperiments,
    search: Search | Literal["not along paths"],
    outside: Restorations | None,
    parts: CircuitParts,
    progress: Progress,
) -> tuple[NegativeFinding | None, Screen | None, Plan, Records]:
    """Look for negative components outside the circuit; only a claim of sufficiency can be misled by them.

    The same pass gives an estimate for every component of the circuit, if these are not taken one by one.
    """
    metric = metric_choice.for_negatives(plan, records)
    source = plan.circuit.source
    if outside is None or not outside.components or metric is None or source is None:
        return None, None, plan, records
    progress.stage("looking for negative components outside the circuit")
    screen: Screen | None = None
    within: Screen | None = None
    if search == "screen" and plan.circuit.level == "node":
        if parts.thorough:
            screen = screen_restorations(runner, plan.circuit, metric, among=outside.components)
        else:
            wider = parts.with_all(plan.circuit)
            screen, within = screen_both(runner, plan.circuit, wider, metric, among=outside.components)
    elif search == "screen" and len(outside.components) > FEW:
        screen = screen_edge_restorations(runner, source, metric, outside.edges)
    chosen = candidates(outside.components, metric, screen)
    besides = foreseen(plan, records, parts, within)
    finding, plan, records = negative_components(plan, records, metric, chosen, screen, stored, outside, besides)
    return finding, within, plan, records


def _many_features(plan: Plan) -> bool:
    """Whether the circuit's run ablates features together that no group names."""
    circuit = plan.circuit
    return circuit.level == "node" and any(isinstance(site.component, OtherFeatures) for site in circuit.sites)


def _in_model(
    plan: Plan,
    records: Records,
    metric: str,
    runner: Runner,
    stored: RunsExperiments,
    search: Search | Literal["not along paths"],
    outside: Restorations,
) -> tuple[ModelNegatives | None, Plan, Records]:
    """Look for components outside the circuit that are negative in the whole model."""
    source, places = plan.circuit.source, places_outside(outside)
    assert source is not None

    def estimates() -> dict[NodeComponent, float]:
        wheres = tuple(dict.fromkeys(places.values()))
        found = attribute(runner, CLEAN, source, metric, tuple(places), wheres).effects
        return {component: found[component, where] for component, where in places.items()}

    asked = estimates if search == "screen" else None
    return model_negatives(plan, records, metric, source, places, asked, stored)


def _without_edges(loaded: LoadedModel) -> str:
    """Why no other level is run beside, if there is a reason."""
    return "routing is frozen at node level alone" if loaded.frozen_routing else no_edges(loaded)


def _routed(loaded: LoadedModel, hypothesis: Hypothesis, plan: Plan, text: SourceText) -> LoadedModel:
    """The model with its routers held as the ablation says; CS398 where that has no meaning."""
    if hypothesis.ablation.routing == "free":
        return loaded
    place = text.span(("ablation", "routing"))
    if not loaded.shape.n_experts:
        hint = "remove routing"
        raise CircuitspecError(Diagnostic("CS398", "the model has no experts, among which to choose", place, hint=hint))
    if any(experiment.readings for experiment in plan.experiments):
        said = "routing is frozen for claims at node level alone, and there are some about edges or paths"
        raise CircuitspecError(Diagnostic("CS398", said, place, hint="write those claims in a file of their own"))
    return replace(loaded, frozen_routing=True)


def _check_neurons(plan: Plan, loaded: LoadedModel, text: SourceText) -> None:
    """CS372 for claims at edge level about neurons of MLPs that read the model's own stream."""
    problems = [
        Diagnostic(
            "CS372",
            f"{planned.claim.metric} cannot be measured at edge level: in this family no norm stands before the MLP",
            text.span(("claims", planned.index, planned.claim.kind, "metric")),
            hint="use a score of the output, or write `level: node`",
        )
        for planned in plan.claims
        if planned.patched.level == "edge"
        and loaded.architecture.mlp_norm is None
        and is_internal(planned.claim.metric)
        and isinstance(parse_internal(planned.claim.metric), Activation)
    ]
    if problems:
        raise CircuitspecError(*problems)


def _check_accuracy(
    hypothesis: Hypothesis, clean: PromptValues, stands: AnswerStanding | None, instead: Instead | None
) -> None:
    wanted = hypothesis.task.checks.accuracy
    if wanted is None or "accuracy" not in clean:  # refused before, where the task has no answers
        return
    accuracy = float(clean["accuracy"].mean())
    if accuracy >= wanted:
        return
    form = None if instead is None else other_form(instead)
    hint = "take prompts that the model does, another model, or a lower `accuracy`"
    if form is not None:
        hint = f"{form_advice(form)}: {form_said(form, len(clean['accuracy']))}"
    raise CircuitspecError(
        Diagnostic(
            "CS504",
            f"the model prefers the right answer on {accuracy:.0%} of the clean prompts; "
            f"`checks` asks for {wanted:.0%}",
            hint=hint,
        )
    )
