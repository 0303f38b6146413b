"""`verify`: run a hypothesis and report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import annotating, answering, collecting, say, show
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
    unkept,
    with_workers,
    workers_of,
)
from circuitspec.cli.outputs import check_outputs, files_of
from circuitspec.cli.waiting import waiting
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.reports.report_formats import FORMATS
from circuitspec.runtime.collecting import uncollected
from circuitspec.runtime.stage_times import TimedProgress

if TYPE_CHECKING:
    from circuitspec.analysis.circuit_effects.negative_components import Search
    from circuitspec.engine.cache.stored_runner import StorePlace
    from circuitspec.hypothesis_file.load_file import Document
    from circuitspec.pipelines.verify import Outcome, VerifyOptions
    from circuitspec.reports.reported import Reported
    from circuitspec.reports.views import Views
    from circuitspec.repository.kept_results import KeptResult
    from circuitspec.workers.shard_worker import LoadsWorkers


_ANEW = " (--no-store runs it)"
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
@click.option("--profile", is_flag=True, help="Say where the time went: seconds, forwards and memory of each stage.")
@click.option(
    "--alternatives",
    is_flag=True,
    help="After a supported claim of sufficiency, look for another circuit that does as well.",
)
@click.option(
    "--sharing",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="With --alternatives: it may have at most this share of the declared components.  [default: 0]",
)
@click.option(
    "--sequential",
    is_flag=True,
    help="Draw (or read) prompts in batches until every claim is decided, by intervals that may be looked at any time.",
)
@click.option(
    "--at-most",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --sequential: at most N prompts.  [default: four times as many as FILE asks for, or all of its prompts "
    "file]",
)
@click.option("--tests", is_flag=True, help="Test the circuit statistically, also against random circuits.")
@BATCH_SIZE
@DEVICE
@with_workers
@STORE
@NO_STORE
@answering
def verify(**given: Any) -> None:
    """Run the hypothesis in FILE on its model and judge its claims.

    What was measured before, with the same model, prompts and versions, is not run again; where nothing at all has
    changed, the result is shown again. With --locked, everything is run.
    """
    asked = VerifyCall(**given)
    if asked.sharing is not None and not asked.alternatives:
        raise click.UsageError("--sharing says what another circuit may have of the declared one: give --alternatives")
    if asked.at_most is not None and not asked.sequential:
        raise click.UsageError("--at-most says how many prompts may be drawn: give --sequential")
    if asked.locked and asked.sequential:
        raise click.UsageError("--locked compares with a lock of all of the file's prompts: leave out --sequential")
    with annotating(asked.format_):
        document = _checked(asked)
        place = store_place(asked.root, asked.no_store)
        kept = _kept(document, asked, place)
        views = None if kept is None else kept.found(asked.output_dir)
        if views is not None:
            from circuitspec.analysis.claims.claim_result import EXIT_CODES

            say(f"nothing has changed since this result was made, so nothing was run{_ANEW}", err=True)
            problems: list[Diagnostic] = []
            _show(asked, views, problems)
            if problems:
                raise CircuitspecError(*problems)
            raise SystemExit(EXIT_CODES[views.summary.verdict])
        outcome, findings = _run(document, asked, place)
    problems = [finding for finding in findings if finding.severity == "error"]
    show(finding for finding in findings if finding.severity != "error")
    reported = _report(asked, document, outcome, findings, problems)
    if problems:
        raise CircuitspecError(*problems)
    whole = outcome.verification.sequence is None or outcome.verification.sequence.stopped != "interrupted"
    if kept is not None and whole and not findings and kept == _kept(document, asked, place):  # nothing changed
        _keep(kept, reported, asked, place)
    raise SystemExit(outcome.verification.exit_code)


@dataclass(frozen=True)
class VerifyCall:
    """What `verify` was called with, option by option."""

    file: Path
    format_: str
    reports: list[tuple[str, Path]]
    page: Path | None
    output_dir: Path | None
    list_prompts: bool
    locked: bool
    negatives: Search
    sweep: bool
    sequential: bool
    at_most: int | None
    tests: bool
    profile: bool
    alternatives: bool
    sharing: float | None
    batch_size: int | None
    device: str
    workers: int | None
    worker_threads: int
    ray: str | None
    root: Path | None
    no_store: bool

    def options(self, place: StorePlace, workers: LoadsWorkers | None = None) -> VerifyOptions:
        """What the verification itself is told. Whether a lock still holds is seen by running it: without the store."""
        from circuitspec.pipelines.sequential import Sequential
        from circuitspec.pipelines.verify import VerifyOptions

        store = None if self.locked else place
        options = VerifyOptions(self.negatives, self.batch_size, self.device, store, self.sweep, self.tests)
        options = replace(options, workers=workers, alternatives=(self.sharing or 0.0) if self.alternatives else None)
        return replace(options, sequential=Sequential(self.at_most)) if self.sequential else options

    @property
    def works_elsewhere(self) -> bool:
        return self.workers is not None or self.ray is not None

    @property
    def said(self) -> tuple[str, ...]:
        """The options that matter to the result and are not at their defaults, as they are typed."""
        return (
            *(() if self.negatives == _NEGATIVES else ("--negatives", self.negatives)),
            *(("--methods",) if self.sweep else ()),
            *(("--tests",) if self.tests else ()),
            *(("--sequential",) if self.sequential else ()),
            *(("--at-most", str(self.at_most)) if self.at_most is not None else ()),
            *(("--alternatives",) if self.alternatives else ()),
            *(("--sharing", f"{self.sharing:g}") if self.sharing else ()),
            *(() if self.device == DEFAULT_DEVICE else ("--device", self.device)),
            *(("--locked",) if self.locked else ()),
            *(("--worker-threads", f"{self.worker_threads}") if self.works_elsewhere else ()),
        )

    @property
    def outputs(self) -> Iterator[tuple[str, Path | None]]:
        """What is written, by the option that asks for it."""
        from circuitspec.reports.saved_result import REPORT, earlier_files

        if self.output_dir is not None:
            yield from (("--output-dir", self.output_dir / name) for name in (*earlier_files(), REPORT))
        yield from ((f"--report {name}", path) for name, path in self.reports)
        yield "--html", self.page


def _checked(asked: VerifyCall) -> Document:
    """The file, with a place for what is written. Raises UsageError for outputs that would replace what is read."""
    from circuitspec.hypothesis_file.load_file import load_hypothesis
    from circuitspec.repository.lock import lock_path

    document = load_hypothesis(asked.file)
    inputs = [("FILE", asked.file), ("its lock", lock_path(asked.file)), *files_of(document)]
    check_outputs(inputs, asked.outputs)
    if asked.output_dir is not None:
        make_directory(asked.output_dir)
    return document


def _run(document: Document, asked: VerifyCall, place: StorePlace) -> tuple[Outcome, tuple[Diagnostic, ...]]:
    """The outcome, and how it differs from the file's lock, where that is asked for."""
    from circuitspec.repository.drift import examine
    from circuitspec.repository.lock import lock_path
    from circuitspec.repository.lock_file import read_lock

    lock_file = read_lock(lock_path(asked.file)) if asked.locked else None
    examined = None if lock_file is None else examine(document, lock_file, asked.device)
    if examined is not None:
        examined.refuse()  # before torch is imported
    starting = "starting torch and pyvene"
    with workers_of(asked.workers, asked.worker_threads, asked.ray) as workers, waiting() as shown:
        progress = TimedProgress(shown, starting) if asked.profile else shown
        shown.stage(starting)
        with uncollected():
            from circuitspec.pipelines.verify import verify as run
            from circuitspec.pipelines.with_locks.locked import run_as_locked

        if lock_file is None or examined is None:
            outcome = run(document, asked.options(place, workers), progress)
            findings: tuple[Diagnostic, ...] = ()
        else:
            compared = run_as_locked(document, asked.options(place, workers), progress, lock_file, examined)
            outcome, findings = compared.outcome, compared.findings
    if isinstance(progress, TimedProgress):
        outcome = replace(outcome, verification=replace(outcome.verification, profile=progress.ended()))
    return outcome, findings


def _report(
    asked: VerifyCall,
    document: Document,
    outcome: Outcome,
    findings: tuple[Diagnostic, ...],
    problems: list[Diagnostic],
) -> Reported:
    """Writes and prints what is asked for; what cannot be written joins the `problems`, and the rest is."""
    from circuitspec.reports.live_views import LiveViews
    from circuitspec.reports.machine.table_files import result_files, text_file, write_folder
    from circuitspec.reports.reported import Asked, Reported
    from circuitspec.reports.saved_result import REPORT, earlier_files, save
    from circuitspec.repository.environment import environment

    verification, list_prompts = outcome.verification, asked.list_prompts
    ran_on = environment(asked.device).model_dump(mode="json")
    command = Asked(asked.said, asked.device)
    reported = Reported(verification, document.source, findings, task=outcome.task, asked=command, environment=ran_on)
    if asked.output_dir is not None:
        with collecting(problems):
            files = result_files(verification, outcome.task.prompts)
            artifacts = tuple(str(asked.output_dir / name) for name in (*files, REPORT))
            told = replace(reported, verification=replace(verification, artifacts=artifacts))
            files[REPORT] = text_file(save(LiveViews(told, list_prompts=list_prompts)))
            write_folder(asked.output_dir, files, gone=earlier_files(), last=REPORT)
            reported = told
    _show(asked, LiveViews(reported, list_prompts=list_prompts), problems)
    return reported


def _show(asked: VerifyCall, views: Views, problems: list[Diagnostic]) -> None:
    """Writes the reports that are asked for, and prints one; what cannot be written joins the `problems`."""
    from circuitspec.reports.report_files import write_report
    from circuitspec.reports.views import Style

    style = Style(list_prompts=asked.list_prompts)
    for name, path in also_written(asked.reports, asked.page):
        with collecting(problems):
            write_report(path, FORMATS[name](views, style))
    click.echo(FORMATS[asked.format_](views, replace(style, color=sys.stdout.isatty())), nl=False)


def _kept(document: Document, asked: VerifyCall, place: StorePlace) -> KeptResult | None:
    """Where the result of this call is kept; None where it is to be made anew, as with --locked and --profile."""
    if place is None or asked.locked or asked.profile:
        return None
    from circuitspec.repository.kept_results import kept_result

    said = {
        "said": asked.said,
        "prompts": asked.list_prompts,
        "batch": asked.batch_size,
        "to": str(asked.output_dir),
    }
    read = [path for _, path in files_of(document)]
    return kept_result(document, read, place if isinstance(place, Path) else place.root, said, asked.device)


def _keep(kept: KeptResult, reported: Reported, asked: VerifyCall, place: StorePlace) -> None:
    """Keep what was shown, as a run says it that finds everything stored. Where that fails, it is made again."""
    from circuitspec.analysis.verification_result import Cost
    from circuitspec.engine.cache.stored_runner import SpareStore
    from circuitspec.reports.live_views import LiveViews
    from circuitspec.reports.saved_result import save

    found = reported.verification
    again = replace(found, cost=Cost(found.cost.n_experiments, 0, 0.0, found.cost.n_experiments))
    try:
        kept.keep(save(LiveViews(replace(reported, verification=again))), asked.output_dir)
    except KeyboardInterrupt:  # all was said, and nothing is half kept
        return
    except OSError as error:
        failed = Diagnostic("CS545", f"{kept.folder} cannot be written: {error.strerror or error}")
        if isinstance(place, SpareStore):  # it tells of its first failure alone
            place.tell(CircuitspecError(failed))
        else:
            show([unkept(failed)])
