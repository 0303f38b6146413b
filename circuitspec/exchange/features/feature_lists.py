"""Plain lists of features, as JSON or a table: what scripts about feature circuits are easily made to write.

A row is `{"dictionary": "resid_3", "index": 12, "position": 5, "group": "verb"}`; in JSON also `["resid_3", 12, 5]`.
The index `error` is what the dictionary's features leave over. Without a position the feature stands at every token.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.readers.all_formats import files_of
from circuitspec.exchange.features.feature_circuit import (
    DeclaredDictionary,
    FeatureCircuit,
    FeatureNode,
    distinct,
    sizes,
)
from circuitspec.exchange.features.feature_text import FeatureSurroundings
from circuitspec.exchange.features.importing_features import (
    FeatureOptions,
    ImportedFeatures,
    finished,
    given_prompts,
    metric_for,
    stem_of,
)
from circuitspec.exchange.features.sparse_feature_circuits import ERROR, SUFFIXES, read_rows
from circuitspec.exchange.imported_text import quoted
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.readers.untrusted import MAX_JSON_BYTES, read_json, unreadable
from circuitspec.exchange.reading import MAX_SHOWN, shown
from circuitspec.hypothesis_file.grammar.dictionary_places import FORMS, DictionaryPlace
from circuitspec.hypothesis_file.grammar.names import DICTIONARY, is_group_name, is_position_name
from circuitspec.hypothesis_file.schema.block import MetricName
from circuitspec.runtime.files import read_regular

COLUMNS = ("dictionary", "index", "position", "group", "at")
_MOST = 10**9
_MODULES: Mapping[str, tuple[str, int]] = {"resid": ("r", 1), "mlp": ("m", 0), "attn": ("a", 0)}  # layers further on
_WRITE = 'write rows as {"dictionary": "resid_3", "index": 12, "position": 5}, with "error" for the index of an error'


def import_list(file: Path, out: Path, options: FeatureOptions) -> ImportedFeatures:
    """The features of a list as a hypothesis to be written to `out`; nothing is written here.

    A .pt file is a circuit of feature-circuits, which is cut off by `threshold` or `top`.
    Raises CircuitspecError: CS382 to CS384 for a file that cannot be read, CS572 for where a circuit ends, CS574 for
    rows that do not say enough, CS373 for dictionaries that are not there, CS330 to CS351 for prompts.
    """
    losses: list[Loss] = []
    if file.suffix.lower() in SUFFIXES:
        rows, told = read_rows(file, options.threshold, options.top)
        losses += told
    elif options.threshold is not None or options.top is not None:
        said = f"{file} is a list without effects to cut off at"
        raise CircuitspecError(Diagnostic("CS572", said, hint="leave out --threshold and --top: all of it is meant"))
    else:
        rows = _table(file) if file.suffix.lower() in (".csv", ".tsv") else _objects(file)
    problems: list[Diagnostic] = []
    places: dict[str, str] = {}
    nodes = []
    for number, row in enumerate(rows, 1):
        try:
            nodes.append(_node(row, places))
        except _NoNode as error:
            problems.append(Diagnostic("CS574", f"{file}: row {number}: {error}", hint=_WRITE))
    if not problems and not nodes:
        problems.append(Diagnostic("CS574", f"{file} holds no rows", hint=_WRITE))
    if problems:
        raise CircuitspecError(*problems[:MAX_SHOWN])
    single = distinct(nodes)
    tells_errors = any(node.is_error for node in single)
    declared = []
    for name, at in sorted(places.items(), key=lambda pair: (DictionaryPlace.parse(pair[1]).layer, pair[0])):
        source = None
        if options.dictionaries is not None:
            files_of(options.dictionaries / name, DictionaryPlace.parse(at).layer)
            source = Path(os.path.relpath(options.dictionaries / name, out.parent)).as_posix()
        declared.append(DeclaredDictionary(name, at, source, None, False, tells_errors))
    circuit = FeatureCircuit(single, tuple(declared))
    if repeated := len(nodes) - len(single):
        losses.append(Loss("identifiers", f"{counted(repeated, 'row')} that say what an earlier one does"))
    said = "ablated but for those that the list names" if tells_errors else "kept, since the list names none"
    losses.append(Loss("dictionaries", f"errors are {said} (`error:` of each dictionary says otherwise)"))
    losses.append(Loss("free", "heads and MLPs that no dictionary takes apart are free: the list says nothing of them"))
    around, made_up = _surroundings(file, circuit, out, options)
    return finished(out, circuit, around, (*losses, *made_up), None)


def place_of(name: str) -> str | None:
    """Where a dictionary of this name lies: its place itself (r4), or as feature-circuits calls its modules."""
    if name == "embed":
        return "r0"
    if match := re.fullmatch(r"(resid|mlp|attn)(?:_|_out_layer)(0|[1-9][0-9]{0,3})", name):
        letter, further = _MODULES[match[1]]
        return f"{letter}{int(match[2]) + further}"
    try:
        return str(DictionaryPlace.parse(name))
    except ValueError:
        return None


def written_list(circuit: FeatureCircuit) -> bytes:
    """A row a node, which `import_list` reads."""
    at = {one.name: one.at for one in circuit.dictionaries}
    rows = [
        {
            "dictionary": node.dictionary,
            "index": ERROR if node.index is None else node.index,
            **({} if node.position is None else {"position": node.position}),
            "group": node.group,
            "at": at[node.dictionary],
        }
        for node in circuit.nodes
    ]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    return f"[\n{lines}\n]\n".encode()


class _NoNode(Exception):
    """What is wrong with a row."""


def _objects(file: Path) -> list[object]:
    found = read_json(file)
    if isinstance(found, Mapping) and isinstance(found.get("features"), list):
        found = found["features"]
    if not isinstance(found, list):
        said = f"{file} is no JSON list of rows"
        raise CircuitspecError(Diagnostic("CS574", said, hint=_WRITE))
    return found


def _table(file: Path) -> list[object]:
    try:
        text = read_regular(file, MAX_JSON_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise unreadable(file, f"the table cannot be read: {error}") from None
    rows = csv.DictReader(io.StringIO(text), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    return [
        {key: value.strip() for key, value in row.items() if isinstance(value, str) and value.strip()} for row in rows
    ]


def _node(row: object, places: dict[str, str]) -> FeatureNode:
    """The node of a row, whose dictionary is noted in `places`."""
    if isinstance(row, Sequence) and not isinstance(row, str):
        row = dict(zip(COLUMNS, row, strict=False))
    if not isinstance(row, Mapping):
        raise _NoNode(f"{shown(row)} is no object")
    if unknown := [key for key in row if key not in COLUMNS]:
        raise _NoNode(f"there is no column {shown(unknown[0])}; known are {', '.join(COLUMNS)}")
    name, index, position, group = (row.get(key) for key in COLUMNS[:4])
    if not isinstance(name, str) or re.fullmatch(DICTIONARY, name) is None:
        raise _NoNode(f"its dictionary is {shown(name)}, and no name")
    at = row.get("at") or place_of(name)
    try:
        place = str(DictionaryPlace.parse(str(at)))
    except ValueError:
        raise _NoNode(f"where {name} lies is not told: give `at`, {FORMS}") from None
    if places.setdefault(name, place) != place:
        raise _NoNode(f"{name} lies at {place}, and in an earlier row at {places[name]}")
    number = None if index == ERROR else _whole(index)
    if number is None and index != ERROR:
        raise _NoNode(f"its index is {shown(index)}, and neither a whole number nor {ERROR}")
    where: int | str | None = None
    if position is not None:
        where = _whole(position)
        if where is None and isinstance(position, str) and is_position_name(position):
            where = position
        if where is None:
            raise _NoNode(f"its position is {shown(position)}, and neither a token's index nor a position's name")
    if group is not None and not (isinstance(group, str) and is_group_name(group)):
        raise _NoNode(f"its group is {shown(group)}, which a group cannot be called")
    return FeatureNode(name, number, where, group or re.sub(r"[^A-Za-z0-9_]+", "_", f"of_{name}"))


def _whole(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else None


def _surroundings(
    file: Path, circuit: FeatureCircuit, out: Path, options: FeatureOptions
) -> tuple[FeatureSurroundings, tuple[Loss, ...]]:
    losses = []
    if options.model is None:
        losses.append(Loss("model", "not named in the file: a placeholder stands for it (--model names it)"))
    if options.dictionaries is None:
        losses.append(Loss("dictionaries", "their files are not named: placeholders stand for them (--dictionaries)"))
    metric: MetricName = "logit_diff"
    corruption: str | None = "corrupt"
    prompts = None
    if options.prompts is None:
        losses.append(Loss("prompts", "not in the file: a placeholder stands for them (--prompts names a file)"))
    else:
        found, prompts = given_prompts(options.prompts, out)
        metric, corruption = metric_for(found), next(iter(found.corruptions), None)
    if corruption is None:
        losses.append(Loss("ablation", "taken to be zero: the prompts have no corruption"))
        ablation, outside = "{value: zero}", "All other features of these dictionaries are 0."
    else:
        losses.append(Loss("ablation", "taken to be the other prompt's values (resample)"))
        ablation = f"{{value: resample, from: {quoted(corruption)}}}"
        outside = "All other features of these dictionaries carry what they carry in the corrupted prompt."
    losses.append(Loss("claims", "the file claims nothing: two are made up, with bounds of 0.8 and 0.3"))
    around = FeatureSurroundings(
        stem_of(out),
        sizes(circuit.nodes),
        f"{file.name} (list of features)",
        options.model,
        prompts,
        ablation,
        outside,
        metric,
    )
    return around, tuple(losses)
