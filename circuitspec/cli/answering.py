"""How commands answer: what they raise becomes diagnostics on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import click

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, exit_code, render, render_styled
from circuitspec.runtime.progress import Interrupted
from circuitspec.runtime.visible_text import no_command, visible

P = ParamSpec("P")
R = TypeVar("R")

COULD_NOT_RUN = 5
INTERRUPTED = 130
CLOSED_PIPE = 141


def answering(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what a command raises into diagnostics on stderr and the matching exit code."""

    @wraps(command)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except CircuitspecError as error:
            show(error.diagnostics)
            raise SystemExit(exit_code(error.diagnostics)) from error
        except KeyboardInterrupt as stop:
            click.echo(_interrupted(stop), err=True)
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads; do not fail again at exit
            raise SystemExit(CLOSED_PIPE) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except OSError as error:
            say(f"error: {error.strerror or error}: {error.filename or 'standard output'}", err=True)
            raise SystemExit(COULD_NOT_RUN) from error
        except Exception as error:
            if os.environ.get("CIRCUITSPEC_DEBUG"):
                raise
            say(f"error: this is a bug in circuitspec: {type(error).__name__}: {error}", err=True)
            say("   help: CIRCUITSPEC_DEBUG=1 shows where; please report it with the hypothesis file", err=True)
            raise SystemExit(COULD_NOT_RUN) from error

    return answered


def _interrupted(stop: KeyboardInterrupt) -> str:
    if not isinstance(stop, Interrupted):
        return "interrupted"
    if stop.kept is None:
        return "interrupted; nothing was kept: there is no store"
    kept = f"{stop.kept} {stop.of}" + ("" if stop.kept == 1 else "s")
    begun = ", and what was measured of others" if stop.begun else ""
    return f"interrupted; {kept} kept{begun}: run the same command again"


def say(text: str, *, err: bool = False) -> None:
    """A line of its own, whatever names are in it."""
    click.echo(no_command(visible(text)), err=err)


@contextmanager
def wording() -> Iterator[None]:
    """What click says of arguments that it refuses moves no cursor and begins no line."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = visible(error.message)  # each kind of them puts more around it when it is shown
        raise


@contextmanager
def collecting(problems: list[Diagnostic]) -> Iterator[None]:
    """What is raised within is kept for the end: a report is worth having without the files."""
    try:
        yield
    except CircuitspecError as error:
        problems += error.diagnostics


@contextmanager
def annotating(format_: str) -> Iterator[None]:
    """What is raised within becomes annotations too, where those are asked for."""
    try:
        yield
    except CircuitspecError as error:
        annotate(error.diagnostics, format_)
        raise


def annotate(diagnostics: Iterable[Diagnostic], format_: str) -> None:
    if format_ == "github":
        from circuitspec.reports.machine.github_annotations import workflow_commands

        click.echo(workflow_commands(diagnostics), nl=False)


def show(diagnostics: Iterable[Diagnostic]) -> None:
    """On stderr, in colour where that is a terminal."""
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(render_styled(diagnostics), end="")
    else:
        click.echo(render(diagnostics), nl=False, err=True)
