"""How often racing over prompts is wrong: what it drops that matters, and what it keeps that does not.

    python benchmarks/racing.py [--seeds 5] [--components 1000] [--prompts 60]

The race itself (`exploration.search.prompt_race`), on runs that are drawn and not computed: components whose true
effect is known, with several distributions of effects over prompts, drawn anew for every component. `dropped`: of those
whose effect is the least that counts or a little more, how many are dropped before all prompts are in; and how many of
them though all prompts would have said that they matter. `kept early`: of those whose effect is a little less, how many
are settled as mattering before all are in (where the race settles that too; elsewhere none is); and how many of them
though all prompts would have said less. How often all prompts are wrong themselves, which no race can mend, stands
beside. The bounds are 5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics.looks import looks_of
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Source, passes
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.exploration.forward_budget import Allowance
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.search.prompt_race import Racer, Standing, race
from circuitspec.exploration.setting import CLEAN, ExplorationSetting
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head

CORRUPT = Experiment("abc")
TEMPLATES = 4
SPREAD = 2.0  # of effects over prompts, as a multiple of the least effect that counts
Numbers = NDArray[np.float64]
Draws = Callable[[np.random.Generator, tuple[int, int], Numbers], Numbers]
"""Effects `[component, prompt]` whose mean over prompts is truly 1, by the templates `[prompt]`."""


def _normal(rng: np.random.Generator, size: tuple[int, int], templates: Numbers) -> Numbers:
    return 1 + SPREAD * rng.standard_normal(size)


def _tails(rng: np.random.Generator, size: tuple[int, int], templates: Numbers) -> Numbers:
    return 1 + SPREAD * rng.standard_t(4, size) / np.sqrt(2)


def _skewed(rng: np.random.Generator, size: tuple[int, int], templates: Numbers) -> Numbers:
    """Lognormal: half of the prompts show less than six tenths of the mean."""
    return rng.lognormal(-0.5, 1.0, size)


def _one_template(rng: np.random.Generator, size: tuple[int, int], templates: Numbers) -> Numbers:
    return TEMPLATES * (templates == 0) * (1 + 0.3 * rng.standard_normal(size))


def _some_prompts(share: float) -> Draws:
    def draw(rng: np.random.Generator, size: tuple[int, int], templates: Numbers) -> Numbers:
        return (rng.random(size) < share) / share + 0.3 * rng.standard_normal(size)

    return draw


KINDS: dict[str, Draws] = {
    "normal": _normal,
    "heavy tails (t, 4 degrees)": _tails,
    "skewed (lognormal)": _skewed,
    "on one template of four": _one_template,
    "on a third of the prompts": _some_prompts(1 / 3),
    "on a tenth of the prompts": _some_prompts(0.1),
}


class Drawn:
    """Runs that are looked up, `[prompt]` by experiment."""

    def __init__(self, values: dict[Experiment, Numbers], templates: NDArray[np.int64]) -> None:
        self.values, self.templates, self.taken = values, templates, 0.0

    def run(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> Records:
        prompts = list(range(len(self.templates)) if among is None else among)
        wanted = tuple(experiments)
        self.taken += passes(wanted) * len(prompts) / len(self.templates)
        return Records({e: {"logit_diff": self.values[e][prompts]} for e in wanted}, self.templates[prompts])


@dataclass(frozen=True)
class Outcome:
    """How components of one true effect stand, and what all their prompts say."""

    stands: list[Standing]
    on_all: Numbers  # `[component]`
    forwards: float  # a component

    @property
    def dropped(self) -> NDArray[np.bool_]:
        return np.array([one.dropped for one in self.stands])

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Settled as large before all prompts are in."""
        return np.array([one.by is not None and not one.dropped for one in self.stands])


def raced(
    effect: float, draws: Draws, components: int, prompts: int, seed: int, *, settling: bool, doubted: bool
) -> Outcome:
    """A race of components that all have this effect, each with a clean and a corrupt score of its own prompts."""
    rng = np.random.default_rng(seed)
    templates = np.arange(prompts) % TEMPLATES
    clean = 4.0 + rng.standard_normal(prompts)
    effects = effect * draws(rng, (components, prompts), templates.astype(np.float64))
    runs = [ablating(Source("resample", "abc"), {Head(i, 0): Where.at("END")}) for i in range(components)]
    values = {CLEAN: clean, CORRUPT: np.zeros(prompts)} | dict(zip(runs, clean - 4.0 * effects, strict=True))
    drawn = Drawn(values, templates)
    runner = cast(Any, type("Prompts", (), {"task": type("Task", (), {"n": prompts}), "templates": templates}))
    setting = ExplorationSetting(
        runner,
        cast(StoredRunner, drawn),
        "logit_diff",
        (),
        ("END",),
        Source("resample", "abc"),
        "abc",
        Allowance(None, lambda: drawn.taken),
        lots=looks_of(templates),
    )
    racers = [Racer(run, CLEAN, CORRUPT, falls=True, doubted=doubted) for run in runs]
    found = race(setting, racers, MATERIAL, settling=settling)
    on_all = 4.0 * effects.mean(1) / clean.mean()
    return Outcome([found[one] for one in racers], on_all, drawn.taken / components)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--components", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=60)
    asked = parser.parse_args()
    print("| effects over prompts | true effect | dropped | over seeds | .. all say more | all say less | forwards |")
    print("|---|---|---|---|---|---|---|")
    for name, draws in KINDS.items():
        for effect in (1.0, 1.5, 2.0):
            _row(name, effect, draws, asked, above=True)
    for effect in (1.0, 1.5, 2.0):
        rare = "on a tenth of the prompts"
        _row(f"{rare}, where estimates show them", effect, KINDS[rare], asked, above=True, doubted=True)
    print(
        "\n| effects over prompts | true effect | kept early | over seeds | .. all say less | all say more | forwards |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, draws in KINDS.items():
        for effect in (0.98, 0.5, 0.0):
            _row(name, effect, draws, asked, above=False)


def _row(
    name: str, effect: float, draws: Draws, asked: argparse.Namespace, *, above: bool, doubted: bool = False
) -> None:
    spread: Draws = draws if effect else lambda rng, size, templates: draws(rng, size, templates) - 1
    outcomes = [
        raced(
            MATERIAL * (effect or 1.0),
            spread,
            asked.components,
            asked.prompts,
            seed,
            settling=not above,
            doubted=doubted,
        )
        for seed in range(asked.seeds)
    ]
    early = [one.dropped if above else one.kept for one in outcomes]
    matter = [np.abs(one.on_all) >= MATERIAL for one in outcomes]
    rates = [float(own.mean()) for own in early]
    against = np.mean([(own & (by_all == above)).mean() for own, by_all in zip(early, matter, strict=True)])
    whole = np.mean([(by_all != above).mean() for by_all in matter])
    cost = np.mean([one.forwards for one in outcomes])
    print(
        f"| {name} | {MATERIAL * effect:.3f} | {np.mean(rates):.1%} | {min(rates):.1%} .. {max(rates):.1%} "
        f"| {against:.1%} | {whole:.1%} | {cost:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
