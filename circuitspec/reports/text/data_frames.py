"""Records as tables: a row per experiment, a column per metric; and the same per prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from circuitspec.analysis.statistics.scores import Anchors, Gap, anchors, denominators, score
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, all_readings, texts_of
from circuitspec.experiments.planner import Plan
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import (
    ATTENTION_PATTERN,
    FEATURE,
    HEAD,
    KV_HEAD,
    NEURON,
    OF_DICTIONARIES,
)
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.prompts.prompt_set import PromptSet

if TYPE_CHECKING:
    import pandas as pd

WHERE_PATCHED = ("kind", "layer", "head", "index", "position", "corruption")
"""The columns that say which component was patched where, and which prompts are the corrupt ones."""


def metric_names(records: Records, claimed: Collection[str] = ()) -> tuple[str, ...]:
    """Every metric measured anywhere: those of the table in its order, then the rest by name.

    One that is the same as another that was measured is left out, unless it is `claimed`.
    """
    found = {metric for values in records.values.values() for metric in values}
    twice = {metric for metric in found if metric in METRICS and METRICS[metric].same_as in found}
    found -= twice - {*claimed}
    known = [metric for metric in METRICS if metric in found]
    return (*known, *sorted(found.difference(known)))


def experiments_frame(
    plan: Plan, records: Records, *, known: Mapping[Anchors, Mapping[str, Gap]] | None = None
) -> pd.DataFrame:
    """One row per experiment, in the plan's order, then those that were added to it; columns as in `runs_frame`.

    `known` are the plan's denominators, where they have been computed before.
    """
    metrics = metric_names(records, _claimed(plan))
    divisors = denominators(plan, records) if known is None else known
    return runs_frame(_labelled(plan, records), records, lambda run: anchors(plan, run), divisors, metrics)


def runs_frame(
    labelled: Sequence[tuple[str, Experiment]],
    records: Records,
    between: Callable[[Experiment], Anchors],
    divisors: Mapping[Anchors, Mapping[str, Gap]],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """One row per experiment, in this order.

    Columns: `experiment` (its label), `digest`, `direction`, `base`, `source`, `ablation`, `level`,
    `n_sites`, `sites` (component and positions, space-separated), `n_edges` (patched edges, or at path level
    edges along which something travels), `n_prompts`; per metric M its mean
    `M`, `recovered_M`, and `ratio_M` (to clean). NaN where a metric was not measured or has no ratio. Then `kind`,
    `layer`, `head`, `index` (of a neuron), `position` and `corruption` as `where_patched` has them.
    """
    import pandas as pd  # half a second, of which a run that writes no table has no need

    rows = []
    for label, run in labelled:
        row: dict[str, object] = {"experiment": label, **_facts(run), "n_prompts": records.n_prompts}
        measured = [metric for metric in metrics if metric in records[run]]
        divided = divisors[between(run)]
        found = {metric: score(records, run, metric, divided.get(metric)) for metric in measured}
        for metric in metrics:
            row[metric] = found[metric].mean if metric in found else None
        for metric in metrics:
            row[f"recovered_{metric}"] = found[metric].recovered if metric in found else None
        for metric in metrics:
            row[f"ratio_{metric}"] = found[metric].ratio if metric in found else None
        rows.append({**row, **where_patched(run)})
    numeric = [f"{prefix}{metric}" for prefix in ("", "recovered_", "ratio_") for metric in metrics]
    frame = pd.DataFrame(rows, columns=None if rows else [*_FACTS, *numeric, *WHERE_PATCHED])
    whole = dict.fromkeys(("n_sites", "n_edges", "n_prompts"), "int64")
    return frame.astype({**dict.fromkeys(numeric, "float64"), **whole, **_NUMBERS})


def prompts_frame(plan: Plan, records: Records, prompts: PromptSet) -> pd.DataFrame:
    """One row per experiment and prompt, in that order; columns as in `run_prompts_frame`."""
    return run_prompts_frame(_labelled(plan, records), records, prompts, metric_names(records, _claimed(plan)))


def _claimed(plan: Plan) -> tuple[str, ...]:
    return tuple(planned.claim.metric for planned in plan.claims)


def run_prompts_frame(
    labelled: Sequence[tuple[str, Experiment]], records: Records, prompts: PromptSet, metrics: Sequence[str]
) -> pd.DataFrame:
    """One row per experiment and prompt, in that order.

    Columns: `experiment`, `digest`, `prompt` (its number), `template`, `template_text`, `text` (the
    prompt as it was run, clean or corrupt), then one column per metric (NaN where not measured), then `direction`,
    `ablation` and `level` of the experiment, and where it patches (`where_patched`).
    """
    import pandas as pd

    if len(prompts.prompts) != records.n_prompts:
        raise ValueError(f"{len(prompts.prompts)} prompts, but records over {records.n_prompts}")
    n = records.n_prompts
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
    facts = [{**_facts(run), **where_patched(run)} for _, run in labelled]
    for name in ("direction", "ablation", "level", *WHERE_PATCHED):
        values = pd.Series([one[name] for one in facts], dtype=_NUMBERS.get(name, "object"))
        columns[name] = values.repeat(n).reset_index(drop=True)
    frame = pd.DataFrame(columns)
    return frame.astype(dict.fromkeys(("experiment", "digest", "template_text"), "category"))


def where_patched(run: Experiment) -> dict[str, object]:
    """`kind`, `layer`, `head`, `index` (of neurons, features), `position`, `corruption` of an experiment, as columns.

    Where several sites are patched, what they have in common; else nothing (an empty text, or no number).
    `position` is a name, several joined by commas, `all`, or `all but` some. `corruption` is the prompts that values
    come from when the clean run is patched, or that are run when they are not the clean ones; empty where there are
    none. Of edges and paths, which are between components, `corruption` alone is said.
    """
    components = [site.component for site in run.sites]
    members = [c.place[1] if c.kind in (HEAD, KV_HEAD, ATTENTION_PATTERN) else None for c in components]
    units = [c.place[1] if c.kind in (NEURON, FEATURE) else None for c in components]
    layers = [c.place[0] if c.kind.in_layers or c.kind in OF_DICTIONARIES else None for c in components]
    return {
        "kind": _common([c.kind.name for c in components], ""),
        "layer": _common(layers, None),
        "head": _common(members, None),
        "index": _common(units, None),
        "position": _common([place_name(site.where) for site in run.sites], ""),
        "corruption": _corruption(run),
    }


def place_name(where: Where) -> str:
    """`END`, `S1,S2`, `all`, `all but S1,S2`."""
    names = ",".join(sorted(where.roles))
    if not where.inverted:
        return names
    return f"all but {names}" if names else "all"


def _common(values: Sequence[str | int | None], otherwise: str | None) -> object:
    distinct = {*values}
    return distinct.pop() if len(distinct) == 1 else otherwise


def _corruption(run: Experiment) -> str:
    if run.base != "clean":
        return str(run.base)
    return "" if run.source is None else str(run.source.prompts or "")


def _labelled(plan: Plan, records: Records) -> list[tuple[str, Experiment]]:
    planned = [(label, run) for run, label in plan.labels.items() if run in records.values]
    return planned + [(run.digest[:12], run) for run in records.values if run not in plan.labels]


_NUMBERS: Mapping[str, str] = dict.fromkeys(("layer", "head", "index"), "Int64")
_FACTS = (
    *("experiment", "digest", "direction", "base", "source", "ablation", "level", "n_sites", "sites", "n_edges"),
    "n_prompts",
)


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
