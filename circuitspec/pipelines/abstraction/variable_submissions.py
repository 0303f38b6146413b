"""MIB's causal-variable submissions: a unit of a folder becomes an aligned variable, aligned ones become folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.variables.featurizer_files import FEATURIZER, INVERSE, read_unit, written_unit
from circuitspec.exchange.variables.submission_text import DraftedAlignment, alignment_text
from circuitspec.exchange.variables.unit_names import LAST, NoSuchUnit, Unit, parse_unit, position_name, unit_name
from circuitspec.experiments.planner import aligned_with
from circuitspec.experiments.subspaces.subspace_files import (
    fitting,
    read_subspaces,
    subspaces_beside,
    where_name,
    width_of,
    written,
)
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.grammar.positions import parse_position
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.shapes import read_shape

MODELS = {
    "GPT2LMHeadModel": ("gpt2", "openai-community/gpt2"),
    "Qwen2ForCausalLM": ("qwen2", "Qwen/Qwen2.5-0.5B"),
    "Gemma2ForCausalLM": ("gemma2", "google/gemma-2-2b"),
    "LlamaForCausalLM": ("llama", "meta-llama/Llama-3.1-8B-Instruct"),
}
"""The benchmark's models by the class that folders are named after: their family here, and their name on the hub."""

TASKS = ("ioi_task", "4_answer_MCQA", "ARC_easy", "arithmetic", "ravel_task")
_MOST_SHOWN = 12


@dataclass(frozen=True)
class ImportedVariable:
    """A hypothesis's text, the file of the subspace beside it (None for a whole component), and what is otherwise."""

    text: str
    subspaces: bytes | None
    unit: Unit
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class ExportedVariables:
    """The files of a submission by their names inside it, `FOLDER/FILE`, and what they do not say."""

    files: Mapping[str, bytes]
    folders: tuple[str, ...]
    losses: tuple[Loss, ...]


def import_variable(
    folder: Path, out: Path, *, model: str | None = None, entry: str | None = None, prompts: Path | None = None
) -> ImportedVariable:
    """The unit `entry` of a submission's folder (or its only one) as a hypothesis to be written to `out`.

    Nothing is written here. Raises CircuitspecError: CS382 to CS384 for files, CS567 for a folder that is no
    submission, CS568 for a unit that is not there, or has no name here, CS300 to CS305 for the model.
    """
    task, called, variable = _folder_name(folder)
    units, untold = _units(folder)
    unit = _chosen(folder, units, untold, entry)
    known = MODELS.get(called, (None, None))[1]
    named = model or known
    shape = None if named is None else read_shape(ModelSpec(id=named), out.parent)
    if shape is not None:
        _check_exists(unit, shape, folder)
    found = read_unit(folder, unit.name, None if shape is None else width_of(unit.component, shape))
    component, position = format_name(unit.component), position_name(unit.token)
    subspaces = None if found.basis is None else subspaces_beside(out).name
    rank = None if found.basis is None else found.basis.shape[1]
    name = variable if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) else f"variable_{position_name(variable)}"
    drafted = DraftedAlignment(name, component, position, unit.token == LAST, rank, subspaces)
    losses = (*_lost_on_import(units, untold, unit, named if model is None else None), *found.losses)
    origin = f"{folder.resolve().name}, unit {unit.name}, a causal-variable submission of MIB"
    given = None if prompts is None else Path(os.path.relpath(prompts, out.parent)).as_posix()
    text = alignment_text(f"{task}-{variable}".lower().replace("_", "-"), origin, named, drafted, losses, given)
    parse_hypothesis(text, str(out), out.parent)
    content = None if found.basis is None else _safetensors(name, found.basis, component, position, origin)
    return ImportedVariable(text, content, unit, losses)


def export_variables(document: Document) -> ExportedVariables:
    """A folder for each aligned variable of a hypothesis, with the units that MIB knows; nothing is written here.

    Raises CircuitspecError: CS569 for a hypothesis without such an alignment, CS235 and CS236 for subspaces, CS506
    where the model's configuration is not on this machine.
    """
    hypothesis, text = document.hypothesis, document.source
    spec = hypothesis.abstraction
    if spec is None or not spec.align:
        place = None if spec is None else text.span(("abstraction",), key=True)
        raise CircuitspecError(_no_alignment("no variable is aligned with a component", place))
    with document.blamed_on("model", "id"):
        shape = read_shape(hypothesis.model, document.base_dir)
    if shape is None:
        said = f"the configuration of {hypothesis.model.id} is not on this machine, which says how wide it is"
        raise CircuitspecError(Diagnostic("CS506", said, text.span(("model", "id")), hint="name a local directory"))
    called = next((name for name, (family, _) in MODELS.items() if family == shape.family), None)
    losses: list[Loss] = []
    if called is None:
        called = f"{shape.family}ForCausalLM"
        losses.append(Loss("model", f"MIB has no model of this family: folders are named after {called}"))
    task = hypothesis.name.replace("-", "_")
    known = next((one for one in TASKS if task.lower().startswith(one.lower())), None)
    if known is None:
        losses.append(Loss("prompts", f"MIB knows the tasks {', '.join(TASKS)}: rename folders that begin with {task}"))
    graph, stored = lay_out(hypothesis.circuit, shape, text), read_subspaces(document)
    files: dict[str, bytes] = {}
    folders, problems = [], list[Diagnostic]()
    for variable, aligned in spec.align.items():
        place = text.span(("abstraction", "align", variable), key=True)
        section = aligned_with(aligned, variable, hypothesis.ablation, graph, text)
        folder = f"{known or task}_{called}_{variable}"
        if aligned.subspace is not None and variable not in stored:
            problems.append(_no_alignment(f"the subspace of {variable} is not learned yet", place))
            continue
        basis: NDArray[np.float64] | None = None
        if aligned.subspace is not None:
            component, where, subspace = fitting(stored[variable], section, aligned.subspace, shape, text)
            section, basis = {component: where}, subspace.basis
        for component, where in section.items():
            try:
                unit = unit_name(component, _token(where.roles, where.inverted, document))
            except NoSuchUnit as error:
                said = f"{variable} at {format_name(component)}@{where_name(where)}: {error}"
                problems.append(_no_alignment(said, place))
                continue
            made = written_unit(unit, basis, width_of(component, shape))
            files |= {f"{folder}/{name}": content for name, content in made.items()}
        if len(section) > 1:
            said = (
                f"the {len(section)} components of {variable} are patched together here, each by itself in MIB's scores"
            )
            losses.append(Loss("units", said))
        folders.append(folder)
    if problems:
        raise CircuitspecError(*problems)
    return ExportedVariables(files, tuple(folders), (*losses, *_lost_on_export(document)))


def _folder_name(folder: Path) -> tuple[str, str, str]:
    """Task, class of the model and variable, as the folder's name says them."""
    name = folder.resolve().name
    for called in MODELS:
        task, found, variable = name.partition(f"_{called}_")
        if found and task and variable:
            return task, called, variable
    match = re.fullmatch(r"(.+)_([A-Za-z0-9]+(?:ForCausalLM|LMHeadModel))_(.+)", name)
    if match is None or not folder.is_dir():
        said = f"{folder} is no folder of a causal-variable submission"
        hint = f"such folders are named TASK_MODEL_VARIABLE, as in {TASKS[0]}_{next(iter(MODELS))}_output_position"
        raise CircuitspecError(Diagnostic("CS567", said, hint=hint))
    return match[1], match[2], match[3]


def _units(folder: Path) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """The units of a folder that have names here, in order, and those that have none, each with why."""
    try:
        names = sorted(one.name for one in folder.iterdir())
    except OSError as error:
        raise CircuitspecError(Diagnostic("CS567", f"{folder} cannot be read: {error.strerror}")) from None
    units, untold = [], []
    for name in names:
        if name.endswith(INVERSE) or not name.endswith(FEATURIZER):
            continue
        called = name.removesuffix(FEATURIZER)
        try:
            units.append(parse_unit(called))
        except NoSuchUnit as error:
            untold.append(f"{called}: {error}")
    if not units and not untold:
        said = f"{folder} has no file UNIT{FEATURIZER}"
        raise CircuitspecError(Diagnostic("CS567", said, hint="name the folder of one task, model and variable"))
    return tuple(units), tuple(untold)


def _chosen(folder: Path, units: Sequence[Unit], untold: Sequence[str], entry: str | None) -> Unit:
    def site(unit: Unit) -> str:
        return f"{format_name(unit.component)}@{position_name(unit.token)}"

    found = [unit for unit in units if entry is None or entry in (unit.name, site(unit))]
    if len(found) == 1:
        return found[0]
    shown = [f"{unit.name} ({site(unit)})" for unit in units[:_MOST_SHOWN]]
    more = f" and {len(units) - len(shown)} more" if len(units) > len(shown) else ""
    has = f"{', '.join(shown)}{more}" if units else f"none that has a name here ({'; '.join(untold[:2])})"
    said = f"{folder} has {counted(len(units), 'unit')}" if entry is None else f"{folder} has no unit {entry!r}"
    hint = "say which: --entry 'ResidualStream(Layer-5,Token-last_token)', or --entry r6@last_token"
    raise CircuitspecError(Diagnostic("CS568", f"{said}: {has}", hint=hint))


def _check_exists(unit: Unit, shape: ModelShape, folder: Path) -> None:
    component = unit.component
    if component.kind.exists(shape.counts, *component.place):
        return
    extent = component.kind.extent(shape.counts)
    said = f"{unit.name} of {folder} is {format_name(component)} here, and of this model {extent}"
    hint = "what the last block puts out has no name; name another unit with --entry, or the submission's own model"
    raise CircuitspecError(Diagnostic("CS568", said, hint=hint))


def _safetensors(variable: str, basis: NDArray[np.float64], component: str, position: str, origin: str) -> bytes:
    return written({variable: basis}, {variable: {"component": component, "where": position, "origin": origin}})


def _lost_on_import(units: Sequence[Unit], untold: Sequence[str], unit: Unit, model: str | None) -> tuple[Loss, ...]:
    losses = []
    if model is not None:
        losses.append(Loss("model", f"the folder names the class of the model alone: taken for MIB's {model}"))
    if len(units) > 1:
        losses.append(Loss("units", f"{counted(len(units) - 1, 'other unit')} of the folder not taken"))
    heads = sum(one.component.kind == HEAD for one in units)
    if unit.component.kind == HEAD and heads > 1:
        said = f"{heads} heads are submitted, which a score may be of together; here is one of them"
        losses.append(Loss("units", said))
    if untold:
        losses.append(Loss("units", f"without a name here: {'; '.join(untold[:_MOST_SHOWN])}"))
    streams = [one for one in units if one.component.kind == unit.component.kind and "Residual" in one.name]
    tokens, layers = {one.token for one in streams}, {one.component.layer for one in streams}
    there = {(one.component.layer, one.token) for one in streams}
    lacking = [(layer, token) for layer in sorted(layers) for token in sorted(tokens) if (layer, token) not in there]
    said = "a position of a submitted layer that has no file is scored by MIB with the identity featurizer, the whole "
    said += "residual stream"
    if lacking:
        shown = ", ".join(f"r{layer}@{position_name(token)}" for layer, token in lacking[:_MOST_SHOWN])
        said += f" (here {shown}{' and more' if len(lacking) > _MOST_SHOWN else ''})"
    if streams:
        losses.append(Loss("units", f"{said}; the benchmark's best score may be of such a one"))
    if unit.token != LAST:
        losses.append(Loss("positions", f"which token {unit.token} is, code outside the folder says"))
    losses.append(
        Loss("variables", "what the variable is computed from, and the answers, code outside the folder says")
    )
    losses.append(
        Loss("pairs", "the benchmark's pairs are its data sets: `circuitspec import --as causal-pairs` reads such")
    )
    return tuple(losses)


def _lost_on_export(document: Document) -> tuple[Loss, ...]:
    spec = document.hypothesis.abstraction
    assert spec is not None
    return (
        Loss(
            "positions", "tokens are named as here: get_token_positions in a token_position.py must say which they are"
        ),
        Loss("variables", f"how {', '.join(spec.variables)} follow from the prompts, and the answer"),
        Loss("pairs", "families of pairs: MIB scores on its own data sets"),
        Loss("claims", "claims, with bounds and controls"),
        Loss("subspace", "bases are written in float32; where they come from (seeds, splits, controls) is not"),
    )


def _token(roles: frozenset[str], inverted: bool, document: Document) -> str:
    """The one position as MIB is to call it."""
    if inverted or len(roles) != 1:
        raise NoSuchUnit("a unit of MIB is at one position")
    (role,) = roles
    said = document.hypothesis.task.positions.get(role)
    if isinstance(said, str | int):
        expression = parse_position(said)
        if expression.slot is None and expression.anchor == "last" and expression.offset == 0:
            return LAST
    return role


def _no_alignment(message: str, place: Span | None) -> Diagnostic:
    hint = "align variables with heads, or with residual streams r1 and later, each at one position: at: END"
    return Diagnostic("CS569", message, place, hint=hint)
