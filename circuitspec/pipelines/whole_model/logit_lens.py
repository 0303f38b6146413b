"""The logit lens as a table: the answer's metrics as the residual stream would give them after each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from circuitspec.engine.attribution.lens import metrics_by_layer
from circuitspec.engine.forward import Forward
from circuitspec.pipelines.interactive.given_prompts import PromptsLike
from circuitspec.pipelines.whole_model.measured_file import in_memory, opened_file
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from circuitspec.models.load import LoadedModel


def logit_lens(
    prompts: PromptsLike,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    per_prompt: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> pd.DataFrame:
    """The logit lens: the table of `lens_frame`.

    `prompts` are those of a file with a model and a task (or a hypothesis), or, with a `model` and its `tokenizer`, all
    that `circuitspec.patch` takes: rows, a DataFrame, a `task` mapping. A model that is passed in is taken instead of
    the file's, and given back as it came. Raises CircuitspecError as `verify` does, TypeError for one without the
    other.
    """
    with in_memory(prompts, "logit_lens", model, tokenizer, keep_hooks=keep_hooks, merge_adapters=merge_adapters) as (
        loaded,
        progress,
    ):
        return lens_file(prompts, progress, per_prompt=per_prompt, device=device, rows=batch_size, loaded=loaded)


def lens_file(
    given: PromptsLike,
    progress: Progress,
    *,
    per_prompt: bool = False,
    device: str = "cpu",
    rows: int | None = None,
    loaded: LoadedModel | None = None,
) -> pd.DataFrame:
    """The table of `lens_frame` for a file's model and prompts. Raises CircuitspecError as `verify` does."""
    with opened_file(given, progress, device=device, rows=rows, loaded=loaded) as runner:
        return lens_frame(runner, per_prompt=per_prompt)


def lens_frame(forward: Forward, *, per_prompt: bool = False) -> pd.DataFrame:
    """A row for the embeddings and one for each layer: the metrics of the stream after it, means over prompts.

    Columns: `component` (the stream as it is written, `r5` after layer 4; `output` after the last), `kind`, `layer`
    (after which it is read; none for the embeddings), `head` (none), `position` (the last token), then every metric of
    the output for which the prompts have answers. The last row is the model's output itself. With `per_prompt` a row
    for each prompt, with its number (`prompt`).
    """
    measured = metrics_by_layer(forward)
    rows: list[dict[str, object]] = []
    for number, metrics in enumerate(measured):
        entry: dict[str, object] = {
            "component": f"r{number}" if number < len(measured) - 1 else "output",
            "kind": "resid",
            "layer": number - 1 if number else None,
            "head": None,
            "position": "END",
        }
        if per_prompt:
            rows += [
                {**entry, "prompt": prompt.index, **{name: float(values[i]) for name, values in metrics.items()}}
                for i, prompt in enumerate(forward.task.prompts.prompts)
            ]
        else:
            rows.append({**entry, **{name: float(values.mean()) for name, values in metrics.items()}})
    return pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})
