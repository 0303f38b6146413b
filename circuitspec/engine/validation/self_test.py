"""Checks of patching itself, on the model at hand, before any result is believed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch, first_columns, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit, Swap
from circuitspec.engine.execution.rounding import TOLERANCE
from circuitspec.engine.execution.taps import Tap, label
from circuitspec.engine.forward import Forward
from circuitspec.engine.levels.edge_program import EdgeProgram
from circuitspec.engine.levels.path_hops import Hops, base_taps
from circuitspec.engine.levels.receiver_reads import in_turn
from circuitspec.engine.records import SelfTest
from circuitspec.engine.validation.row_independence import mixing
from circuitspec.engine.validation.two_runs import (
    ALL_PATCHED,
    OWN_VALUES,
    TwoRuns,
    forwards,
    inexact_sites,
    largest,
    lengths_for,
    off,
    random_prompts,
)
from circuitspec.experiments.experiment import ZEROS, Experiment, PathRule, Reading, Sent, values_in
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import Receiver, Sender, Writer, inputs_of, precedes, receivers, senders, senders_before
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, Logits, Mixer
from circuitspec.models.families.modules import submodule
from circuitspec.prompts.prompt_set import CLEAN

# Edges in half precision are compared with runs that compute the same in another order, so that both are rounded anew
# in every layer; what becomes of that hangs on the model and on the point at which it runs. So it is measured: by the
# run compared with once more, every number of its stream moved by one machine epsilon at every layer (`_moved`). That
# is two unit roundoffs u. A run itself rounds about ten results in a layer (norm, projections, attention, sums,
# products), by u / sqrt(3) on average each: together by 1.8 u, and two runs apart by sqrt(2) of that, 2.6 u; and the
# largest of some thousand logits varies by a factor of 2 from one draw of signs to another. 2 * 2.6 u / 2 u = 2.6.
ROUNDINGS = 2.6
# However much rounding moves, no more than this is let pass: an edge that is taken for another is off by about 1.
MOST = {torch.float16: 5e-2, torch.bfloat16: 0.4}
_DRAWS = 3


@torch.no_grad()
def self_test(runner: Forward, *, edges: bool = False) -> SelfTest:
    """Patch two prompts of random tokens of the task's: every site with its own and with another run's values.

    All that `circuitspec doctor` tests, of all sites together (`engine.validation.two_runs`); and that a prompt of
    the task runs alone as it does beside another (`engine.validation.row_independence`). With `edges` also every edge
    of the model, by its own and by the other run's values of its sender; some heads for some receivers, against
    node-level patches; and paths of a head, with its own values and against its ablated edge. Raises CS352 and CS503
    where a check deviates by more than rounding.
    """
    mixed = mixing(runner)
    if mixed:
        raise CircuitspecError(*mixed)
    known = sorted({token for ids in runner.task.ids.values() for prompt in ids for token in prompt})
    task = random_prompts(known, runner.loaded.shape.max_positions, lengths_for(runner.loaded.model))
    if edges:
        _ = runner.stream  # which the other runner then shares
    run = runner.on(task)
    batch = Batch((0, 1), task.lengths, max(task.lengths), "right")
    shape, also = run.loaded.shape, frozenset[Tap]()
    if edges:
        also |= frozenset(run.stream.recorded_at(sender) for sender in senders(shape))
        also |= frozenset(tap for path in _paths(run) for tap in base_taps(path, run.stream))
        if run.stream.heads_share_a_norm:
            also |= {Tap(layer, kind) for layer in shape.layers_with_heads for kind in _PORTS}
    # of all edges two, of all but those from the input one, and one to compare with; three for single heads, two for
    # single receivers, three along paths and one to compare with
    # in half precision three of the runs compared with are run again, moved
    further = 13 + (3 * _DRAWS if run.dtype in MOST else 0)
    run.expect((forwards(shape) + (further if edges else 0)) * len(batch.prompts))
    both = TwoRuns(run, batch, also)
    limit = TOLERANCE[run.dtype]
    whole, handed_on = both.whole(), both.together()
    wrong = [tap for tap, found in sorted(handed_on.items()) if not found <= limit]
    problems = inexact_sites(whole, limit, (), [(label(tap), tap.path(run.loaded.architecture)) for tap in wrong])
    if problems:
        raise CircuitspecError(*problems)
    result = SelfTest(whole[OWN_VALUES], max(whole[what] for what in ALL_PATCHED))
    if not edges:
        return result
    own, values = both.own, both.other
    plain = _moved(run, batch, Actions(), both.logits)
    checks = (
        (OWN_EDGES, off(_all_edges(run, batch, own), both.logits), plain),
        (OWN_EDGES, off(_along(run, batch, _paths(run)[-1], own, own), both.logits), plain),
        (OTHER_EDGES, off(_all_edges(run, batch, values), both.other_logits), plain),
        (OTHER_EDGES, off(*_lost_edges(run, batch, own, values)), plain),
        (OTHER_EDGES, *_heads_by_receiver(run, batch, values)),
        (OTHER_EDGES, *_receivers_apart(run, batch, values)),
        (OTHER_EDGES, off(*_edge_and_path(run, batch, own, values)), plain),
    )
    for what, found, moved in checks:
        allowed = limit if run.dtype not in MOST else max(limit, min(MOST[run.dtype], ROUNDINGS * moved))
        if not found <= allowed:
            raise CircuitspecError(
                Diagnostic(
                    "CS503",
                    f"{what}: by {found:.2g} standard deviations, where {allowed:.2g} is rounding",
                    hint="this model's family is not patched rightly; no result of it can be trusted",
                )
            )
    return SelfTest(
        max(result.own_values, *(found for what, found, _ in checks if what == OWN_EDGES)),
        max(result.all_patched, *(found for what, found, _ in checks if what == OTHER_EDGES)),
    )


OWN_EDGES = "patching every edge with its own value changed the logits"
OTHER_EDGES = "patching edges with another run's values did not give what node-level patches give"


def _moved(runner: Forward, batch: Batch, actions: Actions, logits: torch.Tensor) -> float:
    """How far the `logits` of a run in half precision lie from those of the same run with its stream moved a little.

    In standard deviations of the logits, the largest of some draws; 0 in other precisions, which ask for no more. The
    stream is moved where each layer, and the last norm, read it: every number by one machine epsilon, up or down.
    """
    if runner.dtype not in MOST:
        return 0.0
    shape, found = runner.loaded.shape, []
    for draw in range(_DRAWS):
        signs = torch.Generator().manual_seed(draw)

        def move(own: torch.Tensor, signs: torch.Generator = signs) -> torch.Tensor:
            up = torch.randint(0, 2, own.shape, generator=signs).to(own.device, torch.bool)
            by = own * torch.finfo(own.dtype).eps
            return own + torch.where(up, by, -by)

        taps = [*(Tap(layer, "resid") for layer in range(shape.n_layers)), Tap(shape.n_layers, "final")]
        edits = {tap: in_turn([*([actions.edits[tap]] if tap in actions.edits else []), move]) for tap in taps}
        again = replace(actions, edits={**actions.edits, **edits})
        found.append(off(runner.forward(batch, CLEAN, again)[0], logits))
    return largest(found)


def _all_of(runner: Forward, tap: Tap, value: torch.Tensor) -> Swap:
    """The whole tap, at every position, replaced by `value`."""
    shape = (*value.shape[:2], tap.units(runner.loaded.shape))
    return Swap(torch.ones(shape, dtype=torch.bool, device=value.device), value)


def _lost_edges(
    runner: Forward, batch: Batch, own: Mapping[Tap, torch.Tensor], other: Mapping[Tap, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits with the edges from all heads and MLPs carrying the other run's values, and what they must be.

    With those from the input too, every component computes the other run's value by itself, so that it would not be
    seen if a contribution were taken for another; so the logits must read the own input and what the other run adds.
    """
    first, final = Tap(0, "resid"), Tap(runner.loaded.shape.n_layers, "final")
    read = own[first] + other[final] - other[first]
    expected = runner.forward(batch, CLEAN, Actions({final: _all_of(runner, final, read)}))[0]
    return _all_edges(runner, batch, other, but=(Input(),)), expected


def _all_edges(
    runner: Forward, batch: Batch, values: Mapping[Tap, torch.Tensor], but: tuple[Sender, ...] = ()
) -> torch.Tensor:
    """The logits of the clean prompts with every edge (but those from some) carrying these values of its sender."""
    shape, everywhere = runner.loaded.shape, Where.everywhere()
    order = senders(shape)
    cut = {r: {s: everywhere for s in order[: senders_before(r, shape)] if s not in but} for r in receivers(shape)}
    return _cut(runner, batch, values, cut)


_Cut = Mapping[Receiver, Mapping[Sender, Where]]


def _cut(runner: Forward, batch: Batch, values: Mapping[Tap, torch.Tensor], cut: _Cut) -> torch.Tensor:
    """The logits of the clean prompts with these edges carrying these values of their senders."""
    # which prompts are said does not matter here
    program = EdgeProgram(patching(CLEAN, values_in(CLEAN), cut), runner.stream)
    columns = {where: where_mask(runner.task, batch, where, runner.device) for where in program.wheres}
    return runner.forward(batch, CLEAN, program.actions(columns, runner.stream.with_scaled(values)))[0]


def _heads_by_receiver(runner: Forward, batch: Batch, other: Mapping[Tap, torch.Tensor]) -> tuple[float, float]:
    """How far the logits with some heads' edges to all receivers ablated and the others' to the logits are from right.

    And how far rounding moves them (`_moved`).

    That is a node-level patch of the first, in which the final stream is given what the others add in the other run.
    So a head that is taken for another is seen.
    """
    shape, everywhere = runner.loaded.shape, Where.everywhere()
    final = Tap(shape.n_layers, "final")
    layers = _last_layers(shape)
    whole = {Head(layer, h) for layer in layers for h in _some(shape.n_heads, layer)}
    order: list[Sender] = [s for s in senders(shape) if isinstance(s, Head) and s.layer in layers]
    cut: dict[Receiver, dict[Sender, Where]] = {
        r: {s: everywhere for s in order if precedes(s, r, shape) and (s in whole or r.at_logits)}
        for r in receivers(shape)
    }
    scaled = runner.stream.with_scaled(other)
    held: dict[int, torch.Tensor] = {}  # by layer: what the heads for the logits alone add in the other run, less here
    changes: dict[int, torch.Tensor] = {}  # the same of the heads for all receivers
    swaps: dict[Tap, Swap] = {}
    edits: dict[Tap, Edit] = {}

    def lacking(layer: int, z: torch.Tensor, heads: Collection[int]) -> torch.Tensor:
        theirs = scaled[runner.stream.kept_as(Head(layer, 0))]
        return _share(runner, layer, theirs - runner.stream.scaled(layer, z), heads)

    def keep(layer: int, heads: list[int]) -> Edit:
        def edit(z: torch.Tensor) -> torch.Tensor:
            held[layer] = lacking(layer, z, [h for h in range(shape.n_heads) if h not in heads])
            changes[layer] = lacking(layer, z, heads)
            return z

        return edit

    for layer in layers:
        heads = _some(shape.n_heads, layer)
        edits[Tap(layer, "z")] = keep(layer, heads)
        if runner.stream.heads_normed:
            edits[Tap(layer, "attn_added")] = lambda own, layer=layer: own + changes[layer]  # type: ignore[misc]
        else:
            value = other[Tap(layer, "z")]
            mask = torch.zeros(*value.shape[:2], shape.n_heads, dtype=torch.bool, device=value.device)
            mask[:, :, heads] = True
            swaps[Tap(layer, "z")] = Swap(mask, value)
    edits[final] = lambda own: own + torch.stack([*held.values()]).sum(0)
    actions = Actions(swaps, edits=edits)
    expected = runner.forward(batch, CLEAN, actions)[0]
    return off(_cut(runner, batch, other, cut), expected), _moved(runner, batch, actions, expected)


def _last_layers(shape: ModelShape) -> tuple[int, ...]:
    """The layers of heads on which single heads are tried: through many, rounding in half precision would add up."""
    return shape.layers_with_heads[-4:]


def _some(n: int, layer: int) -> list[int]:
    """Some of n, and not the same in neighbouring layers: the first half, and every other one."""
    return list(range(n // 2)) if layer % 2 == 0 else list(range(0, n, 2))


def _share(runner: Forward, layer: int, scaled: torch.Tensor, heads: Collection[int]) -> torch.Tensor:
    """What some heads add to the stream, by the module that projects their outputs, all others' being zero."""
    architecture, shape = runner.loaded.architecture, runner.loaded.shape
    split = scaled.reshape(*scaled.shape[:2], shape.n_heads, shape.d_head)
    left = torch.zeros_like(split)
    for head in heads:
        left[:, :, head] = split[:, :, head]
    if architecture.head_norm is not None:
        left = left.flatten(-2) * runner.stream.gain(layer)
        left = left.view(split.shape)
    module = submodule(runner.loaded.model, architecture.path(architecture.attn_out, layer))
    nothing = torch.zeros_like(scaled)
    added: torch.Tensor = module.forward(left.flatten(-2)) - module.forward(nothing)
    added = added * runner.stream.gain(layer) if runner.stream.post_normed else added
    return added * architecture.residual_multiplier


def _receivers_apart(runner: Forward, batch: Batch, other: Mapping[Tap, torch.Tensor]) -> tuple[float, float]:
    """How far the logits with every edge into one kv head of some layers, and into its queries, ablated are from right.

    And how far rounding moves them (`_moved`).

    These heads then compute what they do in the other run, so that it is a node-level patch of them (of their queries,
    keys and values where a norm over all heads follows). So a receiver that is taken for another is seen.
    """
    shape, everywhere = runner.loaded.shape, Where.everywhere()
    group, order = shape.n_heads // shape.n_kv_heads, senders(shape)
    cut: dict[Receiver, dict[Sender, Where]] = {}
    swaps: dict[Tap, Swap] = {}

    def patch(tap: Tap, units: list[int]) -> None:
        value = other[tap]
        mask = torch.zeros(*value.shape[:2], tap.units(shape), dtype=torch.bool, device=value.device)
        mask[:, :, units] = True
        swaps[tap] = Swap(mask, value)

    for layer in _last_layers(shape):
        kv = 0 if layer % 2 == 0 else shape.n_kv_heads - 1
        heads = list(range(kv * group, (kv + 1) * group))
        for receiver in dict.fromkeys(r for head in heads for r in inputs_of(Head(layer, head), (), shape)):
            cut[receiver] = dict.fromkeys(order[: senders_before(receiver, shape)], everywhere)
        if runner.stream.heads_share_a_norm:
            for kind in _PORTS:
                patch(Tap(layer, kind), heads if kind == "q" else [kv])
        else:
            patch(Tap(layer, "z"), heads)
    expected = runner.forward(batch, CLEAN, Actions(swaps))[0]
    return off(_cut(runner, batch, other, cut), expected), _moved(runner, batch, Actions(swaps), expected)


_PORTS: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")


def _first_writer(shape: ModelShape) -> Writer:
    """The first head, or mixer, of a model."""
    return Head(0, 0) if 0 not in shape.mixers else Mixer(0)


def _paths(runner: Forward) -> tuple[Experiment, ...]:
    """From the first head to the logits through nothing; and, in a model of layers, by a query of the last one."""
    everywhere, last = Where.everywhere(), runner.loaded.shape.layers_with_heads[-1]
    rule = PathRule("base", through_mlps=False)
    start = frozenset({Sent(_first_writer(runner.loaded.shape), everywhere)})
    middle = Head(last, runner.loaded.shape.n_heads - 1)
    computed = frozenset({Sent(middle, everywhere, frozenset({Reading(Receiver(middle, "q"), start)}))})
    return tuple(
        Experiment("clean", ZEROS, readings=frozenset({Reading(Receiver(Logits()), sent)}), rule=rule)
        for sent in ((start, computed) if last else (start,))
    )


def _along(
    runner: Forward,
    batch: Batch,
    path: Experiment,
    own: Mapping[Tap, torch.Tensor],
    values: Mapping[Tap, torch.Tensor],
) -> torch.Tensor:
    """The logits of the clean prompts with these values sent along a path."""
    scaled = runner.stream.with_scaled
    hops = Hops(
        path,
        runner.stream,
        run=lambda actions: runner.readout(batch, CLEAN, actions),
        source=scaled(values),
        columns=lambda where: where_mask(runner.task, batch, where, runner.device),
        base=scaled(own),
        extra=lambda: runner.expect(len(batch.prompts)),
        first=lambda: first_columns(batch).to(runner.device),
    )
    return hops.readout().logits


def _edge_and_path(
    runner: Forward, batch: Batch, own: Mapping[Tap, torch.Tensor], other: Mapping[Tap, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits with the other run's value sent from a head to the logits alone: as a path, and as an edge."""
    cut: dict[Receiver, dict[Sender, Where]] = {
        Receiver(Logits()): {_first_writer(runner.loaded.shape): Where.everywhere()}
    }
    return _along(runner, batch, _paths(runner)[0], own, other), _cut(runner, batch, other, cut)
