"""The command line: arguments in, results on stdout, progress and diagnostics on stderr, an exit code out.

In come words and options; out comes an exit code. There is one module for each group of commands, and none imports
torch, or anything else heavy, before a command runs.
"""

from __future__ import annotations

from typing import Any

import click

from circuitspec import __version__
from circuitspec.cli.aligning import align
from circuitspec.cli.answering import wording
from circuitspec.cli.attributing import attribution, lens
from circuitspec.cli.checking import check, plan
from circuitspec.cli.exchanging import export, import_
from circuitspec.cli.exploring import explore
from circuitspec.cli.patching import compile_, doctor
from circuitspec.cli.results import compare, diff, lock, report
from circuitspec.cli.verifying import verify
from circuitspec.cli.writing import explain, init, schema


class _Commands(click.Group):
    """Says what is wrong with the arguments without printing them as they are."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with wording():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with wording():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="circuitspec")
def main() -> None:
    """Write down what you believe a circuit in a transformer is, and verify it on the real model.

    \b
    Exit codes: 0 supported, 1 refuted, 2 usage, 3 invalid file, 4 inconclusive, 5 could not run,
    6 not as locked, 130 interrupted.
    """


_COMMANDS = (
    align,
    attribution,
    check,
    compare,
    compile_,
    diff,
    doctor,
    explain,
    explore,
    export,
    import_,
    init,
    lens,
    lock,
    plan,
    report,
    schema,
    verify,
)

for _command in _COMMANDS:
    main.add_command(_command)
