"""Metrics against formulas written in numpy with exact sums, one prompt at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from circuitspec.hypothesis_file.schema.block import OUTPUT_METRICS
from circuitspec.prompts.output_metrics import METRICS, available_metrics, check_metrics, compute_metrics, targets
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from tests.prompts.support import errors_of, one_error

Row = NDArray[np.float64]


def softmax(row: Row) -> Row:
    weights = np.exp(row - row.max())
    return np.asarray(weights / math.fsum(weights), dtype=np.float64)


def expected(row: Row, answers: list[int], wrong: list[int], clean: Row) -> dict[str, float]:
    p, q = softmax(row), softmax(clean)
    logs = row - row.max() - math.log(math.fsum(np.exp(row - row.max())))
    clean_logs = clean - clean.max() - math.log(math.fsum(np.exp(clean - clean.max())))
    best = max(row[a] for a in answers)
    mean_right = math.fsum(row[a] for a in answers) / len(answers)
    values = {
        "logit": mean_right,
        "prob": math.fsum(p[a] for a in answers),
        "logprob": math.log(math.fsum(np.exp(logs[answers] - logs[answers].max()))) + logs[answers].max(),
        "rank": float(sum(x > best for x in row)),
        "kl": math.fsum(q * (clean_logs - logs)),
    }
    if wrong:
        values["logit_diff"] = mean_right - math.fsum(row[w] for w in wrong) / len(wrong)
        values["logprob_diff"] = math.fsum(logs[answers]) / len(answers) - math.fsum(logs[wrong]) / len(wrong)
        values["prob_diff"] = values["prob"] - math.fsum(p[w] for w in wrong)
        values["accuracy"] = float(best > max(row[w] for w in wrong))
    else:
        values["accuracy"] = float(all(best > x for k, x in enumerate(row) if k not in answers))
    return values


def log_softmax(rows: Row) -> torch.Tensor:
    return torch.log_softmax(torch.tensor(rows), -1)


@given(
    data=st.data(),
    n_vocab=st.integers(6, 40),
    n=st.integers(1, 6),
    with_wrong=st.booleans(),
    scale=st.sampled_from([0.1, 3.0, 200.0]),
)
def test_every_metric_equals_its_formula(
    data: st.DataObject, n_vocab: int, n: int, with_wrong: bool, scale: float
) -> None:
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, clean = draws.normal(0, scale, (n, n_vocab)), draws.normal(0, scale, (n, n_vocab))
    answers, wrong = [], []
    for _ in range(n):
        tokens = draws.permutation(n_vocab).tolist()
        k, m = draws.integers(1, 4), draws.integers(1, 4)
        answers.append(tokens[:k])
        wrong.append(tokens[k : k + m] if with_wrong else [])
    found = compute_metrics(torch.tensor(rows), targets(answers), targets(wrong), log_softmax(clean))
    wanted = [expected(rows[i], answers[i], wrong[i], clean[i]) for i in range(n)]
    assert set(found) == set(wanted[0])
    for name, values in found.items():
        assert values.dtype == torch.float64
        assert values.shape == (n,)
        np.testing.assert_allclose(values.numpy(), [w[name] for w in wanted], rtol=1e-10, atol=1e-12, err_msg=name)


def test_by_hand() -> None:
    # probabilities 1/8, 1/8, 1/4, 1/2; the clean run is uniform
    logits = torch.tensor([[0.0, 0.0, math.log(2), math.log(4)]], dtype=torch.float64)
    uniform = torch.full((1, 4), -math.log(4), dtype=torch.float64)
    found = compute_metrics(logits, targets([[0, 2]]), targets([[1]]), uniform)
    assert {name: round(value.item(), 12) for name, value in found.items()} == {
        "logit_diff": round(math.log(2) / 2, 12),
        "logit": round(math.log(2) / 2, 12),
        "logprob": round(math.log(3 / 8), 12),
        "logprob_diff": round((math.log(1 / 8) + math.log(1 / 4)) / 2 - math.log(1 / 8), 12),
        "prob": 0.375,
        "prob_diff": 0.25,
        "accuracy": 1.0,
        "rank": 1.0,
        # sum of 1/4 ln((1/4) / p) = 1/4 ln 2 + 1/4 ln 2 + 0 - 1/4 ln 2
        "kl": round(math.log(2) / 4, 12),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, -4.0]], dtype=dtype)
    found = compute_metrics(logits, targets([[2]]), targets([[0]]), torch.log_softmax(logits.float(), -1))
    assert {value.dtype for value in found.values()} == {torch.float32}
    wanted = expected(np.array([1.0, 2.0, 3.0, -4.0]), [2], [0], np.array([1.0, 2.0, 3.0, -4.0]))
    for name, value in found.items():
        assert value.item() == pytest.approx(wanted[name], abs=2e-7)


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_extreme_logits_do_not_overflow(size: float) -> None:
    logits = torch.tensor([[size, 0.0, -size], [-size, 0.0, size]])
    found = compute_metrics(logits, targets([[0], [0]]), targets([[2], [1]]), torch.log_softmax(torch.zeros(2, 3), -1))
    assert found["prob"].tolist() == [1.0, 0.0]
    assert found["prob_diff"].tolist() == [1.0, 0.0]
    assert found["accuracy"].tolist() == [1.0, 0.0]
    assert found["rank"].tolist() == [0.0, 2.0]
    assert found["logprob"][0].item() == 0.0
    assert found["logprob"][1].item() < -size
    assert not any(value.isnan().any() for value in found.values())


def test_a_vocabulary_with_impossible_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    found = compute_metrics(logits, targets([[0]]), targets([[1]]), torch.log_softmax(logits, -1))
    assert found["kl"].item() == 0.0
    assert found["prob"].item() == 0.5
    impossible = compute_metrics(logits, targets([[0]]), None, torch.log_softmax(torch.zeros(1, 3), -1))
    assert impossible["kl"].item() == math.inf


def test_ties_are_not_wins() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0]])
    assert compute_metrics(logits, targets([[0]]), targets([[1]]))["accuracy"].item() == 0.0
    assert compute_metrics(logits, targets([[0]]), None)["accuracy"].item() == 0.0
    assert compute_metrics(logits, targets([[0, 1]]), None)["accuracy"].item() == 1.0
    assert compute_metrics(logits, targets([[0]]), None)["rank"].item() == 0.0


def test_nan_is_never_an_answer() -> None:
    logits = torch.tensor([[math.nan, 1.0, 0.0], [1.0, math.nan, 0.0], [2.0, 1.0, 0.0]])
    for wrong in (targets([[1], [1], [1]]), None):
        found = compute_metrics(logits, targets([[0], [0], [0]]), wrong, torch.log_softmax(torch.zeros(3, 3), -1))
        for name, values in found.items():
            assert not values[2].isnan()
            assert values[0].isnan(), name
            assert values[1].isnan() or name == "logit", name
    broken = compute_metrics(torch.zeros(1, 3), targets([[0]]), None, torch.full((1, 3), math.nan))
    assert broken["kl"].isnan().item()


def test_the_answer_does_not_depend_on_the_batch() -> None:
    logits = torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [[0], [1, 2, 3], [4], [5, 6], [7], [8], [9, 10]]
    wrong = [[1], [0], [2, 3], [1], [0, 1, 2, 3], [2], [4]]
    whole = compute_metrics(logits, targets(rows), targets(wrong))
    for k in range(7):
        alone = compute_metrics(logits[k : k + 1], targets(rows[k : k + 1]), targets(wrong[k : k + 1]))
        assert {name: value.item() for name, value in alone.items()} == {n: v[k].item() for n, v in whole.items()}


def test_only_what_can_be_computed_or_is_asked_for() -> None:
    logits = torch.zeros(1, 3)
    clean = torch.log_softmax(logits, -1)
    assert set(compute_metrics(logits, None, None, clean)) == {"kl"}
    assert set(compute_metrics(logits, None, None)) == set()
    assert set(compute_metrics(logits, targets([[0]]), None)) == {"logit", "logprob", "prob", "accuracy", "rank"}
    assert set(compute_metrics(logits, targets([[0]]), targets([[1]]), clean)) == set(METRICS)
    assert set(compute_metrics(logits, targets([[0]]), targets([[1]]), clean, {"rank", "kl"})) == {"rank", "kl"}


def test_padding() -> None:
    padded = targets([[5], [1, 2, 3]])
    assert padded is not None
    assert padded.mask.tolist() == [[True, False, False], [True, True, True]]
    assert padded.ids[padded.mask].tolist() == [5, 1, 2, 3]
    assert targets([[], []]) is None
    assert targets([]) is None
    with pytest.raises(ValueError, match="others have none"):
        targets([[1], []])


def test_gradients_flow() -> None:
    logits = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    compute_metrics(logits, targets([[0], [1, 2]]), targets([[3], [3]]))["logit_diff"].sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1, 0, 0, -1], [0, 0.5, 0.5, -1]]


def test_the_table_is_whole() -> None:

    assert set(METRICS) == set(OUTPUT_METRICS)
    assert all(name == metric.name and metric.description and metric.unit for name, metric in METRICS.items())
    assert {name for name, metric in METRICS.items() if metric.discrete} == {"accuracy", "rank"}
    assert {name for name, metric in METRICS.items() if metric.better == "lower"} == {"rank", "kl"}
    assert {name for name, metric in METRICS.items() if metric.needs_wrong} == {
        "logit_diff",
        "logprob_diff",
        "prob_diff",
    }


def test_metrics_that_a_task_has_no_answers_for() -> None:
    def task(answers: tuple[str, ...], wrong: tuple[str, ...]) -> PromptSet:
        return PromptSet((Prompt(0, 0, {CLEAN: "a"}, answers, wrong),), (), ("t",))

    assert available_metrics(task((), ())) == ("kl",)
    assert available_metrics(task((" x",), (" y",))) == tuple(METRICS)
    check_metrics(["accuracy", "kl"], task((" x",), ()))
    error = one_error(lambda: check_metrics(["kl", "logit_diff"], task((" x",), ())), "CS350")
    assert "no `wrong`" in error.message
    found = errors_of(lambda: check_metrics(["rank", "logitdiff"], task((), ())))
    assert [d.code for d in found] == ["CS350", "CS350"]
    assert {"no `answer`" in d.message or d.hint == "did you mean logit_diff?" for d in found} == {True}


def test_importing_tasks_imports_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, circuitspec.prompts.build, circuitspec.prompts.output_metrics;"
        "import circuitspec.prompts.tokens.tokenize;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pyvene')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
