"""`check` and `plan`: what can be said of a file without running it."""

from __future__ import annotations

from pathlib import Path

import click

from circuitspec.cli.answering import annotate, answering, show
from circuitspec.cli.options import FILE, methods
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, exit_code
from circuitspec.runtime.quick_imports import uncollected


@click.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--format", "format_", type=click.Choice(["text", "github"]), default="text", show_default=True)
@answering
def check(files: tuple[Path, ...], format_: str) -> None:
    """Read FILES and report every mistake, without running anything.

    Layer and head numbers are checked too where the model's configuration is at hand. Of a file with a model and a task
    alone, which `explore` takes, it says what `verify` needs besides.
    """
    with uncollected():
        from circuitspec.exploration.preview import check_study
        from circuitspec.pipelines.check import check_file

    found: list[Diagnostic] = []
    for file in files:
        problems, summary = check_study(file) if _is_to_explore(file) else check_file(file)
        found += problems
        show(problems)
        annotate(problems, format_)
        if summary:
            click.echo(summary)
    if found:
        raise SystemExit(exit_code(found))


@click.command()
@click.argument("file", type=FILE)
@methods("Say what `verify --methods` would add.")
@click.option("--tests", is_flag=True, help="Say what `verify --tests` would add.")
@answering
def plan(file: Path, sweep: bool, tests: bool) -> None:
    """Print what `verify` would run on FILE, without running it.

    Of a file with a model and a task alone, what `explore` would take.
    """
    if _is_to_explore(file):
        if sweep or tests:
            raise click.UsageError(f"--methods and --tests are about `verify`, and {file} has no circuit to verify")
        from circuitspec.exploration.preview import plan_study
        from circuitspec.hypothesis_file.load_file import load_exploration

        click.echo(plan_study(load_exploration(file)))
        return
    with uncollected():
        from circuitspec.pipelines.plan import plan_file

    click.echo(plan_file(file, sweep=sweep, tests=tests))


def _is_to_explore(file: Path) -> bool:
    """What cannot be read is left to those who read it again, and say what is wrong."""
    from circuitspec.exploration.preview import is_to_explore

    try:
        return is_to_explore(file)
    except CircuitspecError:
        return False
