"""`attribution` and `lens`: what components and layers say of the answer by themselves, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitspec.cli.answering import answering
from circuitspec.cli.options import BATCH_SIZE, DEVICE, FILE
from circuitspec.cli.waiting import waiting
from circuitspec.runtime.quick_imports import uncollected

if TYPE_CHECKING:
    import pandas as pd

_FORMAT = click.option(
    "--format", "format_", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True
)
_PER_PROMPT = click.option("--per-prompt", is_flag=True, help="A row for each prompt instead of means over them.")


@click.command()
@click.argument("file", type=FILE)
@click.option("--metric", default="logit_diff", show_default=True, help="logit_diff or logit.")
@click.option("--by-source", is_flag=True, help="Heads by the tokens that they attend to.")
@click.option("--top", type=click.IntRange(min=1), help="Only so many rows, the largest effects.")
@_PER_PROMPT
@_FORMAT
@BATCH_SIZE
@DEVICE
@answering
def attribution(**given: Any) -> None:
    """Direct logit attribution: what every component of FILE's model adds to the answer by itself.

    The embeddings, every head, every MLP and the biases, through the final norm as it divides in the clean run: they
    add up to the metric. FILE needs only `model` and `task`.
    """
    asked = AttributionCall(**given)
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.whole_model.direct_attribution import attribute_file

        found = attribute_file(
            asked.file,
            progress,
            metric=asked.metric,
            by_source=asked.by_source,
            per_prompt=asked.per_prompt,
            device=asked.device,
            rows=asked.batch_size,
        )
    if asked.top is not None:
        largest = found["effect"].abs().sort_values(ascending=False, kind="stable").index
        found = found.loc[largest[: asked.top]]
    _print(found, asked.format_)


@dataclass(frozen=True)
class AttributionCall:
    """What `attribution` was called with, option by option."""

    file: Path
    metric: str
    by_source: bool
    top: int | None
    per_prompt: bool
    format_: str
    batch_size: int | None
    device: str


@click.command()
@click.argument("file", type=FILE)
@_PER_PROMPT
@_FORMAT
@BATCH_SIZE
@DEVICE
@answering
def lens(file: Path, per_prompt: bool, format_: str, batch_size: int | None, device: str) -> None:
    """Logit lens: what FILE's model would answer if each layer were its last.

    The residual stream at the last token after each layer, through the model's own final norm and unembedding; the last
    row is the model's output. FILE needs only `model` and `task`.
    """
    with waiting() as progress:
        progress.stage("starting torch and pyvene")
        with uncollected():
            from circuitspec.pipelines.whole_model.logit_lens import lens_file

        found = lens_file(file, progress, per_prompt=per_prompt, device=device, rows=batch_size)
    _print(found, format_)


def _print(frame: pd.DataFrame, format_: str) -> None:
    from circuitspec.reports.text.measured_table import table_text

    click.echo(table_text(frame, format_), nl=False)
