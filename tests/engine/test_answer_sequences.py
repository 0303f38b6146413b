"""Answers of several tokens against the oracle: sums of log probabilities under patches, float64 below 1e-9."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from tests.engine.answer_cases import assert_same, oracle_records, random_cases, task_of
from tests.engine.support import Silent, loaded, model

WHERES = (Where.everywhere(), Where.at("A"), Where.at("END"), Where.except_at("END"), Where.at("B", "END"))
SOURCES = (
    Source("resample", "abc"),
    Source("zero", None),
    Source("mean", "abc"),
    Source("mean_per_template", "abc"),
)


def experiments() -> list[Experiment]:
    sites = [frozenset({Site(Head(1, 1), where), Site(Mlp(0), where)}) for where in WHERES]
    noised = [Experiment("clean", source, one) for source in SOURCES for one in sites]
    restored = [Experiment("abc", Source("resample", "clean"), one) for one in sites]
    single = [Experiment("clean", SOURCES[0], frozenset({Site(Resid(2), Where.at("END"))}))]
    return [Experiment("clean"), Experiment("abc"), *noised, *restored, *single]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_patched_runs_score_whole_answers_as_the_oracle_does(family: str, side: Any) -> None:
    """One by one on one side, swept on the other; batches cut between prompts."""
    cases = random_cases(seed=5, lengths=[6, 6, 6, 6], templates=2)
    m = model(family, exactly=True)
    wanted = experiments()
    with borrowed(m):
        run = Runner(loaded(m), task_of(cases), rows=7, progress=Silent(), side=side, sweeps=side == "right")
        found = run.run(wanted)
    assert len(run.batches) > 1
    for experiment in wanted:
        assert_same(found[experiment], oracle_records(m, cases, experiment))


def test_prompts_of_several_lengths_and_a_mean_over_what_follows_them() -> None:
    cases = random_cases(seed=6, lengths=[5, 7, 5, 7, 6, 6])
    m = model("gpt2", exactly=True)
    sites = frozenset({Site(Head(0, 2), Where.at("END")), Site(Mlp(1), Where.everywhere())})
    wanted = [Experiment("clean", source, sites) for source in (SOURCES[0], SOURCES[3])]
    with borrowed(m):
        found = Runner(loaded(m), task_of(cases), rows=5, progress=Silent()).run(wanted)
    for experiment in wanted:
        assert_same(found[experiment], oracle_records(m, cases, experiment))


def test_the_first_token_of_the_answer_is_the_whole_of_one_token() -> None:
    """By arithmetic: with answers of one token, sums of log probabilities are those of the usual metrics."""
    from dataclasses import replace

    from tests.engine.support import random_prompts, runner
    from tests.engine.support import task_of as single_task

    prompts = random_prompts(seed=9, lengths=[5, 6, 6])
    m = model("gpt2")
    whole = random_cases(seed=9, lengths=[5, 6, 6])
    cases = [
        replace(
            case,
            clean=p.clean,
            corrupt=p.corrupt,
            answers=[[a] for a in p.answers],
            wrong=[[a] for a in p.wrong],
            roles=p.roles,
        )
        for case, p in zip(whole, prompts, strict=True)
    ]
    one = Experiment("clean", SOURCES[0], frozenset({Site(Head(1, 0), Where.at("END"))}))
    with borrowed(m):
        usual = runner(m, single_task(prompts)).run([one])[one]
        summed = runner(m, task_of(cases)).run([one])[one]
    assert set(summed) == set(usual) - {"logit", "logit_diff", "rank"}
    for name, values in summed.items():
        np.testing.assert_allclose(values, usual[name], rtol=0, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(summed["logprob_diff"], usual["logit_diff"], rtol=0, atol=1e-12)
