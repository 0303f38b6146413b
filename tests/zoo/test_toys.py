"""The toys give what arithmetic gives: patched by the independent oracle, and by the engine."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mlp, Neuron
from circuitspec.hypothesis_file.grammar.names import parse_name
from tests.engine.support import Silent
from tests.oracle import families, node, path
from tests.zoo.toy_cases import CASES, TOLERANCE, Case, logit_difference, oracle_prompts, oracle_sites, relu, toy

BY_NAME = {str(case): case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_oracle(case: Case) -> None:
    loaded, task = toy(case.toy)
    net = families.read(loaded.model)
    for prompt in oracle_prompts(task, case.corruption, 3):
        clean, corrupt = node.resample_values(net, prompt.clean), node.resample_values(net, prompt.corrupt)

        def measured(ids: list[int], values: node.Values, patched: str, prompt: node.Prompt = prompt) -> float:
            return logit_difference(node.noise(net, ids, values, oracle_sites(patched, prompt)), prompt)

        assert measured(prompt.clean, corrupt, "") == pytest.approx(case.clean, rel=0, abs=TOLERANCE)
        assert measured(prompt.corrupt, clean, "") == pytest.approx(case.corrupt, rel=0, abs=TOLERANCE)
        for patched, expected in case.noised.items():
            found = measured(prompt.clean, corrupt, patched)
            assert found == pytest.approx(expected, rel=0, abs=TOLERANCE), f"{patched} noised"
        for patched, expected in case.denoised.items():
            found = measured(prompt.corrupt, clean, patched)
            assert found == pytest.approx(expected, rel=0, abs=TOLERANCE), f"{patched} denoised"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_engine(case: Case) -> None:
    """Every prompt, the named components patched everywhere or at their role alone, and all others one by one."""
    loaded, task = toy(case.toy)
    last = "second" if case.toy == "nobel" else "END"
    shape = loaded.shape
    others = [f"a{layer}.h{head}" for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    others += [f"m{layer}" for layer in range(shape.n_layers)]
    expected: dict[Experiment, float] = {
        Experiment("clean"): case.clean,
        Experiment(case.corruption): case.corrupt,
    }
    for base, source, known, unchanged in (
        ("clean", case.corruption, case.noised, case.clean),
        (case.corruption, "clean", case.denoised, case.corrupt),
    ):
        for patched, value in {**dict.fromkeys(others, unchanged), **known}.items():
            for otherwise in (Where.everywhere(), Where.at(last)):
                sites = engine_sites(patched, otherwise)
                expected[Experiment(base, Source("resample", source), sites)] = value
    with borrowed(loaded.model):
        records = Runner(loaded, task, rows=10, progress=Silent()).run(expected)
    for experiment, value in expected.items():
        np.testing.assert_allclose(
            records[experiment]["logit_diff"], value, rtol=0, atol=TOLERANCE, err_msg=str(experiment)
        )


def engine_sites(patched: str, otherwise: Where) -> frozenset[Site]:
    """`a0.h0 input@first` as sites; where no position is named, `otherwise`."""
    sites = set()
    for name in map(parse_name, patched.split()):
        assert isinstance(name.target, Head | Mlp | Neuron | Input)
        sites.add(Site(name.target, Where.at(*name.positions) if name.positions else otherwise))
    return frozenset(sites)


def broken(case: Case, patched: str) -> bool:
    return case.noised[patched] == case.corrupt


def restored(case: Case, patched: str) -> bool:
    return case.denoised[patched] == case.clean


def test_what_the_numbers_say_about_gates() -> None:
    """Sections 2.4 and 3.1 of Heimersheim and Nanda (2024), from the numbers that the runs above confirm."""
    gates = ("a0.h0", "a0.h1", "m1.n0")
    assert [broken(BY_NAME["and-both"], name) for name in gates] == [True, True, True]
    assert [restored(BY_NAME["and-both"], name) for name in gates] == [False, False, True]
    assert [broken(BY_NAME["or-both"], name) for name in gates] == [False, False, True]
    assert [restored(BY_NAME["or-both"], name) for name in gates] == [True, True, True]
    nobel = ("input@first", "input@second", "a0.h0", "m1.n42")
    assert [broken(BY_NAME["nobel-random"], name) for name in nobel] == [True, True, True, True]
    assert [restored(BY_NAME["nobel-random"], name) for name in nobel] == [False, False, False, True]


def test_recovery_without_the_negative_head() -> None:
    case = BY_NAME["negative-swap"]
    assert (case.noised["a1.h2"] - case.corrupt) / (case.clean - case.corrupt) == (8 + 4) / (4 + 4)


def test_knocking_out_the_main_head_costs_less_than_its_direct_effect() -> None:
    """Direct: along the residual stream to the logits alone, with the backup held as it was."""
    loaded, task = toy("backup")
    case = BY_NAME["backup-secret"]
    for prompt in oracle_prompts(task, "secret", 3):
        source = node.resample_values(loaded.model, prompt.corrupt)
        logits = path.path_patch(loaded.model, prompt.clean, source, ("head", 0, 2), [("final",)], through=())
        direct = case.clean - logit_difference(logits, prompt)
        assert direct == pytest.approx(10, rel=0, abs=TOLERANCE)
    total = case.clean - case.noised["a0.h2"]
    assert total == 10 - 7


def test_the_previous_token_head_by_its_paths() -> None:
    """Peace matters to the neuron, not to the head; Nobel matters to the head (section 3.1, by path patching)."""
    loaded, task = toy("nobel")
    net = families.read(loaded.model)
    for prompt in oracle_prompts(task, "random", 2):
        first, second = prompt.roles["first"], prompt.roles["second"]
        corrupt = node.resample_values(net, prompt.corrupt)
        for position, receiver, expected in (
            (first, ("v", 0, 0), 8 * relu(0 + 1 - 1) - 4),
            (second, ("mlp_in", 1), 8 * relu(1 + 0 - 1) - 4),
            (second, ("q", 0, 0), 8 * relu(1 + 1 - 1) - 4),
            (second, ("v", 0, 0), 8 * relu(1 + 1 - 1) - 4),
            (first, ("mlp_in", 1), 8 * relu(1 + 1 - 1) - 4),
        ):
            logits = path.path_patch(net, prompt.clean, corrupt, ("input",), [receiver], (), [position])
            assert logit_difference(logits, prompt) == pytest.approx(expected, rel=0, abs=TOLERANCE), receiver
