"""`patch`, `path_patch` and `sweep` on a model in memory, against plain hooks and the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

import circuitspec
from circuitspec.models.zoo import zoo_path
from circuitspec.prompts.output_metrics import METRICS
from tests.api.support import ROWS, S2, ByHooks
from tests.api.test_api import TINY, state
from tests.oracle import node
from tests.oracle.path import open_ends, path_patch


def agrees(row: Any, expected: dict[str, np.ndarray], hooks: ByHooks, anchor: list[torch.Tensor] | None = None) -> None:
    clean = hooks.score([run.logits[-1] for run in hooks.runs["clean"]])
    corrupt = hooks.score(anchor or [run.logits[-1] for run in hooks.runs["corrupt"]])
    for name, values in expected.items():
        if name not in row:  # which is another that is there, where answers are one token
            assert METRICS[name].same_as in row
            continue
        assert row[name] == pytest.approx(values.mean(), abs=1e-9), name
        top, bottom = clean[name].mean(), corrupt[name].mean()
        if not np.isnan(row[f"recovered_{name}"]):
            assert row[f"recovered_{name}"] == pytest.approx((values.mean() - bottom) / (top - bottom), abs=1e-9)
    assert not np.isnan(row["recovered_logit_diff"])


@pytest.mark.parametrize(
    ("how", "base", "source"), [("noising", "clean", "corrupt"), ("denoising", "corrupt", "clean")]
)
def test_a_head_is_patched_as_by_hooks(
    model: Any, tokenizer: Any, hooks: ByHooks, how: str, base: str, source: str
) -> None:
    before = state(model)
    frame = circuitspec.patch(model, tokenizer, ROWS, ["a2.h2@END", "a0.h3@S2", "m1"], how)
    assert state(model) == before
    everywhere = [(("mlp", 1), place) for place in range(len(hooks.clean[0]))]
    sites = [[(("head", 2, 2), -1)], [(("head", 0, 3), S2)], everywhere]
    for (_, row), chosen in zip(frame.iterrows(), sites, strict=True):
        agrees(row, hooks.score(hooks.patched(chosen, base, source)), hooks)
    assert frame[["kind", "layer", "head", "position", "corruption", "direction"]].astype(object).values.tolist() == [
        ["head", 2, 2, "END", "abc", how],
        ["head", 0, 3, "S2", "abc", how],
        ["mlp", 1, pd.NA, "all", "abc", how],
    ]


def test_components_together_and_zeros(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    frame = circuitspec.patch(model, tokenizer, ROWS, ["a2.h2@END", "m3@S2"], "zero", together=True, unpatched=True)
    assert list(frame["experiment"]) == ["clean", "a2.h2@END, m3@S2 zero"]
    n = len(hooks.clean[0])
    every = [(("head", layer, h), at) for layer in range(4) for h in range(4) for at in range(n)]
    every += [(("mlp", layer), at) for layer in range(4) for at in range(n)]
    anchor = hooks.patched(every, "clean", None)
    expected = hooks.score(hooks.patched([(("head", 2, 2), -1), (("mlp", 3), S2)], "clean", None))
    agrees(frame.iloc[1], expected, hooks, anchor)
    assert (frame.iloc[1]["kind"], frame.iloc[1]["n_sites"]) == ("", 2)


def test_means_are_over_the_prompts_themselves(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    frame = circuitspec.patch(model, tokenizer, ROWS, "a2.h2@END", "mean")
    mean = sum(run.values["head", 2, 2][-1] for run in hooks.runs["corrupt"]) / len(ROWS)
    logits = [hooks.run(ids, {(("head", 2, 2), len(ids) - 1): mean}).logits[-1] for ids in hooks.clean]
    for name, values in hooks.score(logits).items():
        if name not in frame:
            assert METRICS[name].same_as in frame
            continue
        assert frame.iloc[0][name] == pytest.approx(values.mean(), abs=1e-9)


def test_a_sweep_is_every_head_by_hooks(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    frame = circuitspec.sweep(model, tokenizer, ROWS, "heads", at=["END", "S2"])
    assert len(frame) == 4 * 4 * 2
    for _, row in frame.iterrows():
        site = [(("head", row["layer"], row["head"]), {"END": -1, "S2": S2}[row["position"]])]
        agrees(row, hooks.score(hooks.patched(site, "clean", "corrupt")), hooks)


def test_a_sweep_of_streams_per_prompt(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    frame = circuitspec.sweep(model, tokenizer, ROWS, "resid", "denoising", at="S2", layers=[1, 3], per_prompt=True)
    assert list(frame["layer"]) == [1, 1, 1, 3, 3, 3]
    for layer, part in frame.groupby("layer"):
        expected = hooks.score(hooks.patched([(("resid", layer, "pre"), S2)], "corrupt", "clean"))
        for name, values in expected.items():
            if name not in part:
                assert METRICS[name].same_as in part
                continue
            np.testing.assert_allclose(part[name], values, atol=1e-9)
    assert list(frame["text"][:3]) == [row["corrupt"]["abc"] for row in ROWS]


def test_a_path_is_that_of_the_oracle(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    paths = ["a1.h3@S2 -> a2.h2<v>", "a2.h2@END -> logits"]
    frame = circuitspec.path_patch(model, tokenizer, ROWS, paths)
    sources = [node.resample_values(model, ids) for ids in hooks.corrupt]
    both = list(zip(hooks.clean, sources, strict=True))
    end = (("head", 2, 2), {"v"}, None)
    into = [open_ends(model, ids, new, ("head", 1, 3), [end], sender_positions=[S2])[-1] for ids, new in both]
    last = len(hooks.clean[0]) - 1
    out = [path_patch(model, ids, new, ("head", 2, 2), [("final",)], sender_positions=[last])[-1] for ids, new in both]
    for (_, row), logits in zip(frame.iterrows(), (into, out), strict=True):
        agrees(row, hooks.score(logits), hooks)
    assert list(frame["receiver"]) == ["a2.h2<v>", "logits"]
    assert list(frame["level"]) == ["path", "path"]
    assert (frame["kind"].eq("path").all(), list(frame["layer"]), list(frame["position"])) == (
        True,
        [1, 2],
        ["S2", "END"],
    )


def test_frames_join_and_draw(model: Any, tokenizer: Any) -> None:
    swept = circuitspec.sweep(model, tokenizer, ROWS, "heads", at="END")
    named = circuitspec.patch(model, tokenizer, ROWS, "m2@END")
    joined = pd.concat([swept, named], ignore_index=True)
    drawn = joined.heatmap(kind="head")
    (values,) = drawn.values.values()
    for _, row in swept.iterrows():
        assert values.loc[row["layer"], row["head"]] == row["recovered_logit_diff"]
    assert "<svg" in drawn._repr_html_()
    with pytest.raises(ValueError, match="several kinds"):
        joined.heatmap()
    with pytest.raises(ValueError, match="there is no column nothing"):
        swept.heatmap("nothing")
    with pytest.raises(ValueError, match="several rows"):
        pd.concat([swept, swept]).heatmap()


def test_the_columns_are_those_of_a_verification(model: Any, tokenizer: Any) -> None:
    verified = circuitspec.verify(TINY, model, tokenizer, negatives="off").frame
    patched = circuitspec.patch(model, tokenizer, TINY, "a2.h2@END")
    assert list(patched.columns) == list(verified.columns)
    assert len(pd.concat([verified, patched])) == len(verified) + 1


@pytest.mark.parametrize(
    ("components", "codes"),
    [
        (["a9.h0", "a1.h9"], ["CS220", "CS220"]),
        ("a1,h0", ["CS117"]),
        ("a1.h0<q>", ["CS202"]),
        ("logits", ["CS221"]),
        ("a1.h0 -> logits", ["CS117"]),
        ("a1.h0@S3", ["CS507"]),
    ],
)
def test_names_that_cannot_be_patched(model: Any, tokenizer: Any, components: Any, codes: list[str]) -> None:
    with pytest.raises(circuitspec.CircuitspecError) as error:
        circuitspec.patch(model, tokenizer, ROWS, components)
    assert [one.code for one in error.value.diagnostics] == codes


@pytest.mark.parametrize(
    ("path", "code"),
    [("a1.h0", "CS203"), ("a9.h0 -> logits", "CS220"), ("r1 -> logits", "CS226"), ("a3.h0 -> a1.h0", "CS227")],
)
def test_paths_that_are_none(model: Any, tokenizer: Any, path: str, code: str) -> None:
    with pytest.raises(circuitspec.CircuitspecError) as error:
        circuitspec.path_patch(model, tokenizer, ROWS, path)
    assert [one.code for one in error.value.diagnostics] == [code]


def test_arguments_that_mean_nothing(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="noising, denoising"):
        circuitspec.patch(model, tokenizer, ROWS, "a1.h0", "knockout")
    with pytest.raises(ValueError, match="heads, patterns, experts, neurons"):
        circuitspec.sweep(model, tokenizer, ROWS, "head")
    with pytest.raises(ValueError, match="no layer 4"):
        circuitspec.sweep(model, tokenizer, ROWS, layers=[4])
    with pytest.raises(circuitspec.CircuitspecError, match="CS358"):
        circuitspec.patch(model, tokenizer, 3, "a1.h0")
    with pytest.raises(circuitspec.CircuitspecError, match="CS508"):
        circuitspec.patch(model, tokenizer, ROWS, "a1.h0", corruption="flip")


def test_prompts_in_other_forms_are_the_same(model: Any, tokenizer: Any, tmp_path: Any) -> None:
    import json

    plain = [{**row, "corrupt": row["corrupt"]["abc"], "positions": {"S2": S2}} for row in ROWS]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, plain)), encoding="utf-8")
    forms = [plain, pd.DataFrame(plain), file, {"file": str(file)}]
    frames = [circuitspec.patch(model, tokenizer, prompts, "a0.h3@S2") for prompts in forms]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_a_store_is_used(model: Any, tokenizer: Any, tmp_path: Any) -> None:
    first = circuitspec.patch(model, tokenizer, ROWS, "a2.h2@END", store=tmp_path)
    assert any(tmp_path.iterdir())
    again = circuitspec.patch(model, tokenizer, ROWS, "a2.h2@END", store=tmp_path)
    pd.testing.assert_frame_equal(again, first)


def test_each_corruption_has_a_row_of_its_own(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    flipped = [
        {**row, "corrupt": {"flip": other["clean"], **row["corrupt"]}}
        for row, other in zip(ROWS, ROWS[1:] + ROWS[:1], strict=True)
    ]
    both = circuitspec.patch(model, tokenizer, flipped, ["a2.h2@END", "m3@END"], "denoising")
    assert list(both["corruption"]) == ["flip", "abc", "flip", "abc"]
    agrees(both.iloc[1], hooks.score(hooks.patched([(("head", 2, 2), -1)], "corrupt", "clean")), hooks)
    one = circuitspec.patch(model, tokenizer, flipped, "m3@END", "denoising", corruption="flip")
    assert one.loc[0, "logit_diff"] == pytest.approx(both.loc[2, "logit_diff"], abs=1e-9)
    assert list(both.heatmap(kind="head").values) == ["flip", "abc"]


def test_hooks_take_part_where_that_is_asked_for(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    module = model.transformer.h[1]
    handle = module.register_forward_hook(lambda _, args, output: output + 0.1)
    try:
        with pytest.warns(UserWarning, match="CS438: hooks on the model took part in every forward"):
            kept = circuitspec.patch(model, tokenizer, ROWS, "a2.h2@END", unpatched=True, keep_hooks=True)
        clean = hooks.score([model(torch.tensor([ids])).logits[0, -1].detach() for ids in hooks.clean])
        with pytest.warns(UserWarning, match=r"CS438: hooks on the model were set aside: transformer.h.1"):
            bare = circuitspec.patch(model, tokenizer, ROWS, "a2.h2@END", unpatched=True)
    finally:
        handle.remove()
    assert kept.loc[0, "logit_diff"] == pytest.approx(clean["logit_diff"].mean(), abs=1e-9)
    expected = hooks.score([run.logits[-1] for run in hooks.runs["clean"]])
    assert bare.loc[0, "logit_diff"] == pytest.approx(expected["logit_diff"].mean(), abs=1e-9)


def test_a_single_prompt_has_shares(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    """There is no interval, and it is that prompt's own share."""
    frame = circuitspec.patch(model, tokenizer, ROWS[:1], "a2.h2@END", "denoising")
    (logits, *_) = hooks.patched([(("head", 2, 2), -1)], "corrupt", "clean")
    answer, wrong = hooks.targets[0]
    patched, clean, corrupt = (
        float(one[answer] - one[wrong])
        for one in (logits, hooks.runs["clean"][0].logits[-1], hooks.runs["corrupt"][0].logits[-1])
    )
    assert frame.loc[0, "recovered_logit_diff"] == pytest.approx((patched - corrupt) / (clean - corrupt), abs=1e-9)


def test_rows_that_are_no_prompts(model: Any, tokenizer: Any) -> None:
    for rows, codes in (([], ["CS339"]), ([{"text": "a"}], ["CS356"]), (["a"], ["CS338"])):
        with pytest.raises(circuitspec.CircuitspecError) as error:
            circuitspec.patch(model, tokenizer, rows, "a1.h0")
        assert [one.code for one in error.value.diagnostics] == codes


def test_positions_of_the_call(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    frame = circuitspec.patch(model, tokenizer, ROWS, "a0.h3@AGAIN", positions={"AGAIN": S2})
    agrees(frame.iloc[0], hooks.score(hooks.patched([(("head", 0, 3), S2)], "clean", "corrupt")), hooks)
    wrong: list[tuple[Any, str]] = [({"A": "??"}, "CS140"), ({"b c": 2}, "CS149"), ({"A": 99}, "CS345")]
    for positions, code in wrong:
        with pytest.raises(circuitspec.CircuitspecError, match=code):
            circuitspec.patch(model, tokenizer, ROWS, "m1", positions=positions)
    with pytest.raises(TypeError, match="names as texts"):
        circuitspec.patch(model, tokenizer, ROWS, 3)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:CS438")  # a forward is put in place of the class's own
def test_a_sweep_shares_forwards(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 experiments more take far fewer runs more: they lie side by side in the batch."""
    calls: list[int] = []
    forward = model.transformer.h[3].forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.transformer.h[3], "forward", counted)
    circuitspec.sweep(model, tokenizer, ROWS, at="END", layers=[2])
    few = len(calls)
    frame = circuitspec.sweep(model, tokenizer, ROWS)
    assert len(frame) == 4 * 4 * 3
    assert len(calls) - 2 * few < 15


def test_what_transformers_records_by_hooks_is_recorded_after_a_run_too(tokenizer: Any) -> None:
    """pyvene removes all hooks around each forward, and transformers registers those of its recordings once."""
    model = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"), attn_implementation="eager").eval()
    ids = torch.tensor([tokenizer(ROWS[0]["clean"])["input_ids"]])
    with torch.no_grad():
        before = model(ids, output_attentions=True, output_hidden_states=True)
        circuitspec.patch(model, tokenizer, ROWS, "a2.h2@END")
        after = model(ids, output_attentions=True, output_hidden_states=True)
    assert len(after.attentions) == 4
    assert len(after.hidden_states) == 5
    for one, other in zip(before.attentions, after.attentions, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_patterns_have_their_head(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    """A row says which head's pattern it patches, and patterns draw layer by head; figures by hand, from records."""
    frame = circuitspec.sweep(model, tokenizer, ROWS, "patterns", at="END", layers=[2])
    assert frame[["kind", "layer", "head", "position"]].values.tolist() == [["pattern", 2, h, "END"] for h in range(4)]
    arrays = circuitspec.record(model, tokenizer, ROWS, ["a2.h1.pattern@END", "a2.h1<v>"])
    weights, values = arrays["abc"]["a2.h1.pattern@END"], arrays["clean"]["a2.h1<v>"]
    logits = [
        hooks.run(ids, {(("head", 2, 1), len(ids) - 1): torch.from_numpy(weights[i] @ values[i])}).logits[-1]
        for i, ids in enumerate(hooks.clean)
    ]
    assert frame.loc[1, "logit_diff"] == pytest.approx(hooks.score(logits)["logit_diff"].mean(), abs=1e-9)
    (drawn,) = frame.heatmap().values.values()
    assert drawn.loc[2, 1] == frame.loc[1, "recovered_logit_diff"]
    one = circuitspec.patch(model, tokenizer, ROWS, "a2.h1.pattern@END")
    assert (one.loc[0, "head"], one.loc[0, "logit_diff"]) == (1, pytest.approx(frame.loc[1, "logit_diff"], abs=1e-9))


def test_noise_is_no_way_of_patching_a_component(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"noise goes on the embeddings .* ablation\(\"gaussian\""):
        circuitspec.patch(model, tokenizer, ROWS, "a1.h0", "gaussian")


class Adapted(torch.nn.Module):
    """A projection with a low-rank adapter beside it, which peft would have put there."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = torch.nn.ParameterDict({"default": torch.nn.Parameter(low_rank(2, 64))})
        self.lora_B = torch.nn.ParameterDict({"default": torch.nn.Parameter(low_rank(192, 2))})

    def merge(self) -> None:
        self.base_layer.weight.data += (self.lora_B["default"] @ self.lora_A["default"]).T

    def get_base_layer(self) -> Any:
        return self.base_layer


def low_rank(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4


@pytest.mark.nightly
def test_adapters_are_merged_into_a_copy(tokenizer: Any) -> None:
    """Figures are those of a model whose weights were added to by hand, and the given one keeps its adapters."""
    given, plain = (AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny")).double() for _ in range(2))
    given.transformer.h[1].attn.c_attn = Adapted(given.transformer.h[1].attn.c_attn)
    plain.transformer.h[1].attn.c_attn.weight.data += (low_rank(192, 2) @ low_rank(2, 64)).T
    calls: list[tuple[Any, Any]] = [
        (circuitspec.patch, {"components": "a2.h2@END"}),
        (circuitspec.sweep, {"at": "END", "layers": [2]}),
        (circuitspec.path_patch, {"paths": "a2.h2@END -> logits"}),
    ]
    for call, how in calls:
        with pytest.raises(circuitspec.CircuitspecError, match="CS515"):
            call(given, tokenizer, ROWS, **how)
        merged = call(given, tokenizer, ROWS, **how, merge_adapters=True)
        by_hand = call(plain, tokenizer, ROWS, **how)
        np.testing.assert_allclose(merged["logit_diff"], by_hand["logit_diff"], atol=1e-9)
    found = circuitspec.record(given, tokenizer, ROWS, "r2", merge_adapters=True)["clean"]["r2"]
    np.testing.assert_allclose(found, circuitspec.record(plain, tokenizer, ROWS, "r2")["clean"]["r2"], atol=1e-9)
    assert isinstance(given.transformer.h[1].attn.c_attn, Adapted)
