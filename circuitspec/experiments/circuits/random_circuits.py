"""Random circuits of the same size and layer profile as the hypothesis's, and their runs (Shi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.circuits.alike_features import AlikeFeatures
from circuitspec.experiments.experiment import Experiment, Reading, Sent, Site, all_readings
from circuitspec.experiments.levels import edge_level
from circuitspec.experiments.levels.whole_circuit import Whole
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.dictionary_nodes import is_of_dictionary
from circuitspec.graph.edge_circuit import Kept
from circuitspec.graph.edges import Receiver
from circuitspec.graph.nodes import Place
from circuitspec.graph.relabel import Exchange, NoExchange, enlarged, exchange
from circuitspec.hypothesis_file.grammar.components import Component
from circuitspec.hypothesis_file.yaml.source import SourceText

_C = TypeVar("_C", bound=Component)
MAX_BYTES = 500_000_000  # of the plan, for all of its random circuits
_ENTRY = 60  # bytes that a component, or the sender of an edge, takes in a set
_TRIES = 100  # draws in which something other than the circuit itself must come up


@dataclass(frozen=True)
class RandomCircuits:
    """Random circuits, as often as they were drawn: each kept alone and, if asked for, knocked out of the model.

    `active`: of features, at which share of the tokens at their places the circuit's are active, and those drawn; means
    over features.
    """

    kept: tuple[Experiment, ...]
    knocked_out: tuple[Experiment, ...]
    active: tuple[float, float] | None = None

    @property
    def n_different(self) -> int:
        return len(set(self.kept))


def random_circuits(
    graph: CircuitGraph,
    own: Whole,
    count: int,
    seed: int,
    text: SourceText,
    place: Place,
    *,
    knocked_out: bool = True,
    alike: AlikeFeatures | None = None,
) -> RandomCircuits:
    """Independent draws from all circuits with the same components of each layer exchanged, but for the circuit itself.

    Features are exchanged for those that are `alike`; without it they stay. Raises CS173 where so many would not fit
    into memory; CS430 where there are hardly any: the circuit has all heads of its layers, or only MLPs, or too few
    features are as active as its own.
    """
    _check_count(own, count, text, place, knocked_out=knocked_out)
    dice, edges = Random(seed), own.edges is not None
    kept: list[Experiment] = []
    without: list[Experiment] = []
    pool = Pool()
    in_vain = 0
    shares: list[float] = []
    while len(kept) < count:
        try:
            of = exchange(graph, dice, whole_groups=edges, alike={} if alike is None else alike.candidates)
            drawn, out = _drawn(graph, own, of, pool, knocked_out=knocked_out)
        except NoExchange:
            of, drawn, out = {}, own.circuit, None
        if drawn != own.circuit:
            kept.append(drawn)
            without += [] if out is None else [out]
            in_vain = 0
            if alike is not None:
                shares += [others[_in_place(one, of)] for one, others in alike.others.items()]
            continue
        in_vain += 1
        if in_vain == _TRIES:
            raise CircuitspecError(
                Diagnostic(
                    "CS430",
                    "there are no random circuits to compare with: " + _why_none(graph, alike),
                    text.span(place),
                    hint=_instead(graph, alike),
                )
            )
    own_shares = [] if alike is None else [*alike.own.values()]
    active = (sum(own_shares) / len(own_shares), sum(shares) / len(shares)) if own_shares else None
    return RandomCircuits(tuple(kept), tuple(without), active)


def _why_none(graph: CircuitGraph, alike: AlikeFeatures | None) -> str:
    if alike is not None:
        return "too few other features of its dictionaries are active at its positions"
    if any(is_of_dictionary(component) for component in graph.circuit):
        return "its features stay in their places here"
    return "heads exchanged within layers give the same circuit"


def _instead(graph: CircuitGraph, alike: AlikeFeatures | None) -> str:
    if alike is not None:
        return "claim `minimal` instead, or take a larger dictionary"
    if any(is_of_dictionary(component) for component in graph.circuit):
        return "claim `beats_random`, which draws features that are as active"
    return "the circuit leaves out no head of its layers: claim `minimal` instead"


def _check_count(own: Whole, count: int, text: SourceText, place: Place, *, knocked_out: bool) -> None:
    """CS173 where the plan would not fit into memory."""
    each = _size(own.circuit) + (_size(own.knocked_out) if knocked_out else 0)
    if each * count <= MAX_BYTES:
        return
    most = MAX_BYTES // each
    raise CircuitspecError(
        Diagnostic(
            "CS173",
            f"{count:,} random circuits would take about {each * count / 1e9:.1f} GB in the plan alone",
            text.span((*place, "circuits")),
            label=f"each patches {each // _ENTRY:,} components or edges",
            hint=f"draw {most:,} or fewer",
        )
    )


def _size(experiment: Experiment) -> int:
    """Bytes that another experiment like this takes, about: what receivers share is counted once."""
    sets = {reading.senders for reading in all_readings(experiment.readings)}
    return _ENTRY * (len(experiment.sites) + len(experiment.readings) + sum(map(len, sets))) + 1_000


class Pool:
    """Values that experiments share: a circuit drawn anew patches the same components at the same places again.

    Known by the site (or sent value) of one's own circuit and the component that takes its place. Those of one's own
    must outlive the pool.
    """

    def __init__(self) -> None:
        self._sites: dict[tuple[int, Component], Site] = {}
        self._sent: dict[tuple[int, Component], Sent] = {}

    def site(self, own: Site, of: Exchange) -> Site:
        component = _in_place(own.component, of)
        key = (id(own), component)
        if key not in self._sites:
            self._sites[key] = Site(component, own.where)
        return self._sites[key]

    def sent(self, own: Sent, of: Exchange) -> Sent:
        """For values that are sent whole, with no inputs of their own."""
        component = _in_place(own.component, of)
        key = (id(own), component)
        if key not in self._sent:
            self._sent[key] = Sent(component, own.where)
        return self._sent[key]


def _drawn(
    graph: CircuitGraph, own: Whole, of: Exchange, pool: Pool, *, knocked_out: bool
) -> tuple[Experiment, Experiment | None]:
    """The circuit of the components that take the places of its own: kept alone, and knocked out."""
    source = own.circuit.source
    if own.circuit.level != "edge" or own.edges is None or source is None or not graph.measured:
        return exchanged(own.circuit, of, pool), exchanged(own.knocked_out, of, pool) if knocked_out else None
    # heads inside which something is measured stay where they are, and so do the receivers that this depends on
    kept, declared = (_edges_in_place(edges, of) for edges in (own.edges.kept, own.edges.declared))
    return (
        edge_level.keeping(kept, source, graph.shape, graph.measured),
        edge_level.ablating(declared, source, graph.shape, graph.measured),
    )


def _edges_in_place(edges: Kept, of: Exchange) -> Kept:
    return {
        _receiver_in_place(receiver, of): {_in_place(sender, of): where for sender, where in by_sender.items()}
        for receiver, by_sender in edges.items()
    }


def exchanged(experiment: Experiment, of: Exchange, pool: Pool | None = None) -> Experiment:
    """The same experiment on the components that take the places of its own; what draws share comes from the `pool`.

    Components change places within layers, so that what comes before what stays as it is.
    """
    pool = pool or Pool()
    sites = frozenset(pool.site(site, of) for site in experiment.sites)
    sets: dict[frozenset[Sent], frozenset[Sent]] = {}  # edges of thousands of receivers share a few of them
    known: dict[Reading, Reading] = {}

    def sent(senders: frozenset[Sent]) -> frozenset[Sent]:
        if senders not in sets:
            sets[senders] = frozenset(
                Sent(_in_place(one.component, of), one.where, frozenset(map(read, one.inputs)))
                if one.inputs
                else pool.sent(one, of)
                for one in senders
            )
        return sets[senders]

    def read(reading: Reading) -> Reading:
        if reading not in known:
            receiver = _receiver_in_place(reading.receiver, of)
            head = None if reading.head is None else _in_place(reading.head, of)
            known[reading] = replace(reading, receiver=receiver, senders=sent(reading.senders), head=head)
        return known[reading]

    return replace(experiment, sites=sites, readings=frozenset(map(read, experiment.readings)))


def _receiver_in_place(receiver: Receiver, of: Exchange) -> Receiver:
    return replace(receiver, component=_in_place(receiver.component, of))


def _in_place(component: _C, of: Exchange) -> _C:
    found = of.get(component, component)
    assert isinstance(found, type(component))
    return found


def enlarged_circuits(
    graph: CircuitGraph,
    run_of: Callable[[CircuitGraph], Experiment],
    count: int,
    seed: int,
    inside: Collection[Component] = (),
) -> tuple[Experiment, ...]:
    """Runs of the circuit with a random component more, in the role of one of its nodes of the same layer.

    None where no layer of the circuit has a component outside of it; `inside` are those in it beside its groups'.
    """
    dice = Random(seed)
    graphs = (enlarged(graph, dice, inside) for _ in range(count))
    return tuple(run_of(larger) for larger in graphs if larger is not None)
