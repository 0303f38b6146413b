"""The six choices of a patching study (Miller et al. 2024), and one circuit's runs under each combination of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.experiment import CLEAN_VALUES, Direction, Experiment, Level, Variant
from circuitspec.experiments.levels.whole_circuit import Whole, anchor_of, whole_circuit
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, NOISE_SETTINGS, varied_values
from circuitspec.hypothesis_file.grammar.components import Mlp
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, AblationValue
from circuitspec.hypothesis_file.yaml.source import SourceText

Choice = Literal["level", "ablation", "corruption", "positions", "direction", "set"]
Positions = Literal["declared", "all"]
Patched = Literal["complement", "circuit"]

CHOICES: tuple[Choice, ...] = get_args(Choice)
LEVELS: tuple[Level, ...] = get_args(Level)
POSITIONS: tuple[Positions, ...] = get_args(Positions)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SETS: tuple[Patched, ...] = get_args(Patched)

CLEAN = Experiment("clean")


@dataclass(frozen=True)
class Method:
    """One way to measure what a circuit does.

    `corruption` is None where no other prompts play a part (zeros). What is patched is `set`: everything outside
    the circuit, or the circuit; with clean values into the corrupt run where `direction` is denoising, so that
    `ablation` plays no part there.
    """

    level: Level
    ablation: AblationValue
    corruption: str | None
    positions: Positions
    direction: Direction
    set: Patched

    def value(self, choice: Choice) -> str:
        """The choice in a word; denoising has no ablation value of its own, and zeros no corruption."""
        if choice == "ablation" and self.direction == "denoising":
            return "clean values"
        return str(getattr(self, choice) or "none")

    @property
    def keeps_circuit(self) -> bool:
        """Whether the circuit has clean values and the rest others; if not, what is recovered is the rest's doing."""
        return (self.direction == "noising") == (self.set == "complement")

    def differences(self, other: Method) -> tuple[Choice, ...]:
        return tuple(choice for choice in CHOICES if getattr(self, choice) != getattr(other, choice))

    def __str__(self) -> str:
        value = self.ablation if self.corruption is None else f"{self.ablation} from {self.corruption}"
        if self.direction == "denoising":
            value = f"clean values into {self.corruption}"
        return f"{self.level} level, {self.direction} the {self.set}, {value}, {self.positions} positions"


@dataclass(frozen=True)
class MethodRun:
    """A circuit under one method: recovered performance is (patched - corrupt) / (clean - corrupt)."""

    method: Method
    patched: Experiment
    clean: Experiment
    corrupt: Experiment


@dataclass(frozen=True)
class NotRun:
    """A combination that is not run, and why."""

    method: Method
    reason: str


@dataclass(frozen=True)
class Methods:
    """What is run of a set of methods, the file's own among them, and what is not."""

    own: Method
    runs: tuple[MethodRun, ...]
    left_out: tuple[NotRun, ...]

    @property
    def labels(self) -> Mapping[Experiment, str]:
        found: dict[Experiment, str] = {CLEAN: "clean"}
        for run in self.runs:
            found.setdefault(run.corrupt, self._anchor_label(run))
            found.setdefault(run.patched, str(run.method))
        return found

    def _anchor_label(self, run: MethodRun) -> str:
        """The run on the file's own corruption is `corrupt`, those on others have their names."""
        if run.corrupt.source is not None:
            return f"all ablated: {run.method}"
        return "corrupt" if run.method.corruption == self.own.corruption else str(run.corrupt.base)

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        """Every patched run with its anchors: the clean one and the corrupt one."""
        return {run.patched: (run.clean, run.corrupt) for run in self.runs}

    def without(self, refused: Mapping[Experiment, str]) -> Methods:
        """Without the methods that need a run which these prompts do not allow; `refused` says why."""
        lost = {
            run.method: why
            for run in self.runs
            for one in (run.corrupt, run.patched)
            if (why := refused.get(one)) is not None
        }
        kept = tuple(run for run in self.runs if run.method not in lost)
        return replace(self, runs=kept, left_out=(*self.left_out, *(NotRun(m, why) for m, why in lost.items())))


Wanted: TypeAlias = Mapping[Choice, Sequence[str | None]]
"""The values of each choice that is varied; the others are as in the file."""


def own_method(ablation: AblationSpec, *, direction: Direction = "noising", set_: Patched = "complement") -> Method:
    """The file's own choices, for claims that patch this set in this direction."""
    return Method(ablation.level, ablation.value, ablation.source, ablation.positions, direction, set_)


def all_values(ablation: AblationSpec, corruptions: Iterable[str]) -> dict[Choice, tuple[str | None, ...]]:
    """Every value of each choice, the file's own first; noise is tried only where the file itself adds it."""
    own = own_method(ablation)
    every: dict[Choice, tuple[str | None, ...]] = {
        "level": LEVELS,
        "ablation": varied_values(),
        "corruption": tuple(corruptions),
        "positions": POSITIONS,
        "direction": DIRECTIONS,
        "set": SETS,
    }
    found = {c: tuple(dict.fromkeys((getattr(own, c), *values))) for c, values in every.items()}
    return {c: tuple(v for v in values if v is not None) or (None,) for c, values in found.items()}


def combinations(own: Method, wanted: Wanted) -> tuple[Method, ...]:
    """Every combination of the wanted values, the file's own choice first.

    Where the set is not among them, it goes with the direction, so that all ask the same question.
    """
    found = [own]
    varied = [choice for choice in CHOICES if choice in wanted]
    for values in itertools.product(*(wanted[choice] for choice in varied)):
        chosen: dict[str, Any] = dict(zip(varied, values, strict=True))
        method = replace(own, **chosen)
        found.append(_plainly(method if "set" in wanted else _same_question(method, own)))
    return tuple(dict.fromkeys(found))


def changed(own: Method, choice: Choice, value: str | None) -> Method:
    """The method with one choice different; another direction patches the other set, so that the question stays."""
    values: dict[str, Any] = {choice: value}
    return _plainly(_same_question(replace(own, **values), own))


def _same_question(method: Method, own: Method) -> Method:
    """In the other direction, the other set is patched: what has clean values is then the same."""
    if method.keeps_circuit == own.keeps_circuit:
        return method
    return replace(method, set="circuit" if method.set == "complement" else "complement")


def _plainly(method: Method) -> Method:
    """One spelling for methods that are the same run.

    Zeros come from no prompts, noise is added to the clean ones, and denoising patches clean values in whatever the
    ablation is.
    """
    if not ABLATIONS[method.ablation].takes_prompts:
        return replace(method, corruption=None)
    if method.direction == "denoising":
        return replace(method, ablation=CLEAN_VALUES.kind)
    return method


@dataclass
class _Planner:
    ablation: AblationSpec
    graph: CircuitGraph
    text: SourceText

    def __post_init__(self) -> None:
        self._known: dict[AblationSpec, Whole | str] = {}

    def run(self, method: Method) -> MethodRun | str:
        """The method's runs, or why there are none."""
        denoising = method.direction == "denoising"
        spec = self._spec(method)
        if (why := self._senseless(method, spec)) is not None:
            return why
        whole = self._whole(spec)
        if isinstance(whole, str):
            return whole
        patched = whole.circuit if method.set == "complement" else whole.knocked_out
        if patched.source is None:
            return "nothing is left to patch"
        if not denoising:
            return MethodRun(method, patched, CLEAN, anchor_of(ablation_source(spec), whole))
        corrupt = corrupt_prompts(spec)
        assert corrupt is not None
        return MethodRun(method, denoised(patched, corrupt), CLEAN, Experiment(corrupt))

    def _spec(self, method: Method) -> AblationSpec:
        """The ablation block of this method; at path level MLPs pass effects on, as they do unless a file says no."""
        changed: dict[str, object] = {
            "value": method.ablation,
            "level": method.level,
            "positions": method.positions,
            "source": method.corruption,
        }
        if method.level != "path":
            changed["through"] = None
        if not ABLATIONS[method.ablation].noise:
            changed |= dict.fromkeys(NOISE_SETTINGS)
        return self.ablation.model_copy(update=changed)

    def _senseless(self, method: Method, spec: AblationSpec) -> str | None:
        """Why a combination means nothing, or the same as another one."""
        kind = ABLATIONS[method.ablation]
        if kind.takes_prompts and method.corruption is None:
            return f"{method.ablation} needs a corruption"
        if method.direction == "denoising" and corrupt_prompts(spec) is None:
            return f"{method.ablation} ablation has no corrupt prompts to restore anything in"
        unchanged = kind.is_run or method.direction == "denoising"
        if kind.takes_prompts and method.corruption == "clean" and unchanged:
            return "clean values into the clean run change nothing"
        if method.level == "node":
            return self._undefined_outside(method)
        if not self.graph.paths:
            return f"{method.level} level is about declared paths, and there are none"
        if method.level == "path":
            return self._free_at_path_level(spec)
        return None

    def _undefined_outside(self, method: Method) -> str | None:
        others = self.graph.without_outside
        if others and method.set == "complement":
            return f"what lies outside {format_name(others[0])} is not defined"
        return None

    def _free_at_path_level(self, spec: AblationSpec) -> str | None:
        passing = spec.through is None or "mlp" in spec.through
        for component in self.graph.free:
            if not (isinstance(component, Mlp) and passing):
                return f"at path level {format_name(component)} is sent along a path or frozen, and cannot be free"
        return None

    def _whole(self, spec: AblationSpec) -> Whole | str:
        if spec not in self._known:
            try:
                self._known[spec] = whole_circuit(spec, self.graph, self.text)
            except CircuitspecError as error:
                self._known[spec] = error.diagnostics[0].message
        return self._known[spec]


def denoised(experiment: Experiment, corrupt: Variant) -> Experiment:
    """The same patched set in the other direction: clean values into the corrupt run."""
    return replace(experiment, base=corrupt, source=CLEAN_VALUES)


def plan_methods(own: Method, wanted: Wanted, ablation: AblationSpec, graph: CircuitGraph, text: SourceText) -> Methods:
    """One circuit under every combination of the wanted values: what is run, and what is not and why."""
    planner = _Planner(ablation, graph, text)
    runs: list[MethodRun] = []
    left_out: list[NotRun] = []
    for method in combinations(own, wanted):
        found = planner.run(method)
        if isinstance(found, str):
            left_out.append(NotRun(method, found))
        else:
            runs.append(found)
    return Methods(own, tuple(runs), tuple(left_out))
