"""Where a sweep found a variable, the subspaces that carry it: learned there as `align` does, beside whole vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.engine.attribution.subspace_training import PairHits
from circuitspec.experiments.experiment import Site
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.experiments.subspaces.subspace_files import check_vectors
from circuitspec.exploration.variables.place_trials import AlignedPlace
from circuitspec.exploration.variables.variable_findings import LearnedThere, VariableFindings
from circuitspec.graph.nodes import is_node, nodes_of
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.load_file import Study
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.abstraction.subspace_search import AlignedVariable, AlignOptions, Places, learn_subspaces
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from circuitspec.graph.shape import ModelShape


def with_subspaces(
    found: VariableFindings,
    rank: int,
    most: int,
    study: Study,
    options: AlignOptions,
    progress: Progress,
    loaded: LoadedModel,
) -> VariableFindings:
    """The findings with a subspace of this rank learned at each of the first places that they propose, at most `most`.

    Each place has a search of its own, whose basis is tested on words that it was not learned on; the places
    themselves were chosen on all. Raises CircuitspecError as `align` does.
    """
    places = found.drafted[:most]
    if not places:
        return found

    def wanted(shape: ModelShape) -> list[tuple[str, Places]]:
        return [(found.variable, ((_site(one.place, shape, study), (rank,)),)) for one in places]

    learned = learn_subspaces(study, study.exploration, (found.variable,), wanted, options, progress, loaded=loaded)
    there = [_there(one.place, own) for one, own in zip(places, learned.found, strict=True)]
    return replace(found, learned=tuple(there), split=learned.splits.told)


def _site(place: AlignedPlace, shape: ModelShape, study: Study) -> Site:
    """What is patched at a place. Raises CS185 where it is several components, or one without a vector."""
    nodes = [one for one in nodes_of(place.component, shape) if is_node(one)]
    check_vectors(place.name, nodes, study.source)
    (node,) = nodes
    return Site(node, Where.at(place.position))


def _there(place: AlignedPlace, one: AlignedVariable) -> LearnedThere:
    whole = next(control.hits for control in one.controls if control.name == WHOLE)
    kept = int(one.test.kept.sum())
    return LearnedThere(place, one.rank, *_shares(one.test), *_shares(whole), kept, len(one.test.kept))


def _shares(hits: PairHits) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """IIA on pairs that must change, that over the whole vocabulary, and the share of those that must stay."""
    changed, stays = hits.kept & hits.changed, hits.kept & ~hits.changed
    return share_of(hits.hit[changed]), share_of(hits.top[changed]), share_of(hits.hit[stays])
