"""How often a search repeated on halves of its prompts chooses what does the task, and what does nothing; and its cost.

    python benchmarks/stability.py [--seeds 200] [--searches 50] [--prompts 60] [--first 0]
    python benchmarks/stability.py --cost [--searches 50]

Without a model: heads only add up, each with an effect of its own on every prompt, and what is free makes up the rest.
Three do a third of the task each; the others do nothing in the mean, and their effects on prompts are drawn for each
seed, with a standard deviation by which a half's mean passes what a search takes for an effect at a known rate: the
normal distribution's tails (the nominal rate). A half of independent prompts is a sample of its own, so that the
frequency over halves is that rate in the mean over seeds; within a seed it hangs on that seed's prompts, which halves
share.

With --cost forwards and time of an exploration of `zoo:ioi-tiny`, and of what `--stability` adds, in one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from circuitspec.engine.cache.stored_estimates import Recalled
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Source
from circuitspec.exploration.forward_budget import Allowance
from circuitspec.exploration.request import ExploreOptions
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.setting import ExplorationSetting
from circuitspec.exploration.stability.repeated_search import Repetition, repeated
from circuitspec.exploration.stability.selection_frequencies import CORE, NOISE, entries_chosen
from circuitspec.exploration.stability.subsamples import random_halves
from circuitspec.exploration.stages import HONEST
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.grammar.names import format_name

CORE_HEADS, IDLE = 3, 20
TARGET = 0.5  # so low that nothing is taken in to make up for heads that hurt
SPREAD = 0.12  # standard deviation of an effect over prompts, as a share of the task
ROOT = Path(__file__).parents[1]


@dataclass
class Planted(Recalled):
    """Heads that add up: `effects[head]` is what each does on every prompt, `[prompt]`.

    The clean run scores 1 and the corrupt one 0; the rest of the difference is what is free, and never ablated.
    It stands for the model (`run`) and for estimates, which are exact where effects add up (`get`).
    """

    effects: Mapping[Head, NDArray[np.float64]]

    @property
    def n(self) -> int:
        return len(next(iter(self.effects.values())))

    def run(self, experiments: Iterable[Experiment]) -> Records:
        return Records({run: {"logit_diff": self._value(run)} for run in experiments}, np.zeros(self.n, np.int64))

    def most_passes(self, experiments: Sequence[Experiment]) -> float:
        return len(experiments)

    def _value(self, run: Experiment) -> NDArray[np.float64]:
        """Clean without what is ablated at END, or corrupt with what is restored there."""
        at = {site.component for site in run.sites if "END" in site.where.roles or site.where.inverted}
        kept = {site.component for site in run.sites if site.where.inverted and "END" in site.where.roles}
        patched = at - kept | {site.component for site in run.sites if site.where.is_everywhere}
        own = [effect for head, effect in self.effects.items() if head in patched]
        total: NDArray[np.float64] = np.sum([np.zeros(self.n), *own], axis=0)
        return 1 - total if run.base == "clean" else total

    def get(self, question: Sequence[object], compute: Callable[..., Any]) -> Mapping[str, NDArray[np.float64]]:
        of = {format_name(head): effect for head, effect in self.effects.items()}
        _, what, *asked, names = question
        falls = what == "noising" or (what == "nodes" and asked[1] != CLEAN_VALUES)
        sign = -1.0 if falls else 1.0
        return {"effects": np.concatenate([sign * of[name] for name, _ in names])}  # type: ignore[attr-defined]


def planted(seed: int, n: int) -> Planted:
    """Three heads that do a third each, and twenty that do nothing in the mean."""
    dice = np.random.default_rng(seed)
    mean = [1 / CORE_HEADS] * CORE_HEADS + [0.0] * IDLE
    return Planted({Head(i // 8, i % 8): dice.normal(one, SPREAD, n) for i, one in enumerate(mean)})


def setting_of(toy: Planted) -> ExplorationSetting:
    """All heads at END, ablated with the values of a run in which nothing is done."""
    task = SimpleNamespace(n=toy.n)
    runner: Any = SimpleNamespace(task=task, templates=np.zeros(toy.n, np.int64), forwards=0.0)
    stored: Any = toy
    given = runner, stored, "logit_diff", tuple(toy.effects), ("END",), Source("resample", "abc"), "abc"
    return ExplorationSetting(*given, Allowance(None, lambda: 0.0), toy, by_prompt=True)


def nominal(n: int) -> float:
    """How often the mean over half of the prompts passes for an effect: 0.05 up, or half of that down.

    What helps by 0.05 is taken in at once, and what hurts by half as much when circuits are grown.
    """
    error = SPREAD / np.sqrt(n // 2)
    return float(stats.norm.sf(MATERIAL / error) + stats.norm.cdf(-MATERIAL / 2 / error))


def frequencies(seed: int, n: int, searches: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often heads that do the task were chosen, and those that do nothing: `[head]` each."""
    toy = planted(seed, n)
    setting = setting_of(toy)
    halves = random_halves(setting.runner.templates, searches)
    asked = Repetition(ExploreOptions(drawn=0, target=TARGET), (), frozenset(), (HONEST,))
    found = entries_chosen(repeated(setting, halves, asked), {})
    shares = [found[head, "END"].frequency.value if (head, "END") in found else 0.0 for head in toy.effects]
    return np.array(shares[:CORE_HEADS]), np.array(shares[CORE_HEADS:])


def simulate(seeds: Sequence[int], n: int, searches: int) -> None:
    core, idle = zip(*(frequencies(seed, n, searches) for seed in seeds), strict=True)
    means = np.array([one.mean() for one in idle])
    print(
        f"{len(seeds)} seeds, {n} prompts, {searches} halves; {CORE_HEADS} heads that do the task, {IDLE} that do not"
    )
    print("| | chosen by | over seeds |\n|---|---|---|")
    every = np.concatenate(core)
    print(f"| does the task | {every.mean():.3f} (nominal 1) | {every.min():.2f} to {every.max():.2f} |")
    error = means.std(ddof=1) / np.sqrt(len(means))
    print(
        f"| does nothing | {means.mean():.3f} ± {error:.3f} (nominal {nominal(n):.3f}) | "
        f"{means.min():.2f} to {means.max():.2f}, standard deviation {means.std(ddof=1):.3f} |"
    )
    single = np.concatenate(idle)
    print(f"| does nothing, called core ({CORE:g} or more) | {(single >= CORE).mean():.3f} of such heads | |")
    print(f"| does nothing, called noise (less than {NOISE:g}) | {(single < NOISE).mean():.3f} of such heads | |")


def cost(searches: int) -> None:
    from circuitspec.hypothesis_file.load_file import load_exploration
    from circuitspec.pipelines.explore import explore
    from circuitspec.runtime.progress import Silent

    study = load_exploration(ROOT / "hypotheses" / "ioi-tiny.circuit.yaml")
    print("| | forwards | seconds |\n|---|---|---|")
    base: tuple[float, float] | None = None
    for count in (0, searches):
        started = time.monotonic()
        found = explore(study, ExploreOptions(free=("m*",), stability=count), Silent(), "benchmark")
        own = found.forwards, time.monotonic() - started
        base = base or own
        ratio = f" ({own[0] / base[0]:.2f} and {own[1] / base[1]:.2f} times)" if count else ""
        print(f"| explore{f' --stability {count}' if count else ''}{ratio} | {own[0]:.0f} | {own[1]:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    if given.cost:
        cost(given.searches)
    else:
        simulate(range(given.first, given.first + given.seeds), given.prompts, given.searches)
