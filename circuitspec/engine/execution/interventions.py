"""The one pyvene intervention of the engine: read a whole tap, or replace slices of it.

This is the only module that imports pyvene; import it late, it takes seconds.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.dictionary import Dictionary

with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    # pyvene prints about optional packages and trips deprecation warnings of its own dependencies
    warnings.simplefilter("ignore")
    import pyvene


@dataclass(frozen=True)
class Projected:
    """Where only the part of a slice in a subspace is replaced.

    mask: bool `[row, pos, unit]`, True where it is.
    basis: `[width, rank]`, orthonormal columns R: x becomes x + (s - x) R R^T.
    """

    mask: Tensor
    basis: Tensor

    def put_into(self, sliced: Tensor, replacement: Tensor) -> Tensor:
        """Slices `[row, pos, unit, width]` with their projections replaced, where the mask says so."""
        moved = ((replacement - sliced).to(self.basis.dtype) @ self.basis) @ self.basis.mT
        return torch.where(self.mask.unsqueeze(-1), sliced + moved.to(sliced.dtype), sliced)


@dataclass(frozen=True)
class Swap:
    """Replace slices of a tap by values of another run.

    mask: bool `[row, pos, unit]`, True where the source value is put in.
    source: `[row, pos, unit * width]`, or broadcastable to it.
    gate: None, or float `[row, pos, unit]` that scales the replacement, so that the derivative with
        respect to it is the first-order effect of the patch.
    projected: slices of which the part in a subspace alone is replaced; of these the mask has none.
    """

    mask: Tensor
    source: Tensor
    gate: Tensor | None = None
    projected: tuple[Projected, ...] = ()

    def put_into(self, base: Tensor) -> Tensor:
        """The tap's tensor `[row, pos, channel]` with the slices replaced."""
        rows, positions, channels = base.shape
        units = self.mask.shape[-1]
        sliced = base.view(rows, positions, units, channels // units)
        replacement = self.source.expand(rows, positions, channels).view_as(sliced)
        if self.gate is None:
            patched = torch.where(self.mask.unsqueeze(-1), replacement, sliced)
        else:
            patched = sliced + self.gate.unsqueeze(-1) * (replacement - sliced)
        for part in self.projected:
            patched = part.put_into(patched, replacement)
        return patched.view(rows, positions, channels)


def some_units(swap: Swap, units: Tensor) -> Swap:
    """The same of some slices of one channel each."""
    gate = None if swap.gate is None else swap.gate[..., units]
    source = swap.source if swap.source.shape[-1] == 1 else swap.source[..., units]
    return Swap(swap.mask[..., units], source, gate)


def moved(swap: Swap, own: Tensor) -> Tensor:
    """How far a swap of slices of one channel moves each of them, `[row, pos, unit]`; 0 where it replaces nothing."""
    change = swap.source - own
    return torch.where(swap.mask, change, 0.0) if swap.gate is None else swap.gate * change


FEW = 4  # of so many times as many features, some are encoded alone: copying their directions takes time too


@dataclass(frozen=True)
class Spliced:
    """Features of a dictionary replaced in the value that it takes apart, and what they leave of it.

    A feature that moves from w to w' adds (w' - w) times its direction, w being what its direction is multiplied by;
    all else of the value stays, also what the dictionary does not explain. That error is replaced in the same way.

    features: a swap of `[row, pos, n_features]`; error: one of `[row, pos, d_out]`.
    shifts: what is added to the features, and to the error.
    left_out: bool `[row, pos, 1]`, where the dictionary says nothing, so that nothing is replaced.
    """

    dictionary: Dictionary
    features: Swap | None = None
    error: Swap | None = None
    shifts: tuple[Tensor | None, Tensor | None] = (None, None)
    left_out: Tensor | None = None

    def put_into(self, value: Tensor, read: Tensor) -> Tensor:
        """The value `[row, pos, d_out]` with its parts replaced; `read` is what the dictionary encodes."""
        dictionary = self.dictionary
        dtype = torch.promote_types(value.dtype, dictionary.dtype)
        change = torch.zeros_like(value, dtype=dtype)
        units = None if self.features is None else self._units(self.features)
        many = units is not None and len(units) * FEW > dictionary.n_features
        weights = dictionary.weights(read) if many or self.error is not None else None
        if self.features is not None and units is not None:
            change = change + self._of_features(self.features, None if many else units, read, weights).to(dtype)
        if self.error is not None:
            assert weights is not None
            error = value.to(dtype) - dictionary.combined(weights, read).to(dtype)
            change = change + (self.error.put_into(error) - error)
        of_features, of_error = self.shifts
        if of_features is not None:
            change = change + of_features.to(dtype) @ dictionary.decoder.to(dtype)
        if of_error is not None:
            change = change + of_error
        if self.left_out is not None:
            change = change.masked_fill(self.left_out, 0.0)
        return value + change.to(value.dtype)

    def _of_features(self, swap: Swap, units: Tensor | None, read: Tensor, weights: Tensor | None) -> Tensor:
        """What the features of these numbers (None: all) add; `weights` are those of all, where they are known."""
        dictionary = self.dictionary
        if units is None:
            return dictionary.summed(moved(swap, dictionary.weights(read) if weights is None else weights))
        some = dictionary.of_features(units) if weights is None else None
        if some is not None:
            own = some.weights(read)
        else:
            own = (dictionary.weights(read) if weights is None else weights)[..., units]
        return dictionary.summed(moved(some_units(swap, units), own), units)

    def _units(self, swap: Swap) -> Tensor:
        """The features that are replaced anywhere; all of them where they have gates."""
        if swap.gate is not None:
            return torch.arange(swap.mask.shape[-1], device=swap.mask.device)
        return swap.mask.flatten(0, 1).any(0).nonzero().flatten()


Edit: TypeAlias = Callable[[Tensor], Tensor]
"""What a tap's tensor becomes; called during the forward, so that it may use what earlier taps gave."""


@dataclass
class _Armed:
    """What an intervention does in one forward, and what came of it (not as attributes of a module: these are slow)."""

    swap: Swap | None
    record: bool
    shift: Tensor | None
    edit: Edit | None
    before: Edit | None
    after: Callable[[Tensor], None] | None
    rows: int = 0
    recorded: Tensor | None = None
    firings: int = 0


class TapIntervention(pyvene.ConstantSourceIntervention, pyvene.LocalistRepresentationIntervention):  # type: ignore[misc]
    """Acts on a tap's whole tensor `[row, pos, channel]`: adds, records, edits, then replaces.

    What to do is set before each forward (`arm`), because pyvene hands neither masks nor sources of
    this shape through. `firings` counts the calls since. A tensor of another width than `channels` is
    an error (CS510): slices of it would not be the components they are taken for.
    """

    def __init__(self, path: str, channels: int, **kwargs: Any) -> None:
        super().__init__(keep_last_dim=True, **kwargs)
        self.path = path
        self.channels = channels
        self.arm(None, record=False)

    def arm(
        self,
        swap: Swap | None,
        *,
        record: bool,
        shift: Tensor | None = None,
        edit: Edit | None = None,
        before: Edit | None = None,
        after: Callable[[Tensor], None] | None = None,
        rows: int = 0,
    ) -> None:
        """Set what the next forward, of so many `rows`, does here and forget the last one.

        `shift` `[row, pos, channel]` is added to what the model computes; it counts as part of the run,
        so it is in what is recorded. So does what `before` makes of it first. `after` is shown what is handed on.
        """
        self._armed = _Armed(swap, record, shift, edit, before, after, rows)

    @property
    def recorded(self) -> Tensor | None:
        """What the last forward computed here, before any edit or swap; None where it was not to be recorded."""
        return self._armed.recorded

    @property
    def firings(self) -> int:
        """How often the last forward came by."""
        return self._armed.firings

    def forward(self, base: Tensor, source: object = None, subspaces: object = None, **_: object) -> Tensor:
        """`base` is pyvene's own copy of the tap's tensor; what is returned is written back in place."""
        now = self._armed
        now.firings += 1
        if now.firings > 1:
            raise CircuitspecError(
                Diagnostic("CS501", f"{self.path} ran more than once in one forward", hint=_FIRING_HINT)
            )
        flat = base.ndim == 2 and now.rows > 0  # the rows one after the other, as some modules are given them
        if flat:
            base = base.view(now.rows, -1, base.shape[-1])
        one_head = base.ndim == 4 and base.shape[1] == 1  # `[row, 1, pos, channel]`, as latents are given on
        if one_head:
            base = base.squeeze(1)
        if base.ndim != 3 or base.shape[-1] != self.channels:
            raise CircuitspecError(
                Diagnostic(
                    "CS510",
                    f"{self.path} has the shape {tuple(base.shape)}, expected (rows, positions, {self.channels})",
                    hint="correct its entry in the architecture table (circuitspec/models/families)",
                )
            )
        if now.before is not None:
            base = now.before(base)
        if now.shift is not None:
            base = base + now.shift
        if now.record:
            now.recorded = base if now.edit is None else base.clone()  # edits may write into it
        if now.edit is not None:
            base = now.edit(base)
        if now.swap is not None:
            base = now.swap.put_into(base)
        if now.after is not None:
            now.after(base)
        if flat:
            return base.flatten(0, 1)
        return base.unsqueeze(1) if one_head else base


_FIRING_HINT = (
    "patching needs every site to run exactly once a forward; "
    "turn gradient checkpointing off, and see whether layers share this module"
)


def build(model: torch.nn.Module, taps: dict[str, TapIntervention]) -> Any:
    """A pyvene model with one intervention at each module path.

    `unit_locations` are never used: the mask selects rows, positions and slices (pyvene reads flat or
    integer locations in ways that silently patch other positions).
    """
    config = pyvene.IntervenableConfig(
        [
            {"component": path, "unit": "pos", "intervention": intervention, "group_key": None}
            for path, intervention in taps.items()
        ]
    )
    return pyvene.IntervenableModel(config, model)
