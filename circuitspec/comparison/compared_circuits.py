"""A file or a saved result -> a circuit that can be held against others, laid over a model's components."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.dictionaries.declared_dictionaries import sites_declared
from circuitspec.exchange.placeholders import MODEL
from circuitspec.experiments.levels.node_level import circuit_positions
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edges import Edge
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.paths import edges_of
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.load_file import IN_MEMORY, Document, digest, load_hypothesis, with_source
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import parse_leniently
from circuitspec.models.model_reference import resolve_reference
from circuitspec.models.shapes import read_shape
from circuitspec.reports.saved_result import MAX_BYTES, REPORT, VERSION_KEY, read_saved
from circuitspec.runtime.files import read_regular

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = len(_LETTERS)
_TAKEN = "give hypothesis files, drafts, or folders of `verify --output-dir`"


@dataclass(frozen=True)
class ComparedCircuit:
    """One of the circuits: its letter in the comparison, its file, and its components in the model."""

    letter: str
    document: Document
    graph: CircuitGraph

    @property
    def name(self) -> str:
        return self.document.hypothesis.name

    @property
    def file(self) -> str:
        return self.document.source.file

    @cached_property
    def kept(self) -> Mapping[NodeComponent, Where]:
        """Where each node is kept when all else is ablated: at its declared positions, or at all (`positions: all`)."""
        return circuit_positions(self.document.hypothesis.ablation, self.graph)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The edges along the declared paths, at their positions; none where no paths are declared."""
        return tuple(edge for path in self.graph.paths for edge in edges_of(path, self.graph.shape)[0])

    @cached_property
    def roles(self) -> frozenset[str]:
        """Every position that a node is declared at."""
        return frozenset(role for where in self.kept.values() for role in where.roles)


def read_circuit(path: Path) -> Document:
    """The hypothesis in a file, or the one that a saved result is of.

    Raises CS580 for a file that has no circuit in it: results as numbers alone, locks, other tools' files. What is
    wrong with a hypothesis or a saved result is raised as reading these does.
    """
    saved = path / REPORT if path.is_dir() else path
    if not path.is_dir() and path.suffix != ".json":
        if path.suffix == ".lock":
            raise _no_circuit(path, "a lock has digests and results, and not the circuit", "give the file beside it")
        return load_hypothesis(path)
    try:
        content = json.loads(read_regular(saved, MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _no_circuit(saved, f"{saved.name} cannot be read: {reason}", _TAKEN) from error
    if isinstance(content, dict) and VERSION_KEY not in content and "format_version" in content:
        said = f"{saved.name} has a result's numbers, and not the circuit"
        raise _no_circuit(saved, said, "give the hypothesis file, or a folder of `verify FILE --output-dir DIR`")
    if not isinstance(content, dict) or VERSION_KEY not in content:
        said = f"{saved.name} is neither a hypothesis nor a saved result"
        raise _no_circuit(
            saved, said, "`circuitspec import` makes a hypothesis of another tool's circuit: compare that"
        )
    return _from_saved(saved)


def _from_saved(saved: Path) -> Document:
    """The hypothesis as it was verified: its text is in the result. Word lists are beside the file, if it is there."""
    views = read_saved(saved)
    page, recorded = views.page, views.document.get("hypothesis")
    source, findings = parse_leniently("\n".join(page.lines) + "\n", page.file)
    try:
        hypothesis = Hypothesis.model_validate(source.data, by_alias=True, by_name=False)
        if hypothesis.task.templates:
            hypothesis = with_source(hypothesis, tuple(hypothesis.task.corruptions), source)
    except (ValidationError, CircuitspecError) as error:
        raise _no_circuit(saved, f"the hypothesis in {saved.name} cannot be read by this version", _AGAIN) from error
    own = digest(hypothesis)
    if findings or not isinstance(recorded, dict) or recorded.get("digest") != own:
        raise _no_circuit(saved, f"the hypothesis in {saved.name} is not the one whose result it has", _AGAIN)
    beside = Path(page.file)
    return Document(hypothesis, source, beside.parent if beside.is_file() else saved.parent)


_AGAIN = "verify the file again with --output-dir, or give the file itself"


def _no_circuit(path: Path, message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS580", message, Span(str(path), 1, 1), hint=hint))


def laid_out(documents: Sequence[Document], given: ModelShape | None = None) -> tuple[ComparedCircuit, ...]:
    """The circuits with their letters, each over the components of its model.

    A model whose configuration is not on this machine (or that an imported file does not name yet) is taken to have the
    shape of another one's; with a `given` shape all have that. Raises CS506 where none is there, CS581 for models of
    different shapes, and as laying out a circuit does.
    """
    if not 2 <= len(documents) <= MOST:
        raise ValueError(f"2 to {MOST} circuits can be compared, not {len(documents)}")
    shapes = [_shape(document) if given is None else given for document in documents]
    known = next((shape for shape in shapes if shape is not None), None)
    if known is None:
        raise CircuitspecError(
            Diagnostic(
                "CS506",
                f"the configuration of {documents[0].hypothesis.model.id} is not on this machine",
                documents[0].source.span(("model", "id")),
                hint="`compare` downloads nothing before `--run`: run `verify` once, or name a local directory",
            )
        )
    problems = [
        Diagnostic(
            "CS581",
            f"the model of {document.hypothesis.name} has another shape than that of {documents[0].hypothesis.name}: "
            f"{_size(shape)}, not {_size(known)}",
            document.source.span(("model", "id")),
            hint="compare circuits of one model, or of models with as many layers, heads and neurons",
        )
        for document, shape in zip(documents, shapes, strict=True)
        if shape is not None and shape.counts != known.counts
    ]
    if problems:
        raise CircuitspecError(*problems)
    return tuple(
        ComparedCircuit(letter, document, _graph(document, shape or known))
        for letter, document, shape in zip(_LETTERS, documents, shapes, strict=False)
    )


def same_model(circuits: Sequence[ComparedCircuit]) -> bool:
    """Whether all name one model, by what their ids lead to."""
    return len({_reference(one.document) for one in circuits}) == 1


def _reference(document: Document) -> tuple[str, str | None, str]:
    spec = document.hypothesis.model
    if spec.id in (IN_MEMORY, MODEL):
        return spec.id, None, spec.dtype
    found = resolve_reference(spec, document.base_dir)
    return str(found.path or found.id), spec.revision, spec.dtype


def _shape(document: Document) -> ModelShape | None:
    spec = document.hypothesis.model
    if spec.id in (IN_MEMORY, MODEL):
        return None
    with document.blamed_on("model", "id"):
        return read_shape(spec, document.base_dir)


def _graph(document: Document, shape: ModelShape) -> CircuitGraph:
    hypothesis, text = document.hypothesis, document.source
    return lay_out(hypothesis.circuit, sites_declared(hypothesis.dictionaries, shape, text), text)


def _size(shape: ModelShape) -> str:
    counts = shape.counts
    heads = f"{counts.n_layers} layers of {counts.n_heads} heads"
    kv = "" if counts.n_kv_heads == counts.n_heads else f" ({counts.n_kv_heads} key-value heads)"
    return f"{heads}{kv} and {counts.n_neurons} neurons"
