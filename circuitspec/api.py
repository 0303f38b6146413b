"""The Python interface: read or build a hypothesis, verify it, look at the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.builder import GroupLike, Settings, ablation, build, claim, group
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Document, load_hypothesis, no_model
from circuitspec.pipelines.interactive.hypothesis_value import Hypothesis

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from circuitspec.analysis.claims.sequences.sequence_facts import SequenceFacts
    from circuitspec.analysis.claims.verdict import ClaimResult, Status
    from circuitspec.analysis.verification_result import Verification
    from circuitspec.analysis.warnings.evidence import EvidenceWarning
    from circuitspec.prompts.own_metrics import OwnMetric
    from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
    from circuitspec.reports.reported import Reported
    from circuitspec.reports.text.result_frame import ResultFrame

__all__ = ["Hypothesis", "Result", "ablation", "claim", "group", "hypothesis", "load", "verify"]


@dataclass(frozen=True, repr=False)
class Result:
    """What a verification found. `print(result)` gives the report, and a notebook shows its main parts."""

    verification: Verification
    task: TokenizedTask
    document: Document
    device: str = "cpu"  # on which the model was

    @property
    def verdict(self) -> Status:
        """SUPPORTED, REFUTED or INCONCLUSIVE: the worst of the claims'."""
        return self.verification.verdict

    @property
    def claims(self) -> tuple[ClaimResult, ...]:
        """The claims in the file's order, each with status, estimate, bound and reason."""
        return self.verification.claims

    @property
    def warnings(self) -> tuple[EvidenceWarning, ...]:
        """Findings about the evidence (CS4xx), each with its numbers in `.data`."""
        return self.verification.warnings

    @property
    def sequence(self) -> SequenceFacts | None:
        """How prompts were drawn until claims were decided; None where their number was fixed."""
        return self.verification.sequence

    @property
    def prompts(self) -> PromptSet:
        """The prompts that it was verified on."""
        return self.task.prompts

    @cached_property
    def frame(self) -> ResultFrame:
        """One row per experiment, with a column per metric; `patch` and `sweep` give frames of the same columns."""
        from circuitspec.reports.text.data_frames import experiments_frame
        from circuitspec.reports.text.result_frame import ResultFrame

        found = self.verification
        return ResultFrame(experiments_frame(found.plan, found.records))

    @cached_property
    def prompt_frame(self) -> ResultFrame:
        """One row per experiment and prompt, with a column per metric."""
        from circuitspec.reports.text.data_frames import prompts_frame
        from circuitspec.reports.text.result_frame import ResultFrame

        return ResultFrame(prompts_frame(self.verification.plan, self.verification.records, self.prompts))

    def to_json(self) -> str:
        """The object that `circuitspec verify --format json` prints."""
        from circuitspec.reports.live_views import LiveViews
        from circuitspec.reports.text.printing import print_document

        return print_document(LiveViews(self._reported).document)

    def to_html(self) -> str:
        """The page that `circuitspec verify --html` writes."""
        from circuitspec.reports.html.html_report import render_html
        from circuitspec.reports.html.html_view import page_of

        return render_html(page_of(self._reported))

    @property
    def _reported(self) -> Reported:
        from circuitspec.reports.reported import Reported
        from circuitspec.repository.environment import environment

        ran_on = environment(self.device).model_dump(mode="json")
        return Reported(self.verification, self.document.source, task=self.task, environment=ran_on)

    def _repr_html_(self) -> str:
        from circuitspec.reports.html.notebook import result_html

        return result_html(self._reported)

    def __str__(self) -> str:
        from circuitspec.reports.text.text_report import render_text

        return render_text(self.verification)

    def __repr__(self) -> str:
        said = ", ".join(f"{one.kind} {one.status}" for one in self.claims)
        return f"<Result {self.verification.name!r}: {self.verdict} ({said})>"


def load(path: str | Path) -> Hypothesis:
    """Read and check a hypothesis file. Raises CircuitspecError with every mistake in it.

    It need not name a model: one is then passed to `verify`.
    """
    read = load_hypothesis(path, model_given=True)
    return Hypothesis(read.hypothesis, read.source, read.base_dir, read.lists)


def hypothesis(
    name: str,
    *,
    model: str | Settings | None = None,
    task: str | PathLike[str] | Settings | Any,
    groups: Mapping[str, GroupLike],
    ablation: str | Settings,
    claims: Sequence[Settings],
    free: Sequence[str] = (),
    paths: Sequence[str] = (),
    carries: Mapping[str, Sequence[str] | str] | None = None,
    unnamed: str | None = None,
    dictionaries: Mapping[str, Settings] | None = None,
    abstraction: Settings | None = None,
    source: str | None = None,
    description: str | None = None,
    folder: str | PathLike[str] = ".",
) -> Hypothesis:
    """Build a hypothesis from Python values, checked as the file would be that it is written to.

    Arguments are the parts of the file, as mappings and lists: `model` may be its id alone, or is left out where a
    model is passed to `verify`; `task` may be the path of a prompts file, or the prompts: rows or a DataFrame, as
    `circuitspec.patch` takes them, alone (END then is the last token, unless they call something else so) or as the
    `file` of a mapping. `save` writes them beside the hypothesis. A group may be the name of a component or a list of
    such names. `group`, `ablation` and `claim` write their parts:
    `claim("sufficient", metric="logit_diff", at_least=0.8)`. Names of list files are relative to `folder`.

    Raises CircuitspecError with every mistake, at its line of the YAML, which the traceback shows.
    """
    from circuitspec.pipelines.interactive.given_prompts import with_rows

    task, beside = with_rows(task)
    return build(
        Hypothesis,
        name,
        model=model,
        task=task,
        groups=groups,
        ablation=ablation,
        claims=claims,
        free=free,
        paths=paths,
        carries=carries,
        unnamed=unnamed,
        dictionaries=dictionaries,
        abstraction=abstraction,
        source=source,
        description=description,
        folder=folder,
        beside=beside,
    )


def verify(
    hypothesis: Document | str | PathLike[str],
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    negatives: Literal["screen", "exact", "off"] = "screen",
    sequential: bool | int = False,
    batch_size: int | None = None,
    device: str = "cpu",
    keep_hooks: bool = False,
    store: str | PathLike[str] | None = None,
    metric: OwnMetric | Mapping[str, OwnMetric] | None = None,
    merge_adapters: bool = False,
) -> Result:
    """Verify a hypothesis on its own model, or on a Hugging Face model that is in memory already.

    A model that is passed in is used as it is (dtype and device are its own, not the file's) and is given back exactly
    as it came, also after an exception. A TransformerLens bridge is taken for the model inside it where it has no
    weights of its own.

    Hooks on its modules (steering, ablations, a dictionary spliced in) are set aside for the run, and CS438 names
    them. With `keep_hooks` they take part: in every forward, the clean ones too, a module's hooks run first, and what
    they leave is what is patched. Each forward then is whole and of one prompt, so that `batch_size` must be left out;
    edge and path level are refused (CS371), and hooks on the final norm, the unembedding or the model itself (CS515).

    With `sequential` prompts are drawn, or read, in batches until every claim is decided by intervals that may be
    looked at any time: at most four times as many as the file asks for (or all rows of its prompts file), or at most
    as many as the number that is given. `.sequence` says how it went; Ctrl-C gives the verdict so far.

    Results are looked up and kept in the folder `store`, if one is given. A `metric` of your own (a function of a
    frozen `run` with `run.logits` [batch, vocabulary] of the last token, `run.answers` and `run.wrong`, that returns
    one number a row; or several by name) is measured in every run, beside those that claims can name: it is in
    `.frame` and the report's tables, CS446 says so, it goes without `store`, and `lock` refuses it.
    Adapters of peft are refused by name (CS515); with `merge_adapters` a copy is taken with the active ones merged.

    In a notebook a bar shows how far it is. May be called under torch.inference_mode(). Raises CircuitspecError where
    the file, the prompts or the model do not allow a run, TypeError for arguments that do not go together.
    """
    import torch

    from circuitspec.models.adopt import adopt_model
    from circuitspec.pipelines.sequential import Sequential
    from circuitspec.pipelines.verify import VerifyOptions
    from circuitspec.pipelines.verify import verify as run
    from circuitspec.prompts.own_metrics import named_metrics
    from circuitspec.runtime.progress import for_callers

    if (model is None) != (tokenizer is None):
        raise TypeError("pass both a model and its tokenizer, or neither")
    if keep_hooks and (model is None or batch_size is not None):
        raise TypeError("keep_hooks is for a model that is passed, and goes without batch_size: the batch size is 1")
    if not isinstance(hypothesis, Document | str | PathLike):
        raise TypeError(
            f"`hypothesis` is a {type(hypothesis).__name__}: give a file's path, or what circuitspec.load(path) or "
            "circuitspec.hypothesis(...) returns"
        )
    given = model is not None
    own = named_metrics(metric)
    if own and store is not None:
        raise TypeError("a metric of your own goes without a store: nobody could tell later what it computed")
    document = hypothesis if isinstance(hypothesis, Document) else load_hypothesis(Path(hypothesis), model_given=given)
    if document.hypothesis.model.id == IN_MEMORY and not given:
        raise CircuitspecError(no_model(document))
    with torch.inference_mode(False):  # gradients are taken, whatever holds around the call
        loaded = None
        if model is not None and tokenizer is not None:
            loaded = adopt_model(model, tokenizer, keep_hooks=keep_hooks, merge_adapters=merge_adapters)
        with for_callers() as progress:
            place = None if store is None else Path(store)
            options = VerifyOptions(negatives, batch_size, device, store=place, own=own)
            if sequential is not False:
                options = replace(options, sequential=Sequential(None if sequential is True else sequential))
            outcome = run(document, options, progress, loaded=loaded)
    return Result(outcome.verification, outcome.task, document, device if loaded is None else str(loaded.model.device))
