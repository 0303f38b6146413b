"""The table of component kinds: complete where it must be, and enough by itself for a kind that nobody knew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from click.testing import CliRunner

import circuitspec
from circuitspec.cli import main
from circuitspec.engine.execution.granularity import granularities
from circuitspec.engine.execution.taps import TAPS, KindTaps, Slot, Tap
from circuitspec.exploration.exploration_findings import ExploreOptions
from circuitspec.exploration.output.exploration_figures import pictures
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.request import SWEPT
from circuitspec.graph.nodes import nodes_of
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, MIXER, ComponentKind, Counts
from circuitspec.hypothesis_file.grammar.components import (
    IN_LAYERS,
    WHOLE,
    AttentionLayer,
    Head,
    Mixer,
    Pattern,
    Range,
    sort_key,
    stage,
    whole_of,
)
from circuitspec.hypothesis_file.grammar.names import format_name, parse_name
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.load import load_model
from circuitspec.pipelines.explore import explore
from circuitspec.runtime.progress import Silent

KINDS = (*IN_LAYERS, *WHOLE)
SIZE = Counts(3, 4, 2, 8, n_experts=5, has_shared=True, n_expert_neurons=6, n_shared_neurons=7)


def test_every_row_has_its_tensors_and_no_others() -> None:
    assert set(TAPS) == {kind for kind in KINDS if kind.is_patched or kind.sends or kind.reads}
    for kind, taps in TAPS.items():
        assert (taps.slots is not None) == kind.is_patched, kind.name
        assert (taps.written is not None) == kind.sends, kind.name
        assert (taps.read is not None) == kind.reads, kind.name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.in_place_of is None], ids=lambda kind: kind.name)
def test_a_row_agrees_with_its_components(kind: ComponentKind) -> None:
    written = parse_name(kind.example).target
    assert written.kind is kind
    assert format_name(written) == kind.example
    component = IN_LAYERS[kind](2, int(kind.has_members)) if kind in IN_LAYERS else WHOLE[kind]
    assert component.kind is kind
    assert parse_name(format_name(component)).target == component
    if kind.in_layers:
        assert component.place == (2, int(kind.has_members))
        assert kind.exists(SIZE, *component.place)
        assert not kind.exists(SIZE, 3, 0)
        everything = Pattern(kind, Range(), Range() if kind.has_members else None).expand(SIZE)
        assert len(everything) == 3 * (kind.per_layer(SIZE) or 0) == len(set(everything))
        assert not kind.exists(SIZE, 2, kind.per_layer(SIZE) or 0)
        assert str(SIZE.n_layers - 1) in kind.extent(SIZE)
    if kind.part_of is not None:
        assert kind.whole_or_units
        assert whole_of(component).kind is kind.part_of
        assert stage(whole_of(component)) == stage(component)


def test_a_layer_is_its_mixer_where_it_has_no_heads() -> None:
    """It is written like an attention layer, and is one where others have heads."""
    shape = ModelShape("any", 3, 4, 2, 8, 2, 16, 20, mixers=frozenset({1}))
    assert MIXER.in_place_of is AttentionLayer(1).kind.stands_for
    assert format_name(Mixer(1)) == "a1" == format_name(AttentionLayer(1))
    assert nodes_of(AttentionLayer(1), shape) == (Mixer(1),)
    assert nodes_of(AttentionLayer(2), shape) == tuple(Head(2, head) for head in range(4))
    assert {c.layer for c in Pattern(HEAD, Range(), Range()).expand(shape.counts)} == {0, 2}  # type: ignore[union-attr]
    assert stage(Mixer(1)) == stage(Head(1, 0))


def test_rows_are_told_apart() -> None:
    for what in (
        [kind.name for kind in KINDS],
        [(kind.letter, kind.suffix, kind.aspect) for kind in IN_LAYERS if kind.in_place_of is None],
        [kind.rank for kind in IN_LAYERS if kind.in_place_of is None],
        [kind.title for kind in KINDS],
    ):
        assert len(set(what)) == len(what)
    in_order = sorted((make(0, 0) for make in IN_LAYERS.values()), key=sort_key)
    stages = [stage(component) or 0 for component in in_order]
    assert stages == sorted(stages)


# -- two kinds that the package does not know ----------------------------------------------------------------------

BLOCK = ComponentKind(
    name="attention_block",
    singular="attention block",
    plural="attention blocks",
    example="a2.out",
    drawn_in="layer {layer}",
    letter="a",
    suffix="out",
    rank=8,
    stage=1,
    is_patched=True,
)
HALF = ComponentKind(
    name="half_mlp",
    singular="half of an MLP",
    plural="halves of MLPs",
    example="m1.half0",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="half",
    has_members=True,
    rank=9,
    stage=3,
    per_layer=lambda counts: 2,
    is_patched=True,
)


@dataclass(frozen=True)
class AttentionBlock:
    """What the attention of a layer adds, as one site."""

    layer: int
    kind: ClassVar[ComponentKind] = BLOCK

    @property
    def place(self) -> tuple[int, int]:
        return self.layer, 0


@dataclass(frozen=True)
class HalfMlp:
    """The first or the second half of the hidden units of an MLP."""

    layer: int
    number: int
    kind: ClassVar[ComponentKind] = HALF

    @property
    def place(self) -> tuple[int, int]:
        return self.layer, self.number


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A row of each table for each of the two kinds, and nothing else."""
    monkeypatch.setitem(IN_LAYERS, BLOCK, lambda layer, _: AttentionBlock(layer))  # type: ignore[arg-type]
    monkeypatch.setitem(IN_LAYERS, HALF, HalfMlp)  # type: ignore[arg-type]
    monkeypatch.setitem(
        TAPS,  # type: ignore[arg-type]
        BLOCK,
        KindTaps(slots=lambda layer, _, architecture, shape: _slots(Tap(layer, "z"), range(shape.n_heads))),
    )
    monkeypatch.setitem(
        TAPS,  # type: ignore[arg-type]
        HALF,
        KindTaps(
            slots=lambda layer, number, architecture, shape: _slots(
                Tap(layer, "neurons"), range(number * shape.d_mlp // 2, (number + 1) * shape.d_mlp // 2)
            )
        ),
    )
    yield
    parse_name.cache_clear()


def _slots(tap: Tap, units: range) -> tuple[Slot, ...]:
    return tuple(Slot(tap, unit) for unit in units)


FILE = (Path(__file__).parents[1] / "hypotheses" / "ioi-tiny.circuit.yaml").read_text("utf-8")
CIRCUIT = """
circuit:
  groups:
    block: {nodes: [a2.out], at: END}
    half: {nodes: ["m1.half[0-0]"], at: END}

ablation: {value: resample, from: abc, level: node, positions: declared}

claims:
  - cross_section: {nodes: [block, half], metric: logit_diff, at_least: 0.0}
  - cross_section: {nodes: ["a3.out@END"], metric: logit_diff, at_least: 0.0}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kinds.circuit.yaml"
    task = FILE[: FILE.index("circuit:\n  groups")].replace("prompts: 100", "prompts: 12")
    path.write_text(task + CIRCUIT, "utf-8")
    return path


def ran(*arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("known")
def test_a_kind_is_a_row_of_each_table(file: Path) -> None:
    """From the file to the report, at node level; its figures are those of plain hooks."""
    assert "2 nodes" in ran("check", str(file))
    planned = ran("plan", str(file))
    assert "1 attention block at declared positions" in planned
    assert "1 half of an MLP at declared positions" in planned
    result = circuitspec.verify(file)
    expected = by_plain_hooks(result)
    claims = json.loads(result.to_json())["claims"]
    assert len(claims) == len(expected)
    for claim, means in zip(claims, expected, strict=True):
        assert claim["means"] == pytest.approx(means, abs=1e-5)
        shares = (means[run] - means["corrupt"] for run in ("patched", "clean"))
        assert claim["value"] == pytest.approx(next(shares) / next(shares), abs=1e-5)
    assert expected[0]["patched"] - expected[0]["corrupt"] > 0.1
    assert "a3.out@END" in str(result)
    names = [one.name for one in granularities(architecture_named("gpt2"))]
    assert {"attention block", "half of an MLP"} <= set(names)


@pytest.mark.usefixtures("known")
def test_a_sweep_takes_one_row_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SWEPT, "halves", HALF)  # type: ignore[arg-type]
    options = ExploreOptions(metric="accuracy", sweeps=("halves",))  # with no estimates it chooses no circuit
    found = explore(load_exploration(file), options, Silent(), "explore")
    (grid,) = found.grids
    assert len(grid.spots("halves")) == 4 * 2 * len(grid.wheres)
    assert f"swept each by itself: {len(grid.spots('halves'))} halves of MLPs" in render_exploration(found)
    (expected,) = by_plain_hooks(circuitspec.verify(file), (((), (1,)),))
    (cell,) = (
        cell
        for cell in grid.cells
        if cell.spot.name == "m1.half0" and grid.wheres[cell.spot.where] == "END" and not cell.series.noising
    )
    assert cell.means["logit_diff"] == pytest.approx(expected["patched"], abs=1e-5)
    drawn = [name for name in pictures(found) if "halves" in name]
    assert len(drawn) == len(grid.series)


def by_plain_hooks(
    result: circuitspec.Result, patched: Iterable[tuple[Sequence[int], Sequence[int]]] = (((2,), (1,)), ((3,), ()))
) -> list[dict[str, float]]:
    """The mean logit difference of the clean run, the corrupt run, and the corrupt run with the clean run's values.

    `patched` are the layers whose attention blocks, and those whose halves of MLPs, are given the clean run's values.
    """
    task, blocks = result.task, load_model(result.document.hypothesis.model, Path())
    model: Any = blocks.model.eval()
    found: list[dict[str, float]] = []
    for layers, halves in patched:
        runs: dict[str, list[float]] = {"clean": [], "corrupt": [], "patched": []}
        for clean, corrupt, answers, wrong in zip(
            task.ids["clean"], task.ids["abc"], task.answers, task.wrong, strict=True
        ):
            kept: dict[str, torch.Tensor] = {}
            for run, ids in (("clean", clean), ("corrupt", corrupt), ("patched", corrupt)):
                hooks = []
                for layer in layers:
                    module = model.transformer.h[layer].attn.c_proj
                    hooks.append(module.register_forward_hook(_output(run, f"out{layer}", kept)))
                for layer in halves:
                    module = model.transformer.h[layer].mlp.c_proj
                    hooks.append(module.register_forward_pre_hook(_first_half(run, f"half{layer}", kept)))
                with torch.no_grad():
                    logits = model(torch.tensor([ids])).logits[0, -1]
                for hook in hooks:
                    hook.remove()
                runs[run].append(float(logits[answers[0]] - logits[wrong[0]]))
        found.append({run: sum(values) / len(values) for run, values in runs.items()})
    return found


def _output(run: str, name: str, kept: dict[str, torch.Tensor]) -> Callable[..., torch.Tensor | None]:
    """At the last token: keep the clean run's output, give it to the patched run."""

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        if run == "clean":
            kept[name] = output[0, -1].clone()
        if run != "patched":
            return None
        changed = output.clone()
        changed[0, -1] = kept[name]
        return changed

    return hook


def _first_half(run: str, name: str, kept: dict[str, torch.Tensor]) -> Callable[..., tuple[torch.Tensor] | None]:
    """At the last token: keep the first half of the clean run's hidden units, give it to the patched run."""

    def hook(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        half = inputs[0].shape[-1] // 2
        if run == "clean":
            kept[name] = inputs[0][0, -1, :half].clone()
        if run != "patched":
            return None
        changed = inputs[0].clone()
        changed[0, -1, :half] = kept[name]
        return (changed,)

    return hook


@pytest.mark.usefixtures("known")
def test_what_is_not_in_the_model_is_told_in_its_words(file: Path) -> None:
    file.write_text(file.read_text("utf-8").replace("a3.out", "a7.out"), "utf-8")
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 3
    assert "the model has no a7.out" in result.output


def test_without_their_rows_there_are_no_such_names(file: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 3
    assert "'a2.out' is not a component" in result.output
