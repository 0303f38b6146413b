"""Records as tables: a row per experiment, a column per metric; and the same per prompt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from circuitspec.analysis.statistics.scores import Anchors, Gap, anchors, denominators, score
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, all_readings, texts_of
from circuitspec.experiments.planner import Plan
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.prompts.prompt_set import PromptSet


def metric_names(records: Records) -> tuple[str, ...]:
    """Every metric measured anywhere: those of the table in its order, then the rest by name."""
    found = {metric for values in records.values.values() for metric in values}
    known = [metric for metric in METRICS if metric in found]
    return (*known, *sorted(found.difference(known)))


def experiments_frame(
    plan: Plan, records: Records, *, known: Mapping[Anchors, Mapping[str, Gap]] | None = None
) -> pd.DataFrame:
    """One row per experiment, in the plan's order, then those that were added to it.

    Columns: `experiment` (its label), `digest`, `direction`, `base`, `source`, `ablation`, `level`,
    `n_sites`, `sites` (component and positions, space-separated), `n_edges` (patched edges, or at path level
    edges along which something travels), `n_prompts`; per metric M its mean
    `M`, `recovered_M`, and `ratio_M` (to clean). NaN where a metric was not measured or has no ratio.
    `known` are the plan's denominators, where they have been computed before.
    """
    metrics = metric_names(records)
    divisors = denominators(plan, records) if known is None else known
    rows = []
    for label, run in _labelled(plan, records):
        between = anchors(plan, run)
        row: dict[str, object] = {"experiment": label, **_facts(run), "n_prompts": records.n_prompts}
        measured = [metric for metric in metrics if metric in records[run]]
        found = {metric: score(records, run, metric, divisors[between].get(metric)) for metric in measured}
        for metric in metrics:
            row[metric] = found[metric].mean if metric in found else None
        for metric in metrics:
            row[f"recovered_{metric}"] = found[metric].recovered if metric in found else None
        for metric in metrics:
            row[f"ratio_{metric}"] = found[metric].ratio if metric in found else None
        rows.append(row)
    frame = pd.DataFrame(rows)
    numeric = [f"{prefix}{metric}" for prefix in ("", "recovered_", "ratio_") for metric in metrics]
    return frame.astype(
        dict.fromkeys(numeric, "float64") | {"n_sites": "int64", "n_edges": "int64", "n_prompts": "int64"}
    )


def prompts_frame(plan: Plan, records: Records, prompts: PromptSet) -> pd.DataFrame:
    """One row per experiment and prompt, in that order.

    Columns: `experiment`, `digest`, `prompt` (its number), `template`, `template_text`, `text` (the
    prompt as it was run, clean or corrupt), then one column per metric (NaN where not measured).
    """
    if len(prompts.prompts) != records.n_prompts:
        raise ValueError(f"{len(prompts.prompts)} prompts, but records over {records.n_prompts}")
    metrics, labelled, n = metric_names(records), _labelled(plan, records), records.n_prompts
    templates = [prompts.templates[int(t)] for t in records.templates]
    absent = np.full(n, np.nan)
    columns: dict[str, object] = {
        "experiment": np.repeat([label for label, _ in labelled], n),
        "digest": np.repeat([run.digest for _, run in labelled], n),
        "prompt": np.tile(np.asarray([p.index for p in prompts.prompts], dtype=np.int64), len(labelled)),
        "template": np.tile(records.templates.astype(np.int64), len(labelled)),
        "template_text": templates * len(labelled),
        "text": [prompts.text_of(i, texts_of(run.base)) for _, run in labelled for i in range(len(prompts.prompts))],
    }
    for metric in metrics:
        columns[metric] = np.concatenate([records[run].get(metric, absent) for _, run in labelled]).astype(np.float64)
    frame = pd.DataFrame(columns)
    return frame.astype(dict.fromkeys(("experiment", "digest", "template_text"), "category"))


def _labelled(plan: Plan, records: Records) -> list[tuple[str, Experiment]]:
    planned = [(label, run) for run, label in plan.labels.items() if run in records.values]
    return planned + [(run.digest[:12], run) for run in records.values if run not in plan.labels]


def _facts(run: Experiment) -> dict[str, object]:
    patched = [site for patch in run.patches for site in patch.sites]
    sites = sorted(f"{format_name(site.component)}{site.where.canonical()}" for site in patched)
    return {
        "digest": run.digest,
        "direction": run.direction or "",
        "base": str(run.base),
        "source": ", ".join(str(source.prompts) for source in run.sources if source.prompts),
        "ablation": run.source.kind if run.source else "",
        "level": run.level,
        "n_sites": len(patched),
        "sites": " ".join(sites),
        "n_edges": sum(len(reading.senders) for reading in all_readings(run.readings)),
    }
