"""`explore`: find a circuit and draft a hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from circuitspec.cli.aligning import (
    CarriesCall,
    VariableCall,
    check_beside_carries,
    check_beside_variable,
    explore_carries,
    explore_variable,
)
from circuitspec.cli.answering import answering
from circuitspec.cli.options import (
    BATCH_SIZE,
    DEVICE,
    FILE,
    FOLDER,
    NO_STORE,
    STORE,
    make_directory,
    on_the_command_line,
    store_place,
    with_workers,
    workers_of,
)
from circuitspec.cli.outputs import check_outputs, command_line, files_of
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exploration.request import SWEPT
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.runtime.collecting import uncollected

if TYPE_CHECKING:
    from circuitspec.exploration.exploration_findings import ExplorationFindings
    from circuitspec.exploration.request import ExploreOptions, Kind
    from circuitspec.hypothesis_file.load_file import Study

_NOISY = " or ".join(name for name, kind in ABLATIONS.items() if kind.noise)
_WHERE_NOISE = f"Where sweeps of {_NOISY} add noise to embeddings."


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--metric",
    default="logit_diff",
    show_default=True,
    help="The score that effects are measured by; also '{attention: a9.h9, from: END, to: IO}' and the like.",
)
@click.option("--free", multiple=True, metavar="NAME", help="Components that are never patched, such as 'm*'.")
@click.option("--target", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="What a circuit recovers.")
@click.option("--knee", is_flag=True, help="On the way to the target, take the circuit at the knee of the frontier.")
@click.option("--exact", type=click.IntRange(min=1), default=60, show_default=True, help="Effects patched exactly.")
@click.option(
    "--links", type=click.IntRange(min=0), default=12, show_default=True, help="Members whose paths are tried."
)
@click.option(
    "--start",
    type=click.Choice(["estimates", "resid"]),
    default="estimates",
    show_default=True,
    help="Estimate all components first, or sweep exactly: residual stream, layers that matter, their heads.",
)
@click.option("--neurons", is_flag=True, help="MLPs of a circuit as their neurons, where a few do what the MLP does.")
@click.option(
    "--sweep",
    "sweeps",
    type=click.Choice(list(SWEPT)),
    multiple=True,
    help="Patch all of these, layer by layer and position by position.",
)
@click.option("--variable", metavar="NAME", help="Look for this variable of FILE's abstraction, and nothing else.")
@click.option("--rank", type=click.IntRange(min=1), help="Then learn subspaces of this rank where it is found.")
@click.option(
    "--places", type=click.IntRange(min=1), default=2, show_default=True, help="So many such places, at most."
)
@click.option("--carries", is_flag=True, help="Draft `carries` for FILE's paths (causal scrubbing), and nothing else.")
@click.option(
    "--value",
    "values",
    type=click.Choice(list(ABLATIONS)),
    multiple=True,
    help="What sweeps patch in, side by side.  [default: the file's ablation]",
)
@click.option("--noise-at", multiple=True, metavar="POSITION", help=_WHERE_NOISE)
@click.option("--max-forwards", type=click.IntRange(min=1), help="Passes over all prompts, at most.")
@click.option("--steps", type=click.IntRange(min=1), default=1, show_default=True, help="Of integrated gradients.")
@click.option("--recompute-attention", is_flag=True, help="Estimates that see effects through saturated attention.")
@click.option("--drop-gradients", is_flag=True, help="Estimates that see effects which cancel.")
@click.option(
    "--random",
    "drawn",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Components with small estimates, drawn at random, that are patched to see what estimates miss.",
)
@click.option("--paths", type=click.IntRange(min=1), default=300, show_default=True, help="Paths patched exactly.")
@click.option(
    "--sections",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Minimal cross-sections restored, of the drafted circuit and of the one that FILE declares.",
)
@click.option(
    "--sections-only", is_flag=True, help="Restore the cross-sections of FILE's circuit, and look at nothing else."
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Run all that is patched on all prompts, also what a few of them show to do next to nothing.",
)
@click.option(
    "--stability",
    type=click.IntRange(min=2),
    metavar="N",
    help="Repeat the search on N random halves of the prompts: how often is each member chosen?",
)
@click.option("--plan", "plan_only", is_flag=True, help="Say what this would take, by stage, and run nothing.")
@click.option("--draft", type=FILE, help="Write the circuit with its negative components as a hypothesis.")
@click.option("--draft-helpful", type=FILE, help="Write the circuit of helpful components alone.")
@click.option("--task-from", type=FILE, help="Take the drafts' model and task from this file: fresh prompts.")
@click.option("--output-dir", type=FOLDER, help="Write tables and pictures here.")
@click.option("--html", "page", type=FILE, help="Write what was found as a page for a browser.")
@BATCH_SIZE
@DEVICE
@with_workers
@STORE
@NO_STORE
@answering
def explore(**given: Any) -> None:
    """Find out which components of FILE's model do FILE's task, and draft a hypothesis of it.

    FILE needs only `model` and `task`, and a corruption. `verify` then tests the draft, best on prompts that it was not
    drafted on.

    With --variable FILE needs an `abstraction` too: each place of the residual stream (or of what --sweep says) takes
    its value in the source of every pair, and an entry of `align` is drafted. With --rank it is of a subspace.

    With --carries FILE is a hypothesis with paths: what their values carry is cut down, from everything on, as long as
    --target of what is recovered with everything stays.
    """
    asked = ExploreCall(**given)
    asked.check()
    if asked.carries:
        explore_carries(CarriesCall(**{field.name: getattr(asked, field.name) for field in fields(CarriesCall)}))
        return
    from circuitspec.hypothesis_file.load_file import load_exploration

    study = load_exploration(asked.file)
    if asked.variable is not None:
        of_variable = {field.name: getattr(asked, field.name) for field in fields(VariableCall)}
        explore_variable(VariableCall(**of_variable), asked.variable, study)
        return
    if asked.plan_only:
        from circuitspec.exploration.preview import plan_study

        click.echo(plan_study(study, asked.options()))
        return
    fresh = None if asked.task_from is None else load_exploration(asked.task_from)
    _check_outputs(asked, study, fresh)
    if asked.output_dir is not None:
        make_directory(asked.output_dir)
    with workers_of(asked.workers, asked.worker_threads, asked.ray) as workers, waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.explore import explore

        found = explore(study, asked.options(), progress, command_line(asked.file), fresh, workers=workers)
    from circuitspec.exploration.output.exploration_text import render_exploration

    _write_findings(asked, found)
    click.echo(render_exploration(found), nl=False)
    _write_drafts(asked, found, (fresh or study).base_dir)


@dataclass(frozen=True)
class ExploreCall:
    """What `explore` was called with, option by option."""

    file: Path
    metric: str
    free: tuple[str, ...]
    target: float
    knee: bool
    exact: int
    links: int
    start: Literal["estimates", "resid"]
    neurons: bool
    sweeps: tuple[Kind, ...]
    variable: str | None
    rank: int | None
    places: int
    carries: bool
    values: tuple[str, ...]
    noise_at: tuple[str, ...]
    max_forwards: int | None
    steps: int
    recompute_attention: bool
    drop_gradients: bool
    drawn: int
    paths: int
    sections: int
    sections_only: bool
    thorough: bool
    stability: int | None
    plan_only: bool
    draft: Path | None
    draft_helpful: Path | None
    task_from: Path | None
    output_dir: Path | None
    page: Path | None
    batch_size: int | None
    device: str
    workers: int | None
    worker_threads: int
    ray: str | None
    root: Path | None
    no_store: bool

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if (self.workers is not None or self.ray is not None) and (self.carries or self.variable is not None):
            raise click.UsageError("--workers and --ray run experiments: they do not go with --carries or --variable")
        if self.carries:
            check_beside_carries()
            return
        if self.variable is not None:
            check_beside_variable(self.sweeps, self.rank)
            return
        if self.rank is not None or on_the_command_line("places"):
            raise click.UsageError("--rank and --places go with --variable")
        if self.values and self.start != "resid" and not self.sweeps:
            raise click.UsageError("--value is what sweeps patch in: it goes with --start resid or --sweep")
        if self.noise_at and not any(ABLATIONS[value].noise for value in self.values):
            raise click.UsageError(f"--noise-at goes with --value {_NOISY}")
        from circuitspec.exploration.search.estimable import inestimable

        if self.draft or self.draft_helpful:
            if self.sections_only:
                raise click.UsageError("--sections-only drafts nothing")
            why_not = "it is read inside the model" if "{" in self.metric else inestimable(self.metric)
            if why_not:
                raise click.UsageError(
                    f"a draft is chosen with estimates, and --metric {self.metric} has none: {why_not}"
                )
        if self.sections_only and (self.sweeps or self.start == "resid" or not self.sections):
            raise click.UsageError("--sections-only sweeps nothing, and restores cross-sections")
        if self.steps > 1 and self.recompute_attention:
            raise click.UsageError("--steps and --recompute-attention mend the same estimates: give one of them")
        if self.stability is not None:
            self._check_stability()

    def _check_stability(self) -> None:
        """Raises UsageError where no circuit is chosen, or not by what is known prompt by prompt."""
        from circuitspec.exploration.search.estimable import inestimable

        if self.sections_only or "{" in self.metric or inestimable(self.metric):
            raise click.UsageError("--stability repeats the choice of a circuit, and none is chosen here")
        if self.recompute_attention:
            raise click.UsageError("--stability takes estimates prompt by prompt, and --recompute-attention has none")

    def options(self) -> ExploreOptions:
        """What the exploration itself is told."""
        from circuitspec.exploration.request import ExploreOptions

        return ExploreOptions(
            metric=self.metric,
            free=self.free,
            target=self.target,
            knee=self.knee,
            exact=self.exact,
            linked=self.links,
            steps=self.steps,
            rows=self.batch_size,
            device=self.device,
            store=store_place(self.root, self.no_store),
            start=self.start,
            neurons=self.neurons,
            sweeps=self.sweeps,
            values=self.values,
            max_forwards=self.max_forwards,
            drawn=self.drawn,
            dropping=self.drop_gradients,
            recomputing=self.recompute_attention,
            paths=self.paths,
            noise_at=self.noise_at,
            sections=self.sections,
            sections_only=self.sections_only,
            thorough=self.thorough,
            stability=self.stability or 0,
        )


def _write_findings(asked: ExploreCall, found: ExplorationFindings) -> None:
    """Tables and pictures, and the page, where they are asked for."""
    from circuitspec.exploration.output.exploration_figures import pictures
    from circuitspec.exploration.output.exploration_tables import tables
    from circuitspec.reports.machine.table_files import table_files, text_file, write_folder
    from circuitspec.reports.report_files import write_report

    if asked.output_dir is not None:
        svgs = {f"{name}.svg": text_file(picture.standalone()) for name, picture in pictures(found).items()}
        texts = {}
        if found.stability is not None:
            from circuitspec.exploration.output.stability_output import stability_json

            texts["stability.json"] = text_file(stability_json(found.stability))
        write_folder(asked.output_dir, {**table_files(tables(found)), **svgs, **texts})
    if asked.page is not None:
        from circuitspec.exploration.output.exploration_page import exploration_html

        write_report(asked.page, exploration_html(found, command_line(asked.file)))


def _write_drafts(asked: ExploreCall, found: ExplorationFindings, base_dir: Path) -> None:
    """The drafts that are asked for, with files named relative to `base_dir`. Raises CS542 and CS543 without one."""
    from circuitspec.exploration.output.exploration_warnings import nothing_in
    from circuitspec.exploration.output.relative_files import rebased
    from circuitspec.reports.report_files import write_report

    wanted = [path for path in (asked.draft, asked.draft_helpful) if path is not None]
    if wanted and not found.circuits:
        raise CircuitspecError(
            Diagnostic(
                "CS542",
                f"--max-forwards {asked.max_forwards} ended before a circuit was chosen: {wanted[0]} is not written",
                hint="raise --max-forwards; what is in the store costs nothing",
            )
        )
    without: list[Diagnostic] = []
    for path, circuit in zip((asked.draft, asked.draft_helpful), found.circuits, strict=bool(found.circuits)):
        if path is None:
            continue
        if circuit.is_empty:
            said = f"{path} is not written: {nothing_in(found, circuit)}"
            hint = "a hypothesis claims something of components: leave less free (--free), or take another --metric"
            without.append(Diagnostic("CS543", said, hint=hint))
        else:
            write_report(path, rebased(circuit.draft.text, base_dir, path.parent))
    if without:
        raise CircuitspecError(*without)


def _check_outputs(asked: ExploreCall, study: Study, fresh: Study | None) -> None:
    """Usage errors for outputs that would replace what is read, or each other."""
    from circuitspec.exploration.output.exploration_tables import NAMES

    inputs: list[tuple[str, Path | None]] = [("FILE", asked.file), ("--task-from", asked.task_from), *files_of(study)]
    inputs += [] if fresh is None else files_of(fresh)
    outputs: list[tuple[str, Path | None]] = [("--draft", asked.draft), ("--draft-helpful", asked.draft_helpful)]
    outputs += [("--html", asked.page)]
    if asked.output_dir is not None:
        outputs += [("--output-dir", asked.output_dir / f"{name}.csv") for name in NAMES]
    check_outputs(inputs, outputs)
