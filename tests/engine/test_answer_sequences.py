"""Answers of several tokens against the oracle: sums of log probabilities under patches, float64 below 1e-9."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.ablation.embedding_noise import noise
from circuitspec.engine.cache.store_keys import Keys
from circuitspec.engine.execution.batches import check_equally_long, make_batches
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from tests.engine.answer_cases import assert_same, oracle_records, random_cases, task_of
from tests.engine.support import Silent, loaded, model, random_prompts, runner
from tests.engine.support import assert_same as assert_same_single
from tests.engine.support import oracle_records as oracle_single
from tests.engine.support import task_of as single_task
from tests.engine.test_own_variants import AT_A, SWEPT, both
from tests.engine.test_store_keys import SETTING

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


@pytest.mark.parametrize(
    ("family", "side"),
    [
        ("gpt2", "right"),
        ("llama", "left"),
        ("gemma2", "right"),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in (("gpt2", "left"), ("llama", "right"), ("gemma2", "left"))
        ),
    ],
)
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


def test_means_over_prompts_without_so_long_an_answer_are_refused() -> None:
    cases = random_cases(seed=6, lengths=[5, 5, 5])
    short = [replace(case, answers=[[1], [2]], wrong=[[3], [4, 5]]) for case in cases]
    task = replace(task_of(cases), reference=task_of(short))
    m = model("gpt2", exactly=True)
    one = Experiment("clean", SOURCES[2], frozenset({Site(Mlp(1), Where.at("END"))}))
    with borrowed(m), pytest.raises(CircuitspecError, match="CS369"):
        Runner(loaded(m), task, rows=5, progress=Silent()).run([one])


def test_rows_of_one_length_where_the_longest_row_matters() -> None:
    task = task_of(random_cases(seed=6, lengths=[5, 5]))
    with pytest.raises(CircuitspecError, match="CS368"):
        check_equally_long(task)
    cases = [replace(case, answers=[[1, 2]], wrong=[[3, 4]]) for case in random_cases(seed=6, lengths=[5, 6])]
    check_equally_long(task_of(cases))
    batches = make_batches(task_of(cases).lengths, 4, by_length=True, continuations=task_of(cases).continuations)
    assert [set(batch.lengths) for batch in batches] == [{6}, {7}]


def test_the_rows_of_a_prompt_stay_together() -> None:
    after = [((), (1,), (2, 3)), ((),), ((4,), (5,)), ((6,), (7,))]
    batches = make_batches([4, 6, 5, 5], 4, continuations=after)
    assert [batch.cases for batch in batches] == [(0, 1), (2, 3)]
    assert [batch.starts for batch in batches] == [(0, 3), (0, 2)]
    (small,) = make_batches([4], 2, continuations=after[:1])
    assert small.cases == (0,)
    assert small.readings == ((0, 3), (1, 3), (1, 4), (2, 3), (2, 4), (2, 5))
    twice = small.some([0, 1, 2, 0, 1, 2])
    assert twice.cases == (0, 0)
    assert twice.case_readings == ((0, 1, 3), (6, 7, 9))
    assert batches[1].case_of == (0, 0, 1, 1)


def test_the_score_is_part_of_what_is_stored() -> None:
    cases = random_cases(seed=6, lengths=[5, 5])
    task = task_of(cases)
    other = task_of([replace(case, wrong=[[9], [8, 7]]) for case in cases])
    keys = [Keys(SETTING, one).of(Experiment("clean")) for one in (task, other, replace(task, sequences=None))]
    assert len(set(keys)) == 3


def test_the_answers_of_another_variant_can_be_expected() -> None:
    """Each run with its own, one by one and swept; and another key in the store. Not where answers follow prompts."""
    prompts, moved, task = both()
    m = model("gpt2")
    wanted = [replace(one, expected="abc") for one in (AT_A, *SWEPT)]
    with borrowed(m):
        found = runner(m, task).run([*wanted, AT_A])
    for experiment in wanted:
        own = replace(experiment, expected="clean")
        assert_same_single(found[experiment], oracle_single(m, moved, own))
        assert experiment.digest != own.digest
        assert Keys(SETTING, task).of(experiment) != Keys(SETTING, task).of(own)
    assert Experiment("abc").digest == replace(Experiment("abc"), expected="clean").digest
    assert len(prompts) == len(moved)
    whole = task_of(random_cases(seed=6, lengths=[5, 5]))
    with borrowed(m), pytest.raises(CircuitspecError, match="CS368"):
        runner(m, whole).run([Experiment("clean", expected="abc")])


def test_noise_is_put_on_prompts_and_not_on_answers() -> None:
    """The same draw on a prompt's own tokens, whatever follows it, and none after them."""
    cases = random_cases(seed=6, lengths=[5, 6])
    task = task_of(cases)
    noised = Noised(1.0, Where.everywhere(), 1, 0)
    (batch,) = make_batches(task.lengths, 9, continuations=task.continuations)
    drawn = noise(task, batch, noised, 0, 3)
    alone = noise(task, make_batches(task.lengths, 2)[0], noised, 0, 3)
    for row, (prompt, last) in enumerate(zip(batch.prompts, batch.answer_columns, strict=True)):
        assert bool((drawn[row, : last + 1] == alone[prompt, : last + 1]).all())
        assert bool((drawn[row, : last + 1] != 0).all())
        assert not bool(drawn[row, last + 1 :].any())
