"""A hypothesis file in, a bundle out that pyvene runs without circuitspec."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version

from circuitspec.engine.directions import read_directions
from circuitspec.engine.execution.batch_size import rows_per_batch
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.pyvene_export.bundle_content import Bundle, make_bundle
from circuitspec.engine.pyvene_export.plain_pyvene import check_plain
from circuitspec.engine.runner import Runner
from circuitspec.experiments.internal_metric_plans import internal_metrics, measuring
from circuitspec.experiments.planner import make_plan
from circuitspec.experiments.requirements import check_length, check_plan_fits
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import Document, digest, with_source
from circuitspec.models.load import load_model
from circuitspec.models.model_reference import resolve_reference
from circuitspec.pipelines.verify import begin
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.reports.machine.bundle_files import readme
from circuitspec.runtime.progress import Progress


def compile_bundle(document: Document, device: str, progress: Progress) -> Bundle:
    """The experiments that `verify` runs for the claims, as plain pyvene interventions.

    Raises CircuitspecError as `verify` does for files, prompts and models, CS530 for a family that pyvene
    loads no config for, and CS531 for noise on the embeddings.
    """
    base_dir = document.base_dir
    prompts = build_prompts(document.hypothesis.task, base_dir, document.source)
    hypothesis = with_source(document.hypothesis, prompts.corruptions, document.source)
    with document.blamed_on("model", "id"):
        loaded = load_model(hypothesis.model, base_dir, device=device, progress=progress.stage)
    internals = internal_metrics(hypothesis, loaded.shape, document.source)
    graph = measuring(lay_out(hypothesis.circuit, loaded.shape, document.source), internals)
    plan = make_plan(hypothesis, graph, document.source, prompts.corruptions)
    task = tokenize(prompts, hypothesis.task.positions, loaded.tokenizer, document.source)
    others = ReferencePrompts(hypothesis.task, hypothesis.ablation, base_dir, document.source, loaded.tokenizer)
    if any(experiment.averages for experiment in plan.experiments):
        task = others.of(task)
    check_plan_fits(plan, task, document.source)
    check_length(task, loaded.shape)
    known = loaded.provenance
    hub = known.id if resolve_reference(hypothesis.model, base_dir).kind == "hub" else None
    about = {
        "hypothesis": {"name": hypothesis.name, "digest": digest(document.hypothesis)},
        "model": {
            "id": known.id,
            "hub": hub,
            "revision": known.revision,
            "dtype": known.dtype,
            "attention": loaded.architecture.attention,
        },
    }
    progress.stage("writing out the experiments")
    directions = read_directions(internals, base_dir, loaded.shape.d_model)
    check_plain(plan.labels, loaded.architecture)

    def start(task: TokenizedTask) -> Runner:
        rows = rows_per_batch(loaded.shape, max(task.lengths), known.dtype)
        return Runner(
            loaded, task, rows=rows, progress=progress, internals=internals, directions=directions, parted=True
        )

    with borrowed(loaded.model), ExitStack() as stack:
        runner = start(task)
        if task.reference is not None and others.grows:  # means over as many prompts as `verify` takes
            runner = begin(plan, runner, start, others, None, progress, stack).runner
        bundle = make_bundle(plan.labels, runner, about)
    facts = {
        "name": hypothesis.name,
        "digest": digest(hypothesis),
        "model": known.id,
        "version": version("circuitspec"),
    }
    return replace(bundle, texts={**bundle.texts, "README.md": readme(bundle.names, bundle.counts, facts, hub)})
