"""`lock`, `diff`, `compare` and `report`: results that are kept, what became of them, and how they are shown again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import (
    BATCH_SIZE,
    DEVICE,
    FILE,
    FORMAT,
    HTML,
    NO_STORE,
    REPORTS,
    STORE,
    also_written,
    store_place,
)
from circuitspec.cli.outputs import check_outputs, files_of
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.reports.report_formats import FORMATS
from circuitspec.runtime.quick_imports import uncollected

if TYPE_CHECKING:
    from circuitspec.comparison.compared_circuits import ComparedCircuit
    from circuitspec.comparison.measured_circuits import MeasuredCircuits


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
        with uncollected():
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
@click.option("--run", "runs", is_flag=True, help="Run the circuits, each on the prompts of every file.")
@click.option("--metric", help="Compare what is recovered of this score.  [default: each file's own]")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--html", "page", type=FILE, help="Write the comparison as a page for a browser.")
@BATCH_SIZE
@DEVICE
@STORE
@NO_STORE
@answering
def compare(**given: Any) -> None:
    """Compare circuits: what they share, and how much random circuits would. With --run, what they do.

    A, B, ... are hypothesis files (drafts and imported ones too) or folders of `verify --output-dir`, of one model or
    of models of one shape. The exit code says whether they could be compared.
    """
    asked = CompareCall(**given)
    from circuitspec.comparison.compared_circuits import MOST, laid_out, read_circuit, same_model
    from circuitspec.comparison.comparison_document import comparison_document
    from circuitspec.comparison.comparison_result import compared
    from circuitspec.comparison.comparison_text import render_comparison
    from circuitspec.reports.saved_result import REPORT
    from circuitspec.reports.text.printing import print_document
    from circuitspec.runtime.files import write_text_whole

    count = len(asked.files)
    if not 2 <= count <= MOST:
        raise click.UsageError(f"compare takes 2 to {MOST} circuits, and {count} {'is' if count == 1 else 'are'} given")
    if asked.metric is not None and not asked.runs:
        raise click.UsageError("--metric says what is compared of runs: it goes with --run")
    inputs = [(f"circuit {n}", path / REPORT if path.is_dir() else path) for n, path in enumerate(asked.files, 1)]
    check_outputs(inputs, [("--html", asked.page)])
    circuits = laid_out([read_circuit(file) for file in asked.files])
    measured = _measured(circuits, asked) if asked.runs else None
    found = compared(circuits, one_model=same_model(circuits), measured=measured)
    if asked.page is not None:
        from circuitspec.comparison.comparison_page import comparison_html

        write_text_whole(asked.page, comparison_html(found))
    shown = print_document(comparison_document(found)) if asked.format_ == "json" else render_comparison(found)
    click.echo(shown, nl=False)


@dataclass(frozen=True)
class CompareCall:
    """What `compare` was called with, option by option."""

    files: tuple[Path, ...]
    runs: bool
    metric: str | None
    format_: str
    page: Path | None
    batch_size: int | None
    device: str
    root: Path | None
    no_store: bool


def _measured(circuits: Sequence[ComparedCircuit], asked: CompareCall) -> MeasuredCircuits:
    place = store_place(asked.root, asked.no_store)
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.compare import CompareOptions
            from circuitspec.pipelines.compare import compare as run

        return run(circuits, CompareOptions(asked.metric, asked.batch_size, asked.device, place), progress)


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
