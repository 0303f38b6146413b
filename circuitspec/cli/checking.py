"""`check` and `plan`: what can be said of a file without running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import annotate, answering, show
from circuitspec.cli.options import DEFAULT_DEVICE, FILE, NO_STORE, STORE, methods, store_place
from circuitspec.cli.outputs import files_of
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, exit_code
from circuitspec.runtime.collecting import uncollected

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.load_file import Document
    from circuitspec.pipelines.with_locks.earlier_figures import EarlierFigures


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
@click.argument("file", type=FILE, required=False)
@methods("Say what `verify --methods` would add.")
@click.option("--tests", is_flag=True, help="Say what `verify --tests` would add.")
@click.option("--alternatives", is_flag=True, help="Say what `verify --alternatives` would add.")
@STORE
@NO_STORE
@click.option(
    "--model-shape",
    metavar="LAYERSxHEADSxCHANNELS",
    help="Without FILE: the memory and forwards that a model of this size would take, laid out like Llama; further "
    "numbers after commas, as in 80x64x8192,kv=8,mlp=28672,vocab=128256.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16", "float64"]),
    help="With --model-shape.  [default: float32]",
)
@click.option("--prompts", type=click.IntRange(min=1), help="With --model-shape: how many.  [default: 100]")
@click.option("--tokens", type=click.IntRange(min=1), help="With --model-shape: of a prompt.  [default: 16]")
@click.option("--batch-size", type=click.IntRange(min=1), help="With --model-shape.  [default: by memory]")
@answering
def plan(**given: Any) -> None:
    """Print what `verify` would run on FILE, without running it.

    Of a file with a model and a task alone, what `explore` would take. With --model-shape, what a model takes that is
    not at hand.
    """
    asked = PlanCall(**given)
    asked.check()
    if asked.model_shape is not None:
        click.echo(_of_shape(asked.model_shape, asked))
        return
    file = asked.file
    assert file is not None
    if _is_to_explore(file):
        if asked.sweep or asked.tests or asked.alternatives:
            said = f"--methods, --tests and --alternatives are about `verify`, and {file} has no circuit to verify"
            raise click.UsageError(said)
        from circuitspec.exploration.preview import plan_study
        from circuitspec.hypothesis_file.load_file import load_exploration

        click.echo(plan_study(load_exploration(file)))
        return
    with uncollected():
        from circuitspec.pipelines.plan import plan_file
        from circuitspec.pipelines.with_locks.earlier_figures import earlier_figures

    place = store_place(asked.root, asked.no_store)

    def earlier(document: Document) -> EarlierFigures | None:
        read = [path for _, path in files_of(document)]
        stored = None if place is None else place if isinstance(place, Path) else place.root
        return earlier_figures(document, stored, DEFAULT_DEVICE, read)

    more = {"sweep": asked.sweep, "tests": asked.tests, "alternatives": asked.alternatives}
    click.echo(plan_file(file, earlier=earlier, **more))


@dataclass(frozen=True)
class PlanCall:
    """What `plan` was asked; a file, or a model's shape with numbers beside it."""

    file: Path | None
    sweep: bool
    tests: bool
    alternatives: bool
    root: Path | None
    no_store: bool
    model_shape: str | None
    dtype: str | None
    prompts: int | None
    tokens: int | None
    batch_size: int | None

    def check(self) -> None:
        """Raises UsageError where it is both, or neither."""
        if self.model_shape is not None and (self.file is not None or self.sweep or self.tests or self.alternatives):
            raise click.UsageError("--model-shape is without a file: of FILE, `plan` knows the model")
        if self.model_shape is None and self.file is None:
            raise click.UsageError("name a FILE, or give --model-shape")
        for name in ("dtype", "prompts", "tokens", "batch_size"):
            if self.model_shape is None and getattr(self, name) is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} is for --model-shape: FILE says what it is")


def _of_shape(text: str, asked: PlanCall) -> str:
    with uncollected():
        from circuitspec.pipelines.whole_model.model_plan import TOKENS, PlannedModel, plan_model

    try:
        model = PlannedModel.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--model-shape") from None
    return plan_model(model, asked.dtype or "float32", asked.prompts or 100, asked.tokens or TOKENS, asked.batch_size)


def _is_to_explore(file: Path) -> bool:
    """What cannot be read is left to those who read it again, and say what is wrong."""
    from circuitspec.exploration.preview import is_to_explore

    try:
        return is_to_explore(file)
    except CircuitspecError:
        return False
