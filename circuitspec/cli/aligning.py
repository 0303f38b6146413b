"""`align`, `explore --variable` and `--carries`: where a model carries variables, and what values must carry."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import DEVICE, FILE, NO_STORE, STORE, make_directory, store_place
from circuitspec.cli.outputs import check_outputs, command_line, files_of
from circuitspec.cli.waiting import waiting
from circuitspec.runtime.files import write_whole
from circuitspec.runtime.quick_imports import uncollected

if TYPE_CHECKING:
    from circuitspec.exploration.request import Kind
    from circuitspec.hypothesis_file.load_file import Study
    from circuitspec.pipelines.abstraction.subspace_search import AlignOptions


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    """`1,2,4` as numbers."""
    try:
        found = tuple(int(one) for one in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,2,4") from None
    if any(one < 1 for one in found):
        raise click.BadParameter("a rank is 1 or more")
    return found


@click.command()
@click.argument("file", type=FILE)
@click.option("--output", "-o", type=FILE, help="The file to write.  [default: FILE's name.subspaces.safetensors]")
@click.option("--ranks", callback=_numbers, metavar="1,2,4", help="Ranks to try.  [default: the file's]")
@click.option("--sites", default="", metavar="r1,r2", help="Components to try.  [default: the file's]")
@click.option("--steps", type=click.IntRange(min=1), default=200, show_default=True, help="Steps of Adam.")
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), default=0.01, show_default=True, help="Its learning rate."
)
@click.option(
    "--loss",
    type=click.Choice(["candidates", "vocabulary"]),
    default="candidates",
    show_default=True,
    help="Cross-entropy among these.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="How often it is learned.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option("--no-controls", is_flag=True, help="Leave out the controls that learn anew.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Pairs a step.")
@DEVICE
@STORE
@NO_STORE
@answering
def align(**given: Any) -> None:
    """Learn the subspaces of FILE's variables that name a rank and no file (distributed alignment search).

    Site, rank and step are chosen on validation pairs, and tested once, with all controls, on pairs of other words.
    After Ctrl-C the same command goes on behind the last subspace that was learned.
    """
    from circuitspec.hypothesis_file.load_file import load_hypothesis

    asked = AlignCall(**given)
    document = load_hypothesis(asked.file)
    check_outputs([("the hypothesis", asked.file), *files_of(document)], [("--output", asked.target)])
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.abstraction.alignment_text import render_alignments
            from circuitspec.pipelines.abstraction.subspace_search import align as search

        found = search(document, asked.options(), progress)
    write_whole(asked.target, found.content)
    click.echo(render_alignments(found, asked.target.name), nl=False)
    say(f"wrote {asked.target}")


@dataclass(frozen=True)
class AlignCall:
    """What `align` was called with, option by option."""

    file: Path
    output: Path | None
    ranks: tuple[int, ...]
    sites: str
    steps: int
    lr: float
    loss: str
    seeds: int
    seed: int
    no_controls: bool
    batch_size: int
    device: str
    root: Path | None
    no_store: bool

    @property
    def target(self) -> Path:
        """The file to write."""
        from circuitspec.experiments.subspaces.subspace_files import subspaces_beside

        return self.output or subspaces_beside(self.file)

    def options(self) -> AlignOptions:
        """As the pipeline takes it."""
        from circuitspec.engine.attribution.subspace_training import TrainingSettings
        from circuitspec.pipelines.abstraction.subspace_search import AlignOptions

        return AlignOptions(
            TrainingSettings(self.steps, self.lr, self.loss == "vocabulary"),
            seeds=self.seeds,
            seed=self.seed,
            ranks=self.ranks,
            sites=tuple(one.strip() for one in self.sites.split(",") if one.strip()),
            rows=self.batch_size,
            device=self.device,
            controls=not self.no_controls,
            store=store_place(self.root, self.no_store),
        )


@dataclass(frozen=True)
class VariableCall:
    """The options of `explore` that go with `--variable`."""

    file: Path
    variable: str | None
    rank: int | None
    places: int
    sweeps: tuple[Kind, ...]
    output_dir: Path | None
    page: Path | None
    batch_size: int | None
    device: str
    root: Path | None
    no_store: bool


@dataclass(frozen=True)
class CarriesCall:
    """The options of `explore` that go with `--carries`."""

    file: Path
    carries: bool
    metric: str
    target: float
    max_forwards: int | None
    batch_size: int | None
    device: str
    root: Path | None
    no_store: bool


def check_beside_carries() -> None:
    """Usage errors for options that say nothing of what values carry."""
    _check_beside("--carries", CarriesCall)


def _check_beside(what: str, call: type[VariableCall] | type[CarriesCall]) -> None:
    context = click.get_current_context()
    beside = {field.name for field in fields(call)}
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and option.name not in beside:
            raise click.UsageError(f"{option.opts[0]} does not go with {what}")


def check_beside_variable(sweeps: tuple[Kind, ...], rank: int | None) -> None:
    """Usage errors for options that say nothing of a sweep for a variable, and kinds that it does not sweep.

    Subspaces are learned where the draft proposes, which is among the kind that is swept first.
    """
    from circuitspec.exploration.variables.place_trials import KINDS

    _check_beside("--variable", VariableCall)
    if wrong := [kind for kind in sweeps if kind not in KINDS]:
        raise click.UsageError(f"--sweep {wrong[0]} does not go with --variable, which sweeps {', '.join(KINDS)}")
    if rank is not None and sweeps[:1] == ("attention",):
        raise click.UsageError("--rank is of one vector, and the heads of a layer are several: --sweep heads")


def explore_carries(asked: CarriesCall) -> None:
    """Find out the least that values on the declared paths must carry, and print it."""
    from circuitspec.hypothesis_file.load_file import load_hypothesis

    document = load_hypothesis(asked.file)
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.abstraction.carries_search import CarriesRequest, search_carries

        request = CarriesRequest(
            asked.metric,
            asked.target,
            most=asked.max_forwards,
            rows=asked.batch_size,
            device=asked.device,
            store=store_place(asked.root, asked.no_store),
        )
        found = search_carries(document, request, progress)
    from circuitspec.exploration.variables.carries_output import render_carries

    click.echo(render_carries(found), nl=False)


def explore_variable(asked: VariableCall, variable: str, study: Study) -> None:
    """Sweep for a variable, and say and write what is found."""
    outputs = [("--html", asked.page)]
    if asked.output_dir is not None:
        outputs.append(("--output-dir", asked.output_dir / "interchange.csv"))
    check_outputs([("FILE", asked.file), *files_of(study)], outputs)
    if asked.output_dir is not None:
        make_directory(asked.output_dir)
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.abstraction.variable_sweep import VariableRequest, sweep_variable

        kinds = asked.sweeps or ("resid",)
        store = store_place(asked.root, asked.no_store)
        request = VariableRequest(
            variable,
            kinds,
            rows=asked.batch_size,
            device=asked.device,
            store=store,
            rank=asked.rank,
            most=asked.places,
        )
        found = sweep_variable(study, request, progress)
    from circuitspec.exploration.variables.variable_output import (
        interchange_files,
        interchange_html,
        render_interchange,
    )
    from circuitspec.reports.machine.table_files import write_folder
    from circuitspec.reports.report_files import write_report

    if asked.output_dir is not None:
        write_folder(asked.output_dir, interchange_files(found))
    if asked.page is not None:
        write_report(asked.page, interchange_html(found, command_line(asked.file)))
    click.echo(render_interchange(found), nl=False)
