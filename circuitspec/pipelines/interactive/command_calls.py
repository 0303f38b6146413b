"""The commands as calls from Python: `explore`, `plan`, `check`, `compare`, `report`, `lock`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exploration.preview import is_to_explore, plan_study
from circuitspec.exploration.request import ExploreOptions, Kind
from circuitspec.hypothesis_file.load_file import (
    IN_MEMORY,
    Document,
    load_exploration,
    load_hypothesis,
    no_model,
)
from circuitspec.pipelines.interactive.call_values import CheckFindings, ComparedCircuits, Explored, ShownText
from circuitspec.pipelines.interactive.given_prompts import PromptsLike, given_study, is_prompts_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape

COMMAND = "circuitspec.explore(...)"  # what drafts say made them


class Verified(Protocol):
    """What `circuitspec.verify` gives, as far as it is asked for here."""

    @property
    def document(self) -> Document: ...


def explore(
    task: PromptsLike,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    metric: str = "logit_diff",
    target: float = 0.9,
    free: Sequence[str] = (),
    start: Literal["estimates", "resid"] = "estimates",
    sweeps: Sequence[Kind] = (),
    values: Sequence[str] = (),
    exact: int = 60,
    max_forwards: float | None = None,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> Explored:
    """Find out which components do a task, and draft a hypothesis of them, as `circuitspec explore` does.

    `task` is a file with `task` (and, where no model is passed, `model`), a `task` mapping, a hypothesis whose model
    and task are taken, or prompts: rows or a DataFrame, as `circuitspec.patch` takes them. Those are explored at the
    positions that they name and at END (where they name none: at the last token and at all tokens together), and a
    draft's `save` writes them beside it. Options have the meaning and defaults of the command's: `target` is the share
    of the metric that a circuit has to recover, `exact` how many effects are patched exactly, `max_forwards` how many
    passes over all prompts there may be at most. `plan(task, model)` says beforehand what it takes.

    Raises CircuitspecError as the command does (CS541: nothing to explore; CS542: too few forwards), CS516 without any
    model, TypeError for a model without its tokenizer.
    """
    import torch

    from circuitspec.models.adopt import adopt_model
    from circuitspec.pipelines.explore import explore as run
    from circuitspec.pipelines.interactive.memory_session import tell_what_is_on
    from circuitspec.runtime.progress import for_callers

    if (model is None) != (tokenizer is None):
        raise TypeError("pass both a model and its tokenizer, or neither")
    study = given_study(task)
    if model is None and study.exploration.model.id == IN_MEMORY:
        raise CircuitspecError(no_model(study))
    options = ExploreOptions(
        metric=metric,
        free=tuple(free),
        target=target,
        exact=exact,
        rows=batch_size,
        device=device,
        store=None if store is None else Path(store),
        start=start,
        sweeps=tuple(sweeps),
        values=tuple(values),
        max_forwards=max_forwards,
    )
    with torch.inference_mode(False):  # gradients are taken, whatever holds around the call
        loaded = None
        if model is not None and tokenizer is not None:
            loaded = adopt_model(model, tokenizer, keep_hooks=keep_hooks, merge_adapters=merge_adapters)
            tell_what_is_on(loaded)
        with for_callers() as progress:
            return Explored(run(study, options, progress, COMMAND, loaded=loaded), study, COMMAND)


def plan(
    hypothesis: PromptsLike,
    model: PreTrainedModel | None = None,
    *,
    methods: bool = False,
    tests: bool = False,
    alternatives: bool = False,
) -> ShownText:
    """What `verify` would run (experiments, base, source, sites, forwards, memory), without running anything.

    Of a task alone (a file, a mapping, rows or a DataFrame of prompts), what `explore` would take, by stage. The shape
    is that of `model` where one is passed, and otherwise that of the model which the file names. Raises
    CircuitspecError for mistakes, CS506 where that model's configuration is not on this machine.
    """
    from circuitspec.pipelines.plan import plan_document

    shape = None if model is None else _shape_of(model)
    if isinstance(hypothesis, Document):
        return ShownText(plan_document(hypothesis, sweep=methods, tests=tests, alternatives=alternatives, shape=shape))
    if not isinstance(hypothesis, str | PathLike) or is_prompts_file(Path(hypothesis)):
        return ShownText(plan_study(given_study(hypothesis, "plan"), shape=shape))
    file, given = Path(hypothesis), model is not None
    if is_to_explore(file, model_given=given):
        return ShownText(plan_study(load_exploration(file, model_given=given), shape=shape))
    document = load_hypothesis(file, model_given=given)
    return ShownText(plan_document(document, sweep=methods, tests=tests, alternatives=alternatives, shape=shape))


def check(hypothesis: PromptsLike) -> CheckFindings:
    """Every mistake of a file, found without running it, as `circuitspec check` finds them; true where there is none.

    A hypothesis that was built or loaded was checked as a file then; of it this says what model and prompts add. Of
    a task alone (a mapping, rows or a DataFrame) it says whether it can be explored.
    """
    from circuitspec.exploration.preview import check_read_study, check_study
    from circuitspec.pipelines.check import check_document, check_file

    if isinstance(hypothesis, Document):
        return CheckFindings(*check_document(hypothesis, hypothesis.hypothesis.name))
    if not isinstance(hypothesis, str | PathLike) or is_prompts_file(Path(hypothesis)):
        try:
            return CheckFindings(*check_read_study(given_study(hypothesis, "check"), "the task"))
        except CircuitspecError as error:
            return CheckFindings(error.diagnostics, "")
    file = Path(hypothesis)
    found: Callable[[Path], tuple[tuple[Diagnostic, ...], str]] = check_file
    try:
        found = check_study if is_to_explore(file) else check_file
    except CircuitspecError as error:  # what cannot be read is said as `check` says it
        return CheckFindings(error.diagnostics, "")
    return CheckFindings(*found(file))


def compare(
    *circuits: str | PathLike[str] | Document | Verified,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    run: bool = False,
    metric: str | None = None,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
) -> ComparedCircuits:
    """What circuits share, and how much random circuits would; with `run`, what they do on each other's prompts.

    Circuits are files, folders of `verify --output-dir`, hypotheses that were built or loaded, and results of
    `verify`. They run in the `model` that is passed with its `tokenizer` (then also those of several models of one
    shape), and else in the one that they name. `metric` is the score of which recovered performance is compared: each
    file's own, if none is given.

    Raises CircuitspecError as `circuitspec compare` does (CS580 to CS583), TypeError for a model without its tokenizer
    or without `run`, ValueError for fewer than two circuits.
    """
    from circuitspec.comparison.compared_circuits import laid_out, read_circuit, same_model
    from circuitspec.comparison.comparison_result import compared

    if (model is None) != (tokenizer is None):
        raise TypeError("pass both a model and its tokenizer, or neither")
    if model is not None and not run:
        raise TypeError("a model is for run=True: what circuits share needs none")

    def document(circuit: str | PathLike[str] | Document | Verified) -> Document:
        if isinstance(circuit, str | PathLike):
            return read_circuit(Path(circuit))
        return circuit if isinstance(circuit, Document) else circuit.document

    shape = None if model is None else _shape_of(model)
    laid = laid_out([document(one) for one in circuits], shape)
    measured = None
    if run:
        import torch

        from circuitspec.models.adopt import adopt_model
        from circuitspec.pipelines.compare import CompareOptions
        from circuitspec.pipelines.compare import compare as run_all
        from circuitspec.runtime.progress import for_callers

        options = CompareOptions(metric, batch_size, device, None if store is None else Path(store))
        with torch.inference_mode(False), for_callers() as progress:  # gradients are taken, whatever holds around
            loaded = None if model is None or tokenizer is None else adopt_model(model, tokenizer)
            measured = run_all(laid, options, progress, loaded=loaded)
    return ComparedCircuits(compared(laid, one_model=model is not None or same_model(laid), measured=measured))


def report(results: str | PathLike[str], format: str = "text") -> ShownText:
    """A result that `circuitspec verify --output-dir` saved, in any of the formats of `circuitspec report`.

    Raises CircuitspecError (CS548, CS549) for what is no saved result, ValueError for an unknown format.
    """
    from circuitspec.reports.report_formats import FORMATS
    from circuitspec.reports.saved_result import read_saved
    from circuitspec.reports.views import Style

    if format not in FORMATS:
        raise ValueError(f"format={format!r}: give one of {', '.join(FORMATS)}")
    return ShownText(FORMATS[format](read_saved(Path(results)), Style()))


def lock(
    hypothesis: str | PathLike[str] | Document,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    metric: object = None,
) -> Path:
    """Verify a hypothesis on the model that its file names, and write the lock beside it, as `circuitspec lock` does.

    Returns the path of the lock. `circuitspec verify --locked FILE` (or pytest) fails on whatever is no longer so.

    Raises CircuitspecError as `verify` does, CS516 where the file names no model, CS518 where a result cannot be
    locked: with a `metric` of the caller's own, or for a hypothesis that is not saved.
    """
    from circuitspec.pipelines.verify import VerifyOptions
    from circuitspec.pipelines.with_locks.locked import run_and_lock
    from circuitspec.repository.lock import lock_path
    from circuitspec.repository.lock_file import write_lock
    from circuitspec.runtime.progress import for_callers

    if metric is not None:
        raise CircuitspecError(
            Diagnostic(
                "CS518",
                "a result with a metric of the caller's own cannot be locked: no file says what it computes",
                hint="leave `metric` out; claims rest on the metrics that the file names",
            )
        )
    document = hypothesis if isinstance(hypothesis, Document) else load_hypothesis(Path(hypothesis), model_given=True)
    if document.hypothesis.model.id == IN_MEMORY:
        raise CircuitspecError(no_model(document))
    file = Path(document.source.file)
    if not file.is_file():
        said = f"{document.hypothesis.name} is not saved, so that its lock has no place"
        raise CircuitspecError(Diagnostic("CS518", said, hint="lock(hypothesis.save('NAME.circuit.yaml'))"))
    with for_callers() as progress:
        _, written = run_and_lock(document, VerifyOptions("off", batch_size, device), progress)
    path = lock_path(file)
    write_lock(path, written, file.name)
    return path


def _shape_of(model: PreTrainedModel) -> ModelShape:
    """The shape of a model in memory, a TransformerLens bridge included."""
    from circuitspec.models.in_memory.bridge import inside_bridge
    from circuitspec.models.in_memory.unfit import check_model
    from circuitspec.models.model_config import shape_of

    inside = inside_bridge(model)
    given: Any = model if inside is None else inside
    check_model(given)
    return shape_of(given.config.to_dict())
