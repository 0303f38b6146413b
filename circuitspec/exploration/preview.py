"""What can be said of a file to explore without running it: its mistakes, and what `explore` would take.

Imports no torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from circuitspec.analysis.statistics.wording import plural
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import sites_declared
from circuitspec.experiments.ablation_source import corrupt_prompts
from circuitspec.experiments.experiment import Noised
from circuitspec.exploration.foreseen_cost import Extent, foreseen, spoken, spots_in
from circuitspec.exploration.request import MOST_FEATURES, ExploreOptions
from circuitspec.graph.nodes import wholes_with_outside
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Study, load_exploration, no_model
from circuitspec.hypothesis_file.yaml.source import parse_leniently, read_text
from circuitspec.models.families.architecture import architecture_named
from circuitspec.models.shapes import read_shape
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import CLEAN, PromptSet

CLAIMING = ("circuit", "claims")  # what a hypothesis has, and a file to explore has not
_CLAIMS = re.compile(r"^(circuit|claims)\s*:", re.MULTILINE)


def is_to_explore(file: Path, *, model_given: bool = False) -> bool:
    """Whether a file has a model and a task, and no circuit or claims. Raises CircuitspecError as reading does.

    With `model_given` it need not have the model.
    """
    text = read_text(file)
    if _CLAIMS.search(text):  # most files, which are not parsed twice
        return False
    data = parse_leniently(text, str(file))[0].data
    needed = {"task"} if model_given else {"model", "task"}
    return isinstance(data, dict) and needed <= data.keys() and not data.keys() & set(CLAIMING)


def check_study(file: Path) -> tuple[tuple[Diagnostic, ...], str]:
    """Every mistake of a file to explore found without running it, and a few lines about it if there is none."""
    try:
        study = load_exploration(file)
    except CircuitspecError as error:
        return error.diagnostics, ""
    return check_read_study(study, str(file))


def check_read_study(study: Study, name: str) -> tuple[tuple[Diagnostic, ...], str]:
    """As `check_study`, of what was read already; `name` is what it is called."""
    problems: list[Diagnostic] = []
    prompts: PromptSet | None = None
    try:
        prompts = build_prompts(study.exploration.task, study.base_dir, study.source)
        _check_compared(study, prompts)
    except CircuitspecError as error:
        problems += error.diagnostics
    try:
        shape = _shape(study)
        if shape is not None:
            sites_declared(study.exploration.dictionaries, shape, study.source)
    except CircuitspecError as error:
        problems += error.diagnostics
        shape = None
    if problems or prompts is None:
        return tuple(problems), ""
    said = f"{name}: ok to explore   {plural(len(prompts.prompts), 'prompt')}, {_positions(study, prompts)}"
    notes = [_needed(study)]
    if shape is None:
        notes.append("the model's configuration is not at hand, so it was not checked")
    return (), "\n   note: ".join([said, *notes])


def plan_study(study: Study, options: ExploreOptions | None = None, shape: ModelShape | None = None) -> str:
    """What `explore` would run with these options, or those that it has by default, as text.

    `shape` is that of a model in memory. Raises CircuitspecError for a file with mistakes, and CS506 where the model's
    configuration is not on this machine.
    """
    subject = study.exploration
    prompts = build_prompts(subject.task, study.base_dir, study.source)
    _check_compared(study, prompts)
    shape = _shape(study) if shape is None else shape
    if shape is None and subject.model.id == IN_MEMORY:
        raise CircuitspecError(no_model(study))
    if shape is None:
        raise CircuitspecError(
            Diagnostic(
                "CS506",
                f"the configuration of {subject.model.id} is not on this machine",
                study.source.span(("model", "id")),
                hint="`plan` downloads nothing: run `explore` once, or name a local directory",
            )
        )
    noise = None if subject.ablation is None else corrupt_prompts(subject.ablation)
    roles = len(_names(study, prompts))
    named = study.exploration.dictionaries
    sites_declared(named, shape, study.source)
    searched = wholes_with_outside(shape)
    spots = spots_in(searched, shape)
    extent = Extent(
        components=MOST_FEATURES if named else len(searched),
        spots={**dict.fromkeys(spots, 0), "resid": spots["resid"], "features": MOST_FEATURES} if named else spots,
        layers=shape.n_layers,
        roles=max(roles, 1),
        unnamed=not roles,
        corruptions=len(prompts.corruptions),
        series=_series(options, len(prompts.corruptions)),
        draws=noise.draws if isinstance(noise, Noised) else 1,
    )
    stages = foreseen(extent, options or ExploreOptions())
    title = architecture_named(shape.family).title
    model = f"{subject.model.id} ({title}, {shape.n_layers} layers x {shape.n_heads} heads)"
    width = max(map(len, stages))
    return "\n".join(
        [
            f"{subject.name}   {model}   {plural(len(prompts.prompts), 'prompt')}",
            f"to explore: {_explored(study, extent)}, {_positions(study, prompts)}",
            "",
            "passes over all prompts that `explore` takes, at most, with "
            + ("the options that it has by default" if options is None else "these options"),
            *(f"   {what.ljust(width)}   {forwards:,}" for what, forwards in stages.items()),
            "",
            spoken(stages, None if options is None else options.max_forwards, None),
            f"note: {_needed(study)}",
        ]
    )


def _explored(study: Study, extent: Extent) -> str:
    count = len(study.exploration.dictionaries)
    if not count:
        return f"{extent.components} heads and MLPs"
    of = "a dictionary" if count == 1 else f"{count} dictionaries"
    return f"features of {of}, of those that are active the {extent.components:,} with the largest estimates"


def _series(options: ExploreOptions | None, corruptions: int) -> int:
    """How many ways of patching sweeps compare: every value from every corruption, and each corruption denoised."""
    values = [ABLATIONS[value] for value in (options.values if options is not None else ())]
    if not values:
        return 2 if options is None else 2 * max(1, corruptions)
    taking = [value for value in values if value.takes_prompts]
    others = sum(2 if value.noise else 1 for value in values if not value.takes_prompts)
    return (len(taking) + bool(taking)) * corruptions + others


def _needed(study: Study) -> str:
    lacking = "circuit and claims" if study.exploration.ablation is not None else "circuit, ablation and claims"
    return f"`verify` needs besides: {lacking}, which `explore --draft` writes"


def _shape(study: Study) -> ModelShape | None:
    """The model's shape; None where the model is not on this machine, which is no mistake of the file, or in memory."""
    if study.exploration.model.id == IN_MEMORY:
        return None
    try:
        with study.blamed_on("model", "id"):
            return read_shape(study.exploration.model, study.base_dir)
    except CircuitspecError as error:
        if all({"missing_package", "missing_model"} & finding.data.keys() for finding in error.diagnostics):
            return None
        raise


def _check_compared(study: Study, prompts: PromptSet) -> None:
    """CS541 where there is no corruption, as `explore` raises it."""
    ablation = study.exploration.ablation
    if prompts.corruptions or (ablation is not None and ABLATIONS[ablation.value].noise):
        return
    raise CircuitspecError(no_corruption(study))


def no_corruption(study: Study) -> Diagnostic:
    return Diagnostic(
        "CS541",
        "the prompts have no corruption, and there is nothing to compare the clean ones with",
        study.source.span(("task",)),
        hint="add task: corruptions: {abc: {SLOT: $list}}"
        if study.exploration.task.file is None
        else 'give every prompt a "corrupt" text',
    )


def _positions(study: Study, prompts: PromptSet) -> str:
    names = _names(study, prompts)
    return plural(len(names), "position") if names else "no position named: at the last token and at all tokens"


def _names(study: Study, prompts: PromptSet) -> frozenset[str]:
    """The positions that every prompt has, by name."""
    own = [frozenset(p.slots.get(CLEAN, {})) | frozenset(p.positions) for p in prompts.prompts]
    return frozenset.intersection(*own) | frozenset(study.exploration.task.positions)
