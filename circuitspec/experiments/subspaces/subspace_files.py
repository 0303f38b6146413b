"""The files of subspaces that variables are aligned with: where they are named, what they hold. Imports no torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.experiments.subspaces.subspace import Subspace
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, INPUT, MLP, RESID, RESID_MID
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import SubspaceOf
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_bytes

MAX_BYTES = 500_000_000
METADATA = "circuitspec.subspaces"  # the key under which a file says what its tensors are, as JSON
_SINGLE = (HEAD, INPUT, MLP, RESID, RESID_MID)  # kinds whose value is one vector a token


@dataclass(frozen=True)
class StoredSubspace:
    """A subspace of a file, and of which component at which positions it is, in the words of hypothesis files.

    `words` are the entries of word lists that it was learned on (`entry_name`), as far as the file says.
    """

    variable: str
    subspace: Subspace
    component: str
    where: str
    words: frozenset[str] = frozenset()


def entry_name(row: str | Mapping[str, str]) -> str:
    """An entry of a word list, or a row of a table, as one text; equal where the entries are."""
    return json.dumps(row if isinstance(row, str) else dict(row), sort_keys=True)


def subspaces_beside(hypothesis: Path) -> Path:
    """The file of subspaces that goes with a hypothesis: `x.circuit.yaml` has `x.subspaces.safetensors`."""
    stem = hypothesis.name.removesuffix(".yaml").removesuffix(".circuit")
    return hypothesis.with_name(f"{stem}.subspaces.safetensors")


def subspace_places(hypothesis: Hypothesis, text: SourceText) -> dict[str, Span]:
    """Every file that variables have their subspaces in, and where it is named first."""
    places: dict[str, Span] = {}
    if hypothesis.abstraction is not None:
        for variable, aligned in hypothesis.abstraction.align.items():
            if aligned.subspace is not None and aligned.subspace.file is not None:
                places.setdefault(aligned.subspace.file, text.span((*_place(variable), "file")))
    return places


def read_subspaces(document: Document) -> dict[str, StoredSubspace]:
    """The subspace of every variable whose file is named. Raises CS236 for each file that is not as it must be."""
    spec = document.hypothesis.abstraction
    found: dict[str, StoredSubspace] = {}
    problems: list[Diagnostic] = []
    for variable, aligned in ({} if spec is None else spec.align).items():
        if aligned.subspace is None or aligned.subspace.file is None:
            continue
        place = document.source.span((*_place(variable), "file"))
        try:
            found[variable] = _read(document.base_dir, aligned.subspace.file, variable, place)
        except CircuitspecError as error:
            problems += error.diagnostics
    if problems:
        raise CircuitspecError(*problems)
    return found


def _read(base_dir: Path, name: str, variable: str, place: Span) -> StoredSubspace:
    kind = TextFile(name, MAX_BYTES, unreadable="CS236", too_large="CS236", not_utf8="CS236")
    raw = read_bytes(base_dir / name, kind, place)
    try:
        tensors, told = parsed(raw)
        if variable not in tensors or variable not in told:
            raise ValueError(f"it has no subspace of {variable}, but of {', '.join(sorted(tensors)) or 'nothing'}")
        own = told[variable]
        basis = tensors[variable]
        if basis.dtype not in (np.float32, np.float64):
            raise ValueError(f"its numbers are {basis.dtype}, not float32 or float64")
        component, where = own.get("component"), own.get("where")
        if not isinstance(component, str) or not isinstance(where, str):
            raise ValueError(f"its metadata do not say of which component and position {variable} is")
        return StoredSubspace(variable, Subspace.of(basis), component, where, _training_words(own))
    except ValueError as error:
        raise CircuitspecError(_wrong(f"{name} does not fit: {error}", place)) from None


def _training_words(told: Mapping[str, Any]) -> frozenset[str]:
    """Every entry that a subspace was learned on, whatever list it is of. Raises ValueError for what is no list."""
    lists = told.get("training_words", {})
    rows = [row for own in lists.values() for row in own] if isinstance(lists, dict) else None
    if rows is None or not all(isinstance(row, str | dict) for row in rows):
        raise ValueError("its metadata do not say on which words it was learned")
    return frozenset(map(entry_name, rows))


def parsed(raw: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, Any]]]:
    """The tensors of a safetensors file, and what its metadata say of each. Raises ValueError for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(raw)
        (size,) = struct.unpack_from("<Q", raw)
        told = json.loads(json.loads(raw[8 : 8 + size]).get("__metadata__", {}).get(METADATA, "{}"))
    except (SafetensorError, KeyError, AttributeError, TypeError, RecursionError, struct.error) as error:
        raise ValueError(f"this is no safetensors file of subspaces ({error})") from None
    if not isinstance(told, dict) or not all(isinstance(one, dict) for one in told.values()):
        raise ValueError("its metadata are not those of subspaces")
    return tensors, told


def written(bases: Mapping[str, NDArray[np.floating]], told: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A file of bases `[width, rank]` by variable, with what is told of each (`component` and `where` at least)."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(basis, dtype=np.float64) for name, basis in bases.items()}
    return save(tensors, {METADATA: json.dumps(told, sort_keys=True)})


def check_vectors(variable: str, section: Iterable[NodeComponent], text: SourceText) -> None:
    """Raises CS185 for a component whose value is no single vector, so that it has no subspace."""
    for component in section:
        if component.kind not in _SINGLE:
            said = f"the value of {format_name(component)} is no single vector, so it has no subspace"
            hint = "name a residual stream, an MLP or a head, or leave `subspace` out"
            raise CircuitspecError(Diagnostic("CS185", said, text.span(_place(variable)), hint=hint))


def width_of(component: NodeComponent, shape: ModelShape) -> int:
    """How many numbers a component's value has."""
    return shape.d_head_of(component.place[0]) if component.kind is HEAD else shape.d_model


def where_name(where: Where) -> str:
    """Positions as a file of subspaces has them."""
    named = ",".join(sorted(where.roles))
    return named if not where.inverted else f"everywhere but {named}" if named else "everywhere"


def fitting(
    stored: StoredSubspace,
    section: Mapping[NodeComponent, Where],
    spec: SubspaceOf,
    shape: ModelShape,
    text: SourceText,
) -> tuple[NodeComponent, Where, Subspace]:
    """The component and positions whose subspace was stored, which are among these, of one of these ranks.

    Raises CS236 where they are not.
    """
    found = stored.subspace
    own = {(format_name(component), where_name(where)): (component, where) for component, where in section.items()}
    site = own.get((stored.component, stored.where))
    wrong: list[str] = []
    if site is None:
        asked = " or ".join(map(" at ".join, own))
        wrong.append(f"it is a subspace of {stored.component} at {stored.where}, not of {asked}")
    if found.rank not in spec.ranks:
        wrong.append(f"its rank is {found.rank}, not {' or '.join(map(str, spec.ranks))}")
    width = width_of(next(iter(section)) if site is None else site[0], shape)
    if found.width != width:
        wrong.append(f"its vectors have {found.width} numbers; the component's have {width}")
    if wrong or site is None:
        place = text.span((*_place(stored.variable), "file"))
        raise CircuitspecError(*(_wrong(f"{spec.file} does not fit {stored.variable}: {one}", place) for one in wrong))
    return (*site, found)


def not_learned(variable: str, text: SourceText) -> Diagnostic:
    """CS235."""
    return Diagnostic(
        "CS235",
        f"the subspace of {variable} has no file",
        text.span(_place(variable)),
        hint="learn it: circuitspec align FILE",
    )


def _place(variable: str) -> tuple[str, ...]:
    return ("abstraction", "align", variable, "subspace")


def _wrong(message: str, place: Span) -> Diagnostic:
    return Diagnostic("CS236", message, place, hint="learn it anew: circuitspec align FILE")
