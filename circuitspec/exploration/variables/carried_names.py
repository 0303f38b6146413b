"""How little each value on the declared paths may carry: from everything on, less as long as enough is recovered."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.experiments.follow_ups.scrub_parts import carrying
from circuitspec.experiments.levels.scrub_tree import ScrubTree
from circuitspec.hypothesis_file.schema.carries_block import EVERYTHING, NOTHING
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml


@dataclass(frozen=True)
class Scrubbing:
    """What is recovered with a tree scrubbed, and how far prompts move: mean KL divergence from the clean output, and
    that of random prompts, in nats."""

    recovered: Estimate
    kl: float
    random_kl: float


@dataclass(frozen=True)
class CarriesEntry:
    """What an entry must carry (None: everything), what all that was found so far recovers, and how many were tried.

    `why` says why it was not looked at to the end.
    """

    key: str
    carried: tuple[str, ...] | None
    scrubbing: Scrubbing
    tried: int
    why: str = ""

    @property
    def said(self) -> str:
        """`S1, S2`, `everything`, `nothing`."""
        return EVERYTHING if self.carried is None else ", ".join(self.carried) or NOTHING


@dataclass(frozen=True)
class CarriesFindings:
    """A drafted `carries`, with what each step recovered."""

    name: str
    model: str
    metric: str
    share: float  # of what everything recovers, that is to be recovered
    n: int
    by: tuple[str, ...]
    seed: int
    through: tuple[str, ...] | None
    whole: Scrubbing
    entries: tuple[CarriesEntry, ...]
    forwards: float
    seconds: float

    @property
    def target(self) -> float:
        """What is to be recovered."""
        return self.share * self.whole.recovered.value

    @property
    def most_kl(self) -> float:
        """The KL divergence up to which a step is kept, in nats."""
        return most_kl(self.whole, self.share)

    @property
    def draft(self) -> str:
        """The entry `circuit: carries` and the claim, as they stand in a file."""
        last = self.entries[-1].scrubbing.recovered if self.entries else self.whole.recovered
        low = last.value if last.interval is None else last.interval[0]
        claim: dict[str, object] = {"metric": self.metric, "at_least": round(min(self.target, low) - 0.005, 2)}
        if self.by:
            claim["from"] = self.by[0] if len(self.by) == 1 else list(self.by)
        if self.through is not None:
            claim["through"] = list(self.through)
        carries = {one.key: EVERYTHING if one.carried is None else list(one.carried) or NOTHING for one in self.entries}
        entries = textwrap.indent(write_yaml({"carries": carries}), "  ")
        return f"circuit:\n{entries}\n{write_yaml({'claims': [{'scrubbed': claim}]})}"


Tries = Callable[[ScrubTree], Scrubbing]
"""Scrubs a tree, and says what is recovered."""


def most_kl(whole: Scrubbing, share: float) -> float:
    """The rest of `share` of the way from what everything leaves to random prompts, in nats."""
    return whole.kl + (1 - share) * max(0.0, whole.random_kl - whole.kl)


def least_carried(
    tree: ScrubTree,
    names: Sequence[str],
    made_of: Mapping[str, frozenset[str]],
    tries: Tries,
    writable: Callable[[ScrubTree], bool],
    share: float,
    enough: Callable[[], bool],
    told: Callable[[str], None],
) -> tuple[Scrubbing, tuple[CarriesEntry, ...]]:
    """Of each entry of a tree whose values carry everything, as few names as are enough, from the logits on.

    First nothing is tried, then all `names` but one after another, and then in place of the names that a variable is
    made of (or of others made of these) the variable. What is tried is kept if the mean recovers `share` of what
    everything does, and prompts move by no more than the rest of it. What a file could not say (`writable`) is not
    tried, and nothing more once there was `enough`. `told` hears what is looked at. `made_of` are the slots that slots
    and variables come down to.
    """
    everything, variables = tree, [name for name in made_of if name not in names]
    whole = last = tries(tree)
    limit = most_kl(whole, share)
    found = []

    def kept(one: Scrubbing) -> bool:
        return one.recovered.value >= share * whole.recovered.value and one.kl <= limit

    for key in dict.fromkeys(node.key for node in tree.nodes):
        told(key)
        carried: tuple[str, ...] | None = None
        tried, why = 0, ""

        def less(carries: tuple[str, ...], key: str = key) -> bool:
            nonlocal tree, last, carried, tried, why
            changed = carrying(tree, key, carries)
            if not writable(changed):
                return False
            if why or enough():
                why = "the allowance of forwards ended"
                return False
            tried += 1
            scrubbing = tries(changed)
            if kept(scrubbing):
                tree, last, carried = changed, scrubbing, carries
                return True
            return False

        own_names = tuple(name for name in names if writable(carrying(everything, key, (name,))))
        if not less(()) and less(own_names):
            for name in own_names:
                less(tuple(one for one in carried or () if one != name))
            for variable in variables:
                own = made_of[variable]
                within = [name for name in carried or () if made_of.get(name, frozenset({name})) <= own]
                if within and own <= frozenset[str]().union(*(made_of[name] for name in within)):
                    less((*(name for name in carried or () if name not in within), variable))
        found.append(CarriesEntry(key, carried, last, tried, why))
    return whole, tuple(found)
