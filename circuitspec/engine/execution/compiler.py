"""Taps -> a pyvene model that can be run: actions in, logits and recorded values out."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, KeysView, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.interventions import Edit, Spliced, Swap, TapIntervention, build
from circuitspec.engine.execution.skipped_blocks import SkippedBlocks
from circuitspec.engine.execution.taps import Tap, TapKind
from circuitspec.engine.execution.worked_out.attention_patterns import mixing, patterns_in, reading_of
from circuitspec.engine.execution.worked_out.expert_choices import ExpertChoices, choices_in
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.experts import token_by_token
from circuitspec.models.families.modules import computing, submodule
from circuitspec.models.families.rope import memoryless
from circuitspec.models.in_memory.ambient_modes import as_in_a_new_process
from circuitspec.models.in_memory.foreign_hooks import HOOKS


@dataclass(frozen=True)
class Actions:
    """What one forward does: which taps are patched, which are read, what is added to which, and which are edited.

    And what it may leave out: `unread` are taps of which edits replace all that their modules compute; `answers_alone`
    says that nothing is wanted of the run but the logits where they are kept; blocks before `first_block` hand the
    residual stream on as it came, and so do `last_block` and those after it, where only what comes before is wanted.
    With `before_unembedding` what enters the unembedding, `[row, kept position, d_model]`, is given instead of logits;
    of what is `unembedded`, which a forward gave so, the logits, `[row, kept position, vocabulary]`, and nothing else.
    """

    swaps: Mapping[Tap, Swap] = field(default_factory=dict)
    record: frozenset[Tap] = frozenset()
    shifts: Mapping[Tap, Tensor] = field(default_factory=dict)
    edits: Mapping[Tap, Edit] = field(default_factory=dict)
    unread: frozenset[Tap] = frozenset()
    answers_alone: bool = False
    first_block: int = 0
    last_block: int | None = None
    before_unembedding: bool = False
    unembedded: Tensor | None = None

    @property
    def taps(self) -> frozenset[Tap]:
        return frozenset(self.swaps) | self.record | frozenset(self.shifts) | frozenset(self.edits)


KEPT = 64  # pyvene models; building one takes some milliseconds


def trims(shape: ModelShape, patched: Collection[Tap], recorded: Collection[Tap] = ()) -> bool:
    """Whether a run of which the logits alone are wanted may compute its last MLP at the kept tokens alone.

    Not where something reads more of it than that, or acts within it.
    """
    last = shape.n_layers
    parts = {tap for tap in (*patched, *recorded) if tap.layer == last - 1 and tap.kind in _WITHIN_MLPS}
    after = (Tap(last - 1, "mlp"), Tap(last - 1, "mlp_added"), Tap(last, "final"))
    return shape.has_mlps and not parts and {*after}.isdisjoint(recorded)


_WITHIN_MLPS: tuple[TapKind, ...] = ("neurons", "shared_neurons", "expert_neurons", "experts", "routing")


class Compiler:
    """The executor of this process, on a Hugging Face model.

    Builds pyvene models for it, one for each set of taps, and keeps those last used. The shape says where the
    `dictionaries` are, by whose features values may be read and patched.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        architecture: Architecture,
        shape: ModelShape,
        dictionaries: Mapping[str, Dictionary] | None = None,
    ) -> None:
        self._dictionaries = dictionaries or {}
        self._model = model
        self._architecture = architecture
        self._shape = shape
        blocks = [submodule(model, architecture.block.format(layer=layer)) for layer in range(shape.n_layers)]
        self._blocks = SkippedBlocks(blocks)
        self._built: OrderedDict[frozenset[Tap], tuple[Any, dict[Tap, TapIntervention]]] = OrderedDict()

    def forward(self, inputs: Mapping[str, Any], actions: Actions) -> tuple[Tensor, dict[Tap, Tensor]]:
        """Run the model once.

        Returns its logits `[row, kept position, vocabulary]` and, for each recorded tap, the values
        computed there before any patch, `[row, pos, channel]`; attention patterns, which no module computes, take
        another forward, and are read of unpatched runs. Raises CS501 where a tap did not fire exactly once, CS510 where
        its tensor is not as wide as the model's shape says.
        """
        if actions.unembedded is not None:
            return self._unembed(inputs, actions.unembedded), {}
        if actions.before_unembedding:
            entering: list[Tensor] = []
            with computing({self._unembedding: partial(_left_out, entering)}), self._blocks.watching():
                _, recorded = self.forward(inputs, replace(actions, before_unembedding=False))
            return entering[0], recorded
        if not actions.taps:
            return self._model(**inputs).logits, {}
        if patterns_in({*actions.record, *actions.swaps}) and self._shape.counts.no_patterns:
            raise CircuitspecError(
                Diagnostic(
                    "CS520",
                    f"this model's attention patterns cannot be read or patched: its {self._shape.counts.no_patterns}",
                    hint="patch heads or key-value heads instead",
                )
            )
        if patterns := patterns_in(actions.record):
            plain = replace(actions, record=actions.record - patterns)
            logits, recorded = self.forward(inputs, plain)
            return logits, {**recorded, **self._patterns(inputs, plain, patterns)}
        if features := _of_dictionaries(actions.record):
            explained = {tap for one in features for tap in self._explained(one)}
            plain = replace(actions, record=(actions.record - features) | explained)
            logits, recorded = self.forward(inputs, plain)
            asked = {tap: value for tap, value in recorded.items() if tap in actions.record}
            return logits, {**asked, **self._encoded(inputs, features, recorded)}
        actions = self._spliced(inputs, actions)
        if choices_in({*actions.swaps, *actions.record, *actions.shifts}):
            return self._choosing(inputs, actions)
        patterns = patterns_in(actions.swaps)
        mixed = mixing({tap: actions.swaps[tap] for tap in patterns}, self._architecture, self._shape)
        runnable, interventions = self._pyvene_model((actions.taps - patterns) | mixed.taps)
        for tap, intervention in interventions.items():
            intervention.arm(
                actions.swaps.get(tap),
                record=tap in actions.record,
                shift=actions.shifts.get(tap),
                edit=actions.edits.get(tap),
                before=mixed.before.get(tap),
                after=mixed.after.get(tap),
                rows=len(inputs["input_ids"]) if self._architecture.flat_mlp or tap.kind == "shared_neurons" else 0,
            )
        try:
            skipped = self._blocks.before(actions.first_block) | self._blocks.after(actions.last_block)
            with self._blocks.watching(), computing(self._shortened(inputs, actions) | skipped):
                _, output = runnable(dict(inputs))
            silent = [i.path for i in interventions.values() if i.firings != 1]
            if silent:
                raise CircuitspecError(
                    Diagnostic(
                        "CS501",
                        f"{', '.join(silent)} did not run in this forward, so nothing was patched there",
                        hint="the model does not call these modules; correct its entry in the architecture table",
                    )
                )
            recorded = {tap: i.recorded for tap, i in interventions.items() if i.recorded is not None}
            return output.logits, recorded
        finally:
            for intervention in interventions.values():
                intervention.arm(None, record=False)

    @property
    def _unembedding(self) -> torch.nn.Module:
        return submodule(self._model, self._architecture.unembedding)

    def _unembed(self, inputs: Mapping[str, Any], entering: Tensor) -> Tensor:
        """By the model's own unembedding and whatever comes after it (scales, caps), with its blocks left out."""
        own = self._unembedding.forward
        skipped = self._blocks.before(self._shape.n_layers)
        with computing({**skipped, self._unembedding: lambda _: own(entering)}):
            logits: Tensor = self._model(**inputs).logits
        return logits

    def _choosing(self, inputs: Mapping[str, Any], actions: Actions) -> tuple[Tensor, dict[Tap, Tensor]]:
        """The same forward where single experts or routings are read or patched."""
        taps = choices_in({*actions.swaps, *actions.record, *actions.shifts})
        rows = len(inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"])
        choices = ExpertChoices(
            self._model, rows, actions.swaps, actions.shifts, actions.record, self._architecture, self._shape
        )
        edits = dict(actions.edits)
        for tap, edit in choices.edits.items():
            edits[tap] = _after(edits.get(tap), edit)
        swaps = {tap: swap for tap, swap in actions.swaps.items() if tap not in taps}
        shifts = {tap: shift for tap, shift in actions.shifts.items() if tap not in taps}
        # what is patched within an MLP is patched at all of its tokens, or at none
        trimmed = actions.answers_alone and trims(self._shape, taps, taps)
        record = actions.record - taps
        plain = replace(actions, swaps=swaps, shifts=shifts, record=record, edits=edits, answers_alone=trimmed)
        with computing(choices.forwards):
            logits, recorded = self.forward(inputs, plain)
        choices.check()
        return logits, {**recorded, **choices.recorded}

    def _patterns(self, inputs: Mapping[str, Any], actions: Actions, taps: frozenset[Tap]) -> dict[Tap, Tensor]:
        """The attention patterns of a run: `[row, query pos, head * key pos]` for each of these taps."""
        if actions.swaps or actions.edits or actions.first_block or actions.last_block is not None:
            raise ValueError("attention patterns are read of whole and unpatched runs")
        reading, found = reading_of(taps, inputs, self._architecture, self._shape), dict[Tap, Tensor]()
        copies = Actions(shifts=reading.shifts(actions.shifts), edits=reading.edits(found))
        self.forward(reading.inputs(inputs), copies)
        return found

    def _encoded(
        self, inputs: Mapping[str, Any], taps: frozenset[Tap], recorded: Mapping[Tap, Tensor]
    ) -> dict[Tap, Tensor]:
        """The features and errors in what was recorded: `[row, pos, n_features]` and `[row, pos, d_out]`."""
        found = {}
        for tap in taps:
            read, written = (recorded[one] for one in self._explained(tap))
            dictionary, left_out = self._dictionaries[tap.dictionary], self._left_out(inputs, tap)
            weights = dictionary.weights(read)
            if left_out is not None:
                weights = weights.masked_fill(left_out, 0.0)
            if tap.kind == "features":
                found[tap] = weights
            else:
                wide = torch.promote_types(written.dtype, dictionary.dtype)
                found[tap] = written.to(wide) - dictionary.combined(weights, read).to(wide)
        return found

    def _spliced(self, inputs: Mapping[str, Any], actions: Actions) -> Actions:
        """The same with features and errors patched by edits of the values that their dictionaries take apart."""
        taps = _of_dictionaries({*actions.swaps, *actions.shifts})
        if not taps:
            return actions
        edits = dict(actions.edits)
        parts = {Tap(tap.layer, "features", tap.dictionary) for tap in taps}
        for tap in sorted(parts, key=lambda part: self._explained(part)[1]):
            error = Tap(tap.layer, "error", tap.dictionary)
            splice = Spliced(
                self._dictionaries[tap.dictionary],
                actions.swaps.get(tap),
                actions.swaps.get(error),
                (actions.shifts.get(tap), actions.shifts.get(error)),
                self._left_out(inputs, tap),
            )
            read, written = self._explained(tap)
            entering: list[Tensor] = []
            if read != written:
                edits[read] = _after(edits.get(read), partial(_kept, entering))
            edits[written] = _after(edits.get(written), partial(_splice, splice, entering))
        swaps = {tap: swap for tap, swap in actions.swaps.items() if tap not in taps}
        shifts = {tap: shift for tap, shift in actions.shifts.items() if tap not in taps}
        return replace(actions, swaps=swaps, shifts=shifts, edits=edits)

    def _explained(self, tap: Tap) -> tuple[Tap, Tap]:
        """As a tap's own; where no norm stands before the MLP, what enters it is the stream, and has one tap."""
        read, written = tap.explained(self._shape)
        is_stream = read.kind == "mlp_in" and self._architecture.mlp_norm is None and self._shape.has_resid_mid
        return (Tap(read.layer, "resid_mid") if is_stream else read), written

    def _left_out(self, inputs: Mapping[str, Any], tap: Tap) -> Tensor | None:
        """bool `[row, pos, 1]`: the prompts' first tokens, where the dictionary says nothing of them."""
        site = self._shape.dictionary(tap.dictionary)
        if site is None or not site.skips_first:
            return None
        ids = inputs["input_ids"]
        first = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
        past = inputs.get("past_key_values")
        if past is not None and past.get_seq_length():
            return first.unsqueeze(-1)  # the run begins at a later token
        mask = inputs.get("attention_mask")
        if mask is None:
            first[:, 0] = True
        else:
            first = mask.bool() & (mask.cumsum(1) == 1)
        return first.unsqueeze(-1)

    def _shortened(self, inputs: Mapping[str, Any], actions: Actions) -> dict[torch.nn.Module, Callable[..., Tensor]]:
        """Forwards of the modules that need not compute all: NaN for what nobody reads, so that it cannot go unseen."""

        def unread(width: int) -> Callable[[Tensor], Tensor]:
            return lambda entering: entering.new_full((*entering.shape[:-1], width), torch.nan)

        others = actions.record | frozenset(actions.shifts)
        forwards: dict[torch.nn.Module, Callable[..., Tensor]] = {
            submodule(self._model, tap.path(self._architecture).removesuffix(".output")): unread(tap.width(self._shape))
            for tap in actions.unread - others
        }
        whole = self._architecture.flat_mlp  # in one long row tokens are not told apart
        if (
            actions.answers_alone
            and not whole
            and trims(self._shape, frozenset(actions.swaps) | frozenset(actions.edits), others)
        ):
            for module in self._architecture.mlp_modules:
                part = submodule(self._model, self._architecture.path(module, self._shape.n_layers - 1))
                forwards[part] = partial(_at_columns, part.forward, inputs["logits_to_keep"])
        return forwards

    def _pyvene_model(self, taps: frozenset[Tap]) -> tuple[Any, dict[Tap, TapIntervention]]:
        if taps not in self._built:
            interventions = {
                tap: TapIntervention(tap.path(self._architecture), tap.width(self._shape)) for tap in sorted(taps)
            }
            runnable = build(self._model, {i.path: i for i in interventions.values()})
            self._built[taps] = (runnable, interventions)
            if len(self._built) > KEPT:
                self._built.popitem(last=False)
        self._built.move_to_end(taps)
        return self._built[taps]


def _of_dictionaries(taps: Collection[Tap]) -> frozenset[Tap]:
    """The taps of features and errors among these."""
    return frozenset(tap for tap in taps if tap.dictionary)


def _after(first: Edit | None, edit: Edit) -> Edit:
    return edit if first is None else lambda value: edit(first(value))


def _left_out(places: list[Tensor], entering: Tensor) -> Tensor:
    """In place of the unembedding: what enters it is kept, and stands for nothing."""
    places[:] = [entering]
    return entering.new_zeros(*entering.shape[:-1], 1)


def _kept(places: list[Tensor], value: Tensor) -> Tensor:
    places.append(value)
    return value


def _splice(splice: Spliced, entering: list[Tensor], value: Tensor) -> Tensor:
    """With what the dictionary reads, where it was kept: otherwise that is the value itself."""
    return splice.put_into(value, entering.pop() if entering else value)


def _at_columns(own: Callable[[Tensor], Any], columns: Tensor, entering: Tensor) -> Any:
    """What a module computes of these columns of `[row, pos, channel]`, and zeros elsewhere.

    Of a module with experts, what else it gives stays as it is: nobody reads it.
    """
    given = own(entering[:, columns])
    found, *beside = given if isinstance(given, tuple) else (given,)
    output = found.new_zeros(*entering.shape[:2], found.shape[-1])
    output[:, columns] = found
    return (output, *beside) if isinstance(given, tuple) else output


_HOOKS = (
    *HOOKS,
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)
_FORWARD = ("_forward_hooks", "_forward_pre_hooks")


class _Kept(OrderedDict[int, Callable[..., Any]]):
    """A module's hooks, to which others may be added: these alone are listed to pyvene, which deletes what is listed.

    torch runs all of them, in the order in which they were registered.
    """

    def __init__(self, hooks: Mapping[int, Callable[..., Any]]) -> None:
        super().__init__(hooks)
        self._held = frozenset(hooks)

    def keys(self) -> KeysView[int]:  # type: ignore[override]
        return {name: None for name in self if name not in self._held}.keys()


@contextlib.contextmanager
def _hooks_kept(model: torch.nn.Module) -> Iterator[None]:
    """Forward hooks run, each before the patches at its place, and pyvene does not delete them."""
    before = [(m, name, getattr(m, name)) for m in model.modules() for name in _FORWARD]
    try:
        for module, name, hooks in before:
            setattr(module, name, _Kept(hooks))
        yield
    finally:
        for module, name, hooks in before:
            setattr(module, name, hooks)


@contextlib.contextmanager
def _naming_outputs(model: torch.nn.Module) -> Iterator[None]:
    """A Hugging Face model whose forwards return outputs by name, also where its config asks for tuples."""
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in found if hasattr(config, "return_dict")}
    before = [(config, config.return_dict) for config in configs.values()]
    try:
        for config, _ in before:
            config.return_dict = True
        yield
    finally:
        for config, value in before:
            config.return_dict = value


@contextlib.contextmanager
def borrowed(model: torch.nn.Module, *, keep_hooks: bool = False) -> Iterator[None]:
    """The model in evaluation mode with no foreign hooks, given back exactly as it came.

    Within it, rotary embeddings do not remember what ran before (`models.families.rope`), experts compute what a token
    is given whatever others there are (`models.families.experts`), and autocast and other settings of the caller's
    torch do not reach it (`models.in_memory.ambient_modes`).

    With `keep_hooks` its hooks take part: they run first, and what they leave is patched. pyvene deletes every forward
    hook it finds, freezes all parameters and leaves evaluation mode on.
    """
    modules = list(model.modules())
    aside = () if keep_hooks else _HOOKS
    hooks = [{name: dict(getattr(m, name)) for name in aside if hasattr(m, name)} for m in modules]
    training = [m.training for m in modules]
    frozen = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for module, kept in zip(modules, hooks, strict=True):
            module.training = False
            for name in kept:
                getattr(module, name).clear()
        hooked = _hooks_kept(model) if keep_hooks else contextlib.nullcontext()
        with hooked, as_in_a_new_process(), memoryless(model), token_by_token(model), _naming_outputs(model):
            yield
    finally:
        for module, kept, mode in zip(modules, hooks, training, strict=True):
            module.training = mode
            for name, entries in kept.items():
                registry = getattr(module, name)
                registry.clear()
                registry.update(entries)
        for parameter, requires_grad in frozen:
            parameter.requires_grad_(requires_grad)
