"""`verify`: run a hypothesis and report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import annotating, answering, collecting, show
from circuitspec.cli.options import (
    BATCH_SIZE,
    DEFAULT_DEVICE,
    DEVICE,
    FILE,
    FOLDER,
    FORMAT,
    HTML,
    NO_STORE,
    REPORTS,
    STORE,
    also_written,
    make_directory,
    methods,
    store_place,
)
from circuitspec.cli.outputs import check_outputs, files_of
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.reports.report_formats import FORMATS

if TYPE_CHECKING:
    from circuitspec.engine.cache.stored_runner import StorePlace
    from circuitspec.hypothesis_file.load_file import Document
    from circuitspec.pipelines.verify import Outcome


_NEGATIVES = "screen"  # how negative components are looked for unless --negatives says otherwise


@click.command()
@click.argument("file", type=FILE)
@FORMAT
@REPORTS
@HTML
@click.option("--output-dir", type=FOLDER, help="Write the tables here, and what `report` shows again.")
@click.option("--prompts", "list_prompts", is_flag=True, help="List the prompts behind each claim (text format).")
@click.option("--locked", is_flag=True, help="Compare with FILE's lock; fail on whatever is not as locked.")
@click.option(
    "--negatives",
    type=click.Choice(["screen", "exact", "off"]),
    default=_NEGATIVES,
    show_default=True,
    help="Look for negative components outside the circuit (screen all by one backward pass and "
    "restore the worst, restore every one, or do not look), and at the circuit's own parts: ablate every one of a "
    "small circuit and what is declared negative or backup in a large one, every one, or none.",
)
@methods("Run the circuit under every combination of the six choices of method, and show what it recovers.")
@click.option("--tests", is_flag=True, help="Test the circuit statistically, also against random circuits.")
@BATCH_SIZE
@DEVICE
@STORE
@NO_STORE
@answering
def verify(
    file: Path,
    format_: str,
    reports: list[tuple[str, Path]],
    page: Path | None,
    output_dir: Path | None,
    list_prompts: bool,
    locked: bool,
    negatives: Any,
    sweep: bool,
    tests: bool,
    batch_size: int | None,
    device: str,
    root: Path | None,
    no_store: bool,
) -> None:
    """Run the hypothesis in FILE on its model and judge its claims.

    What was measured before, with the same model, prompts and versions, is not run again; with --locked, everything is.
    """
    from dataclasses import replace

    from circuitspec.hypothesis_file.load_file import load_hypothesis
    from circuitspec.repository.lock import lock_path

    with annotating(format_):
        document = load_hypothesis(file)
        inputs = [("FILE", file), ("its lock", lock_path(file)), *files_of(document)]
        check_outputs(inputs, _outputs(reports, page, output_dir))
        if output_dir is not None:
            make_directory(output_dir)
        place = store_place(root, no_store)
        store = None if locked else place  # whether a lock still holds is seen by running it
        outcome, findings = _run(
            document, file if locked else None, negatives, batch_size, device, store, sweep=sweep, tests=tests
        )
    from circuitspec.reports.live_views import LiveViews
    from circuitspec.reports.machine.table_files import earlier_files, result_files, text_file, write_folder
    from circuitspec.reports.report_files import write_report
    from circuitspec.reports.reported import Asked, Reported
    from circuitspec.reports.saved_result import REPORT, save
    from circuitspec.reports.views import Style
    from circuitspec.repository.environment import environment

    verification = outcome.verification
    problems = [finding for finding in findings if finding.severity == "error"]
    show(finding for finding in findings if finding.severity != "error")
    asked = Asked(_given(negatives, device, sweep=sweep, tests=tests, locked=locked), device)
    ran_on = environment(device).model_dump(mode="json")
    reported = Reported(verification, document.source, findings, task=outcome.task, asked=asked, environment=ran_on)
    if output_dir is not None:
        with collecting(problems):
            files = result_files(verification, outcome.task.prompts)
            artifacts = tuple(str(output_dir / name) for name in (*files, REPORT))
            told = replace(reported, verification=replace(verification, artifacts=artifacts))
            text = save(LiveViews(told, list_prompts=list_prompts))
            files[REPORT] = text_file(text)
            write_folder(output_dir, files, gone=earlier_files(), last=REPORT)
            reported = told
    views, style = LiveViews(reported, list_prompts=list_prompts), Style(list_prompts=list_prompts)
    for name, path in also_written(reports, page):
        with collecting(problems):
            write_report(path, FORMATS[name](views, style))
    click.echo(FORMATS[format_](views, replace(style, color=sys.stdout.isatty())), nl=False)
    if problems:
        raise CircuitspecError(*problems)
    raise SystemExit(verification.exit_code)


def _outputs(
    reports: list[tuple[str, Path]], page: Path | None, output_dir: Path | None
) -> Iterator[tuple[str, Path | None]]:
    """What is written, by the option that asks for it."""
    from circuitspec.reports.machine.table_files import earlier_files
    from circuitspec.reports.saved_result import REPORT

    if output_dir is not None:
        yield from (("--output-dir", output_dir / name) for name in (*earlier_files(), REPORT))
    yield from ((f"--report {name}", path) for name, path in reports)
    yield "--html", page


def _given(negatives: str, device: str, *, sweep: bool, tests: bool, locked: bool) -> tuple[str, ...]:
    """The options that matter to the result and are not at their defaults, as they are typed."""
    return (
        *(() if negatives == _NEGATIVES else ("--negatives", negatives)),
        *(("--methods",) if sweep else ()),
        *(("--tests",) if tests else ()),
        *(() if device == DEFAULT_DEVICE else ("--device", device)),
        *(("--locked",) if locked else ()),
    )


def _run(
    document: Document,
    lock_of: Path | None,
    negatives: Any,
    rows: int | None,
    device: str,
    store: StorePlace,
    *,
    sweep: bool,
    tests: bool,
) -> tuple[Outcome, tuple[Diagnostic, ...]]:
    """The outcome, and how it differs from the lock of the file `lock_of`, if one is given."""
    from circuitspec.repository.drift import examine
    from circuitspec.repository.lock import lock_path
    from circuitspec.repository.lock_file import read_lock

    lock_file = None if lock_of is None else read_lock(lock_path(lock_of))
    examined = None if lock_file is None else examine(document, lock_file, device)
    if examined is not None:
        examined.refuse()  # before torch is imported
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        from circuitspec.pipelines.locked import run_as_locked
        from circuitspec.pipelines.verify import VerifyOptions
        from circuitspec.pipelines.verify import verify as run

        options = VerifyOptions(negatives, rows, device, store, sweep, tests)
        if lock_file is None or examined is None:
            return run(document, options, progress), ()
        compared = run_as_locked(document, options, progress, lock_file, examined)
        return compared.outcome, compared.findings
