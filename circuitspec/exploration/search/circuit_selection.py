"""From effects to a circuit: add what helps most until enough is recovered, and take out again what is not needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.experiments.experiment import Experiment
from circuitspec.exploration.forward_budget import AllowanceSpent
from circuitspec.exploration.search.component_sweep import MATERIAL, NEEDED, ComponentSweep, Effect, least_of
from circuitspec.exploration.search.effect_estimates import estimate_noising, estimate_restorations
from circuitspec.exploration.search.prompt_race import Racer, at_first_look, race
from circuitspec.exploration.setting import EVERYWHERE, ExplorationSetting, places_of, where_of
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import FEATURE, HEAD
from circuitspec.hypothesis_file.grammar.components import sort_key

Entry = tuple[Ablatable, str]
"""A component at a place: a role, or all tokens."""

ROUNDS = 12
EXHAUSTIVE, SCREENED = 500, 60  # up to so many backups are all tried; of more, so many by their estimates
FINISH = 12  # forwards that are kept back, so that the circuit at hand can be described
COUNTED = (HEAD, FEATURE)
VERIFIED = 3  # circuits that are measured on all prompts at once, of those that a first look calls close
DOUBTED = 0.02  # what an entry may cost on a first look before it is measured whether it is needed
FEW = 16  # entries that are each taken out once, to see what they are needed for


@dataclass(frozen=True)
class FrontierPoint:
    """A circuit that was tried: its size, what it recovers, and whether it lies on the Pareto frontier.

    It does where no circuit that was tried is as small and closer to the model, or as close and smaller: size in
    entries, closeness 1 - |1 - recovered|, since recovering more than the model is no closer to it.
    """

    entries: int
    heads: int
    recovered: Estimate
    pareto: bool = False

    @property
    def closeness(self) -> float:
        return closeness(self.recovered.value)


def closeness(recovered: float) -> float:
    """1 where a circuit does what the model does, less where it does less, and as much less where it does more."""
    return 1 - abs(1 - recovered)


def undominated(points: Sequence[tuple[int, float]]) -> list[bool]:
    """Of each (size, closeness), whether no other is at least as good in both and better in one."""
    return [
        not any(size <= own and close >= near and (size, close) != (own, near) for size, close in points)
        for own, near in points
    ]


@dataclass
class Choice:
    """The circuit so far: entries in the order in which they were taken in, and every circuit tried on the way."""

    setting: ExplorationSetting
    entries: dict[Entry, str] = field(default_factory=dict)  # -> positive, negative or backup
    tried: dict[Experiment, dict[Entry, str]] = field(default_factory=dict)  # -> its entries
    spared: tuple[Entry, ...] = ()  # left out, since fewer heads reach the target without, though they help alone
    unproven: tuple[Entry, ...] = ()  # left out likewise, and not seen to help: only estimated to
    stopped: str = ""  # why the search ended before it was done
    _settled: dict[Entry, str] | None = None

    @property
    def kept(self) -> Mapping[Ablatable, Where]:
        return circuit_of(self.entries)

    @property
    def heads(self) -> int:
        return heads_in(self.entries)

    def take(self, entry: Entry, kind: str) -> None:
        """Take an entry in; a component that is in at all tokens is in at no role besides."""
        component, place = entry
        if self.has(entry):
            return
        if place == EVERYWHERE:
            for role in [role for own, role in self.entries if own == component]:
                kind = self.entries.pop((component, role))
        self.entries[entry] = kind

    def has(self, entry: Entry) -> bool:
        """Whether the component is in at this place."""
        return entry in self.entries or (entry[0], EVERYWHERE) in self.entries

    def recovered(self) -> float:
        run = self.setting.sufficiency(self.kept)
        share = self.setting.share(run)
        self.tried.setdefault(run, dict(self.entries))
        self.settle()
        return share

    def look(self, entries: Mapping[Entry, str]) -> float:
        """What these entries recover, as a circuit that was tried; the circuit stays as it is."""
        run = self.setting.sufficiency(circuit_of(entries))
        share = self.setting.share(run)
        self.tried.setdefault(run, dict(entries))
        return share

    def settle(self) -> None:
        """These entries are what `go_back` goes back to."""
        self._settled = dict(self.entries)

    def go_back(self, spent: AllowanceSpent) -> None:
        """To the last circuit that was measured; where there is none, what ended the search is raised."""
        if self._settled is None:
            raise spent
        self.entries, self.stopped = self._settled, str(spent)

    @property
    def frontier(self) -> tuple[FrontierPoint, ...]:
        """Every circuit tried on the way, the smallest first; those that none beats are marked."""
        found = [FrontierPoint(len(own), heads_in(own), self.setting.recovered(run)) for run, own in self.tried.items()]
        marks = undominated([(point.entries, point.closeness) for point in found])
        marked = [replace(point, pareto=mark) for point, mark in zip(found, marks, strict=True)]
        return tuple(sorted(marked, key=lambda point: (point.entries, point.heads, point.recovered.value)))

    def estimate(self) -> Estimate:
        return self.setting.recovered(self.setting.sufficiency(self.kept))

    def knocked_out(self) -> float:
        """What the model still does with the circuit ablated."""
        return self.setting.share(self.setting.necessity(self.kept))

    def left(self) -> Estimate:
        """The same, with its interval."""
        return self.setting.recovered(self.setting.necessity(self.kept))

    def take_knee(self, needed: Collection[Entry]) -> None:
        """Back to the circuit at the knee of the frontier, of those tried that have all `needed` entries.

        The knee is where a circuit is closest to the model for its size: the point furthest above the straight line
        between the ends of the frontier (Satopaa et al. 2011). Recovering more than the model is no closer to it.
        """
        close = {
            run: closeness(self.setting.share(run)) for run, own in self.tried.items() if set(needed) <= own.keys()
        }
        if not close:
            return
        smallest = min(close, key=lambda run: (len(self.tried[run]), -close[run]))
        closest = max(close, key=lambda run: (close[run], -len(self.tried[run])))
        x, y = (len(self.tried[closest]) - len(self.tried[smallest])), close[closest] - close[smallest]

        def above(run: Experiment) -> tuple[float, int]:
            size = len(self.tried[run])
            line = y * (size - len(self.tried[smallest])) / x if x > 0 else 0.0
            return close[run] - close[smallest] - line, -size

        within = [run for run in close if len(self.tried[run]) <= len(self.tried[closest])]
        self.entries = dict(self.tried[max(within, key=above)])
        self.settle()

    def without(self, entry: Entry) -> Choice:
        return Choice(self.setting, {e: kind for e, kind in self.entries.items() if e != entry})


def circuit_of(entries: Iterable[Entry]) -> dict[Ablatable, Where]:
    """The components of these entries, each with its positions."""
    found: dict[Ablatable, Where] = {}
    for component, role in entries:
        found[component] = found.get(component, Where.at()) | where_of(role)
    return found


def heads_in(entries: Collection[Entry]) -> int:
    """How many heads there are among the entries; where features are searched, how many features."""
    return len({component for component, _ in entries if component.kind in COUNTED})


def choose(
    setting: ExplorationSetting,
    sweep: ComponentSweep,
    target: float,
    *,
    negatives: bool,
    knee: bool = False,
    start: Mapping[Entry, str] = MappingProxyType({}),
) -> Choice:
    """A circuit that recovers the target, or with `knee` the one at the knee of the frontier on the way there.

    Taken in are first the components that matter by themselves (in parallel ones too, of which each restores the
    behaviour alone), then, round by round, those whose restoration is estimated to help the circuit most. With
    `negatives` also negative ones, and backups that act when the circuit is knocked out;
    without, neither: such a circuit recovers with less, and looks better than it is. Where the allowance ends, the
    circuit is the last that was measured. Raises AllowanceSpent where none was. It begins with the entries of `start`.
    """
    choice = Choice(setting, dict(start))
    try:
        with setting.allowance.holding(FINISH):
            _search(choice, sweep, target, negatives=negatives, knee=knee)
    except AllowanceSpent as spent:
        choice.go_back(spent)
    return choice


def _search(choice: Choice, sweep: ComponentSweep, target: float, *, negatives: bool, knee: bool) -> None:
    least = least_of(choice.setting)
    alone = _narrowest([e for e in sweep.exact if e.size >= least and len(places_of(e.where)) == 1])
    taken = [e for e in alone if negatives or not e.is_negative]
    before = 0  # entries of the circuit before, which missed the target
    for number, effect in enumerate(taken, 1):
        (role,) = places_of(effect.where)
        choice.entries[effect.component, role] = "negative" if effect.is_negative else "positive"
        if not _is_step(number) and number < len(taken):
            continue
        if choice.recovered() < target:
            before = number
        else:
            smallest = _crossing(choice, before, target)
            before = len(taken)
            if not negatives:
                choice.entries = smallest
                break
    choice.recovered()
    _grow(choice, target, negatives=negatives)
    rank = {(e.component, role): e.size for e in sweep.effects for role in places_of(e.where)}
    own = {entry for entry in choice.entries if negatives and rank[entry] >= MATERIAL}
    _prune(choice, target, own, rank)
    if not negatives:
        spare_heads(choice, target)
        fewer_entries(choice, target)
    if knee:
        choice.take_knee(own)
        choice.spared = ()
    elif not negatives:
        helpful = [(effect.component, role) for effect in taken for role in places_of(effect.where)]
        out = [entry for entry in dict.fromkeys([*helpful, *choice.spared]) if not choice.has(entry)]
        seen = seen_to_help(sweep)
        choice.spared = tuple(entry for entry in out if entry in seen)
        choice.unproven = tuple(entry for entry in out if entry not in seen)
    if negatives:
        _backups(choice)


def _narrowest(effects: Sequence[Effect]) -> list[Effect]:
    """Of a component at all tokens and at a role one alone: the role where it does there what it does anywhere."""
    wide = {e.component: e for e in effects if e.where.is_everywhere}
    enough = {
        e.component
        for e in effects
        if not e.where.is_everywhere and (whole := wide.get(e.component)) is not None and _alike(e, whole)
    }
    return [e for e in effects if e.component not in wide or e.where.is_everywhere != (e.component in enough)]


def _alike(one: Effect, other: Effect) -> bool:
    return max(abs(one.drop_best - other.drop_best), abs(one.rise_best - other.rise_best)) < MATERIAL


def seen_to_help(sweep: ComponentSweep) -> frozenset[Entry]:
    """What was patched exactly, by itself, and found to work for the behaviour."""
    return frozenset(
        (e.component, role)
        for e in sweep.exact
        for role in places_of(e.where)
        if len(places_of(e.where)) == 1 and e.size >= NEEDED and not e.is_negative
    )


def _is_step(number: int) -> bool:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, ...: sizes at which a growing circuit is looked at."""
    while number > 4 and number % 2 == 0:
        number //= 2
    return number <= 4


def _crossing(choice: Choice, missing: int, target: float) -> dict[Entry, str]:
    """The smallest of the circuits that meet the target: its first entries, more than `missing`, or all of them.

    Where there are few sizes in between all are tried, the smallest first; of many those that halve what is left.
    """
    entries = list(choice.entries.items())
    low, high = missing + 1, len(entries)
    while low < high:
        size = low if high - low <= FEW // 2 else (low + high) // 2
        if choice.look(dict(entries[:size])) >= target:
            high = size
        else:
            low = size + 1
    return dict(entries[:high])


def _grow(choice: Choice, target: float, *, negatives: bool) -> None:
    """Take in what a screen of the circuit's own run calls most helpful, until the target is met."""
    for _ in range(ROUNDS):
        found = choice.recovered()
        if found >= target and not negatives:
            return
        candidates = _screened(choice)
        helpful = [entry for entry, effect in candidates if effect > 0]
        harmful = [entry for entry, effect in reversed(candidates) if effect < -NEEDED] if negatives else []
        several = max(1, len(choice.entries) // 6)
        hurting = _hurting(choice, harmful[:several])
        for entry in hurting:
            choice.take(entry, "negative")
        if hurting:
            continue
        if found >= target or not helpful:
            return
        before = len(choice.entries)
        for entry in helpful[:several]:
            choice.take(entry, "positive")
        if several > 1 and choice.recovered() >= target:
            choice.entries = _crossing(choice, before, target)


def _screened(choice: Choice) -> list[tuple[Entry, float]]:
    """Entries that are not in the circuit, by what restoring them is estimated to bring; the most first."""
    setting = choice.setting
    run = setting.apart(choice.kept)
    if run.source is None:
        return []
    screen = estimate_restorations(setting, run)
    gap = setting.gap.difference.value
    ablated = {site.component for site in run.sites}
    found = [
        ((component, role), screen[component, role] / gap)
        for component in setting.claimed
        for role in setting.places
        if component in ablated
        and component not in setting.kept_out
        and not choice.has((component, role))
        and _tells(setting, screen, component, role, gap)
    ]
    return sorted(found, key=lambda pair: (-pair[1], str(pair[0])))


def _tells(
    setting: ExplorationSetting, screen: Mapping[Entry, float], component: Ablatable, place: str, gap: float
) -> bool:
    """Whether this is the place to take a component in at: all tokens where that does more than a single role."""
    if not setting.unnamed:
        return True
    (role,) = setting.roles
    more = abs(screen[component, EVERYWHERE] / gap) > abs(screen[component, role] / gap) + NEEDED
    return more == (place == EVERYWHERE)


def _hurting(choice: Choice, entries: Sequence[Entry]) -> list[Entry]:
    """Those of which taking in one alone lowers what is recovered, by patching."""
    setting, own = choice.setting, choice.setting.sufficiency(choice.kept)
    racers = {}
    for entry in entries:
        more = Choice(setting, dict(choice.entries))
        more.take(entry, "positive")
        racers[entry] = Racer(setting.sufficiency(more.kept), own, setting.anchor)
    stands = race(setting, racers.values(), MATERIAL / 2, settling=True)
    if len(stands) < len(racers):
        raise AllowanceSpent(setting.allowance.reason)
    return [entry for entry, one in racers.items() if stands[one].effect <= -MATERIAL / 2]


def _prune(choice: Choice, target: float, own: set[Entry], rank: Mapping[Entry, float]) -> None:
    """Take out entries, the least needed first, as long as the target is met; those that matter alone (`own`) stay.

    What an entry is needed for is measured exactly where there are few; of many, those with the smallest effect by
    themselves (`rank`) are tried first, half of them at once, then fewer.
    """
    setting = choice.setting
    while True:
        loose = [e for e in choice.entries if e not in own and choice.entries[e] == "positive"]
        whole = choice.recovered()
        if len(loose) <= FEW:
            without = {e: setting.sufficiency(choice.without(e).kept) for e in loose}
            first = at_first_look(setting, without.values())
            cheap = [e for e in loose if whole - first[without[e]] <= DOUBTED]
            setting.run(without[e] for e in cheap)
            cost = {e: whole - setting.share(without[e]) if e in cheap else MATERIAL for e in loose}
            order = sorted((e for e in loose if cost[e] <= NEEDED), key=lambda e: (cost[e], str(e)))
        else:
            order = sorted(loose, key=lambda e: (rank.get(e, 0.0), str(e)))
        count = len(order) // 2 if len(order) > 1 else len(order)
        while count:
            smaller = Choice(setting, {e: kind for e, kind in choice.entries.items() if e not in order[:count]})
            if setting.share(setting.sufficiency(smaller.kept)) >= (target if whole >= target else whole - NEEDED):
                break
            count //= 2
        if not count:
            return
        choice.entries = smaller.entries
        choice.recovered()


def spare_heads(choice: Choice, target: float) -> None:
    """Take out whole heads as long as the target is met, each the one that leaves the circuit closest to the model.

    Entry by entry those are kept that do a little each and others would compensate. Of many heads none is tried.
    """
    setting = choice.setting
    while 1 < choice.heads <= FEW:
        smaller = [
            Choice(setting, {e: kind for e, kind in choice.entries.items() if e[0] != head})
            for head in sorted({c for c, _ in choice.entries if c.kind is HEAD}, key=sort_key)
        ]
        best = _closest(setting, [one.entries for one in smaller], target)
        if best is None:
            return
        less = smaller[best].entries
        choice.spared += tuple(entry for entry in choice.entries if entry not in less)
        choice.entries = less
        choice.recovered()


def _closest(
    setting: ExplorationSetting,
    circuits: Sequence[Mapping[Entry, str]],
    target: float,
    look: Callable[[Mapping[Entry, str]], float] | None = None,
) -> int | None:
    """Of circuits that meet the target the one that is closest to the model, by its number; None where none does.

    Where prompts are raced, they are ordered by their first look and measured on all prompts a few at a time, until
    some meet the target, or none can by that look. `look` is told of the one in the end, or of the closest that missed.
    """
    if not circuits:
        return None
    runs = [setting.sufficiency(circuit_of(one)) for one in circuits]
    first = at_first_look(setting, runs)
    order = sorted(range(len(runs)), key=lambda i: (first[runs[i]] < target, -closeness(first[runs[i]]), i))
    tried: list[int] = []
    together = VERIFIED if setting.lots else len(order)
    while order and (not tried or first[runs[order[0]]] >= target - MATERIAL):
        some, order = order[:together], order[together:]
        setting.run(runs[i] for i in some)
        tried += some
        if any(setting.share(runs[i]) >= target for i in some):
            break
    enough = [i for i in tried if setting.share(runs[i]) >= target]
    best = max(enough or tried, key=lambda i: (closeness(setting.share(runs[i])), -i))
    if look is not None:
        look(circuits[best])
    return best if enough else None


def fewer_entries(choice: Choice, target: float) -> None:
    """Take out entries as long as the target is met, each the one that leaves the circuit closest to the model.

    What is tried last misses the target, so that the frontier has the sizes on both sides of it. Of many entries none
    is tried.
    """
    setting = choice.setting
    while 1 < len(choice.entries) <= FEW:
        smaller = [choice.without(entry) for entry in choice.entries]
        best = _closest(setting, [one.entries for one in smaller], target, look=choice.look)
        if best is None:
            return
        choice.spared += tuple(entry for entry in choice.entries if entry not in smaller[best].entries)
        choice.entries = smaller[best].entries
        choice.settle()


def _backups(choice: Choice) -> None:
    """Take in components that matter once the circuit is knocked out: backups, which hide behind it."""
    setting = choice.setting
    for _ in range(2 if choice.entries else 0):
        left = choice.knocked_out()
        if left <= MATERIAL:
            return
        out = setting.necessity(choice.kept)
        racers = {entry: Racer(_also_out(choice, entry), out, setting.anchor, falls=True) for entry in _outside(choice)}
        stands = race(setting, racers.values(), MATERIAL, settling=True)
        if len(stands) < len(racers):
            raise AllowanceSpent(setting.allowance.reason)
        found = [(entry, stands[one].effect) for entry, one in racers.items() if stands[one].effect >= MATERIAL]
        if not found:
            return
        for entry, _ in sorted(found, key=lambda pair: (-pair[1], str(pair[0])))[:5]:
            choice.take(entry, "backup")
        choice.settle()


def _also_out(choice: Choice, entry: Entry) -> Experiment:
    """The run with the circuit ablated and one entry more."""
    more = dict(choice.kept)
    component, role = entry
    more[component] = more.get(component, Where.at()) | where_of(role)
    return choice.setting.necessity(more)


def _outside(choice: Choice) -> list[Entry]:
    """The entries outside the circuit; of very many those that are estimated to change most beside the ablated one."""
    setting = choice.setting
    every = [(c, role) for c in setting.claimed for role in setting.places if not choice.has((c, role))]
    if len(every) <= EXHAUSTIVE:
        return every
    out, whole = setting.necessity(choice.kept), setting.necessity(dict.fromkeys(setting.claimed, Where.everywhere()))
    screen = estimate_noising(setting, out, whole)
    return sorted(every, key=lambda entry: (-abs(screen[entry]), str(entry)))[:SCREENED]
