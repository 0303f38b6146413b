"""`circuitspec.interchange_sweep`: where in a model in memory a high-level variable is, place by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitspec.exploration.request import Kind
from circuitspec.exploration.variables.place_trials import KINDS
from circuitspec.exploration.variables.variable_output import interchange_frame
from circuitspec.hypothesis_file.builder import FORMAT
from circuitspec.hypothesis_file.load_file import Document, Study, parse_exploration
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.models.adopt import adopt_model
from circuitspec.pipelines.abstraction.variable_sweep import VariableRequest, sweep_variable
from circuitspec.pipelines.interactive.given_prompts import given_study
from circuitspec.pipelines.interactive.memory_session import tell_what_is_on
from circuitspec.reports.text.result_frame import ResultFrame
from circuitspec.runtime.progress import for_callers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def interchange_sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: str | PathLike[str] | Mapping[str, Any] | Document | Study,
    variable: str,
    kinds: str | Sequence[Kind] = "resid",
    *,
    at: str | Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    keep_hooks: bool = False,
) -> ResultFrame:
    """Let every component of a kind take its value in the source of each pair, one place at a time, and score answers.

    As `circuitspec explore --variable` does. A place is run once a pair, from the first patched layer and token on.

    Args:
        model, tokenizer, store, batch_size, keep_hooks: as for `circuitspec.patch`.
        task: a file with `task` and `abstraction`, a mapping with these keys, or a hypothesis. `align` may be left out.
        variable: the variable of the `abstraction` that takes its value in the source.
        kinds: `"resid"` (the stream that enters a block, its whole vector), `"attention"` (all heads of a layer),
            `"mlps"`, `"heads"`, or several of these.
        at: positions, by name; every one that all prompts have unless given. layers: all unless given.

    Returns:
        A DataFrame with a row for each place and family of pairs: `component`, `kind`, `layer`, `head`, `position`,
        `family`; `iia` with its Wilson interval `low` to `high`, over the `n` pairs whose answer must change; the same
        for `top1` (the likeliest token of the vocabulary), `unchanged` (pairs whose answer must stay) and `all_pairs`;
        `do_nothing` (all pairs, without any patch); `kept` of `pairs`; `asked_minus_base`, the logit of the expected
        answer less that of the base's, with the patch and before. `.heatmap("iia")` draws it.

    Raises:
        CircuitspecError: as `circuitspec.verify` does; CS528 for a variable that is not declared, CS233 where no
            position is at the same tokens in bases and sources. ValueError for another kind.
    """
    import torch

    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if unknown := [kind for kind in wanted if kind not in KINDS]:
        raise ValueError(f"kinds={unknown[0]!r}: give some of {', '.join(KINDS)}")
    if isinstance(task, Mapping):
        written = write_yaml({"circuitspec": FORMAT, "name": "in memory", **task})
        study = parse_exploration(written, "<task>", Path(), model_given=True)
    else:
        study = given_study(task)
    named = None if at is None else (at,) if isinstance(at, str) else tuple(at)
    chosen = None if layers is None else tuple(layers)
    place = None if store is None else Path(store)
    with torch.inference_mode(False):  # whatever holds around the call
        loaded = adopt_model(model, tokenizer, keep_hooks=keep_hooks)
        if wrong := [one for one in chosen or () if one not in range(loaded.shape.n_layers)]:
            raise ValueError(f"layers: there is no layer {wrong[0]}; they are 0 to {loaded.shape.n_layers - 1}")
        tell_what_is_on(loaded)
        asked = VariableRequest(variable, wanted, named, chosen, rows=batch_size, store=place)
        with for_callers() as progress:
            return interchange_frame(sweep_variable(study, asked, progress, loaded=loaded))
