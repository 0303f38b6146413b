"""Prompts as rows or a DataFrame wherever a task is taken: explored, measured, and written beside a hypothesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import circuitspec
from circuitspec.prompts.files.prompts_in_memory import as_file, prompts_from
from tests.api.support import ROWS, S2, ByHooks
from tests.api.test_api import TINY, state

CLAIM = circuitspec.claim("necessary", metric="logit_diff", at_most=0.3)


def built(task: Any, **settings: Any) -> circuitspec.Hypothesis:
    return circuitspec.hypothesis(
        "rows", task=task, groups={"inhibition": "a2.h2@END"}, ablation="resample", claims=[CLAIM], **settings
    )


def test_a_hypothesis_of_rows(model: Any, tokenizer: Any, hooks: ByHooks, tmp_path: Path) -> None:
    """Run as it is; and saved, with the prompts beside it, it is the same on another day."""
    hypothesis = built(pd.DataFrame(ROWS))
    frame = circuitspec.verify(hypothesis, model, tokenizer, negatives="off").frame
    row = frame[(frame["sites"] == "a2.h2@END") & (frame["base"] == "clean")].iloc[0]
    expected = hooks.score(hooks.patched([(("head", 2, 2), -1)], "clean", "corrupt"))
    assert row["logit_diff"] == pytest.approx(expected["logit_diff"].mean(), abs=1e-9)
    saved = hypothesis.save(tmp_path / "rows.circuit.yaml")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".yaml"]
    for again in (saved, tmp_path / "rows.circuit.yaml", hypothesis.replace(description="said")):
        found = circuitspec.verify(again, model, tokenizer, negatives="off").frame
        pd.testing.assert_frame_equal(found, frame)
    other = hypothesis.replace(task=ROWS[:2])
    assert circuitspec.verify(other, model, tokenizer, negatives="off").prompts.prompts[-1].index == 1
    assert circuitspec.check(hypothesis)
    assert "3 prompts" in circuitspec.plan(hypothesis, model)


def test_rows_as_the_file_of_a_task(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    """With the keys that a file's prompts can have beside them: `columns`, `score`, `skip`, positions."""
    renamed = pd.DataFrame(ROWS).rename(columns={"clean": "text", "answers": "right"})
    columns = {"clean": "text", "corrupt": "corrupt", "answers": "right", "wrong": "wrong"}
    task = {"file": renamed, "columns": columns, "positions": {"HERE": S2}}
    frame = circuitspec.patch(model, tokenizer, task, "a0.h3@HERE")
    expected = hooks.score(hooks.patched([(("head", 0, 3), S2)], "clean", "corrupt"))
    assert frame.loc[0, "logit_diff"] == pytest.approx(expected["logit_diff"].mean(), abs=1e-9)
    whole = circuitspec.patch(model, tokenizer, {"file": ROWS, "score": "sum_logprob"}, "a0.h3@S2")
    assert whole.loc[0, "logprob"] == pytest.approx(expected["logprob"].mean(), abs=1e-9)
    twice = circuitspec.patch(model, tokenizer, {"file": [*ROWS, ROWS[0]], "skip": ["repeats"]}, "a0.h3@S2")
    assert (twice.loc[0, "n_prompts"], twice.loc[0, "logit_diff"]) == (3, frame.loc[0, "logit_diff"])


def test_one_prompt_and_columns(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    expected = hooks.score(hooks.patched([(("head", 2, 2), -1)], "clean", "corrupt"))["logit_diff"]
    one = circuitspec.patch(model, tokenizer, ROWS[1], "a2.h2@END")
    assert one.loc[0, "logit_diff"] == pytest.approx(expected[1], abs=1e-9)
    columns = pd.DataFrame(ROWS).to_dict(orient="list")
    every = circuitspec.patch(model, tokenizer, columns, "a2.h2@END")
    assert every.loc[0, "logit_diff"] == pytest.approx(expected.mean(), abs=1e-9)


@pytest.mark.nightly
def test_rows_are_explored(model: Any, tokenizer: Any, hooks: ByHooks, tmp_path: Path) -> None:
    before = state(model)
    found = circuitspec.explore(pd.DataFrame(ROWS), model, tokenizer, max_forwards=300)
    assert state(model) == before
    effects = found.effects
    assert {*effects["position"]} == {"S2", "END"}
    row = effects[(effects["component"] == "a2.h2") & (effects["position"] == "END")].iloc[0]
    clean, corrupt = (
        hooks.score([run.logits[-1] for run in hooks.runs[name]])["logit_diff"].mean() for name in ("clean", "corrupt")
    )
    patched = hooks.score(hooks.patched([(("head", 2, 2), -1)], "clean", "corrupt"))["logit_diff"].mean()
    assert row["drop"] == pytest.approx((clean - patched) / (clean - corrupt), abs=1e-9)
    assert found.draft is not None
    placed = found.draft.save(tmp_path / "draft.circuit.yaml")
    first, again = (circuitspec.verify(one, model, tokenizer, negatives="off").frame for one in (found.draft, placed))
    pd.testing.assert_frame_equal(first, again)
    assert "2 positions" in circuitspec.plan(ROWS, model)
    assert "3 prompts, 2 positions" in circuitspec.check(ROWS).summary


def test_whole_model_tables_of_rows(model: Any, tokenizer: Any, hooks: ByHooks, tmp_path: Path) -> None:
    clean = hooks.score([run.logits[-1] for run in hooks.runs["clean"]])["logit_diff"]
    name, text = as_file(ROWS)
    (tmp_path / name).write_text(text, encoding="utf-8")
    for prompts in (ROWS, pd.DataFrame(ROWS), {"file": ROWS}, str(tmp_path / name)):
        table = circuitspec.direct_attribution(prompts, model, tokenizer)
        assert table["effect"].sum() == pytest.approx(clean.mean(), abs=1e-9)
        lens = circuitspec.logit_lens(prompts, model, tokenizer, per_prompt=True)
        np.testing.assert_allclose(lens[lens["component"] == "output"]["logit_diff"], clean, atol=1e-9)


def test_a_head_attends_to_all_tokens_of_a_position(model: Any, tokenizer: Any) -> None:
    """What it adds by a position of three tokens is what it adds by each of them."""
    apart, joined = (
        [{**row, "positions": positions} for row in ROWS]
        for positions in ({"A": 1, "B": 2, "C": 3}, {"ABC": [1, 2, 3]})
    )
    by_token, by_span = (
        circuitspec.direct_attribution(rows, model, tokenizer, by_source=True).set_index(["component", "source"])
        for rows in (apart, joined)
    )
    for head in ("a1.h0", "a2.h2", "a3.h3"):
        expected = sum(by_token.loc[(head, one), "effect"] for one in "ABC")
        assert abs(expected) > 1e-6
        assert by_span.loc[(head, "ABC"), "effect"] == pytest.approx(expected, abs=1e-9)


def test_no_model_and_arguments_in_another_order(model: Any, tokenizer: Any) -> None:
    for call in (circuitspec.direct_attribution, circuitspec.logit_lens, circuitspec.explore):
        with pytest.raises(circuitspec.CircuitspecError, match="CS516"):
            call(ROWS)  # type: ignore[operator]
        with pytest.raises(TypeError, match=r"first, as in .*, model, tokenizer\)"):
            call(model, tokenizer, ROWS)  # type: ignore[operator]
    with pytest.raises(circuitspec.CircuitspecError, match="CS516"):
        circuitspec.plan(ROWS)
    with pytest.raises(circuitspec.CircuitspecError, match="CS358"):
        built(3)


def test_the_file_says_what_the_rows_say() -> None:
    """numpy's values, token ids and missing values of a frame too; other rows have another name."""
    rows: list[dict[str, Any]] = [
        {"clean": np.array([5, 6, 7]), "corrupt": (5, 8, 7), "answers": [np.int64(3)], "wrong": [4], "by": pd.NA},
        {"clean": np.array([6, 6, 7]), "corrupt": (6, 8, 7), "answers": [np.int64(4)], "wrong": [3], "by": "a"},
    ]
    name, text = as_file(rows)
    assert (
        text.splitlines()[0] == '{"clean": [5, 6, 7], "corrupt": [5, 8, 7], "answers": [3], "wrong": [4], "by": null}'
    )
    read, given = prompts_from([json.loads(line) for line in text.splitlines()]), prompts_from(rows)
    assert read == given
    assert as_file(rows[:1])[0] != name == as_file(pd.DataFrame(rows))[0]
    with pytest.raises(circuitspec.CircuitspecError, match="CS358: rows cannot be written"):
        as_file([{"clean": "a", "weight": float("inf")}])


def test_help_stands_below_the_message(model: Any, tokenizer: Any) -> None:
    with pytest.raises(circuitspec.CircuitspecError) as error:
        circuitspec.patch(model, tokenizer, ROWS, "blocks.2.attn.hook_z")
    assert error.value.__notes__ == ["help: components are written a9.h6, a9, m3, m1.n42, r5, r5.mid or a9.kv2"]
    with pytest.raises(circuitspec.CircuitspecError) as error:
        built(TINY.parent / "none.jsonl", free=["x"])
    assert [note.count("help:") for note in error.value.__notes__] == [1]
