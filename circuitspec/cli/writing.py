"""`init`, `schema` and `explain`: what helps to write a hypothesis."""

from __future__ import annotations

from pathlib import Path

import click

from circuitspec.cli.answering import answering, say
from circuitspec.cli.options import FILE
from circuitspec.runtime.files import write_text_whole


@click.command()
@click.argument("path", type=FILE, default=Path("hypothesis.circuit.yaml"))
@click.option("--force", is_flag=True, help="Overwrite PATH if it exists.")
@answering
def init(path: Path, force: bool) -> None:
    """Write a commented hypothesis to start from."""
    from circuitspec.hypothesis_file.starter_file import starter_text

    if path.exists() and not force:
        raise click.UsageError(f"{path} exists; give another name, or --force to overwrite it")
    if not path.parent.is_dir():
        raise click.UsageError(f"there is no folder {path.parent}")
    write_text_whole(path, starter_text())
    say(f"wrote {path}; next: circuitspec check {path}")


@click.command()
@click.option("--markdown", is_flag=True, help="Print a reference for readers instead.")
@answering
def schema(markdown: bool) -> None:
    """Print the JSON Schema of hypothesis files, for editors."""
    if markdown:
        from circuitspec.hypothesis_file.schema.schema_reference import reference

        click.echo(reference(), nl=False)
        return
    from circuitspec.hypothesis_file.schema.json_schema import schema_text

    click.echo(schema_text(), nl=False)


@click.command()
@click.argument("code")
@answering
def explain(code: str) -> None:
    """Say more about a diagnostic CODE, such as CS112."""
    from circuitspec.diagnostics.codes import CODES
    from circuitspec.diagnostics.codes import explain as explanation

    if code.upper() not in CODES:
        raise click.UsageError(f"there is no code {code}; codes are CS100 to CS599, as printed in messages")
    click.echo(explanation(code.upper()))
