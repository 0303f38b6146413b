"""What `verify` would run, and what it would cost, as text. Imports no torch."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from circuitspec.analysis.claims.kinds.stable import PlannedStable
from circuitspec.analysis.claims.registry import claims_sufficiency, make_plan
from circuitspec.analysis.statistics.wording import plural
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import sites_declared
from circuitspec.engine.execution.batch_size import activation_bytes, rows_per_batch, weight_bytes
from circuitspec.experiments.ablation_source import corrupt_prompts
from circuitspec.experiments.averaging import CELLS
from circuitspec.experiments.circuits.additional_runs import plan_beside
from circuitspec.experiments.deciding import deciding
from circuitspec.experiments.experiment import Experiment, passes, runs_of
from circuitspec.experiments.follow_ups.declared_paths import labels_of, path_checks
from circuitspec.experiments.internal_metric_plans import internal_metrics, measuring
from circuitspec.experiments.notes import plan_notes
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.requirements import check_claimed, refused_runs
from circuitspec.experiments.subspaces.subspace_files import read_subspaces
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edge_circuit import EdgeCircuit
from circuitspec.graph.edges import Receiver, format_receiver, receivers, senders_before
from circuitspec.graph.paths import Impossible
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.grammar.components import (
    Component,
    DictionaryError,
    OtherFeatures,
    sort_key,
    whole_of,
)
from circuitspec.hypothesis_file.grammar.internal_metric_names import Attention, Internal
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Document, load_hypothesis, no_model, with_source
from circuitspec.hypothesis_file.schema.blocks import Hypothesis, ReferenceFile
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.shapes import read_shape
from circuitspec.pipelines.abstraction.pair_preparation import pairs_of
from circuitspec.pipelines.check import BY_NAME, NOT_TOKENISED, check_directions, reaching, tokenised
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
from circuitspec.prompts.reference_prompts import first_size, is_drawn, largest_size
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import no_command, visible

SHOWN = 10  # single pairs and names that are listed


def plan_file(file: Path, *, sweep: bool = False, tests: bool = False) -> str:
    """What `verify` would run, as text; with `sweep` and `tests`, also how much these would add.

    Raises CircuitspecError for a file with mistakes, and CS506 where the model's configuration is not on
    this machine. Where its tokenizer is not, prompts are not tokenised, and positions along paths are compared by name
    only, which is noted.
    """
    return plan_document(load_hypothesis(file), sweep=sweep, tests=tests)


def plan_document(
    document: Document, *, sweep: bool = False, tests: bool = False, shape: ModelShape | None = None
) -> str:
    """As `plan_file`, of a hypothesis that was read or built; `shape` is that of a model in memory."""
    hypothesis, base_dir = document.hypothesis, document.base_dir
    if shape is None and hypothesis.model.id == IN_MEMORY:
        raise CircuitspecError(no_model(document))
    if shape is None:
        with document.blamed_on("model", "id"):
            shape = read_shape(hypothesis.model, base_dir)
    if shape is None:
        raise CircuitspecError(
            Diagnostic(
                "CS506",
                f"the configuration of {hypothesis.model.id} is not on this machine",
                document.source.span(("model", "id")),
                hint="`plan` downloads nothing: run `verify` once, or name a local directory",
            )
        )
    shape = sites_declared(hypothesis.dictionaries, shape, document.source)
    internals = internal_metrics(hypothesis, shape, document.source)
    graph = measuring(lay_out(hypothesis.circuit, shape, document.source), internals)
    prompts = build_prompts(hypothesis.task, base_dir, document.source)
    hypothesis = with_source(hypothesis, prompts.corruptions, document.source)
    pairs = pairs_of(hypothesis, prompts, document)
    plan = make_plan(hypothesis, graph, document.source, prompts.corruptions, pairs, read_subspaces(document))
    check_claimed(hypothesis, prompts, document.source)
    task = tokenised(prompts, document, shape.n_vocab, pairs, plan.drawn_prompts)
    prompts = prompts if task is None else task.prompts
    plan, by_name = reaching(plan, document, graph, task, internals)
    beside = plan_beside(
        hypothesis.ablation,
        graph,
        document.source,
        prompts.corruptions,
        sweep=sweep,
        tests=tests,
        refused=lambda experiments: {} if task is None else refused_runs(experiments, task),
    )
    added = [run for run in beside.labels if run not in plan.labels]
    check_directions(document, shape)
    untold = [*([NOT_TOKENISED] if task is None else []), *([BY_NAME] if by_name else [])]
    notes = [f"note: {visible(note)}" for note in (*plan_notes(plan, graph), *untold)]
    parts = [
        _heading(hypothesis, shape, len(prompts.prompts)),
        _experiments(plan),
        _edges(plan, shape, hypothesis.ablation.level) if plan.edges is not None else _sites(plan, graph),
        "\n".join([*([] if plan.edges is not None else _no_edges(plan.impossible)), *notes]),
        _cost(
            hypothesis,
            plan,
            graph,
            document.source,
            prompts,
            task,
            internals,
            added,
        ),
    ]
    return no_command(visible("\n\n".join(part for part in parts if part), lines=True))


def _heading(hypothesis: Hypothesis, shape: ModelShape, n: int) -> str:
    ablation = hypothesis.ablation
    title = architecture_named(shape.family).title
    model = f"{hypothesis.model.id} ({title}, {shape.n_layers} layers x {shape.n_heads} heads)"
    corrupt = corrupt_prompts(ablation)
    value = ablation.value if corrupt is None else f"{ablation.value} from {corrupt}"
    value += _over(hypothesis, n)
    choices = f"{ablation.level} level, {value}, {ablation.positions} positions"
    return f"{visible(hypothesis.name)}   {visible(model)}   {n} prompts\n{visible(choices)}"


def _experiments(plan: Plan) -> str:
    rows = [["experiment", "base", "source", "patched"]]
    rivals = [run for one in plan.claims for run in one.drawn]
    drawn = frozenset(rivals) - {run for one in plan.claims if not one.drawn for run in one.runs}
    for experiment, label in plan.labels.items():
        source = experiment.source
        if experiment in drawn:
            continue
        rows.append([label, str(experiment.base), "" if source is None else str(source), _counted(experiment)])
    if drawn:
        source = next(iter(drawn)).source
        rows.append([f"{len(drawn)} random circuits", "clean", str(source), "as much as for `circuit`"])
    return aligned(rows)


def _counted(experiment: Experiment) -> str:
    """`10 heads everywhere, 6 heads but at declared positions`; `120 edges into 12 receivers`, `2 runs along paths`."""
    if experiment.level == "edge":
        edges = sum(len(reading.senders) for reading in experiment.readings)
        return f"{plural(edges, 'edge')} into {plural(len(experiment.readings), 'receiver')}"
    if experiment.level == "path":
        return f"{plural(runs_of(experiment), 'run')} along paths"
    kinds: Counter[tuple[str, str, str]] = Counter()
    for site in experiment.sites:
        kind = site.component.kind
        where = "everywhere" if site.where.is_everywhere else "but at" if site.where.inverted else "at"
        kinds[kind.plural, kind.singular, where] += 1
    said = {"everywhere": "everywhere", "at": "at declared positions", "but at": "but at declared positions"}
    return ", ".join(
        f"{count} {singular if count == 1 else several} {said[where]}"
        for (several, singular, where), count in sorted(kinds.items())
    )


def _sites(plan: Plan, graph: CircuitGraph) -> str:
    """What `circuit` patches, a line a layer; empty where no claim asks for it."""
    if plan.circuit not in plan.labels:
        return ""
    layers: dict[int, list[str]] = {layer: [] for layer in range(graph.shape.n_layers)}
    units: Counter[tuple[Component, str]] = Counter()  # by their whole, with the word for them
    patched = {site.component: site.where for site in plan.circuit.sites}
    left_out = {one.name for one in graph.shape.dictionaries if one.error_left_out}
    for component in sorted((c for c in graph.claimed if c in patched), key=sort_key):
        where = patched[component]
        if component.kind.part_of is not None and where.is_everywhere:
            units[whole_of(component), component.kind.plural] += 1
            continue
        but = "" if where.is_everywhere else f" but {where.canonical().removeprefix('-')}"
        but += " (left out)" if isinstance(component, DictionaryError) and component.dictionary in left_out else ""
        layers.setdefault(component.layer, []).append(format_name(component) + but)
    for (whole, word), count in units.items():
        layers[whole.place[0]].append(f"{count} {word} of {format_name(whole)}")
    lines = [f"   layer {layer}: {visible(', '.join(sites))}" for layer, sites in layers.items() if sites]
    return "\n".join(["sites patched in `circuit` (everywhere, unless it says but where)", *lines])


def _edges(plan: Plan, shape: ModelShape, level: str) -> str:
    """What the paths name that is no edge and, at edge level, how many edges are kept and ablated, by receiver."""
    circuit = plan.edges
    assert circuit is not None
    by_receiver = (
        _by_receiver(circuit, shape) if level == "edge" else [f"edges   {circuit.n_declared:,} along the paths"]
    )
    lines = [*by_receiver, *_no_edges(plan.impossible)]
    if plan.overruled:
        lines.append(f"paths that add nothing, since others start there: those into {', '.join(plan.overruled)}")
    return "\n".join(lines)


def _by_receiver(circuit: EdgeCircuit, shape: ModelShape) -> list[str]:
    lines = [
        f"edges   {circuit.n_declared:,} declared, {circuit.n_kept:,} kept, "
        f"{circuit.n_edges - circuit.n_kept:,} ablated, {circuit.n_edges:,} in the model"
    ]
    rows = [["receiver", "kept", "ablated"]]
    bare: list[Receiver] = []
    for receiver in receivers(shape):
        kept, total = len(circuit.kept.get(receiver, {})), senders_before(receiver, shape)
        if kept:
            rows.append([format_receiver(receiver, shape), f"{kept:,}", f"{total - kept:,}"])
        else:
            bare.append(receiver)
    if bare:
        ablated = sum(senders_before(receiver, shape) for receiver in bare)
        rows.append([f"{plural(len(bare), 'other receiver')}", "0", f"{ablated:,}"])
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines += [
        "   " + row[0].ljust(widths[0]) + "".join(c.rjust(w + 3) for c, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return lines


def _no_edges(impossible: Sequence[Impossible]) -> list[str]:
    lines = []
    if impossible:
        lines.append(f"named by paths, but no edges: {plural(len(impossible), 'pair')}")
        for early, pairs in itertools.groupby(sorted(impossible, key=_too_early), key=_too_early):
            found = list(pairs)
            if early and len(found) > SHOWN:  # a group that leads to itself has hundreds, and means those in order
                lines.append(f"   {len(found)} against the order of layers")
                continue
            lines += [f"   {one.sender} -> {one.receiver}: {one.sender} {one.reason}" for one in found[:SHOWN]]
            lines += [f"   and {len(found) - SHOWN} more whose positions do not meet"] if len(found) > SHOWN else []
    return lines


def _too_early(pair: Impossible) -> bool:
    return pair.out_of_order


def _declared_paths(hypothesis: Hypothesis, plan: Plan, graph: CircuitGraph, text: SourceText) -> list[str]:
    """How much it takes to patch the declared paths of a circuit at node level one by one, and of which it is done."""
    from circuitspec.analysis.circuit_effects.circuit_parts import COMPONENTS

    if hypothesis.ablation.level != "node" or not graph.paths:
        return []
    runs = labels_of(path_checks(hypothesis.ablation, graph, text, plan.corrupt))
    most = sum(e.draws * runs_of(e) for e in runs if e.source is not None and e not in plan.labels)
    if not most:
        return []
    few = len(graph.circuit) <= COMPONENTS
    asked = "--negatives off: none" if few else "with --negatives exact only: the circuit is large"
    return [f"           and {most} to patch the declared paths one by one ({asked})"]


def _scrubbed_apart(hypothesis: Hypothesis, plan: Plan, text: SourceText) -> list[str]:
    """How much it takes to scrub the parts of circuits one by one."""
    from circuitspec.analysis.claims.abstraction.scrub_costs import runs_of_claim
    from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub

    lines = []
    for planned in plan.claims:
        if not isinstance(planned, PlannedScrub):
            continue
        alone, every = (
            sum(passes((draw.scrubbed,)) for draw in runs_of_claim(planned, hypothesis, text, thorough=thorough).draws)
            for thorough in (False, True)
        )
        lines.append(
            f"           and up to {alone:g} to scrub the parts of claim {planned.index + 1} one by one, "
            f"{every:g} where it is not supported (--negatives off: none)"
        )
    return lines


def _first_averaged(hypothesis: Hypothesis, n: int) -> int:
    """Over how many prompts means go, or begin to go; as many as are scored where others come from a file."""
    if not is_drawn(hypothesis.task, hypothesis.ablation):
        return n
    given = hypothesis.ablation.reference
    return given if isinstance(given, int) else first_size(n)


def _means_error(hypothesis: Hypothesis, plan: Plan, n: int) -> list[str]:
    """What it takes to tell the error of the means, and to take more of them."""
    runs = sum(runs_of(run) for run in deciding(plan))
    if not runs:
        return []
    given = hypothesis.ablation.reference
    other = is_drawn(hypothesis.task, hypothesis.ablation) or isinstance(given, ReferenceFile)
    lines = [f"           and {runs * (1 if other else min(n, CELLS))} to tell the error of the means"]
    if other and given is None:
        lines.append(
            f"           again with means over more reference prompts, up to {largest_size(n)}, where they prove noisy"
        )
    return lines


def _over(hypothesis: Hypothesis, n: int) -> str:
    """Over which prompts means go: ` (over 100 reference prompts or more)`; empty where there are none."""
    ablation = hypothesis.ablation
    match ablation.reference:
        case _ if not ABLATIONS[ablation.value].averages:
            return ""
        case int(count):
            return f" (over {plural(count, 'reference prompt')})"
        case ReferenceFile(file=name):
            return f" (over the prompts of {name})"
    if is_drawn(hypothesis.task, ablation):
        return f" (over {plural(first_size(n), 'reference prompt')} or more)"
    return " (over the scored prompts)"


def _cost(
    hypothesis: Hypothesis,
    plan: Plan,
    graph: CircuitGraph,
    text: SourceText,
    prompts: PromptSet,
    task: TokenizedTask | None,
    internals: Sequence[Internal],
    added: Sequence[Experiment],
) -> str:
    from circuitspec.analysis.circuit_effects.examination import examination_passes
    from circuitspec.analysis.circuit_effects.model_negatives import CHOSEN
    from circuitspec.analysis.circuit_effects.negative_components import TESTED
    from circuitspec.experiments.follow_ups.restorations import FEW, restorations

    n, shape = len(prompts.prompts), graph.shape
    if task is not None:
        positions = max(task.lengths)
    else:
        longest = max(len(text.split()) for prompt in prompts.prompts for text in prompt.texts.values())
        positions = 2 * longest  # words; twice that many tokens is on the safe side
    dtype = hypothesis.model.dtype
    edges = any(e.level == "edge" for e in plan.experiments)
    rows = min(n, rows_per_batch(shape, positions, dtype, edges=edges))
    averaged = _first_averaged(hypothesis, n)
    needed = passes(plan.experiments, averaged=averaged / n)
    lines = [f"forwards   {needed:g} over all {n} prompts, {rows} prompts at a time"]
    lines += _means_error(hypothesis, plan, n)
    source = plan.circuit.source
    outside = restorations(plan, graph)
    if source is not None and outside is not None and claims_sufficiency(plan):
        draws, resampled = plan.circuit.draws, source.is_recorded
        again = 2 + 2 * resampled * draws  # clean and source runs, for one by one and for all together
        screened = plan.circuit.level == "node" or len(outside.components) > FEW
        features = any(isinstance(one, OtherFeatures) for one in outside.components)  # one by one: how many, a run says
        count = len(outside.components) if not features else sys.maxsize
        tested = min(TESTED, count) if screened else count
        most = draws * ((3 + resampled if screened else 0) + (1 + resampled) * features + tested + 1) + again
        many = count > TESTED  # in the whole model: those that an estimate puts first, else all
        most += draws * (3 + resampled + CHOSEN if many else len(outside.components)) + 1 + resampled * draws
        lines.append(f"           and up to {most} to look for negative components (--negatives off: none)")
    if plan.circuit.source is not None:
        most = plan.circuit.draws * examination_passes(graph, hypothesis.ablation)
        lines.append(f"           and up to {most} to look at the circuit's own parts (--negatives off: none)")
    lines += _declared_paths(hypothesis, plan, graph, text)
    lines += _scrubbed_apart(hypothesis, plan, text)
    if added:
        lines.append(
            f"           and {sum(e.draws * runs_of(e) for e in added)} for --methods and --tests, as asked for"
        )
    layers = {metric.head.layer for metric in internals if isinstance(metric, Attention)}
    if layers:
        runs = sum(e.draws for e in (*plan.experiments, *added) if e.level != "path")
        lines.append(f"           and {len(layers) * runs} to read attention off, {len(layers)} a run")
    for planned in plan.claims:
        if most := planned.most_searched:
            claim = f"claim {planned.index + 1} ({planned.claim.kind})"
            lines.append(f"           and up to {most} to search for subsets for {claim}")
        if isinstance(planned, PlannedStable):
            claim, most = f"claim {planned.index + 1} ({planned.claim.kind})", planned.most_reselecting
            lines.append(f"           and up to {most:,} on other prompts for {claim}, far fewer where searches agree")
        if planned.still_drawn:
            lines.append(
                f"           and {planned.still_drawn + 2} for claim {planned.index + 1}: to see how active features "
                "are, and for random circuits of as active ones"
            )
    megabytes = rows * activation_bytes(shape, positions, dtype, edges=edges) / 2**20
    weights = weight_bytes(shape, dtype) / 2**20
    lines.append(
        f"memory     about {weights:,.0f} MiB of weights and at most {max(megabytes, 1):,.0f} MiB of activations "
        f"(prompts of up to {positions} tokens)"
    )
    return "\n".join(lines)
