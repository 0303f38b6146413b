"""A declared circuit, and the search that could have found it: made anew on other prompts, does it choose the same?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuitspec.analysis.claims.kinds.stable import ALL_TOKENS, Member, PlannedStable, Reselected
from circuitspec.engine.cache.stored_estimates import Recalled
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.runner import Runner
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.requirements import overlap
from circuitspec.exploration.forward_budget import Allowance
from circuitspec.exploration.request import ExploreOptions
from circuitspec.exploration.search.circuit_selection import Entry
from circuitspec.exploration.setting import EVERYWHERE, ExplorationSetting, distinct_roles
from circuitspec.exploration.stability.repeated_search import Repetition, Selection, repeated
from circuitspec.exploration.stability.selection_frequencies import entries_chosen
from circuitspec.exploration.stability.subsamples import FEWEST, random_halves
from circuitspec.exploration.stages import HELPFUL, HONEST
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.schema.claims.stable_block import Stable
from circuitspec.prompts.prompt_set import TokenizedTask


def chosen_again(
    planned: PlannedStable,
    graph: CircuitGraph,
    ablation: AblationSpec,
    runner: Runner,
    stored: StoredRunner,
    recalled: Recalled,
    described: str,
) -> Reselected:
    """Which members the search chooses on halves of a runner's prompts, which are others than the claim's file has."""
    claim, task = planned.claim, runner.task
    assert isinstance(claim, Stable)
    if task.n < FEWEST:
        said = f"{task.n} other prompts ({described}) are too few: halves of {FEWEST} are the fewest to search on"
        return Reselected(described, 0, why=said)
    if not task.roles:
        return Reselected(described, 0, why="the prompts name no position at which components could be searched")
    corrupt = corrupt_prompts(ablation) or next(iter(task.prompts.corruptions), None)
    if corrupt is None:
        return Reselected(described, 0, why="the task has no corruption, which a search compares with")
    setting = ExplorationSetting(
        runner,
        stored,
        claim.metric,
        graph.claimed,
        distinct_roles(task),
        ablation_source(ablation),
        corrupt,
        Allowance(None, lambda: runner.forwards),
        recalled,
        by_prompt=True,
    )
    if setting.gap.state != "sound" or setting.prompt_gap.state != "sound":
        return Reselected(described, 0, why="on these other prompts nothing that is ablated breaks the behaviour")
    halves = random_halves(runner.templates, claim.searches)
    options = ExploreOptions(metric=claim.metric, target=claim.target, exact=claim.exact, drawn=0)
    kind = HONEST if claim.circuit == "full" else HELPFUL
    selections = repeated(setting, halves, Repetition(options, (), frozenset(), (kind,)))
    chosen = {member: tuple(_has(one, member, task) for one in selections) for member in planned.members}
    return Reselected(
        described, int(halves[0].counted.sum()), chosen, _others(selections, planned.members, task, claim.at_least)
    )


def _has(selection: Selection, member: Member, task: TokenizedTask) -> bool:
    """Whether a search's circuit has the member, at its position, whatever that is called; without one, at any."""
    return any(_same(entry, member, task) for entry in selection.entries)


def _same(entry: Entry, member: Member, task: TokenizedTask) -> bool:
    (component, place), (declared, role) = entry, member
    if component != declared:
        return False
    return ALL_TOKENS in (place, role) or place in (EVERYWHERE, role) or _alike(task, place, role)


def _alike(task: TokenizedTask, place: str, role: str) -> bool:
    """Whether two positions are the same tokens of every prompt, or share tokens where one is several."""
    if place in task.spans or role in task.spans:
        return overlap(task, place, role)
    return task.roles[place] == task.roles[role]


def _others(
    selections: Sequence[Selection], members: Sequence[Member], task: TokenizedTask, least: float
) -> tuple[str, ...]:
    """What searches chose so often, and the circuit does not have."""
    often: Mapping[Entry, object] = {
        entry: one for entry, one in entries_chosen(selections, {}).items() if one.frequency.value >= least
    }
    missing = [entry for entry in often if not any(_same(entry, member, task) for member in members)]
    return tuple(f"{format_name(component)}@{place}" for component, place in missing)
