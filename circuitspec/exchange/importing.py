"""A circuit file of another tool -> the text of a hypothesis that says the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.exchange.edges import EdgeList, Size, at_least, connected, grouped, strongest
from circuitspec.exchange.formats import FORMATS, FormatName
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.reading import Reading, size_of
from circuitspec.exchange.text import Surroundings, hypothesis_text
from circuitspec.spec.blocks import MetricName
from circuitspec.spec.hypothesis import ModelSpec
from circuitspec.spec.load import parse_hypothesis
from circuitspec.spec.source import MAX_BYTES
from circuitspec.tasks.files import read_prompts
from circuitspec.tasks.findings import Findings


@dataclass(frozen=True)
class ImportOptions:
    """What the user says beyond the file."""

    threshold: float | None = None  # keep edges whose score is at least this, whatever its sign
    top: int | None = None  # keep so many edges, those of the largest scores
    model: str | None = None
    size: Size | None = None  # of the model, where its configuration is not at hand
    prompts: Path | None = None
    entry: str | None = None  # which of several runs in one file
    keep_dangling: bool = False


@dataclass(frozen=True)
class Imported:
    """A hypothesis file's text, its edges, and what the import lost or made up."""

    text: str
    edges: EdgeList
    losses: tuple[Loss, ...]


def import_circuit(file: Path, name: FormatName, out: Path, options: ImportOptions) -> Imported:
    """The circuit in `file` as a hypothesis to be written to `out`; nothing is written here.

    Raises CircuitspecError: CS380s for the file and the options, CS300 to CS305 for the model, CS330 to CS351 for the
    prompts.
    """
    if options.entry is not None and not FORMATS[name].has_entries:
        said = f"{file} holds one circuit, as every {FORMATS[name].title} does: there is no entry {options.entry!r}"
        raise CircuitspecError(Diagnostic("CS385", said, hint="leave out --entry"))
    at_hand = None if options.model is None else size_of(ModelSpec(id=options.model), out.parent)
    known = at_hand or options.size
    reading = FORMATS[name].read(file, known, options.entry)
    edges, losses = _selected(file, reading, options)
    if known is not None and known.n_kv_heads < known.n_heads:
        edges, added = grouped(edges, known.n_kv_heads)
        if added:
            said = f"heads share keys and values: {counted(added, 'edge')} of heads added that another of the group has"
            losses += (Loss("sharing", said),)
    around, made_up = _surroundings(file, name, out, options)
    losses += made_up
    if at_hand is None and edges.size.is_told_whole:
        around = replace(around, size=str(edges.size.told))
    text = hypothesis_text(edges, around, losses)
    if len(text.encode()) > MAX_BYTES:
        raise CircuitspecError(
            Diagnostic(
                "CS388",
                f"{counted(len(edges), 'edge')} make a hypothesis of {len(text.encode()) / 1e6:.1f} MB",
                hint=f"keep fewer, with --top or --threshold: a hypothesis holds at most {MAX_BYTES / 1e6:.0f} MB",
            )
        )
    parse_hypothesis(text, str(out), out.parent)
    return Imported(text, edges, losses)


def _selected(file: Path, reading: Reading, options: ImportOptions) -> tuple[EdgeList, tuple[Loss, ...]]:
    """The edges that are to be the circuit, and what is lost of the file so far."""
    losses = [Loss("positions", "the file names no token positions: every edge lies at all of them"), *reading.losses]
    if any(loss.kind == "positions" for loss in reading.losses):
        del losses[0]
    edges = reading.edges
    if reading.unnamed:
        said = f"{counted(reading.unnamed, 'edge')} that the file does not name, taken as left out"
        losses.append(Loss("missing", said))
    cut = options.threshold is not None or options.top is not None
    if cut and edges.scores is None:
        said = f"{file} has no scores to cut off at"
        raise CircuitspecError(
            Diagnostic("CS385", said, hint="leave out --threshold and --top: all of its edges are meant")
        )
    if not cut and not reading.decided:
        said = f"{file} scores edges, and does not say which of them are the circuit"
        raise CircuitspecError(Diagnostic("CS385", said, hint="say it: --top 200, or --threshold 0.01"))
    if cut and reading.unscored:
        losses.append(Loss("missing", f"{counted(reading.unscored, 'edge')} without a score left out"))
    if options.threshold is not None:
        edges = at_least(edges, options.threshold)
    elif options.top is not None:
        edges, ties = strongest(edges, options.top)
        if ties:
            said = f"{counted(ties, 'edge')} left out that the file scores as high as the last one kept"
            losses.append(Loss("ties", said))
    losses += _scores_lost(edges)
    whole = edges
    if not options.keep_dangling:
        edges = connected(whole)
        losses += _dangling(whole, edges, 0 if cut else reading.edgeless)
    if not len(edges):
        said = f"no edge of {file} is left" if cut else f"{file} counts no edge in"
        hint = "lower --threshold, or raise --top" if cut else "take those of the largest scores: --top 200"
        if edges.scores is None:
            hint = "save the circuit again with the tool that found it: this file has neither edges nor scores"
        if len(whole):
            said = f"none of the {counted(len(whole), 'edge')} of {file} lies on a way from the input to the logits"
            hint = "--keep-dangling keeps them all the same"
        raise CircuitspecError(Diagnostic("CS385", said, hint=hint))
    return edges, tuple(losses)


def _scores_lost(edges: EdgeList) -> Sequence[Loss]:
    if edges.scores is None:
        return ()
    kept = edges.scores[edges.kept]
    losses = [Loss("scores", "how strong each edge was found to be is not kept")]
    if negative := int((kept < 0).sum()):
        losses.append(Loss("signs", f"{counted(negative, 'edge')} with a negative score kept like the others"))
    return losses


def _dangling(whole: EdgeList, edges: EdgeList, edgeless: int) -> Sequence[Loss]:
    dropped, nodes = len(whole) - len(edges), len(whole.nodes - edges.nodes)
    losses = []
    if dropped:
        said = f"{counted(dropped, 'edge')} on no way from the input to the logits left out"
        said += f", and so {counted(nodes, 'component')}" if nodes else ""
        losses.append(Loss("dangling", f"{said} (--keep-dangling keeps them)"))
    if edgeless:
        losses.append(Loss("dangling", f"{counted(edgeless, 'node')} that the file counts in without an edge left out"))
    return losses


def _surroundings(
    file: Path, name: FormatName, out: Path, options: ImportOptions
) -> tuple[Surroundings, tuple[Loss, ...]]:
    """Model and prompts, and what had to be made up for want of them."""
    losses = [Loss("roles", "groups are by kind of component, and say nothing of roles or signs")]
    if options.model is None:
        losses.append(Loss("model", "not named in the file: a placeholder stands for it (--model names it)"))
    corruption: str | None = "corrupt"
    metric: MetricName = "logit_diff"
    prompts = None
    if options.prompts is None:
        losses.append(Loss("prompts", "not in the file: a placeholder stands for them (--prompts names a file)"))
    else:
        found = read_prompts(options.prompts, Findings())
        corruption = next(iter(found.corruptions), None)
        first = found.prompts[0]
        metric = "logit_diff" if first.answers and first.wrong else "logprob" if first.answers else "kl"
        prompts = Path(os.path.relpath(options.prompts, out.parent)).as_posix()
        if len(found.corruptions) > 1:
            losses.append(Loss("ablation", f"from `{corruption}`, the first of {', '.join(found.corruptions)}"))
    if options.prompts is None or corruption is not None:
        losses.append(Loss("ablation", "taken to be the other prompt's values (resample)"))
    else:
        losses.append(Loss("ablation", "taken to be zero: the prompts have no corruption"))
    losses.append(Loss("claims", "the file claims nothing: one is made up, with a bound of 0.8"))
    stem = out.name.removesuffix(".yaml").removesuffix(".circuit") or "imported"
    origin = f"{file.name} ({FORMATS[name].title})"
    return Surroundings(stem, origin, options.model, prompts, corruption, metric), tuple(losses)
