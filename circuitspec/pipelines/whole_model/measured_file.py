"""A file with a model and a task, opened to be measured as it is: nothing is patched, and no corruption is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.runner import Runner
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Document, Study, load_exploration, no_model
from circuitspec.models.adopt import adopt_model
from circuitspec.pipelines.interactive.given_prompts import PromptsLike, given_study
from circuitspec.pipelines.session import Session, from_file, from_memory, opened, tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.output_metrics import check_metrics
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.runtime.progress import Progress, for_callers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape
    from circuitspec.models.load import LoadedModel


@contextmanager
def opened_file(
    given: PromptsLike,
    progress: Progress,
    *,
    metric: str | None = None,
    device: str = "cpu",
    rows: int | None = None,
    loaded: LoadedModel | None = None,
) -> Iterator[Runner]:
    """What runs the file's prompts on its model (or on the one that is `loaded`), which has tested itself.

    Raises CircuitspecError as `verify` does for files, prompts and models; CS350 for a `metric` that the prompts have
    no answers for.
    """
    file = _read(given, model_given=loaded is not None)
    subject = file.hypothesis if isinstance(file, Document) else file.exploration
    prompts = build_prompts(subject.task, file.base_dir, file.source)
    if metric is not None:
        check_metrics([metric], prompts, [file.source.span(("task",))])

    def prepared(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> TokenizedTask:
        return tokens_of(file, subject, prompts, shape, tokenizer)

    loading = from_file(file, subject, device, progress) if loaded is None else from_memory(loaded)
    model, task = opened(loading, prepared)
    with Session(model, progress, rows=rows).tested(task) as (runner, _):
        yield runner


def _read(given: PromptsLike, *, model_given: bool) -> Document | Study:
    """Raises CircuitspecError as reading files and rows does; CS516 where neither they nor the call have a model."""
    if isinstance(given, str | PathLike) and not model_given:  # as the commands do
        return load_exploration(Path(given), model_given=False)
    read = given if isinstance(given, Document) else given_study(given)
    subject = read.hypothesis if isinstance(read, Document) else read.exploration
    if subject.model.id == IN_MEMORY and not model_given:
        raise CircuitspecError(no_model(read))
    return read


@contextmanager
def in_memory(
    given: PromptsLike,
    call: str,
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerFast | None,
    *,
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> Iterator[tuple[LoadedModel | None, Progress]]:
    """A caller's model as `verify` takes it, if there is one, and what tells the caller how far a run is.

    Raises CS515 and others as `adopt_model` does; TypeError for a model without a tokenizer, or the other way around,
    or in the place of what is `given` to the `call`.
    """
    import torch

    if isinstance(given, torch.nn.Module):
        raise TypeError(f"the prompts come first, as in circuitspec.{call}(prompts, model, tokenizer)")
    if (model is None) != (tokenizer is None):
        raise TypeError("pass both a model and its tokenizer, or neither")
    with torch.inference_mode(False), for_callers() as progress:
        loaded = None
        if model is not None and tokenizer is not None:
            loaded = adopt_model(model, tokenizer, keep_hooks=keep_hooks, merge_adapters=merge_adapters)
        yield loaded, progress
