"""`lock`, `diff`, `compare` and `report`: results that are kept, what became of them, and how they are shown again."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import BATCH_SIZE, DEVICE, FILE, FORMAT, HTML, REPORTS, also_written
from circuitspec.cli.outputs import check_outputs, files_of
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.reports.report_formats import FORMATS


@click.command()
@click.argument("file", type=FILE)
@BATCH_SIZE
@DEVICE
@answering
def lock(file: Path, batch_size: int | None, device: str) -> None:
    """Verify FILE and write down beside it what the result depends on, and the result.

    `circuitspec verify --locked FILE` then fails on whatever is no longer so: the hypothesis, a prompt, the model's
    files, a number. The exit code says whether the lock was written; whether the claims hold is in it.
    """
    from circuitspec.hypothesis_file.load_file import load_hypothesis
    from circuitspec.repository.lock import lock_path

    document = load_hypothesis(file)
    check_outputs([("FILE", file), *files_of(document)], [("the lock", lock_path(file))])
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        from circuitspec.pipelines.locked import run_and_lock
        from circuitspec.pipelines.verify import VerifyOptions
        from circuitspec.repository.lock_file import write_lock

        outcome, written = run_and_lock(document, VerifyOptions("off", batch_size, device), progress)
    from circuitspec.reports.reported import result_of

    path = lock_path(file)
    write_lock(path, written, file.name)
    for claim in outcome.verification.claims:
        say(f"{claim.status}  {claim.kind}   {claim.experiment}: {result_of(claim)}")
    say(f"wrote {path}")


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@answering
def diff(a: Path, b: Path) -> None:
    """Compare two results claim by claim: exit code 0 if they agree, 1 if not.

    A and B are what `verify --format json` printed, folders of `verify --output-dir`, or locks.
    """
    from circuitspec.repository.diff import compare, render_diff
    from circuitspec.repository.recorded import read_recorded

    found = compare(read_recorded(a), read_recorded(b))
    if not found.claims:
        raise CircuitspecError(
            Diagnostic("CS564", f"neither {a} nor {b} has a claim to compare", hint="make them again with `verify`")
        )
    click.echo(render_diff(found), nl=False)
    raise SystemExit(0 if found.agree else 1)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="A B [C ...]", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@answering
def compare(files: tuple[Path, ...], format_: str) -> None:
    """Compare circuits: what they share, and how much random circuits would.

    A, B, ... are hypothesis files (drafts and imported ones too) or folders of `verify --output-dir`, of one model or
    of models of one shape. The exit code says whether they could be compared.
    """
    from circuitspec.comparison.compared_circuits import MOST, laid_out, read_circuit, same_model
    from circuitspec.comparison.comparison_document import comparison_document
    from circuitspec.comparison.comparison_result import compared
    from circuitspec.comparison.comparison_text import render_comparison
    from circuitspec.reports.text.printing import print_document

    if not 2 <= len(files) <= MOST:
        raise click.UsageError(
            f"compare takes 2 to {MOST} circuits, and {len(files)} {'is' if len(files) == 1 else 'are'} given"
        )
    circuits = laid_out([read_circuit(file) for file in files])
    found = compared(circuits, one_model=same_model(circuits))
    shown = print_document(comparison_document(found)) if format_ == "json" else render_comparison(found)
    click.echo(shown, nl=False)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@FORMAT
@REPORTS
@HTML
@click.option("--prompts", "list_prompts", is_flag=True, help="List the prompts behind each claim (text format).")
@answering
def report(**given: Any) -> None:
    """Show a result again, in any format, without its model.

    RESULTS is the folder that `verify --output-dir` wrote. The reports are those that the run gave, byte for byte. The
    exit code says whether they could be written; `verify` gives the verdict as its own.
    """
    asked = ReportCall(**given)
    from circuitspec.reports.report_files import write_report
    from circuitspec.reports.saved_result import REPORT, read_saved
    from circuitspec.reports.views import Style

    saved = asked.results / REPORT if asked.results.is_dir() else asked.results
    outputs = [(f"--report {name}", path) for name, path in asked.reports]
    check_outputs([("RESULTS", saved)], [*outputs, ("--html", asked.page)])
    views, style = read_saved(asked.results), Style(list_prompts=asked.list_prompts)
    for name, path in also_written(asked.reports, asked.page):
        write_report(path, FORMATS[name](views, style))
    click.echo(FORMATS[asked.format_](views, replace(style, color=sys.stdout.isatty())), nl=False)


@dataclass(frozen=True)
class ReportCall:
    """What `report` was called with, option by option."""

    results: Path
    format_: str
    reports: list[tuple[str, Path]]
    page: Path | None
    list_prompts: bool
