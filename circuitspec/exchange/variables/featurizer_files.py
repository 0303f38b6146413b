"""The three files of a unit in MIB's causal-variable submissions: read as data alone, and written. Imports torch late.

`UNIT_featurizer` and `UNIT_inverse_featurizer` are what torch.save writes of `model_info` and `state_dict`, and
`UNIT_indices` is JSON: which features are interchanged, or null for all. A subspace's features are x R, of a rotation R
`[width, n_features]` with orthonormal columns; what is interchanged is then R_I R_I^T x, over the columns I.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitspec.exchange.loss import Loss
from circuitspec.exchange.readers.tensors import array, saved
from circuitspec.exchange.readers.untrusted import read_json, read_tensors
from circuitspec.exchange.reading import wrong

FEATURIZER, INVERSE, INDICES = "_featurizer", "_inverse_featurizer", "_indices"
SUBSPACE, IDENTITY = "SubspaceFeaturizerModule", "IdentityFeaturizerModule"
_INVERSES = {SUBSPACE: "SubspaceInverseFeaturizerModule", IDENTITY: "IdentityInverseFeaturizerModule"}
_EXACT = 1e-5  # how far from orthonormal a rotation may be that is taken as it is, entry by entry
_NEAR = 2e-2  # and one that half precision has rounded
_WEIGHT = "rotate.parametrizations.weight"


@dataclass(frozen=True)
class UnitFeatures:
    """What a unit's files interchange: the span of a basis `[width, rank]`, or the whole component (None)."""

    basis: NDArray[np.float64] | None
    losses: tuple[Loss, ...] = ()


def read_unit(folder: Path, name: str, width: int | None = None) -> UnitFeatures:
    """The subspace of a unit. `width` is how many numbers the component has, where that is known.

    Raises CircuitspecError: CS382 for files that cannot be read, CS384 for files that hold more than data, CS383 for
    what is no subspace or identity featurizer.
    """
    path = folder / f"{name}{FEATURIZER}"
    info, state = _content(path)
    inverse = folder / f"{name}{INVERSE}"
    other, back = _content(inverse)
    indices = _indices(folder / f"{name}{INDICES}")
    kind = info.get("featurizer_class")
    if kind not in _INVERSES:
        hint = "a subspace, or the whole component: other maps, such as non-linear ones, are no alignment here"
        raise wrong(path, [f"its featurizer is of the class {kind!r}"], hint)
    if other.get("inverse_featurizer_class", _INVERSES[kind]) != _INVERSES[kind]:
        raise wrong(inverse, [f"its class {other.get('inverse_featurizer_class')!r} does not go with {kind}"])
    if kind == IDENTITY:
        return _identity(folder / f"{name}{INDICES}", indices, width)
    rotation = _rotation(path, info, state)
    if not np.allclose(_rotation(inverse, other, back), rotation, atol=1e-6, rtol=0):
        raise wrong(inverse, ["its rotation is another one than that of the featurizer"])
    if width is not None and len(rotation) != width:
        hint = "name the model that the submission is for: --model"
        raise wrong(path, [f"its rotation has {len(rotation)} rows, and the component {width} numbers"], hint)
    chosen = _chosen(folder / f"{name}{INDICES}", indices, rotation.shape[1])
    basis, losses = _orthonormal(path, rotation)
    return UnitFeatures(basis[:, chosen], losses)


def written_unit(name: str, basis: NDArray[np.float64] | None, width: int) -> dict[str, bytes]:
    """The files of a unit, by name: a subspace of which all features are interchanged, or the identity (None)."""
    if basis is None:
        content: dict[str, object] = {"model_info": _info(IDENTITY, width, {}), "state_dict": {}}
        files = {FEATURIZER: content, INVERSE: content}
    else:
        rotation = np.ascontiguousarray(basis, dtype=np.float32)
        info = _info(SUBSPACE, basis.shape[1], {"rotation_matrix": rotation, "requires_grad": True})
        content = {"model_info": info, "state_dict": _state(rotation)}
        files = {FEATURIZER: content, INVERSE: content}
    return {f"{name}{INDICES}": b"null", **{f"{name}{end}": saved(one) for end, one in files.items()}}


def _info(kind: str, features: int, config: Mapping[str, object]) -> dict[str, object]:
    return {
        "featurizer_class": kind,
        "inverse_featurizer_class": _INVERSES[kind],
        "n_features": features,
        "featurizer_id": "subspace" if kind == SUBSPACE else "null",
        "additional_config": dict(config),
    }


def _content(path: Path) -> tuple[Mapping[str, object], Mapping[str, object]]:
    content = read_tensors(path)
    info = content.get("model_info") if isinstance(content, Mapping) else None
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(info, Mapping) or not isinstance(state, Mapping):
        raise wrong(path, ["it has no `model_info` and `state_dict`"], "MIB's submissions have them: see --as")
    return info, state


def _indices(path: Path) -> list[int] | None:
    """The features that are interchanged; None for all of them."""
    if not path.exists():
        return None
    content = read_json(path)
    if content is None:
        return None
    whole = isinstance(content, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in content)
    if not whole or not isinstance(content, list):
        raise wrong(path, ["it is neither null nor a list of numbers of features"])
    return content


def _chosen(path: Path, indices: list[int] | None, features: int) -> list[int]:
    if indices is None:
        return list(range(features))
    outside = [one for one in indices if not 0 <= one < features]
    if outside or len(set(indices)) < len(indices) or not indices:
        what = (
            f"there is no feature {outside[0]}" if outside else "a feature stands twice" if indices else "it is empty"
        )
        raise wrong(path, [f"{what}: it has {features} features, of which each may be named once"])
    return indices


def _identity(path: Path, indices: list[int] | None, width: int | None) -> UnitFeatures:
    """Features that are the component's own numbers: all of it, or the span of some of its axes."""
    if indices is None:
        return UnitFeatures(None)
    if width is None:
        hint = "name the model: --model"
        raise wrong(path, ["single numbers of a component are named, and how many it has is not known"], hint)
    return UnitFeatures(np.eye(width)[:, _chosen(path, indices, width)])


def _rotation(path: Path, info: Mapping[str, object], state: Mapping[str, object]) -> NDArray[np.float64]:
    """The rotation that a submission's own code would load: the parametrised one of `state_dict`."""
    config = info.get("additional_config")
    given = array(config.get("rotation_matrix")) if isinstance(config, Mapping) else None
    if given is None or given.ndim != 2 or not 0 < given.shape[1] <= given.shape[0] or not np.isfinite(given).all():
        raise wrong(path, ["it has no `rotation_matrix` of at least as many rows as columns"])
    original, base = array(state.get(f"{_WEIGHT}.original")), array(state.get(f"{_WEIGHT}.0.base"))
    if original is None and base is None:
        plain = array(state.get("rotate.weight"))
        loaded = given if plain is None else plain
    elif original is None or base is None or original.shape != given.shape or base.shape != (len(given),) * 2:
        raise wrong(path, ["the rotation in its `state_dict` is not that of an orthogonal parametrisation"])
    else:
        loaded = _parametrised(given, original, base)
    if loaded.shape != given.shape or not np.allclose(loaded, given, atol=_NEAR, rtol=0):
        raise wrong(path, ["its `rotation_matrix` is not what its `state_dict` gives"], "save the submission again")
    return given if np.allclose(loaded, given, atol=_EXACT, rtol=0) else loaded


def _parametrised(
    given: NDArray[np.float64], original: NDArray[np.float64], base: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weight of torch's orthogonal parametrisation with this state."""
    import torch

    layer = _layer(given)
    layer.load_state_dict(
        {
            "parametrizations.weight.original": torch.tensor(original),
            "parametrizations.weight.0.base": torch.tensor(base),
        }
    )
    found: NDArray[np.float64] = layer.weight.detach().numpy()
    return found


def _state(rotation: NDArray[np.float32]) -> dict[str, object]:
    """The state of that parametrisation whose weight is this rotation."""
    return {f"rotate.{key}": value.numpy() for key, value in _layer(rotation).state_dict().items()}


def _layer(rotation: NDArray[np.floating]):  # type: ignore[no-untyped-def]
    import torch

    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.tensor(np.array(rotation)))
    return torch.nn.utils.parametrizations.orthogonal(layer)


def _orthonormal(path: Path, rotation: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[Loss, ...]]:
    """The rotation with columns that are orthonormal to double precision: the nearest such matrix."""
    off = float(np.abs(rotation.T @ rotation - np.eye(rotation.shape[1])).max())
    if not off <= _NEAR:
        hint = "train it anew: where columns are zeros, weight decay has moved the diagonal of torch's `orthogonal`"
        hint = hint if not rotation.any(axis=0).all() else ""
        raise wrong(path, [f"the columns of its rotation are not orthonormal: R^T R is off by {off:.2g}"], hint)
    left, _, right = np.linalg.svd(rotation, full_matrices=False)
    said = f"the rotation's columns are orthonormal to {off:.1g} in the file; taken is the nearest rotation"
    return left @ right, (Loss("subspace", said),) if off > _EXACT else ()
