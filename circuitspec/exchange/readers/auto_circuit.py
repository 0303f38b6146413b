"""auto-circuit's prune scores: for each place that reads the residual stream a tensor of scores, one a sender."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import EdgeList, Size
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.readers.hook_names import parse_hook, receiver_of, receiver_place
from circuitspec.exchange.readers.tensors import array, saved
from circuitspec.exchange.readers.untrusted import read_tensors
from circuitspec.exchange.reading import FileReading, agreed, checked_size, shown, wrong
from circuitspec.graph.edges import inputs_of
from circuitspec.hypothesis_file.grammar.components import Head, Logits

_Scores = Mapping[str, npt.NDArray[np.float64]]


def read(path: Path, known: Size | None, entry: str | None = None) -> FileReading:
    """The scores in a file that `torch.save` wrote: of one run, or of several by task and algorithm.

    `entry` names one of several, as TASK/ALGORITHM.

    Raises CircuitspecError: CS382 to CS386.
    """
    if path.suffix.lower() == ".json":
        raise wrong(path, ["prune scores are no JSON"], "give auto-circuit's prompts with --prompts, beside the scores")
    scores = _chosen(path, read_tensors(path), entry)
    size, n_positions = _size(path, scores, known)
    columns = {receiver: column for column, receiver in enumerate(size.receivers)}
    matrix = np.where(size.possible, np.nan, 0.0)
    named = np.zeros_like(size.possible)
    fused = False
    for name, values in scores.items():
        for head in range(size.n_heads) if _has_heads(name) else (None,):
            found = receiver_of(name, head)
            assert found is not None  # _size has looked at every name
            component, ports = found
            fused |= isinstance(component, Head) and not ports
            for receiver in inputs_of(component, ports, size.shape):
                row = values if head is None else values[..., head, :]
                column = columns[receiver]
                count = int(size.possible[:, column].sum())
                if row.shape[-1] != count:
                    said = f"{name} scores {row.shape[-1]} senders; {count} write before it in a model of {size}"
                    raise wrong(path, [said])
                matrix[:count, column] = _strongest(row)
                named[:count, column] = True
    losses: list[Loss] = []
    if n_positions:
        said = f"of the scores at {counted(n_positions, 'token position')} the largest counts: edges lie everywhere"
        losses.append(Loss("positions", said))
    if fused:
        losses.append(Loss("inputs", "the file does not tell q, k and v apart: an edge to a head is one to all three"))
    mask = matrix == 1
    is_mask = bool((mask | (matrix == 0)).all())
    edges = EdgeList(size, mask if is_mask else np.zeros_like(mask), matrix)
    unnamed, unscored = int((size.possible & ~named).sum()), int(np.isnan(matrix[named]).sum())
    return FileReading(edges, is_mask, tuple(losses), unnamed=unnamed, unscored=unscored)


def write(edges: EdgeList, out: Path) -> tuple[bytes, tuple[Loss, ...]]:
    """Prune scores of 1 for the edges of the circuit and 0 for all others, as `torch.save` writes them."""
    del out
    size = edges.size
    by_place: dict[str, list[npt.NDArray[np.float32]]] = {}
    for column, receiver in enumerate(size.receivers):
        name, _ = receiver_place(receiver, size)
        count = int(size.possible[:, column].sum())
        by_place.setdefault(name, []).append(edges.kept[:count, column].astype(np.float32))
    content = {name: np.stack(rows) if _has_heads(name) else rows[0] for name, rows in by_place.items()}
    return saved(content), (Loss("scores", "the format is scores: 1 for the edges of the circuit, 0 for the others"),)


def _has_heads(name: str) -> bool:
    return receiver_of(name, 0) is not None


def _chosen(path: Path, content: object, entry: str | None) -> _Scores:
    """The one run's scores that are meant; CS385 where several could be."""
    runs = dict(_runs(content, ()))
    if not runs:
        raise wrong(
            path, ["there are no prune scores: tensors by the names of modules"], "auto-circuit's PruneScores are"
        )
    keys = ["/".join(key) for key in runs]
    if entry is not None:
        wanted = [run for key, run in zip(keys, runs.values(), strict=True) if key == entry]
    else:
        wanted = list(runs.values())
    if len(wanted) != 1:
        said = f"{path} holds the scores of {len(runs)} runs" if entry is None else f"{path} has no run {entry!r}"
        hint = f"name one with --entry: {', '.join(map(shown, keys[:20]))}"
        if keys == [""]:
            said, hint = f"{path} holds one run without a name: there is no run {entry!r}", "leave out --entry"
        raise CircuitspecError(Diagnostic("CS385", said, hint=hint))
    return wanted[0]


def _runs(content: object, key: tuple[str, ...]) -> list[tuple[tuple[str, ...], _Scores]]:
    """Prune scores, at the top or below the names of tasks and algorithms."""
    if not isinstance(content, Mapping) or len(key) > 2 or not all(isinstance(name, str) for name in content):
        return []
    arrays = {name: array(value) for name, value in content.items()}
    scores = {name: values for name, values in arrays.items() if values is not None}
    if scores and len(scores) == len(content):
        return [(key, scores)]
    return [run for name, value in content.items() for run in _runs(value, (*key, name))]


def _size(path: Path, scores: _Scores, known: Size | None) -> tuple[Size, int]:
    """The model's size after names and shapes, and the number of token positions that are scored apart (0: none)."""
    faults, layers, ends = [], [], []
    for name, values in scores.items():
        hook = parse_hook(name)
        if hook is None or (receiver_of(name, None) is None and not _has_heads(name)) or hook.name == "hook_resid_mid":
            faults.append(f"{shown(name)} is no input of a head or MLP, nor the end of the residual stream")
            continue
        layers.append(hook.layer)
        if isinstance((receiver_of(name, None) or (None,))[0], Logits):
            ends.append((hook.layer, values))
    if faults:
        raise wrong(
            path, faults, "only factorised graphs can be read: those whose edges join heads, MLPs and the two ends"
        )
    if len(ends) != 1 or ends[0][0] != max(layers):
        raise wrong(path, ["the last layer's hook_resid_post must be there, and no other layer's"])
    n_layers, end = 1 + ends[0][0], ends[0][1]
    has_mlps = any(name.endswith("hook_mlp_in") for name in scores)
    n_heads, rest = divmod((end.shape[-1] if end.ndim else 0) - 1, n_layers)
    if rest or end.ndim not in (1, 2):
        raise wrong(path, [f"the scores of the logits have the shape {list(end.shape)}: no model has so many senders"])
    first = scores.get("blocks.0.hook_mlp_in")
    parallel = first is not None and first.ndim > 0 and first.shape[-1] == 1
    size = checked_size(path, n_layers, n_heads - has_mlps, parallel=parallel, has_mlps=has_mlps)
    n_positions = end.shape[0] if end.ndim == 2 else 0
    for name, values in scores.items():
        leading = ([n_positions] if n_positions else []) + ([size.n_heads] if _has_heads(name) else [])
        if list(values.shape[:-1]) != leading or values.ndim == 0:
            faults.append(f"{name} has the shape {list(values.shape)}; {[*leading, 'senders']} is expected")
    if faults:
        raise wrong(path, faults)
    return agreed(path, size, None if known is None else known.ungrouped), n_positions


def _strongest(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of the scores [..., senders] of several positions the one of largest size for each sender."""
    if values.ndim == 1:
        return values
    sizes = np.where(np.isnan(values), -1.0, np.abs(values))
    found: npt.NDArray[np.float64] = np.take_along_axis(values, sizes.argmax(axis=0)[None], axis=0)[0]
    return found
