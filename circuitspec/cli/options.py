"""Options and arguments that several commands share, and the checks of what was given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from circuitspec.cli.answering import show
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.reports.report_formats import FORMATS

if TYPE_CHECKING:
    from circuitspec.engine.cache.stored_runner import StorePlace
    from circuitspec.workers.processes import Processes
    from circuitspec.workers.ray_actors import RayActors

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

BATCH_SIZE = click.option(
    "--batch-size", type=click.IntRange(min=1), help="Batch size: prompts per forward pass.  [default: by memory]"
)
DEFAULT_DEVICE = "cpu"
DEVICE = click.option("--device", default=DEFAULT_DEVICE, show_default=True)
STORE = click.option(
    "--store",
    "root",
    type=FOLDER,
    metavar="DIR",
    envvar="CIRCUITSPEC_STORE",
    help="Keep what is measured here, and do not measure it again.  [default: in the user's cache]",
)


def with_workers(command: Command) -> Command:
    """`--workers`, `--worker-threads` and `--ray` for a command."""
    for option in (
        click.option(
            "--ray",
            "ray",
            is_flag=False,
            flag_value="",
            metavar="[ADDRESS]",
            help="The workers are on a Ray cluster: that at ADDRESS or RAY_ADDRESS, or one begun on this machine; as "
            "many as it has processors for, or --workers. Put it behind FILE, or write --ray=ADDRESS.",
        ),
        click.option(
            "--worker-threads",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Threads that each worker computes with, and so does this process. Results depend on them in the last "
            "digits, and not on the number of workers.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Run experiments in N processes on this machine, each with the model in memory.  [default: in this "
            "one]",
        ),
    ):
        command = option(command)
    return command


def workers_of(
    number: int | None, threads: int, ray: str | None
) -> AbstractContextManager[Processes | RayActors | None]:
    """The workers that are asked for; None where there are to be none."""
    if ray is not None:
        from circuitspec.workers.ray_actors import RayActors

        return RayActors(ray, number, threads)
    if number is None:
        return nullcontext()
    from circuitspec.workers.processes import Processes

    return Processes(number, threads)


NO_STORE = click.option(
    "--no-store",
    is_flag=True,
    envvar="CIRCUITSPEC_NO_STORE",
    help="Measure everything, and keep nothing. Set as CIRCUITSPEC_NO_STORE, it gives way to --store.",
)


def methods(help: str) -> Callable[[Command], Command]:
    """`--methods` for a command, as `sweep`; `--sweep`, as it was once called, still works and is not shown.

    `explore --sweep KIND` is another thing.
    """

    def add(command: Command) -> Command:
        command = click.option("--sweep", "sweep", is_flag=True, hidden=True)(command)
        return click.option("--methods", "sweep", is_flag=True, help=help)(command)

    return add


def _format_and_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if name not in FORMATS or not equals or not path:
        raise click.BadParameter(f"{text!r} is not FORMAT=PATH with one of {', '.join(FORMATS)}")
    return name, Path(path)


FORMAT = click.option("--format", "format_", type=click.Choice(list(FORMATS)), default="text", show_default=True)
REPORTS = click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="FORMAT=PATH",
    callback=lambda context, option, values: [_format_and_path(value) for value in values],
    help="Write the report in another format to a file as well; can be given several times.",
)
HTML = click.option(
    "--html", "page", type=FILE, help="Write the report as a page for a browser; as --report html=PATH."
)


def also_written(reports: list[tuple[str, Path]], page: Path | None) -> list[tuple[str, Path]]:
    """The formats and files of --report and --html."""
    return [*reports, *([] if page is None else [("html", page)])]


def on_the_command_line(parameter: str) -> bool:
    """Whether the command being run was given this option, and not by the environment or by default."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def store_place(root: Path | None, no_store: bool) -> StorePlace:
    """Where measurements are kept; None: nowhere. To be asked within a command that has both options.

    What the command line says holds against the environment, and within the environment CIRCUITSPEC_NO_STORE against
    CIRCUITSPEC_STORE. Raises click.UsageError where the command line says both. A folder that was asked for must be
    usable. The default one is done without where it is not, with one warning.
    """
    from circuitspec.engine.cache.stored_runner import SpareStore, default_root

    if no_store and on_the_command_line("root"):
        if on_the_command_line("no_store"):
            raise click.UsageError("--store DIR keeps what is measured, and --no-store keeps nothing: give one of them")
        no_store = False

    if no_store or root is not None:
        return None if no_store else root
    told: list[CircuitspecError] = []

    def tell(problem: CircuitspecError) -> None:
        if not told:
            show(unkept(found) for found in problem.diagnostics)
        told.append(problem)

    try:
        return SpareStore(default_root(), tell)
    except CircuitspecError as error:
        tell(error)
        return None


def unkept(found: Diagnostic) -> Diagnostic:
    """CS565: the run goes on, and what it measures is not kept."""
    return Diagnostic(
        "CS565",
        f"what is measured is not kept: {found.message}",
        hint="--store DIR keeps it in another folder; --no-store says that nothing is to be kept",
        severity="warning",
    )


def make_directory(path: Path) -> None:
    """Make it before the run: results that cannot be written are better known now."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--output-dir {path} cannot be made: {error.strerror}") from error


def check_output(out: Path, force: bool) -> None:
    """Refuse, as a usage error, an output that exists (but for `force`) or that has no folder."""
    if out.exists() and not force:
        raise click.UsageError(f"{out} exists; give another name, or --force to overwrite it")
    if not out.parent.is_dir():
        raise click.UsageError(f"there is no folder {out.parent}")
