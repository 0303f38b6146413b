"""A file with paths in, the least that the values on them must carry out: `explore --carries`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.abstraction.scrubbed import (
    KL,
    names_to_carry,
    tree_of,
    uncomputable,
    usual_rules,
)
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.wording import with_interval
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.cache.stored_runner import StorePlace
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels.scrub_level import scrub_draw
from circuitspec.experiments.levels.scrub_tree import ScrubTree
from circuitspec.experiments.planner import CLEAN as CLEAN_RUN
from circuitspec.experiments.requirements import check_claimed, check_length, moved
from circuitspec.exploration.variables.carried_names import CarriesFindings, Scrubbing, least_carried
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.paths import read_path
from circuitspec.hypothesis_file.grammar.names import PathExpr, format_path, parse_path
from circuitspec.hypothesis_file.load_file import Document, with_source
from circuitspec.hypothesis_file.schema.abstraction.scrubbed_block import Scrubbed
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.carries_block import EVERYTHING
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.abstraction.pair_preparation import with_all_drawn
from circuitspec.pipelines.session import Session, check_routing_free, from_file, opened, tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.output_metrics import check_metrics
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape

_APART = 1e-9  # by less the anchors of a ratio are one


@dataclass(frozen=True)
class CarriesRequest:
    """What is measured, which `share` of what everything recovers is to be recovered, and `most` forwards, if any."""

    metric: str = "logit_diff"
    share: float = 0.9
    seed: int = 0
    most: int | None = None
    rows: int | None = None
    device: str = "cpu"
    store: StorePlace = None


def search_carries(document: Document, asked: CarriesRequest, progress: Progress) -> CarriesFindings:
    """Scrub the circuit of a file, from everything on its paths on, with ever less carried.

    Prompts are drawn as the file's first `scrubbed` claim says, or as such a claim draws them without saying. Every try
    draws each prompt once, with the same seed: what is not changed is the same. Raises CS529 for a file without paths
    to the logits or that recover nothing, or with prompts in which nothing differs, and CircuitspecError as `verify`
    does.
    """
    started = time.monotonic()
    text = document.source
    check_routing_free(document)
    prompts = build_prompts(document.hypothesis.task, document.base_dir, text)
    hypothesis = with_source(document.hypothesis, prompts.corruptions, text)
    check_claimed(hypothesis, prompts, text)
    check_metrics([asked.metric], prompts, [None])

    def prepared(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> tuple[ScrubTree, Hypothesis, TokenizedTask]:
        graph = lay_out(hypothesis.circuit, shape, text)
        own = _carrying_everything(hypothesis, graph, document)
        return tree_of(own, graph, text), own, tokens_of(document, hypothesis, prompts, shape, tokenizer)

    loaded, (tree, own, task) = opened(from_file(document, hypothesis, asked.device, progress), prepared)
    names, made_of = names_to_carry(own)
    names = names or _columns(task)
    if not names:
        raise CircuitspecError(
            Diagnostic("CS529", "the prompts have no slots or columns", text.span(("task",), key=True))
        )
    scrubs = _Scrubs(own, document, loaded, task, asked, progress)

    def tries(changed: ScrubTree) -> Scrubbing:
        found = scrubs.of(changed)
        if changed is tree:
            _check_something_recovered(found, asked.metric, document)
        return found

    with scrubs.session.tested(task, edges=True):
        whole, entries = least_carried(
            tree,
            names,
            made_of,
            tries,
            lambda changed: not uncomputable(changed, own, text),
            asked.share,
            lambda: asked.most is not None and scrubs.forwards >= asked.most,
            lambda key: progress.stage(f"what {key} must carry"),
        )
    return CarriesFindings(
        hypothesis.name,
        loaded.provenance.id,
        asked.metric,
        asked.share,
        task.n,
        scrubs.by,
        asked.seed,
        scrubs.through,
        whole,
        entries,
        scrubs.forwards,
        time.monotonic() - started,
    )


def _columns(task: TokenizedTask) -> tuple[str, ...]:
    """Those of a prompts file, what tells most prompts apart first: one may say all that another does."""
    prompts = task.prompts.prompts
    names = dict.fromkeys(name for one in prompts for name in one.metadata)
    return tuple(sorted(names, key=lambda name: -len({repr(one.metadata.get(name)) for one in prompts})))


def _carrying_everything(hypothesis: Hypothesis, graph: CircuitGraph, document: Document) -> Hypothesis:
    """The hypothesis with an entry for each sender and reader that its paths join, which carries everything."""
    keys: dict[str, str] = {}
    for path in graph.paths:
        for sender, reader in parse_path(path.text).edges():
            pair = format_path(PathExpr(((replace(sender, ports=()),), (reader,))))
            read = read_path(pair, graph.members, graph.shape, document.source, path.place, [])
            if read.hops[0] and read.hops[1]:
                keys.setdefault(pair, EVERYTHING)
    if not keys:
        hint = "add circuit: paths: [A -> B<q>, B -> logits]"
        where = document.source.span(("circuit",), key=True)
        raise CircuitspecError(Diagnostic("CS529", f"{document.source.file} declares no paths", where, hint=hint))
    circuit = hypothesis.circuit.model_copy(update={"carries": keys, "unnamed": None})
    return hypothesis.model_copy(update={"circuit": circuit})


def _check_something_recovered(whole: Scrubbing, metric: str, document: Document) -> None:
    """Raises CS529 where the paths do not surely recover anything, so that no step could lose it."""
    recovered = whole.recovered
    low = recovered.value if recovered.interval is None else recovered.interval[0]
    if low <= 0:
        message = f"with everything carried, the paths recover {with_interval(recovered)} of {metric}: maybe nothing"
        where = document.source.span(("circuit", "paths"), key=True)
        hint = "declare the paths that lead to the answer, take more prompts, or another --metric"
        raise CircuitspecError(Diagnostic("CS529", message, where, hint=hint))


class _Scrubs:
    """Scrubs trees, each on prompts of its own."""

    def __init__(
        self,
        hypothesis: Hypothesis,
        document: Document,
        loaded: LoadedModel,
        task: TokenizedTask,
        asked: CarriesRequest,
        progress: Progress,
    ) -> None:
        claim = next((one for one in hypothesis.claims if isinstance(one, Scrubbed)), None)
        through = None if claim is None else claim.through
        self.by = (() if claim is None else claim.rules) or usual_rules(hypothesis)
        self.through = hypothesis.ablation.through if through is None else through
        self.session = Session(loaded, progress, rows=asked.rows, store=asked.store)
        self.forwards = 0.0
        self._document, self._task, self._asked = document, task, asked

    def of(self, tree: ScrubTree) -> Scrubbing:
        """What is recovered with this tree scrubbed."""
        asked, text = self._asked, self._document.source
        draw = scrub_draw(tree, 0, by=self.by, seed=asked.seed, through=self.through)
        task = with_all_drawn(self._task, draw.prompts, self._document, self.session.loaded.tokenizer)
        runs: Mapping[Experiment, str] = {CLEAN_RUN: "clean", draw.nothing_kept: "random", draw.scrubbed: "scrubbed"}
        if problems := moved(draw.prompts, runs, task, text):
            raise CircuitspecError(*problems)
        check_length(task, self.session.loaded.shape)
        runner = self.session.runner(task)
        with self.session.kept(runner) as stored:
            records = stored.run(runs)
        self.forwards += runner.forwards
        clean, random, scrubbed = (records[run] for run in runs)
        if abs(float(clean[asked.metric].mean() - random[asked.metric].mean())) < _APART:
            message = f"random prompts have the {asked.metric} of the clean ones, so that nothing can be lost"
            raise CircuitspecError(Diagnostic("CS529", message, hint="take another --metric, or other words"))
        recovered = stats.recovered(scrubbed[asked.metric], random[asked.metric], clean[asked.metric])
        return Scrubbing(recovered, float(scrubbed[KL].mean()), float(random[KL].mean()))
