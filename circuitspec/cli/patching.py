"""`doctor` and `compile`: the patching itself, tested on a model or written down for pyvene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import answering, say, show
from circuitspec.cli.options import DEVICE, FILE
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.grammar.dictionary_places import FORMS, DictionaryPlace
from circuitspec.runtime.quick_imports import uncollected

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.load_file import Study
    from circuitspec.reports.text.doctor_text import ExaminedModel


@click.command()
@click.argument("model")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64", "bfloat16", "float16"]), help="[default: FILE's, or float32]"
)
@click.option(
    "--dictionary",
    "named",
    multiple=True,
    metavar="AT=FOLDER|NAME",
    help="Also a dictionary of features: its place and files (r8=./saes/res8), or its name in FILE; can be given "
    "several times.  [default: all of FILE]",
)
@click.option(
    "--prompts",
    type=FILE,
    help="What dictionaries are measured on: a file with a task, or of prompts (.jsonl, .csv).  [default: FILE's task]",
)
@DEVICE
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--new",
    is_flag=True,
    help="MODEL is a directory with a model of a family that is not supported: try the entries of all others on it, "
    "and print the one to add.",
)
@answering
def doctor(**given: Any) -> None:
    """Test every site at which MODEL can be patched: exit code 0 if patching is exact, 5 if not.

    MODEL is what `model: id:` may be in a file (a hub id, a directory, zoo:NAME, package:MODULE/FILE.gguf), or a FILE
    that names one (.yaml): then its dictionaries are measured too, on its own prompts. A dictionary that does not fit
    the model is refused (5), and one that explains little of the model's values is warned about (CS467).
    """
    asked = DoctorCall(**given)
    if not asked.model:
        raise click.UsageError("MODEL is empty")
    if asked.new:
        _try_entries(asked)
        return
    try:
        asked.model.encode()
    except UnicodeEncodeError as error:
        raise click.UsageError("MODEL is a path that is not UTF-8: rename the folder") from error
    places = [_place(one) for one in asked.named if "=" in one]
    names = [one for one in asked.named if "=" not in one]
    named_file = asked.model.endswith((".yaml", ".yml")) and not Path(asked.model).is_dir()
    file = Path(asked.model) if named_file else None
    prompts = asked.prompts or file
    if names and file is None:
        raise click.UsageError(f"--dictionary {names[0]}: MODEL is no file that names dictionaries; write AT=FOLDER")
    if places and prompts is None:
        raise click.UsageError("--dictionary needs --prompts FILE: dictionaries are measured on prompts")
    from circuitspec.hypothesis_file.load_file import load_exploration

    study = None if file is None else load_exploration(file)
    own = () if study is None else tuple(study.exploration.dictionaries)
    if unknown := [name for name in names if name not in own]:
        there = ", ".join(own) or "none"
        raise click.UsageError(f"--dictionary {unknown[0]}: {asked.model} has no such dictionary (it has {there})")
    if not names and not places:
        names = list(own)
    if asked.prompts is not None and not names and not places:
        raise click.UsageError("--prompts is what dictionaries are measured on: name one, --dictionary AT=FOLDER")
    examined = _examined(asked, study, names, places)
    from circuitspec.reports.text.doctor_text import render_json, render_text

    click.echo(render_json(examined) if asked.format_ == "json" else render_text(examined), nl=False)
    warnings = _warnings(examined)
    if examined.diagnosis.problems:
        raise CircuitspecError(*examined.diagnosis.problems, *warnings)
    if warnings:
        show(warnings)


@dataclass(frozen=True)
class DoctorCall:
    """What `doctor` was called with, option by option."""

    model: str
    dtype: Any
    named: tuple[str, ...]
    prompts: Path | None
    device: str
    format_: str
    new: bool


def _try_entries(asked: DoctorCall) -> None:
    """What of the table fits a model of another family; CS304 where nothing is sound."""
    if not Path(asked.model).is_dir():
        raise click.UsageError(f"--new: {asked.model} is no directory with a model")
    if asked.named or asked.prompts is not None or asked.dtype is not None or asked.format_ != "text":
        raise click.UsageError("--new takes MODEL alone")
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.whole_model.unknown_family import render_tried, try_entries

        tried = try_entries(Path(asked.model), progress)
    click.echo(render_tried(tried), nl=False)
    if not tried.sound:
        raise CircuitspecError(
            Diagnostic(
                "CS304",
                f"models of the family {tried.family!r} are not supported, and no other entry is sound on this one",
                hint="docs/families.md says how an entry is written",
            )
        )


def _examined(
    asked: DoctorCall, study: Study | None, names: Sequence[str], places: Sequence[tuple[DictionaryPlace, str]]
) -> ExaminedModel:
    """The model, of the `study` or as it was called, with its dictionaries of these names and those at these places."""
    from circuitspec.hypothesis_file.schema.blocks import ModelSpec

    spec = ModelSpec(id=asked.model) if study is None else study.exploration.model
    if asked.dtype is not None:
        spec = spec.model_copy(update={"dtype": asked.dtype})
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.engine.execution.compiler import borrowed
            from circuitspec.engine.validation.site_tests import diagnose
            from circuitspec.pipelines.interactive import dictionary_check as dictionaries
            from circuitspec.pipelines.interactive.given_prompts import given_study
            from circuitspec.reports.text.doctor_text import ExaminedModel

        loading = dictionaries.loading_of(spec, study, Path.cwd(), asked.device, progress)
        declared = [dictionaries.declared_in(study, names)] if study is not None and names else []
        if places:
            declared.append(dictionaries.dictionaries_at(places, Path.cwd(), names))
        prompts = study if asked.prompts is None else given_study(asked.prompts)
        if declared and prompts is not None:
            loaded, task = dictionaries.checked_on(prompts, loading, declared)
        else:
            loaded, task = loading(lambda shape, tokenizer: None), None
        progress.stage("testing every site")
        with borrowed(loaded.model):
            diagnosis = diagnose(loaded, progress)
            checks = () if task is None else dictionaries.check_dictionaries(loaded, task, progress)
    found = tuple((one.fit, one.loss) for one in checks)
    return ExaminedModel(loaded.provenance, loaded.architecture, loaded.shape, asked.device, diagnosis, found)


def _warnings(examined: ExaminedModel) -> list[Diagnostic]:
    """CS467 for each dictionary that explains little."""
    from circuitspec.analysis.dictionary_figures import little_explained

    found = [little for fit, _ in examined.dictionaries if (little := little_explained(fit)) is not None]
    return [Diagnostic("CS467", said, hint=remedy, severity="warning") for said, remedy in found]


def _place(text: str) -> tuple[DictionaryPlace, str]:
    """Of `r8=./saes/res8`. Raises click.UsageError for what is no place, or has no folder."""
    at, _, folder = text.partition("=")
    try:
        place = DictionaryPlace.parse(at)
    except ValueError as error:
        raise click.UsageError(f"--dictionary {text}: {error}; places are {FORMS}") from error
    if not folder:
        raise click.UsageError(f"--dictionary {text}: there is no folder behind the =")
    return place, folder


@click.command("compile")
@click.argument("file", type=FILE)
@click.option("--emit", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write the bundle here.")
@click.option("--force", is_flag=True, help="Replace a bundle that is in DIR.")
@DEVICE
@answering
def compile_(file: Path, emit: Path, force: bool, device: str) -> None:
    """Write the experiments of FILE as a bundle that pyvene runs by itself.

    DIR gets config.json (which pyvene loads), unit_locations.json, the tokenised prompts, the means that
    are patched in, and run.py, which needs only torch, transformers, pyvene and safetensors.
    """
    from circuitspec.hypothesis_file.load_file import load_hypothesis

    document = load_hypothesis(file)
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.reports.machine.bundle_files import refusal, write_bundle

        refused = refusal(emit, force=force)
        if refused:
            raise click.UsageError(refused)
        from circuitspec.pipelines.bundle import compile_bundle

        bundle = compile_bundle(document, device, progress)
    write_bundle(emit, bundle)
    say(f"wrote {emit} ({len(bundle.names)} experiments); how to run it is in {emit / 'README.md'}")
