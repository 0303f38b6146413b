"""Direct logit attribution of the whole model as a table: what every head, MLP and the embeddings add to the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.attribution.direct_by_source import effects_by_source
from circuitspec.engine.attribution.direct_contributions import DirectRun
from circuitspec.engine.attribution.direct_logit_attribution import PLAIN, direct_effects
from circuitspec.engine.runner import Runner
from circuitspec.exploration.setting import distinct_roles
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD
from circuitspec.hypothesis_file.grammar.components import Component, sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.pipelines.interactive.given_prompts import PromptsLike
from circuitspec.pipelines.whole_model.measured_file import in_memory, opened_file
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from circuitspec.models.load import LoadedModel

BIASES = "biases"


def direct_attribution(
    prompts: PromptsLike,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    metric: str = "logit_diff",
    by_source: bool = False,
    per_prompt: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> pd.DataFrame:
    """Direct logit attribution of the whole model: the table of `attribution_frame`.

    `prompts` are those of a file with a model and a task (or a hypothesis), or, with a `model` and its `tokenizer`, all
    that `circuitspec.patch` takes: rows, a DataFrame, a `task` mapping. A model that is passed in is taken instead of
    the file's, and given back as it came. Raises CircuitspecError as `verify` does, TypeError for one without the
    other.
    """
    with in_memory(
        prompts, "direct_attribution", model, tokenizer, keep_hooks=keep_hooks, merge_adapters=merge_adapters
    ) as (loaded, progress):
        return attribute_file(
            prompts,
            progress,
            metric=metric,
            by_source=by_source,
            per_prompt=per_prompt,
            device=device,
            rows=batch_size,
            loaded=loaded,
        )


def attribute_file(
    given: PromptsLike,
    progress: Progress,
    *,
    metric: str = "logit_diff",
    by_source: bool = False,
    per_prompt: bool = False,
    device: str = "cpu",
    rows: int | None = None,
    loaded: LoadedModel | None = None,
) -> pd.DataFrame:
    """The table of `attribution_frame` for a file's model and prompts. Raises CircuitspecError as `verify` does."""
    _check_linear(metric)
    with opened_file(given, progress, metric=metric, device=device, rows=rows, loaded=loaded) as runner:
        return attribution_frame(runner, metric, by_source=by_source, per_prompt=per_prompt)


def attribution_frame(
    runner: Runner, metric: str = "logit_diff", *, by_source: bool = False, per_prompt: bool = False
) -> pd.DataFrame:
    """A row for the embeddings, every head, every MLP and the biases, in model order: means over prompts.

    Columns: `component` as it is written (`a9.h6`), `kind`, `layer`, `head`, `position` (where it is read: the last
    token), with `by_source` also `source` (for heads, a row for each named position attended to and one for all other
    tokens), `effect` on the metric, in its units, and `share` of the sum. Effects are what each adds through the final
    norm as it divides in the clean run, before a cap on logits; they add up to the metric. With `per_prompt` a row for
    each prompt, with its number (`prompt`). Raises CS394 for a metric that is not linear in the logits.
    """
    _check_linear(metric)
    run = direct_effects(runner, [], metric)[PLAIN]
    by: dict[tuple[Component, str], NDArray[np.float64]] = {}
    if by_source:
        by.update(effects_by_source(runner, metric, distinct_roles(runner.task)).items())
    rows: list[dict[str, object]] = []
    for facts, values in _entries(run, by):
        entry = {**facts, "position": "END"}
        if per_prompt:
            each = zip(runner.task.prompts.prompts, values, run.total, strict=True)
            rows += [
                {**entry, "prompt": prompt.index, "effect": float(value), "share": _share(float(value), float(total))}
                for prompt, value, total in each
            ]
        else:
            mean = float(values.mean())
            rows.append({**entry, "effect": mean, "share": _share(mean, float(run.total.mean()))})
    frame = pd.DataFrame(rows)
    columns = ["component", "kind", "layer", "head", "position"]
    columns += (["source"] if by_source else []) + (["prompt"] if per_prompt else []) + ["effect", "share"]
    return frame[columns].astype({"layer": "Int64", "head": "Int64", "effect": "float64", "share": "float64"})


def _entries(
    run: DirectRun, by: Mapping[tuple[Component, str], NDArray[np.float64]]
) -> list[tuple[dict[str, object], NDArray[np.float64]]]:
    sources = tuple(dict.fromkeys(name for _, name in by))
    found: list[tuple[dict[str, object], NDArray[np.float64]]] = []
    for part in sorted(run.effects, key=sort_key):
        facts: dict[str, object] = {
            "component": format_name(part),
            "kind": part.kind.name,
            "layer": part.place[0] if part.kind.in_layers else None,
            "head": part.place[1] if part.kind is HEAD else None,
            "source": "",
        }
        if part.kind is HEAD and sources:
            found += [({**facts, "source": name}, by[part, name]) for name in sources]
        else:
            found.append((facts, run.effects[part]))
    biases: dict[str, object] = {"component": BIASES, "kind": BIASES, "layer": None, "head": None, "source": ""}
    return [*found, (biases, run.constant)]


def _share(value: float, total: float) -> float:
    return value / total if total else float("nan")


def _check_linear(metric: str) -> None:
    linear = [name for name, known in METRICS.items() if known.linear]
    if metric not in linear:
        raise CircuitspecError(
            Diagnostic(
                "CS394",
                f"{metric} does not fall into what components add to it: it is not linear in the logits",
                hint=f"give {' or '.join(linear)}",
            )
        )
