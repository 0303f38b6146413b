"""A hypothesis file in, a bundle out that pyvene runs without circuitspec."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.directions import read_directions
from circuitspec.engine.levels.refusals import refused_means
from circuitspec.engine.pyvene_export.bundle_content import Bundle, make_bundle
from circuitspec.engine.pyvene_export.plain_pyvene import check_plain
from circuitspec.exchange.exporting import names_of_circuit
from circuitspec.experiments.direction_files import direction_places
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.requirements import fitted
from circuitspec.graph.dictionary_nodes import names_features
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import Document, digest
from circuitspec.models.model_reference import resolve_reference
from circuitspec.pipelines.preparation import Prepared, prepare, prompts_of
from circuitspec.pipelines.session import Session, begin, check_routing_free, from_file, opened
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.reports.machine.bundle_files import readme
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape


def compile_bundle(document: Document, device: str, progress: Progress) -> Bundle:
    """The experiments that `verify` runs for the claims, as plain pyvene interventions.

    Raises CircuitspecError as `verify` does for files, prompts and models, CS530 for a family that pyvene
    loads no config for, CS531 for noise on the embeddings, and CS576 for dictionaries of features.
    """
    base_dir, asked = document.base_dir, document.hypothesis.model
    if asked.adapter is not None or asked.rope_scaling is not None:
        key = "adapter" if asked.adapter is not None else "rope_scaling"
        raise CircuitspecError(
            Diagnostic(
                "CS500",
                f"`model: {key}` is not written to a bundle: its script loads the model as it is",
                document.source.span(("model", key)),
                hint="save the model with it, and name that one",
            )
        )
    _refuse_dictionaries(document)
    check_routing_free(document)
    prompts, hypothesis = prompts_of(document)

    def prepared_for(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> Prepared:
        with document.blamed_on("model", "id"):
            return prepare(hypothesis, document, prompts, shape, tokenizer, features=False)

    loaded, prepared = opened(from_file(document, hypothesis, device, progress), prepared_for)
    internals, plan, task = prepared.internals, prepared.plan, prepared.task
    others = ReferencePrompts(hypothesis.task, hypothesis.ablation, base_dir, document.source, loaded.tokenizer)
    if any(experiment.averages for experiment in plan.experiments):
        task = others.of(task)
    plan = fitted(plan, refused_means(plan.experiments, task), document.source)
    known = loaded.provenance
    hub = known.id if resolve_reference(hypothesis.model, base_dir).kind == "hub" else None
    about = {
        "hypothesis": {"name": hypothesis.name, "digest": digest(document.hypothesis)},
        "model": {
            "id": known.id,
            "hub": hub,
            "revision": known.revision,
            "dtype": known.dtype,
            "attention": asked.attention or loaded.architecture.attention,
        },
    }
    progress.stage("writing out the experiments")
    places_of_files = direction_places(hypothesis, document.source)
    directions = read_directions(internals, base_dir, loaded.shape.d_model, places_of_files)
    labels: dict[Experiment, str] = {}
    for experiment, label in plan.labels.items():
        labels.setdefault(experiment.run, label)  # a bundle has the runs, however they are scored
    check_plain(labels, loaded.architecture)
    session = Session(loaded, progress, internals=internals, directions=directions, parted=True)
    with session.tested(task) as (runner, _), ExitStack() as stack:
        if task.reference is not None and others.grows:  # means over as many prompts as `verify` takes
            runner = begin(plan, runner, session, others, stack).runner
        bundle = make_bundle(labels, runner, about)
    facts = {
        "name": hypothesis.name,
        "digest": digest(hypothesis),
        "model": known.id,
        "version": version("circuitspec"),
    }
    return replace(bundle, texts={**bundle.texts, "README.md": readme(bundle.names, bundle.counts, facts, hub)})


def _refuse_dictionaries(document: Document) -> None:
    """CS576 for each feature of the circuit, or for a dictionary where none is named.

    Declared dictionaries take MLPs or streams apart for every experiment: without them these would be other experiments
    than those that `verify` runs.
    """
    hypothesis, text = document.hypothesis, document.source
    if not hypothesis.dictionaries:
        return
    named = [
        (format_name(name.target), place) for name, place in names_of_circuit(document) if names_features(name.target)
    ]
    declared = [(f"the dictionary {name}", ("dictionaries", name)) for name in hypothesis.dictionaries]
    raise CircuitspecError(
        *(
            Diagnostic(
                "CS576",
                f"{what} cannot be written to a bundle: plain pyvene does not keep what features leave over",
                text.span(place, key=place[0] == "dictionaries"),
                hint="verify the hypothesis; or export its features, --as feature-list or --as attribution-graph",
            )
            for what, place in named or declared
        )
    )
