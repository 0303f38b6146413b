"""`report`: a result that was saved, as any of its reports."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from circuitspec.cli.answering import answering
from circuitspec.cli.options import FORMAT, HTML, REPORTS, also_written
from circuitspec.cli.outputs import check_outputs
from circuitspec.reports.report_formats import FORMATS


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
