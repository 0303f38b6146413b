"""What first-order estimates miss is found in other ways, or warned of with numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from circuitspec.engine.attribution.node_attribution import attribute, attribution_passes
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Source
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_text import render_exploration
from circuitspec.exploration.output.exploration_warnings import exploration_warnings
from circuitspec.exploration.search.component_sweep import Effect, top_overlap, upper_bound
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.pipelines.explore import explore
from circuitspec.runtime.progress import Silent
from tests.engine.support import model, oracle_component, random_prompts, runner, task_of
from tests.exploration.toys import CANCEL, POINTER, write
from tests.oracle import families, metrics, node

STEERING = Head(0, 3)


@pytest.fixture(scope="module", params=["pointer", "cancel"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, object]:
    folder = tmp_path_factory.mktemp("toys")
    return request.param, load_exploration(write({"pointer": POINTER, "cancel": CANCEL}[request.param], folder))


def explored(toy: tuple[str, object], **options: object) -> ExplorationFindings:
    return explore(toy[1], ExploreOptions(**options), Silent(), "explore")  # type: ignore[arg-type]


def effect(found: ExplorationFindings) -> Effect:
    (one,) = [e for e in found.sweep.effects if e.component == STEERING and e.where == Where.at("END")]
    return one


def test_a_large_effect_with_a_small_estimate_is_warned_of(toy: tuple[str, object]) -> None:
    """The head decides everything, and to first order nothing: its estimates are zero in both directions."""
    found = explored(toy)
    one = effect(found)
    assert (one.drop, one.rise) == (pytest.approx(1.0, abs=1e-3), pytest.approx(1.0, abs=1e-3))
    assert (one.drop_estimate, one.rise_estimate) == (pytest.approx(0.0, abs=1e-3), pytest.approx(0.0, abs=1e-3))
    warnings = {warning.code: warning for warning in exploration_warnings(found) if "effects" in warning.data}
    assert set(warnings) == {"CS410"}
    assert "a0.h3@END (1.00 ablated, 1.00 restored; estimated 0.00 and 0.00)" in warnings["CS410"].message
    assert "warning[CS410]: estimates missed 1 effect" in render_exploration(found)
    (paths,) = [warning for warning in exploration_warnings(found) if "paths" in warning.data]
    assert paths.code == "CS410"
    assert "input -> a0.h3<v> (1.00 ablated, 1.00 restored; estimated 0.00 and 0.00)" in paths.message


def test_a_random_sample_finds_what_estimates_hide(toy: tuple[str, object]) -> None:
    """With a single one patched by its estimate, the head is among the others: all of them are drawn here."""
    found = explored(toy, exact=1, drawn=1000)
    drawn = found.sweep.drawn
    assert drawn is not None
    assert drawn.count == drawn.population == len(found.sweep.effects) - 1
    assert [e.component for e in drawn.mattering if e.where == Where.at("END")][:1] == [STEERING]
    assert drawn.at_most == pytest.approx(len(drawn.mattering) / drawn.count)
    codes = [warning.code for warning in exploration_warnings(found) if "effects" in warning.data]
    assert codes == ["CS410", "CS411"]
    assert any(component == "a0.h3" for component, _, _ in found.circuits[0].entries)


def test_better_estimates_find_it(toy: tuple[str, object]) -> None:
    name = toy[0]
    remedy = {"pointer": {"recomputing": True}, "cancel": {"dropping": True}}[name]
    found = explored(toy, exact=3, drawn=0, **remedy)
    one = effect(found)
    assert one.drop == pytest.approx(1.0, abs=1e-3)  # it was among the three
    if name == "pointer":
        # what follows the attention is linear here, so that the estimate is the effect itself
        assert (one.drop_estimate, one.rise_estimate) == (pytest.approx(1.0, abs=1e-3), pytest.approx(1.0, abs=1e-3))
    else:
        assert one.magnitude == pytest.approx(2.0, abs=1e-3)  # 16 of 8: without m1 the logit would move by so much
    assert not [warning for warning in exploration_warnings(found) if "effects" in warning.data]


def test_the_bound_is_that_of_a_binomial() -> None:
    """None of 20: the share p with (1 - p)^20 = 5 %. One of 20: (1 - p)^20 + 20 p (1 - p)^19 = 5 %."""
    assert upper_bound(0, 20, 1000) == pytest.approx(1 - 0.05 ** (1 / 20))
    p = upper_bound(1, 20, 1000)
    assert (1 - p) ** 20 + 20 * p * (1 - p) ** 19 == pytest.approx(0.05)
    assert upper_bound(3, 20, 20) == 0.15
    assert upper_bound(20, 20, 1000) == 1.0


def test_the_overlap_counts_what_both_call_largest() -> None:
    assert top_overlap([5, -4, 3, 2, 1, 0], [5, 0, 3, 2, 1, 4]) == (2, 0.5)
    assert top_overlap([1, 2, 3], [1, 2, 3]) is None


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_dropped_gradients_are_derivatives_with_one_layer_held(family: str) -> None:
    """By the oracle: a layer's heads and MLP fixed at their own values, the component moved a little."""
    m = model(family, exactly=True)
    net = families.read(m)
    prompts = random_prompts(31, [5, 6])
    components = (Head(0, 1), Mlp(1), Resid(1))
    wheres = (Where.everywhere(), Where.at("A"))
    source = Source("resample", "abc")
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=2)
        found = attribute(run, "clean", source, "logit_diff", components, wheres, dropping=True)
        layers = run.loaded.shape.n_layers
        assert run.forwards == attribution_passes(source, dropped_layers=layers)
    for component in components:
        one = oracle_component(component)
        for where in wheres:
            sizes = []
            for prompt in prompts:
                own, other = (node.forward(net, ids, record=True).values for ids in (prompt.clean, prompt.corrupt))
                positions = range(len(prompt.clean)) if where.is_everywhere else [prompt.roles["A"]]
                for layer in range(layers):
                    held = {
                        (c, p): own[c][p]
                        for c in own
                        if c[0] in ("head", "mlp") and c[1] == layer
                        for p in range(len(prompt.clean))
                    }
                    if (one, 0) in held:  # dropped itself
                        continue
                    ends = []
                    for share in (1e-5, -1e-5):
                        moved = {(one, p): own[one][p] + share * (other[one][p] - own[one][p]) for p in positions}
                        logits = node.forward(net, prompt.clean, {**held, **moved}).logits[-1].numpy()
                        ends.append(metrics.metrics(logits, prompt.answers, prompt.wrong, logits)["logit_diff"])
                    sizes.append(abs(ends[0] - ends[1]) / 2e-5)
            expected = np.sum(sizes) / (len(prompts) * (layers - 1))
            assert found.magnitudes[component, where] == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.nightly
def test_what_hurts_by_itself_is_not_called_helpful_where_it_is_left_out() -> None:
    """a3.h0 of ioi-tiny: a screen takes it in and it goes again, while noising it alone raises the score."""
    file = Path(__file__).parents[2] / "hypotheses" / "explored" / "ioi-tiny.task.yaml"
    options = ExploreOptions(free=("m*",), linked=0, sections=0, drawn=0)
    found = explore(load_exploration(file), options, Silent(), "explore")
    honest, helpful = found.circuits
    (hurting,) = {entry[:2] for entry in honest.entries if entry[2] == "negative"} & set(helpful.unproven)
    assert hurting == ("a3.h0", "END")
    alone = {(format_name(e.component), role): e for e in found.sweep.exact for role in e.where.roles}
    assert alone[hurting].is_negative
    assert helpful.spared
    assert not any(alone[entry].is_negative for entry in helpful.spared)
    assert "; also left out: a3.h0@END" in render_exploration(found)
    assert "; also left out: a3.h0@END." in helpful.draft.text
