"""The circuits that feature-circuits saves (Marks et al.): effects of features and errors, cut off -> rows of a list.

A file is `{"examples", "nodes", "edges"}`, where `nodes[name]` is an object of the tool's own class `SparseAct`, with
the effects of a module's features as `act` (`[features]`, or `[tokens, features]` where positions are told apart) and
that of its error as `resc` (`[1]`, `[tokens, 1]`). The class is read as tensors; nothing of the tool is run or needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.readers.tensors import array
from circuitspec.exchange.readers.untrusted import read_tensors
from circuitspec.exchange.reading import shown, wrong

OUTPUT = "y"  # the metric, which stands among the nodes
ERROR = "error"
SUFFIXES = (".pt", ".pth")
_WHICH = "feature-circuits saves {examples, nodes, edges}, with a SparseAct for each module in `nodes`"


class _SparseAct:
    """What stands for the tool's class while a file is read."""

    act: object = None
    resc: object = None


_SparseAct.__module__, _SparseAct.__qualname__, _SparseAct.__name__ = "activation_utils", "SparseAct", "SparseAct"


def read_rows(file: Path, threshold: float | None, top: int | None) -> tuple[list[object], tuple[Loss, ...]]:
    """Rows `[module, index or "error", token]` of what has an effect of `threshold` or more in size, or of the `top`.

    Raises CircuitspecError: CS382 to CS384 for the file, CS572 where nothing is said of where its circuit ends, or
    nothing is left.
    """
    found = read_tensors(file, (_SparseAct,))
    nodes = found.get("nodes") if isinstance(found, Mapping) else None
    if not isinstance(nodes, Mapping):
        raise wrong(file, ["it has no object `nodes`"], _WHICH)
    effects = list(_effects(file, nodes))
    if threshold is None and top is None:
        said = f"{file} has the effects of nodes, and does not say which of them are the circuit"
        raise CircuitspecError(Diagnostic("CS572", said, hint="say it: --threshold 0.1, or --top 100"))
    sizes = np.concatenate([np.abs(one).ravel() for *_, one in effects])
    least = -np.inf if threshold is None else threshold
    if top is not None and top < len(sizes):
        least = float(np.partition(sizes, -top)[-top])
    rows: list[object] = []
    negative = 0
    for name, is_error, by_token, values in effects:
        kept = (np.abs(values) >= least) & (values != 0)
        negative += int((values[kept] < 0).sum())
        for token, index in np.argwhere(kept).tolist():
            row: list[object] = [name, ERROR if is_error else index]
            rows.append([*row, token] if by_token else row)
    if not rows:
        raise CircuitspecError(Diagnostic("CS572", f"no node of {file} is left", hint="lower --threshold"))
    losses = [
        Loss("scores", "how large each effect was found to be is not kept"),
        Loss("edges", "edges left out: who reads whom follows from the model"),
        Loss("prompts", "the file's examples are token ids of its own tokenizer, and are not kept"),
    ]
    if negative:
        losses.append(Loss("signs", f"{counted(negative, 'node')} with a negative effect kept like the others"))
    if top is not None and len(rows) > top:
        losses.append(Loss("ties", f"{counted(len(rows) - top, 'node')} more, with the same effect as the last one"))
    return rows, tuple(losses)


def _effects(file: Path, nodes: Mapping[object, object]) -> Iterator[tuple[str, bool, bool, NDArray[np.float64]]]:
    """Of each module its features' effects, then its error's: name, whether the error, by token, `[tokens, number]`."""
    for name, node in nodes.items():
        if name == OUTPUT:
            continue
        if not isinstance(name, str) or not isinstance(node, _SparseAct):
            raise wrong(file, [f"node {shown(name)} is no SparseAct"], _WHICH)
        for is_error, given in ((False, node.act), (True, node.resc)):
            values = array(given)
            if values is None or values.ndim not in (1, 2) or not np.isfinite(values).all():
                what = "resc" if is_error else "act"
                raise wrong(
                    file, [f"`{what}` of {name} is no finite tensor by feature, or by token and feature"], _WHICH
                )
            yield name, is_error, values.ndim == 2, np.atleast_2d(values)
