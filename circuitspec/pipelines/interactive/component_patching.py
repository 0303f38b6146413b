"""`circuitspec.patch` and `circuitspec.path_patch`: named components, or one path, patched in a model in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels import path_level
from circuitspec.graph.paths import DeclaredPath
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD
from circuitspec.hypothesis_file.grammar.names import Name, format_name, parse_path
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.interactive.given_prompts import PromptsLike
from circuitspec.pipelines.interactive.measured_frames import Patched, measured
from circuitspec.pipelines.interactive.memory_session import Manner, laboratory, manners
from circuitspec.pipelines.interactive.named_sites import listed, path_named, sites_named
from circuitspec.prompts.own_metrics import OwnMetric
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.reports.text.data_frames import place_name
from circuitspec.reports.text.result_frame import ResultFrame

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def patch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: PromptsLike,
    components: str | Sequence[str],
    how: str = "noising",
    *,
    corruption: str | Sequence[str] | None = None,
    together: bool = False,
    positions: Mapping[str, str | int] | None = None,
    dictionaries: Mapping[str, Mapping[str, Any]] | None = None,
    metric: OwnMetric | Mapping[str, OwnMetric] | None = None,
    per_prompt: bool = False,
    unpatched: bool = False,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> ResultFrame:
    """Patch components of a model in memory, each by itself, and measure every metric.

    Args:
        model: a Hugging Face causal language model, used as it is (dtype, device) and given back as it came.
        tokenizer: its fast tokenizer.
        prompts: a file (`.jsonl`, `.csv`, `.json`, or a `.circuit.yaml`), a `task` mapping (of which `file` may be rows
            or a DataFrame), a list of mappings
            `{"clean": ..., "corrupt": ..., "answers": [...], "wrong": [...], "positions": {...}}`, a DataFrame with
            these columns, or a hypothesis. Clean and corrupt texts have equally many tokens, or are patched at
            positions that both have.
        components: names as in a file: `"a9.h6@END"`, `["a9.h*", "m3@{S1,S2}", "r5"]`, `"a9.h6.pattern"` (what a
            head attends to). Layers and heads count from 0. Without a position a component is patched at all tokens. A
            layer `"a9"` is its heads together.
        how: `"noising"` (the clean run with values of the corrupt run), `"denoising"` (the corrupt run with values of
            the clean one), or in the clean run `"zero"`, `"mean"`, `"mean_per_template"` (over these very prompts,
            position by position) or `"resample"` (noising).
        corruption: one corruption or several, by name; all that the prompts have unless given. Means may be over
            `"clean"`.
        together: patch all components at once, in one run.
        positions: more positions by name, as in a file: `{"S2": "S2", "AFTER": "S1 + 1", "FIRST": 0}`. END is the last
            token where nothing else is called so.
        dictionaries: whose features may be named (`"sae:res8.f123@END"`), as a file has them:
            `{"res8": {"at": "r8", "from": "./saes/res8"}}`. Unless given, those of the file that the prompts are of.
        metric: a metric of your own, beside the others: a function of a frozen `run` with `run.logits`
            [batch, vocabulary] of the last token, `run.answers` and `run.wrong` (`ids` and `scores` with a `mask`, or
            None), and parts such as `run.mean(run.answers)`, that returns one number a row; or several, by name. A
            lambda's column is `own_metric`. Without a `store`.
        per_prompt: a row for each prompt.
        unpatched: rows of the unpatched runs too, clean and corrupt, first.
        store: a folder in which results are looked up and kept.
        batch_size: how many prompts run together; by memory unless given.
        keep_hooks: let forward hooks on the model take part (see `circuitspec.verify`); they are set aside unless
            asked for, and a Python warning (CS438) names them either way.
        merge_adapters: of a model of peft take a copy with its active adapters merged; without it they are refused.

    Returns:
        A DataFrame with a row for each component and corruption. `kind`, `layer`, `head`, `index`, `position`,
        `corruption`, `direction` and `ablation` say what was patched; per metric M the columns `M` (mean over prompts,
        in the metric's unit), `recovered_M` ((M - corrupt) / (clean - corrupt): 1 is the clean run, 0 the corrupt run
        or, for means and zeros, the model with every head and MLP ablated; NaN where these do not differ by more than
        chance) and `ratio_M` (M / clean). With `per_prompt`, `prompt`, `text` and `M` alone. Frames of `patch`,
        `path_patch`, `sweep` and `verify` can be joined by `pd.concat`.

    Raises:
        CircuitspecError: for names, prompts or a model that do not allow it, with every mistake; nothing was run.
        ValueError: for another `how`. TypeError: for arguments of other kinds.
    """
    texts = listed(components, "components")

    def experiments(loaded: LoadedModel, task: TokenizedTask) -> list[Patched]:
        named = sites_named(texts, loaded.shape, together=together)
        ways = manners(how, corruption, task)
        return [
            Patched(label_of(one.label, way), way.patched(one.sites), way, {"kind": one.kind} if one.kind else {})
            for one in named
            for way in ways
        ]

    with laboratory(
        model,
        tokenizer,
        prompts,
        positions=positions,
        dictionaries=dictionaries,
        metric=metric,
        store=store,
        batch_size=batch_size,
        keep_hooks=keep_hooks,
        merge_adapters=merge_adapters,
        check=lambda loaded, task: [one.run for one in experiments(loaded, task)],
    ) as lab:
        wanted = experiments(lab.loaded, lab.task)
        return measured(lab, wanted, per_prompt=per_prompt, unpatched=unpatched)


def path_patch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: PromptsLike,
    paths: str | Sequence[str],
    how: str = "noising",
    *,
    corruption: str | Sequence[str] | None = None,
    through: Sequence[Literal["mlp"]] = ("mlp",),
    positions: Mapping[str, str | int] | None = None,
    metric: OwnMetric | Mapping[str, OwnMetric] | None = None,
    per_prompt: bool = False,
    unpatched: bool = False,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    merge_adapters: bool = False,
) -> ResultFrame:
    """Patch paths, each by itself: what its first component sends reaches the next along the path and nothing else.

    Path patching as Wang et al. (2022, appendix B) do it: `"a1.h0 -> a3.h1<q>"` is the effect of head a1.h0 on the
    query of head a3.h1 by the direct way, and through it on the output; `"a3.h1 -> logits"` is a direct effect;
    `"a0.h1@S2 -> a2.h0<k> -> logits"` has two hops. All other heads are frozen at their values in the base run. MLPs
    between are recomputed; with `through=()` they are frozen too.

    Arguments, columns and errors otherwise are those of `patch`. A row is a path and a corruption: `kind` is "path",
    `layer`, `head` and `position` are those of the component that it starts from (where that is one), and the last
    column, `receiver`, names what it ends at; so paths from every head to one receiver draw as a heat map.

    Raises CircuitspecError CS203, CS220, CS226 or CS227 for what is no path in this model, CS371 where
    single heads' contributions cannot be told apart.
    """
    texts = listed(paths, "paths")
    passing = list(through)

    def experiments(loaded: LoadedModel, task: TokenizedTask) -> list[Patched]:
        ways = manners(how, corruption, task)
        found = []
        for text in texts:
            path, source = path_named(text, loaded.shape)
            readings = path_level.along([path], loaded.shape, source)
            for way in ways:
                run = path_level.travelling(way.base, way.source, readings, [path], through=passing)
                found.append(Patched(label_of(path.text, way), run, way, _ends(path)))
        return found

    def runs(loaded: LoadedModel, task: TokenizedTask) -> list[Experiment]:
        return [one.run for one in experiments(loaded, task)]

    with laboratory(
        model,
        tokenizer,
        prompts,
        positions=positions,
        metric=metric,
        store=store,
        batch_size=batch_size,
        merge_adapters=merge_adapters,
        edges=True,
        check=runs,
    ) as lab:
        return measured(lab, experiments(lab.loaded, lab.task), per_prompt=per_prompt, unpatched=unpatched)


def label_of(name: str, way: Manner) -> str:
    """`a9.h6@END noising abc`, `a9.h6 zero`."""
    return f"{name} {way.how}" + ("" if way.corruption is None else f" {way.corruption}")


def _ends(path: DeclaredPath) -> dict[str, object]:
    """The columns of a path: the component that it starts from, where that is one, and what it ends at."""
    senders, receivers = path.hops[0], parse_path(path.text).hops[-1]
    ends = ", ".join(format_name(one) if isinstance(one, Name) else one.group for one in receivers)
    found: dict[str, object] = {"kind": "path", "receiver": ends}
    if len(senders) == 1:
        sender = senders[0].component
        found["layer"] = sender.place[0] if sender.kind.in_layers else None
        found["head"] = sender.place[1] if sender.kind is HEAD else None
        found["position"] = place_name(senders[0].where)
    return found
