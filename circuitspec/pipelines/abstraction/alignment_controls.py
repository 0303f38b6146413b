"""What a learned subspace is compared with: whole vectors, other subspaces of its rank, other labels, other weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuitspec.engine.attribution.subspace_training import (
    LearnedBasis,
    PairHits,
    SitePairs,
    TrainingSettings,
    learn_basis,
)
from circuitspec.experiments.levels.interchange_level import WHOLE
from circuitspec.experiments.subspaces.natural_states import NaturalStates, PatchedStates, patched_states
from circuitspec.experiments.subspaces.subspace import random_basis, random_name
from circuitspec.experiments.subspaces.subspace_parts import (
    MEANS,
    PCA,
    SubspaceParts,
    mean_directions,
    means_basis,
    pca_basis,
    split,
)
from circuitspec.hypothesis_file.grammar.variable_expressions import Scalar
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.prompt_set import CLEAN

if TYPE_CHECKING:
    from torch import Tensor

RANDOM = 5  # subspaces that are drawn

Kept: TypeAlias = Callable[[Sequence[object], Callable[[], LearnedBasis | None]], LearnedBasis | None]
"""Gives the basis of a question: what was learned for it before, or else what is learned when it calls."""

PERMUTED, UNTRAINED = "permuted labels", "untrained model"


@dataclass(frozen=True)
class Control:
    """One comparison on the test pairs. `rank` is None for the whole vector; `note` says what is to be known of it."""

    name: str
    rank: int | None
    hits: PairHits
    note: str = ""


def plain_controls(
    training: SitePairs, test: SitePairs, pairs: PairSet, variable: str, rank: int, seed: int
) -> list[Control]:
    """Those that take no learning: nothing is chosen by what they score."""
    found = [Control(WHOLE, None, test.hits(None))]
    for number in range(RANDOM):
        basis = random_basis(training.width, rank, seed + number)
        found.append(Control(random_name(number), rank, test.hits(_tensor(basis, test))))
    base, source, told = _values(training, pairs, variable)
    both = np.concatenate([base, source])
    means = means_basis(both, told, rank)
    if means is not None:
        found.append(Control(MEANS, means.shape[1], test.hits(_tensor(means, test))))
    principal = pca_basis(both, rank)
    if principal is not None:
        found.append(Control(PCA, principal.shape[1], test.hits(_tensor(principal, test))))
    return found


@dataclass(frozen=True)
class HeldOutRows:
    """What is known of the test's rows (a pair in one family each) beside what they score.

    `families` names each row's. `states` are the distances of its patched states from natural ones, None where no
    other pair is there to compare with; `parts` are those of the subspace. `shared` names the lists that the variable
    is read from and whose words training and test have in common.
    """

    families: tuple[str, ...] = ()
    states: PatchedStates | None = None
    parts: SubspaceParts | None = None
    shared: tuple[str, ...] = ()


def parts_of(
    training: SitePairs, test: SitePairs, pairs: PairSet, variable: str, basis: NDArray[np.float64]
) -> tuple[SubspaceParts | None, list[Control]]:
    """The parts of a learned basis along and across the training pairs' mean differences, and the test along each.

    None where the variable is the same in all pairs. A subspace that has one part only is that part.
    """
    base, source, told = _values(training, pairs, variable)
    means = mean_directions(np.concatenate([base, source]), told)
    if means is None:
        return None, []
    parts = split(basis, means)
    return parts, [Control(name, own.shape[1], test.hits(_tensor(own, test))) for name, own in parts.bases.items()]


def held_out_rows(
    test: SitePairs, pairs: PairSet, basis: NDArray[np.float64], parts: SubspaceParts | None
) -> HeldOutRows:
    """The families of the test's rows, and how far from natural states those lie that are patched along a basis."""
    families, numbers, bases, sources = list[str](), list[int](), [], []
    by_family: dict[str, dict[int, NDArray[np.float64]]] = {}
    of_base: dict[int, NDArray[np.float64]] = {}
    for batch, family, base, source in test.values():
        families += [family] * len(batch.prompts)
        numbers += batch.prompts
        bases.append(base)
        sources.append(source)
        of_base |= dict(zip(batch.prompts, base, strict=True))
        by_family.setdefault(family, {}).update(zip(batch.prompts, source, strict=True))
    every = range(len(pairs))
    natural = NaturalStates.of(
        np.stack([of_base[i] for i in every]),
        [np.stack([own[i] for i in every]) for own in by_family.values()],
        [prompt.texts[CLEAN] for prompt in pairs.bases],
        [[source.text for source in pairs.families[name]] for name in by_family],
    )
    within = basis if parts is None else parts.both
    states = patched_states(natural, np.concatenate(bases), np.concatenate(sources), numbers, basis, within)
    return HeldOutRows(tuple(families), states, parts)


def permuted_control(
    training: SitePairs,
    validation: SitePairs,
    test: SitePairs,
    rank: int,
    seed: int,
    settings: TrainingSettings,
    kept: Kept,
) -> Control | None:
    """Learned, and its step chosen, on answers dealt out anew among pairs; scored on the right ones."""

    def learned() -> LearnedBasis | None:
        return learn_basis(training.permuted(seed), validation.permuted(seed + 1), rank, seed, settings)

    found = kept((PERMUTED, rank, seed), learned)
    return None if found is None else Control(PERMUTED, rank, test.hits(_tensor(found.basis, test)))


def untrained_control(
    of: Callable[[str], SitePairs], rank: int, seed: int, settings: TrainingSettings, kept: Kept
) -> Control | None:
    """Learned on a model of the same config with random weights; `of` gives each split's pairs, all of them kept."""

    def learned() -> LearnedBasis | None:
        return learn_basis(of("training"), of("validation"), rank, seed, settings)

    found = kept((UNTRAINED, rank, seed), learned)
    if found is None:
        return None
    test = of("test")
    return Control(UNTRAINED, rank, test.hits(_tensor(found.basis, test)), "on all pairs, whatever it answers itself")


def untrained(loaded: LoadedModel, seed: int) -> LoadedModel:
    """The same model with the weights that its config begins with. Random number generators are left as they were."""
    import torch

    weight = next(loaded.model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = type(loaded.model)(copy.deepcopy(loaded.model.config))
    return replace(loaded, model=model.to(device=weight.device, dtype=weight.dtype).eval())


def _values(
    training: SitePairs, pairs: PairSet, variable: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Scalar]]:
    """The site's values in bases and in sources, `[pair, width]`, and what the variable is there, bases first."""
    bases, sources, of_base, of_source = [], [], list[Scalar](), list[Scalar]()
    for batch, family, base, source in training.values():
        bases.append(base)
        sources.append(source)
        of_base += [pairs.model.run(pairs.slots(p))[variable] for p in batch.prompts]
        of_source += [pairs.model.run(pairs.families[family][p].slots)[variable] for p in batch.prompts]
    return np.concatenate(bases), np.concatenate(sources), of_base + of_source


def _tensor(basis: NDArray[np.float64], pairs: SitePairs) -> Tensor:
    import torch

    like = pairs.batches[0].stream
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.tensor(basis, dtype=dtype, device=like.device)


def hits_of(learned: LearnedBasis, pairs: SitePairs) -> PairHits:
    """What a learned basis scores on other pairs."""
    return pairs.hits(_tensor(learned.basis, pairs))
