"""What is wrong with a hypothesis, as far as it can be said without running it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.analysis.statistics.wording import plural
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import sites_declared
from circuitspec.exchange.placeholders import placeholders
from circuitspec.experiments.direction_files import direction_places, read_numbers
from circuitspec.experiments.follow_ups.reach import acting, checked_reach, tell_by_tokens
from circuitspec.experiments.internal_metric_plans import internal_metrics, measuring
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.requirements import check_claimed, check_length, check_plan_fits, fitted, refused_runs
from circuitspec.experiments.subspaces.subspace_files import read_subspaces
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.checks.check_size import count_named, stated_size
from circuitspec.hypothesis_file.grammar.components import (
    Pattern,
)
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Document, load_hypothesis, with_source
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.models.at_hand import tokenizer_at_hand
from circuitspec.models.shapes import read_shape
from circuitspec.pipelines.abstraction.carried_table import carried_text
from circuitspec.pipelines.abstraction.pair_preparation import paired, pairs_of, with_all_drawn
from circuitspec.pipelines.abstraction.pair_tables import abstraction_text
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.settings import is_of_pairs
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.visible_text import no_command, visible

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_AT_HAND = "the model's configuration is not at hand, so layer and head numbers were not checked"
NOT_TOKENISED = (
    "the model's tokenizer is not at hand, so prompts and answers were not tokenised: `verify` says whether they fit it"
)
BY_NAME = "the model's tokenizer is not at hand, so positions along paths were compared by name only, not by token"


def check_file(file: Path) -> tuple[tuple[Diagnostic, ...], str]:
    """Every mistake found in a file without running it, and one line about it if there is none.

    The model's configuration is read where it is on this machine (nothing is downloaded); prompts are drawn, and
    tokenised if the tokenizer is on this machine too.
    """
    try:
        document = load_hypothesis(file)
    except CircuitspecError as error:
        return error.diagnostics, ""
    return check_document(document, str(file))


def check_document(document: Document, name: str) -> tuple[tuple[Diagnostic, ...], str]:
    """As `check_file`, of a hypothesis that was read or built; `name` is what it is called."""
    hypothesis, base_dir = document.hypothesis, document.base_dir
    problems: list[Diagnostic] = []
    shape: ModelShape | None = None
    prompts: PromptSet | None = None
    gaps = placeholders(document)  # warnings: what an imported file still waits for
    no_prompts_yet = any(gap.data["key"] == "task.file" for gap in gaps)
    in_prompts: tuple[Diagnostic, ...] = ()
    task: TokenizedTask | None = None
    graph: CircuitGraph | None = None
    by_name = False  # rather than by token
    carried = ""
    try:
        prompts = None if no_prompts_yet else build_prompts(hypothesis.task, base_dir, document.source)
        hypothesis = with_source(hypothesis, None if prompts is None else prompts.corruptions, document.source)
        if prompts is not None:
            check_claimed(hypothesis, prompts, document.source)
    except CircuitspecError as error:
        in_prompts = error.diagnostics  # go on with any corruption, to find what else is wrong
        hypothesis = with_source(hypothesis, (prompts.corruptions[:1] or None) if prompts else None, document.source)
    pairs: PairSet | None = None
    unpaired: tuple[Diagnostic, ...] = ()
    try:
        pairs = None if prompts is None else pairs_of(hypothesis, prompts, document)
    except CircuitspecError as error:
        unpaired = error.diagnostics
    try:
        with document.blamed_on("model", "id"):
            shape = _shape_at_hand(hypothesis, base_dir)
        if shape is not None and prompts is not None:
            task, misfits = _tokenised_or_why(prompts, document, shape, pairs)
            in_prompts += misfits
            prompts = prompts if task is None else task.prompts
        if shape is not None:
            shape = sites_declared(hypothesis.dictionaries, shape, document.source)
            internals = internal_metrics(hypothesis, shape, document.source)
            graph = measuring(lay_out(hypothesis.circuit, shape, document.source), internals)
            corruptions = None if prompts is None else prompts.corruptions
            plan = make_plan(hypothesis, graph, document.source, corruptions, pairs, read_subspaces(document))
            if prompts is not None and task is not None and plan.drawn_prompts:
                task = tokenised(prompts, document, shape.n_vocab, pairs, plan.drawn_prompts)
            carried = carried_text(plan)
            _, by_name = reaching(plan, document, graph, None if unpaired else task, internals)
    except CircuitspecError as error:
        gaps += tuple(replace(d, severity="warning") for d in error.diagnostics if d.code == "CS235")  # to be learned
        problems += [d for d in error.diagnostics if d.code != "CS235" and not (unpaired and _lacks_pairs(d))]
    try:
        check_directions(document, shape)
    except CircuitspecError as error:
        problems += error.diagnostics
    problems += [*in_prompts, *unpaired]
    if problems:
        return (*problems, *gaps), ""
    prompted = plural(len(prompts.prompts), "prompt") if prompts else "no prompts"
    groups, claims = plural(len(hypothesis.circuit.groups), "group"), plural(len(hypothesis.claims), "claim")
    said = f"{visible(name)}: ok   {_nodes(hypothesis, graph)} in {groups}, {prompted}, {claims}"
    if pairs is not None:
        said += "\n\n" + abstraction_text(pairs, hypothesis)
    if carried:
        said += "\n\n" + carried
    untold = [NOT_AT_HAND] if shape is None else []
    untold += [NOT_TOKENISED] if prompts is not None and task is None else []
    untold += [BY_NAME] if by_name else []
    return gaps, no_command("\n   note: ".join([said, *untold]))


def _lacks_pairs(problem: Diagnostic) -> bool:
    """Whether it is that there are no pairs, which follows from what is wrong with them."""
    return is_of_pairs(str(problem.data.get("lacking", "")))


def _nodes(hypothesis: Hypothesis, graph: CircuitGraph | None) -> str:
    """How many components the groups declare; how many names, where wildcards stand for nobody knows how many."""
    written = tuple(text for group in hypothesis.circuit.groups.values() for text in group.nodes)
    size = stated_size(hypothesis.model.size)
    if graph is not None:
        return plural(len(graph.members), "node")
    if size is not None and (count := count_named(written, size)) is not None:
        return plural(count, "node")
    targets = [parse_name(text).target for text in written]
    wide = any(isinstance(target, Pattern) or target.kind.stands_for is not None for target in targets)
    return f"{plural(len(written), 'name')} of nodes" if wide else plural(len(written), "node")


def _tokenised_or_why(
    prompts: PromptSet, document: Document, shape: ModelShape, pairs: PairSet | None
) -> tuple[TokenizedTask | None, tuple[Diagnostic, ...]]:
    """As `tokenised`, with what is wrong: the rest of the file is checked all the same."""
    try:
        return tokenised(prompts, document, shape.n_vocab, pairs), ()
    except CircuitspecError as error:
        return None, error.diagnostics


def check_directions(document: Document, shape: ModelShape | None) -> None:
    """Raises CS432 for the files of directions; how many numbers they hold is known where the model is."""
    places = direction_places(document.hypothesis, document.source)
    read_numbers(places, document.base_dir, None if shape is None else shape.d_model, places)


def tokenised(
    prompts: PromptSet,
    document: Document,
    n_vocab: int,
    pairs: PairSet | None = None,
    drawn: Sequence[DrawnPrompts] = (),
) -> TokenizedTask | None:
    """The prompts as `verify` tokenises them, with the `pairs` and those `drawn`; None without the tokenizer.

    Raises CircuitspecError (CS342 to CS349, CS360) for prompts that do not fit the tokenizer, and CS306, CS312 for one
    that `verify` refuses.
    """
    hypothesis, text = document.hypothesis, document.source
    if hypothesis.model.id == IN_MEMORY:
        return None
    with document.blamed_on("model", "id"):
        found = tokenizer_at_hand(hypothesis.model, document.base_dir)
    if found is None:
        return None

    def tokens(tokenizer: PreTrainedTokenizerBase) -> TokenizedTask:
        task = tokenize(prompts, hypothesis.task.positions, tokenizer, text, unequal=True)
        task = paired(task, pairs, hypothesis, tokenizer, text)
        return with_all_drawn(task, drawn, document, tokenizer)

    framing = prompts.framing
    named = framing.special_tokens == "bos" or framing.chat is not None  # what stands in files beside tokenizer.json
    if found.plain is not None and not (named and found.directory is not None):
        try:
            return tokens(found.plain)
        except CircuitspecError:
            if found.directory is None:
                raise
    with document.blamed_on("model", "id"):  # in doubt what `verify` takes has the last word
        tokenizer = found.loaded(n_vocab)
    return tokens(tokenizer)


def reaching(
    plan: Plan, document: Document, graph: CircuitGraph, task: TokenizedTask | None, internals: Sequence[Internal]
) -> tuple[Plan, bool]:
    """The plan, with the pairs on its paths that share no token; and whether they were compared by name only.

    Raises, as `verify` does, for a path along which nothing arrives in any prompt (CS227), for names that the prompts
    lack (CS507, CS508), and for prompts that are too long for the model (CS505).
    """
    hypothesis, text = document.hypothesis, document.source
    declared = acting(graph.paths, hypothesis.ablation)
    if task is None:
        return plan, tell_by_tokens(plan, declared)
    plan = fitted(plan, refused_runs(plan.experiments, task), text)
    check_plan_fits(plan, task, text, internals)
    check_length(task, graph.shape)
    return checked_reach(plan, declared, graph.shape, task, text), False


def graph_at_hand(document: Document) -> CircuitGraph | None:
    """The hypothesis laid over its model; None where the model's configuration is not on this machine.

    Raises CircuitspecError where the circuit does not fit the model.
    """
    with document.blamed_on("model", "id"):
        shape = _shape_at_hand(document.hypothesis, document.base_dir)
    if shape is None:
        return None
    shape = sites_declared(document.hypothesis.dictionaries, shape, document.source)
    return lay_out(document.hypothesis.circuit, shape, document.source)


def _shape_at_hand(hypothesis: Hypothesis, base_dir: Path) -> ModelShape | None:
    """The model's shape; None where the model is not on this machine, which is no mistake of the file."""
    if hypothesis.model.id == IN_MEMORY:
        return None
    try:
        return read_shape(hypothesis.model, base_dir)
    except CircuitspecError as error:
        if all({"missing_package", "missing_model"} & finding.data.keys() for finding in error.diagnostics):
            return None
        raise
