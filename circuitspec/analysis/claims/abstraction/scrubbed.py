"""Claims that what the circuit's parts carry is all that the task needs of them: causal scrubbing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from circuitspec.analysis.claims.claim_kind import Choices, ClaimKind
from circuitspec.analysis.claims.claim_result import ClaimResult, Judgement
from circuitspec.analysis.statistics.wording import MISSING, number, plural
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.experiments.experiment import Experiment, Noised
from circuitspec.experiments.levels.scrub_level import ScrubDraw, scrub_draw
from circuitspec.experiments.levels.scrub_tree import ScrubTree, lacking, scrub_tree
from circuitspec.experiments.planner import CLEAN, PlannedClaim, Planning
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.fields import parse_slot_rule
from circuitspec.hypothesis_file.grammar.variable_expressions import parse_expression, references
from circuitspec.hypothesis_file.schema.abstraction.scrubbed_block import Scrubbed
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.templates.slots import root_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap

KL, ACCURACY = "kl", "accuracy"


@dataclass(frozen=True)
class PlannedScrub(PlannedClaim):
    """The draws of a claim, each with a run and one on random prompts; `patched` and `corrupt` are their means."""

    tree: ScrubTree = field(kw_only=True)
    draws: tuple[ScrubDraw, ...] = field(kw_only=True)

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        return tuple(run for one in self.draws for run in (one.scrubbed, one.nothing_kept))

    @property
    def drawn_prompts(self) -> tuple[DrawnPrompts, ...]:
        return tuple(dict.fromkeys(prompts for one in self.draws for prompts in one.prompts))


@dataclass(frozen=True)
class ScrubFigures:
    """What the draws come to, by reference prompt: scores of the clean run `[prompt]`, of the scrubbed runs and of
    those on random prompts `[draw, prompt]`; nats from the clean run's output to theirs; and whether the answer among
    the task's candidates is another than in the clean run (None where the task has no wrong answers)."""

    clean: NDArray[np.float64]
    scrubbed: NDArray[np.float64]
    random: NDArray[np.float64]
    kl: NDArray[np.float64]
    random_kl: NDArray[np.float64]
    flips: NDArray[np.bool_] | None

    @property
    def recovered_by_draw(self) -> NDArray[np.float64]:
        """Of each draw, over all prompts."""
        found: NDArray[np.float64] = (self.scrubbed.mean(1) - self.random.mean()) / (
            self.clean.mean() - self.random.mean()
        )
        return found

    @property
    def moved(self) -> float:
        """How far single prompts' scores lie from the clean run's, whatever the direction, as a share of what the
        random prompts take away."""
        import numpy as np

        return float(np.abs(self.scrubbed - self.clean).mean() / abs(self.clean.mean() - self.random.mean()))


def figures_of(planned: PlannedScrub, records: Records) -> ScrubFigures:
    """The figures of a claim's draws."""
    import numpy as np

    metric = planned.claim.metric
    scrubbed, random = ([d.scrubbed for d in planned.draws], [d.nothing_kept for d in planned.draws])

    def of(runs: Sequence[Experiment], name: str) -> NDArray[np.float64]:
        return np.array([records[run][name] for run in runs])

    clean = records[planned.clean]
    flips = of(scrubbed, ACCURACY) != clean[ACCURACY] if ACCURACY in clean else None
    return ScrubFigures(
        clean[metric], of(scrubbed, metric), of(random, metric), of(scrubbed, KL), of(random, KL), flips
    )


class ScrubbedClaims(ClaimKind[Scrubbed, PlannedScrub]):
    """(scrubbed - all random) / (clean - all random), with an interval over the reference prompts."""

    def plan(self, claim: Scrubbed, planning: Planning) -> PlannedScrub:
        ablation = planning.ablation
        tree = tree_of(planning.hypothesis, planning.graph, planning.text)
        through = ablation.through if claim.through is None else claim.through
        by = claim.rules or usual_rules(planning.hypothesis)
        draws = tuple(scrub_draw(tree, i, by=by, seed=claim.seed, through=through) for i in range(claim.draws))
        scrubbed, random = (mean_over([getattr(d, run) for d in draws]) for run in ("scrubbed", "nothing_kept"))
        planning.name(random, "random prompts")
        planning.name(scrubbed, "scrubbed")
        for i, one in enumerate(draws):
            planning.name(one.nothing_kept, f"random prompts, draw {i + 1} of {claim.draws}")
            planning.name(one.scrubbed, f"scrubbed, draw {i + 1} of {claim.draws}")
        return PlannedScrub(planning.index, claim, scrubbed, CLEAN, random, paths=tree.paths, tree=tree, draws=draws)

    # -- judging ------------------------------------------------------------------------------------------------------

    def decide(self, planned: PlannedScrub, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        from circuitspec.analysis.claims.single_figure import decide_by_one

        figures = figures_of(planned, records)
        return replace(decide_by_one(planned, records, error), found=_found(figures), notes=self._notes(planned))

    def _notes(self, planned: PlannedScrub) -> tuple[str, ...]:
        tested = [node for node in planned.tree.nodes if node.carries is not None]
        return (
            f"{plural(len(planned.tree.nodes), 'value')} on the paths, {len(tested)} of them from prompts that are "
            f"drawn; {plural(len(planned.draws), 'draw')} for each prompt; the interval is over prompts, each with the "
            "mean of its draws",
        )

    # -- in words -----------------------------------------------------------------------------------------------------

    def describe(self, planned: PlannedScrub) -> str:
        return f"scrubbing {plural(len(planned.tree.nodes), 'value')} on the declared paths"

    def choices(self, planned: PlannedScrub, made: Choices) -> str:
        assert planned.patched.rule is not None
        passing = "through MLPs" if planned.patched.rule.through_mlps else "through nothing"
        by = ", ".join(planned.draws[0].rests[0].by)
        return f"path level, every value from a prompt that agrees on what it carries, prompts drawn by {by}, {passing}"

    def value(self, claim: ClaimResult) -> str:
        return self.with_found(super().value(claim), claim)

    def rows(self, planned: PlannedScrub, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A row a draw; nothing is recovered of a difference that may be none."""
        figures = figures_of(planned, records)
        rows = [["draw", "recovered", "kl (nats)", "answers changed"]]
        for i in range(len(planned.draws)):
            recovered = MISSING if claim.estimate is None else number(float(figures.recovered_by_draw[i]))
            flips = MISSING if figures.flips is None else f"{figures.flips[i].mean():.0%}"
            rows.append([str(i + 1), recovered, number(float(figures.kl[i].mean())), flips])
        return rows

    def subject(self, claim: Any) -> str:
        return f"{claim.kind}: {claim.metric}"


def mean_over(runs: Sequence[Experiment]) -> Experiment:
    """The experiment whose metrics are means over these runs."""
    first, *others = runs
    return replace(first, repeated=tuple(others))


def _found(figures: ScrubFigures) -> str:
    """`draws 0.97 to 0.99; prompt by prompt: KL 0.02 nats (3.1 at random); 0% of answers change`."""
    by_draw = figures.recovered_by_draw
    ends = f"draws {number(float(by_draw.min()))} to {number(float(by_draw.max()))}"
    kl = f"KL {number(float(figures.kl.mean()))} nats ({number(float(figures.random_kl.mean()))} at random)"
    flips = "" if figures.flips is None else f"; {figures.flips.mean():.0%} of answers change"
    return f"{ends}; prompt by prompt: {kl}{flips}"


def usual_rules(hypothesis: Hypothesis) -> tuple[str, ...]:
    """How slots are drawn that are not carried, where no claim says so.

    By the corruption that is ablated to; where there is none, or prompts are rows of a file, the task's own rules.
    """
    prompts = ablation_source(hypothesis.ablation).prompts
    templated = bool(hypothesis.task.templates)
    return ("clean",) if prompts is None or isinstance(prompts, Noised) or not templated else (prompts,)


def tree_of(hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText) -> ScrubTree:
    """The tree of the file's paths. Raises as `scrub_tree` does."""
    return scrub_tree(
        hypothesis.circuit,
        graph,
        text,
        all_positions=hypothesis.ablation.positions == "all",
        variables=_variables(hypothesis),
        roots=_roots(hypothesis),
    )


def uncomputable(tree: ScrubTree, hypothesis: Hypothesis, text: SourceText) -> list[Diagnostic]:
    """CS238 for what values of a tree of the file's paths carry, and nothing that leads to them does."""
    return lacking(tree, text, _variables(hypothesis), _roots(hypothesis))


def _variables(hypothesis: Hypothesis) -> Mapping[str, frozenset[str]]:
    if hypothesis.abstraction is None:
        return {}
    return {
        name: frozenset(one.name for one in references(parse_expression(text)))
        for name, text in hypothesis.abstraction.variables.items()
    }


def names_to_carry(hypothesis: Hypothesis) -> tuple[tuple[str, ...], Mapping[str, frozenset[str]]]:
    """The slots, those that copy another one first; and for slots and variables the slots that they come down to.

    A corruption may draw copies anew as well. No slots for prompts of a file, whose columns are not known here.
    """
    roots, variables = _roots(hypothesis) or {}, _variables(hypothesis)

    def own(name: str) -> frozenset[str]:
        if name in roots:
            return frozenset({roots[name]})
        return frozenset(slot for one in variables.get(name, ()) for slot in own(one))

    names = sorted(roots, key=lambda slot: roots[slot] == slot)
    return tuple(names), {name: own(name) for name in (*names, *variables)}


def _roots(hypothesis: Hypothesis) -> Mapping[str, str] | None:
    if not hypothesis.task.templates:
        return None
    rules = {slot: parse_slot_rule(text) for slot, text in hypothesis.task.slots.items()}
    return {slot: root_of(slot, rules) for slot in rules}
