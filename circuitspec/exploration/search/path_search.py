"""Which members of a chosen circuit act on which: single paths between them, estimated, then patched one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, PathRule, Sent
from circuitspec.experiments.levels.path_level import into
from circuitspec.exploration.search.component_sweep import (
    MATERIAL,
    MISSED,
    Drawn,
    rank_agreement,
    sample_of,
    top_overlap,
    upper_bound,
)
from circuitspec.exploration.search.effect_estimates import estimate_edges
from circuitspec.exploration.search.prompt_race import Racer, race
from circuitspec.exploration.setting import CLEAN, ExplorationSetting
from circuitspec.graph.edges import Edge, Receiver, Sender, Writer, format_receiver, inputs_of, is_writer, precedes
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Input, Logits, Mlp, sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

ALL = Where.everywhere()


Candidate = tuple[Sender, Where, Receiver, Where]


@dataclass(frozen=True)
class Link:
    """A direct path from a sender into a reader (None: the logits), and its effect by itself, as shares of the gap.

    The estimates are those of edge attribution: to first order, and without what passes MLPs on the way. `runs` are the
    one that drops it and the one that restores it.
    """

    sender: Sender
    reader: Writer | None
    receiver: Receiver
    drop: float
    rise: float
    drop_estimate: float
    rise_estimate: float
    runs: tuple[Experiment, ...] = ()
    prompts: tuple[int | None, int | None] = (None, None)  # on which drop and rise were measured; None: all

    @property
    def size(self) -> float:
        return max(abs(self.drop), abs(self.rise))

    @property
    def estimated(self) -> float:
        return max(abs(self.drop_estimate), abs(self.rise_estimate))

    @property
    def missed(self) -> bool:
        """Whether an exact effect is large, and both estimates are small beside it."""
        return self.size >= MATERIAL and self.estimated < MISSED * self.size

    def named(self, shape: ModelShape) -> str:
        return format_receiver(self.receiver, shape)


@dataclass(frozen=True)
class Links:
    """The links that were patched, the largest first, and how well their estimates agree with them.

    `candidates` is how many there were. `agreement` and `overlap` are as those of a sweep, of the `chosen` ones alone;
    others were `drawn` at random.
    """

    found: tuple[Link, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    candidates: int = 0
    agreement: tuple[float | None, float | None] = (None, None)
    overlap: tuple[int, float] | None = None
    chosen: int = 0  # of those that were patched, by their estimates
    drawn: Drawn[Link] | None = None

    @property
    def missed(self) -> tuple[Link, ...]:
        """Exact effects that the estimates did not show, the largest first."""
        return tuple(link for link in self.found if link.missed)

    def name_of(self, link: Link) -> str:
        sender, receiver = self.names[self.found.index(link)]
        return f"{sender} -> {receiver}"


def links(
    setting: ExplorationSetting,
    members: Mapping[Ablatable, Where],
    order: Sequence[Ablatable],
    *,
    most: int,
    exact: int,
    drawn: int = 0,
    steps: int,
    recomputing: bool,
    through_mlps: bool,
) -> Links:
    """Direct paths between members, from the input and to the logits, patched in both directions; the largest first.

    `order` says which members come first where there are more than `most`. Of their paths the `exact` ones with the
    largest estimates are patched, and `drawn` of the others, which are drawn at random. With
    `through_mlps` (they are free) effects pass MLPs on the way, as in Wang et al. (2022), appendix B. Raises
    AllowanceSpent where not even estimates can be had.
    """
    candidates, readers = _candidates(setting, members, order[:most])
    if not candidates:
        return Links()
    edges = {c: Edge(c[0], c[2], c[1] & c[3]) for c in candidates}
    wanted, back = tuple(edges.values()), CLEAN_VALUES
    drops = estimate_edges(setting, "clean", setting.source, wanted, recomputing=recomputing).effects
    rises = estimate_edges(setting, setting.corrupt, back, wanted, steps=steps, recomputing=recomputing).effects
    loss, gain = setting.gap.difference.value, setting.prompt_gap.difference.value
    size = {c: max(abs(drops[edges[c]] / loss), abs(rises[edges[c]] / gain)) for c in candidates}

    def patched(some: Sequence[Candidate]) -> list[Link]:
        down = {c: _path(setting, *c, through_mlps=through_mlps, noising=True) for c in some}
        up = {c: _path(setting, *c, through_mlps=through_mlps, noising=False) for c in some}
        corrupt = Experiment(setting.corrupt)
        falls = {c: Racer(run, CLEAN, setting.anchor, falls=True) for c, run in down.items()}
        climbs = {c: Racer(run, corrupt, corrupt) for c, run in up.items()}
        stands = race(setting, [one for c in some for one in (falls[c], climbs[c])], MATERIAL, settling=True)
        return [
            Link(
                c[0],
                readers.get(c[2]),
                c[2],
                stands[falls[c]].effect,
                stands[climbs[c]].effect,
                -drops[edges[c]] / loss,
                rises[edges[c]] / gain,
                (down[c], up[c]),
                (stands[falls[c]].by, stands[climbs[c]].by),
            )
            for c in some
            if falls[c] in stands and climbs[c] in stands
        ]

    ranked = sorted(candidates, key=lambda c: -size[c])
    found, rest = patched(ranked[:exact]), ranked[exact:]
    sample = patched(sample_of(rest, drawn)) if rest and drawn else []
    mattering = tuple(sorted((link for link in sample if link.size >= MATERIAL), key=lambda link: -link.size))
    bound = upper_bound(len(mattering), len(sample), len(rest)) if sample else 0.0
    shape = setting.runner.loaded.shape
    every = [*found, *sample]
    ordered = tuple(sorted(every, key=lambda link: (-link.size, sort_key(link.sender), str(link.receiver))))
    return Links(
        ordered,
        tuple((format_name(link.sender), link.named(shape)) for link in ordered),
        len(candidates),
        (
            rank_agreement([link.drop_estimate for link in found], [link.drop for link in found]),
            rank_agreement([link.rise_estimate for link in found], [link.rise for link in found]),
        ),
        top_overlap([link.estimated for link in found], [link.size for link in found]),
        len(found),
        Drawn(len(sample), len(rest), mattering, bound) if sample else None,
    )


def _candidates(
    setting: ExplorationSetting, members: Mapping[Ablatable, Where], order: Sequence[Ablatable]
) -> tuple[tuple[Candidate, ...], dict[Receiver, Writer]]:
    """Every path that there may be between these members, and whose input each receiver is."""
    chosen = sorted((c for c in order if is_writer(c)), key=sort_key)
    shape = setting.runner.loaded.shape
    candidates: dict[Candidate, None] = {}
    readers: dict[Receiver, Writer] = {}
    for component in (*chosen, Logits()) if chosen else ():
        for receiver in inputs_of(component, (), shape):
            own = members[component] if not isinstance(component, Logits) else ALL
            at = own if receiver.reads_where_it_acts else ALL
            if not isinstance(component, Logits):
                readers.setdefault(receiver, component)
            senders: list[Sender] = [Input(), *chosen]
            for sender in senders:
                where = members.get(sender, ALL) if not isinstance(sender, Input) else ALL
                if precedes(sender, receiver, shape) and where.meets(at):
                    candidates[sender, where, receiver, at] = None
    return tuple(candidates), readers


def _path(
    setting: ExplorationSetting,
    sender: Sender,
    where: Where,
    receiver: Receiver,
    at: Where,
    *,
    through_mlps: bool,
    noising: bool,
) -> Experiment:
    readings = into(receiver, frozenset({Sent(sender, where)}), at, setting.runner.loaded.shape)
    named = frozenset(c for c in (sender, receiver.component) if isinstance(c, Mlp))
    rule = PathRule("base", through_mlps, named if through_mlps else frozenset())
    if noising:
        return Experiment("clean", setting.source, readings=readings, rule=rule)
    return Experiment(setting.corrupt, CLEAN_VALUES, readings=readings, rule=rule)


def link_effects(setting: ExplorationSetting, link: Link) -> tuple[float, float]:
    """A link's drop and rise by the prompts that count in a setting, which may be others than it was found on."""
    setting.run(link.runs)
    down, up = link.runs
    corrupt = float(setting.values(Experiment(setting.corrupt)).mean())
    clean = float(setting.values(CLEAN).mean())
    return 1.0 - setting.share(down), (float(setting.values(up).mean()) - corrupt) / (clean - corrupt)
