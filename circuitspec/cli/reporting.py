"""`report`: a result that was saved, as any of its reports."""

from __future__ import annotations

import sys
from pathlib import Path

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
def report(results: Path, format_: str, reports: list[tuple[str, Path]], page: Path | None, list_prompts: bool) -> None:
    """Show a result again, in any format, without its model.

    RESULTS is the folder that `verify --output-dir` wrote. The reports are those that the run gave, byte for byte. The
    exit code says whether they could be written; `verify` gives the verdict as its own.
    """
    from dataclasses import replace

    from circuitspec.reports.report_files import write_report
    from circuitspec.reports.saved_result import REPORT, read_saved
    from circuitspec.reports.views import Style

    saved = results / REPORT if results.is_dir() else results
    outputs = [(f"--report {name}", path) for name, path in reports]
    check_outputs([("RESULTS", saved)], [*outputs, ("--html", page)])
    views, style = read_saved(results), Style(list_prompts=list_prompts)
    for name, path in also_written(reports, page):
        write_report(path, FORMATS[name](views, style))
    click.echo(FORMATS[format_](views, replace(style, color=sys.stdout.isatty())), nl=False)
