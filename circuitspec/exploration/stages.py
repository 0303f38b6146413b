"""The stages of an exploration, each as far as the allowance goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from circuitspec.exploration.forward_budget import AllowanceSpent, Unseen
from circuitspec.exploration.request import ExploreOptions
from circuitspec.exploration.search.circuit_selection import Choice, choose
from circuitspec.exploration.search.component_sweep import (
    MATERIAL,
    ComponentSweep,
    Effect,
    Estimation,
    estimates,
    exactly,
    sweep,
)
from circuitspec.exploration.search.cross_sections import Sections, cross_sections, link_graph
from circuitspec.exploration.search.effect_estimates import Spot
from circuitspec.exploration.search.estimable import inestimable
from circuitspec.exploration.search.exact_sweeps import Grid
from circuitspec.exploration.search.feature_search import FeatureSearch
from circuitspec.exploration.search.neuron_search import Refined, refine
from circuitspec.exploration.search.path_search import Links, links
from circuitspec.exploration.setting import ExplorationSetting, places_of
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.declared import declared_graph
from circuitspec.graph.edges import is_writer
from circuitspec.graph.nodes import Ablatable, NodeComponent
from circuitspec.graph.where import Where
from circuitspec.runtime.progress import Progress

HONEST, HELPFUL = "with negatives", "helpful only"

T = TypeVar("T")


@dataclass
class Stages:
    """The stages of an exploration: each as far as the allowance goes, and what was left out.

    `pathless` says why single edges of this model cannot be patched; empty where they can. `features` are those that
    are searched, where the file has dictionaries. Of what has small estimates the `sample` is patched, where the draw
    was made before.
    """

    setting: ExplorationSetting
    options: ExploreOptions
    progress: Progress
    pathless: str = ""
    features: FeatureSearch | None = None
    sample: frozenset[Spot] | None = None
    grids: list[Grid] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)

    def stage(self, what: str, work: Callable[[], T], otherwise: T) -> T:
        """What the work gives; where the allowance ends before it is done, something else, and it is noted."""
        self.progress.stage(what)
        try:
            return work()
        except AllowanceSpent as spent:
            self.unseen.append(Unseen(what, 0, 0, str(spent), spent=True))
            return otherwise

    def add(self, grid: Grid) -> None:
        self.grids.append(grid)
        self.unseen += grid.unseen

    @property
    def _how(self) -> Estimation:
        options = self.options
        return Estimation(
            options.exact, options.steps, options.drawn, self.sample, options.dropping, options.recomputing
        )

    def estimates(self) -> list[Effect]:
        """Of every component at every position; of features, of those that move there."""
        found: list[Effect] = []
        if not inestimable(self.setting.metric) and not self.options.sections_only:
            what = "estimating the effect of every component"
            found = self.stage(what, lambda: estimates(self.setting, self._how), [])
        if self.features is not None:
            moving = self.features.moves
            found = [effect for effect in found if moving(effect.component, effect.where)]
            self.features.narrow(found)
        return found

    def effects(self, estimated: Sequence[Effect]) -> ComponentSweep:
        options = self.options
        chosen = None
        if options.start == "resid":
            fine = [spot for grid in self.grids if grid.coarse_to_fine for spot in _components(grid)]
            chosen = [spot for spot in fine if _is_searched(spot)]
        self.progress.stage("patching the strongest components")
        if inestimable(self.setting.metric):
            spots = [spot for grid in self.grids for spot in _components(grid)]
            return exactly(self.setting, [spot for spot in spots if _is_searched(spot)])
        found = sweep(self.setting, estimated, self._how, chosen)
        reason = self.setting.allowance.reason
        drawn = 0 if found.drawn is None else found.drawn.count
        wanted = len(chosen) if chosen is not None else min(options.exact, len(found.effects))
        patched = len(found.exact) - drawn
        if patched < wanted and found.effects:
            self.unseen.append(Unseen("effects to be patched exactly", wanted - patched, wanted, reason, spent=True))
        rest = len(found.effects) - patched
        asked = min(options.drawn, rest)
        if drawn < asked:
            self.unseen.append(Unseen("effects to be drawn at random", asked - drawn, asked, reason, spent=True))
        return found

    def choices(self, found: ComponentSweep) -> list[tuple[str, Choice]]:
        """The circuits, each under its kind; none where the allowance ended before any."""
        target, made = self.options.target, []
        if self.options.sections_only:
            return []
        if why_not := inestimable(self.setting.metric):
            why = f"it is chosen with estimates, and this metric has none: {why_not}"
            self.unseen.append(Unseen("a circuit for this metric", 0, 0, why))
            return []
        # of what is left a third for each circuit, and the rest for what is found out about them
        for kind, negatives, kept in ((HONEST, True, 2 / 3), (HELPFUL, False, 1 / 2)):

            def work(negatives: bool = negatives) -> Choice | None:
                choice = choose(self.setting, found, target, negatives=negatives, knee=self.options.knee)
                choice.knocked_out()
                return choice

            with self.setting.allowance.holding(kept * self.setting.allowance.left):
                choice = self.stage(f"choosing a circuit ({kind})", work, None)
            if choice is not None and self._found_nothing_yet(choice):
                self.unseen.append(Unseen(f"a circuit ({kind})", 0, 0, self.setting.allowance.reason, spent=True))
            elif choice is not None:
                made.append((kind, choice))
                if choice.stopped:
                    self.unseen.append(Unseen(f"better circuits ({kind})", 0, 0, choice.stopped, spent=True))
        return made if len(made) == 2 else []

    def _found_nothing_yet(self, choice: Choice) -> bool:
        """Whether a circuit is empty for want of looking: the allowance ended, and what was ablated is needed."""
        cut = bool(choice.stopped) or any(one.spent for one in self.unseen)
        return cut and not choice.entries and choice.recovered() < self.options.target

    def refined(self, kind: str, choice: Choice) -> Refined:
        """With neurons for its MLPs, if that is asked for."""
        if not self.options.neurons:
            return Refined(choice)
        return self.stage(f"looking for neurons of the MLPs ({kind})", lambda: refine(choice), Refined(choice))

    def sections(self, found: ComponentSweep, whole: Choice, between: Links) -> list[Sections]:
        """The cross-sections of the circuit that was chosen."""
        members: dict[NodeComponent, Where] = dict(whole.kept.items())
        if not members:
            return []
        graph = link_graph(between.found, members)
        on_a_path = set(graph)
        unlinked = [node for node in members.items() if node not in on_a_path]
        return self._restored(
            "the drafted circuit",
            lambda: cross_sections(
                self.setting,
                "the drafted circuit",
                graph,
                members,
                strong=_strong(found),
                unlinked=unlinked,
                most=self.options.sections,
            ),
        )

    def declared(self, found: ComponentSweep, graph: CircuitGraph, *, all_positions: bool) -> list[Sections]:
        """The cross-sections of the circuit that the file declares."""
        what = "cross-sections of the file's circuit"
        if self.setting.inside is not None:
            self.unseen.append(Unseen(what, 0, 0, "they lie before the logits, not before this metric"))
            return []
        if not graph.paths:
            self.unseen.append(Unseen(what, 0, 0, "it declares no paths"))
            return []
        links = declared_graph(graph, all_positions=all_positions)
        whole = {c: Where.everywhere() if all_positions else where for c, where in graph.circuit.items()}
        free = graph.free
        return self._restored(
            "the file's circuit",
            lambda: cross_sections(
                self.setting,
                "the file's circuit",
                links.links,
                whole,
                strong=_strong(found),
                claimed=[c for c in self.setting.claimed if c not in free],
                unlinked=links.unlinked,
                most=self.options.sections,
            ),
        )

    def _restored(self, whose: str, work: Callable[[], Sections]) -> list[Sections]:
        if not self.options.sections:
            return []
        found = self.stage(f"restoring cross-sections of {whose}", work, None)
        if found is not None and found.left:
            reason = self.setting.allowance.reason
            of = found.left + len(found.found)
            self.unseen.append(Unseen(f"cross-sections of {whose}", found.left, of, reason, spent=True))
        return [] if found is None else [found]

    def links(self, whole: Choice, strongest: Sequence[Ablatable], *, through_mlps: bool) -> Links:
        options = self.options
        if not options.patches_paths:
            return Links()
        if self.features is not None:
            self.unseen.append(Unseen("paths between members", 0, 0, "features have no edges that could be patched"))
            return Links()
        if self.pathless:
            self.unseen.append(Unseen("paths between members", 0, 0, self.pathless))
            return Links()

        def work() -> Links:
            return links(
                self.setting,
                whole.kept,
                strongest,
                most=options.linked,
                exact=options.paths,
                drawn=options.drawn,
                steps=options.steps,
                recomputing=options.recomputing,
                through_mlps=through_mlps,
            )

        between = self.stage("patching paths between the members", work, Links())
        wanted = min(options.paths, between.candidates)
        if between.chosen < wanted:
            count = wanted - between.chosen
            reason = self.setting.allowance.reason
            self.unseen.append(Unseen("paths to be patched", count, wanted, reason, spent=True))
        if wanted < between.candidates:
            why = f"their estimates are smaller than those of the {wanted} that were patched"
            left = between.candidates - wanted - (0 if between.drawn is None else between.drawn.count)
            if left:
                self.unseen.append(Unseen("paths between members", left, between.candidates, why))
        return between


def _strong(found: ComponentSweep) -> list[tuple[NodeComponent, str]]:
    """Components and positions that do something by themselves, in either direction."""
    return [(e.component, role) for e in found.exact if e.size >= MATERIAL for role in places_of(e.where)]


def _components(grid: Grid) -> list[Spot]:
    """The heads and MLPs that were looked at, with where."""
    spots = [spot for kind in ("mlps", "heads") for spot in grid.spots(kind)]
    return [(spot.target, spot.where) for spot in spots if is_writer(spot.target)]


def _is_searched(spot: Spot) -> bool:
    """Whether a circuit can have the component there: at roles, or everywhere, but not at the rest of the prompt."""
    where = spot[1]
    return not where.inverted or where.is_everywhere
