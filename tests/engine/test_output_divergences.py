"""How far outputs lie apart: a run from the clean one as far as the metric `kl` says, which is held to the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.metrics.output_divergences import output_divergences
from circuitspec.engine.runner import Runner
from circuitspec.experiments.planner import CLEAN
from circuitspec.models.load import load_model
from circuitspec.pipelines.preparation import prepare, prompts_of
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.runtime.progress import Silent
from tests.comparison.support import lamp, read

GROUPS = {"switch": ["a0.h2@END"], "lamp": ["m1@END"]}  # not a switch, so that outputs differ
PATHS = ["input -> switch -> lamp -> logits"]
NOISE = "{value: gaussian, at: [A, B], std: 50, draws: 3, level: node, positions: declared}"
CASES = {
    "node": lamp(GROUPS),
    "means": lamp(GROUPS, value="mean", source="both"),
    "edges": lamp(GROUPS, paths=PATHS, level="edge"),
    "paths": lamp(GROUPS, paths=PATHS, level="path"),
    "noise": lamp(GROUPS).replace("{value: resample, from: both, level: node, positions: declared}", NOISE),
}


@pytest.mark.parametrize(
    "case", ["edges", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("node", "means", "paths", "noise"))]
)
def test_from_the_clean_run_it_is_the_metric(case: str) -> None:
    """At every level, for means and noise too; and back, from the run to the clean one, by the same two outputs."""
    document = read(CASES[case])
    prompts, hypothesis = prompts_of(document)
    loaded = load_model(hypothesis.model, document.base_dir)
    prepared = prepare(hypothesis, document, prompts, loaded.shape, loaded.tokenizer)
    others = ReferencePrompts(hypothesis.task, hypothesis.ablation, document.base_dir, None, loaded.tokenizer)
    run = prepared.plan.circuit
    task = others.of(prepared.task) if run.averages else prepared.task
    with borrowed(loaded.model):
        runner = Runner(loaded, task, progress=Silent(), rows=7, edges=case == "edges")
        expected = runner.run([run, prepared.plan.corrupt])[run]["kl"]
        there, back = output_divergences(runner, [(CLEAN, run), (run, CLEAN)])
    assert expected.max() > 0.1
    np.testing.assert_allclose(there.forth, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(back.forth, there.back)
    np.testing.assert_array_equal(back.same_top, there.same_top)
    assert set(np.unique(there.same_top)) <= {0.0, 1 / 3, 2 / 3, 1.0}
