"""Number formats and devices, and values that are not finite."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.records import Records
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp, Resid
from tests.engine.support import FAMILIES, gradual_parts, random_prompts, runner, task_of
from tests.engine.support import model as random_model

SITES = frozenset(
    {
        Site(Head(0, 1), Where.everywhere()),
        Site(KvHead(1, 0), Where.at("A")),
        Site(Resid(1), Where.at("B")),
    }
)
NOISE = Noised(1.0, Where.at("A"), draws=2, seed=0)
EXPERIMENTS = (
    Experiment("clean"),
    Experiment("clean", Source("resample", "abc"), SITES),
    Experiment("clean", Source("mean", "abc"), SITES),
    Experiment("clean", Source("zero", None), SITES),
    Experiment(NOISE, Source("resample", "clean"), SITES),
)
PROMPTS = random_prompts(seed=31, lengths=[7] * 4)


def measured(family: str, dtype: torch.dtype, device: str = "cpu") -> tuple[Records, Any]:
    model = copy.deepcopy(random_model(family, layers=2, exactly=False)).to(dtype).to(device)
    with borrowed(model):
        run = runner(model, task_of(PROMPTS))
        tested = self_test(run)
        return run.run([*EXPERIMENTS, *in_mlps(model)]), tested


def in_mlps(model: Any) -> list[Experiment]:
    """Parts of MLPs patched: neurons, or experts."""
    sites = frozenset(Site(part, Where.everywhere()) for part in gradual_parts(model, (0, 1)))
    return [Experiment("clean", Source("resample", "abc"), sites)]


def close(one: Records, other: Records, tolerance: float) -> None:
    for experiment in one.values:
        for metric in ("logit_diff", "logprob", "kl"):
            np.testing.assert_allclose(one[experiment][metric], other[experiment][metric], rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_agrees_with_float64(family: str) -> None:
    close(measured(family, torch.float32)[0], measured(family, torch.float64)[0], 2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_half_precision(family: str, dtype: torch.dtype) -> None:
    """Close to float64 as far as the format goes, with metrics that are finer than the format."""
    records, tested = measured(family, dtype)
    exact, _ = measured(family, torch.float64)
    close(records, exact, 0.8 if dtype == torch.bfloat16 else 0.1)
    assert 0 <= tested.own_values < 0.1
    assert 0 <= tested.all_patched < 0.1
    logprob = records[Experiment("clean")]["logprob"]
    assert (torch.tensor(logprob).to(dtype).double().numpy() != logprob).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-2)])
def test_a_gpu_gives_the_same(family: str, dtype: torch.dtype, tolerance: float) -> None:
    close(measured(family, dtype, "cuda")[0], measured(family, dtype)[0], tolerance)


def broken(family: str, change: Any, *experiments: Experiment, side: str = "right", first: int = 5) -> Any:
    model = copy.deepcopy(random_model(family, layers=3))
    with torch.no_grad():
        change(model)
    prompts = random_prompts(0, [first, 7])
    prompts[1].clean[:] = [9, 7, 9, 7, 9, 9, 9]
    prompts[1].corrupt[:] = [1, 2, 3, 4, 5, 6, 8]
    prompts[0].clean[:] = prompts[0].corrupt[:] = [1, 2, 3, 4, 5, 6, 6][:first]
    prompts[1].roles.update(A=3, B=1)
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        runner(model, task_of(prompts), side=side).run(experiments or [Experiment("clean")])
    (finding,) = error.value.diagnostics
    assert finding.code == "CS502"
    return finding


def test_nan_in_an_embedding_is_named_where_its_token_stands() -> None:
    def change(model: Any) -> None:
        model.model.embed_tokens.weight[7, 3] = torch.nan

    for side in ("right", "left"):
        finding = broken("llama", change, side=side)
        assert "first in the token embeddings at token 1 (B)" in finding.message
        assert "prompt 1" in finding.message
        assert finding.data == {"site": "the token embeddings", "prompt": 1}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_infinity_is_named_by_the_first_component_that_computes_it(family: str) -> None:
    """The value bias or weights of one head, one neuron, one MLP: each is told from what it spreads to."""
    from circuitspec.models.families.family_table import architecture_named
    from circuitspec.models.families.modules import submodule

    architecture = architecture_named(family)

    def weight(model: Any, path: str) -> torch.Tensor:
        found = submodule(model, architecture.path(path, 1)).weight
        assert isinstance(found, torch.Tensor)
        return found.T if architecture.weight_layout == "in,out" else found

    def mlp(model: Any) -> None:
        weight(model, architecture.mlp_down)[5] = torch.inf  # writes to one channel

    def attention(model: Any) -> None:
        weight(model, architecture.attn_out)[0] = torch.nan

    assert broken(family, mlp).data["site"] == "m1"
    after_attention = {"gpt_neox": "r2"}.get(family, "r1.mid")
    assert broken(family, attention).data["site"] == after_attention


def test_infinity_in_one_neuron() -> None:
    def change(model: Any) -> None:
        model.model.layers[1].mlp.up_proj.weight[17] = torch.inf

    assert broken("llama", change).data["site"] == "m1.n17"


def test_infinity_in_the_value_of_one_head() -> None:
    def change(model: Any) -> None:
        model.model.layers[1].self_attn.v_proj.weight[8] = torch.inf  # heads are 8 wide: key-value head 1

    assert broken("llama", change).data["site"] == "the value of a1.kv1"


def test_a_patched_value_that_is_not_finite_is_found_in_the_run_it_comes_from() -> None:
    """The corrupt run alone meets the broken token; averaged or not, it never reaches a patch."""

    def change(model: Any) -> None:
        model.transformer.wte.weight[8] = torch.inf

    for source in (Source("resample", "abc"), Source("mean", "abc")):
        experiment = Experiment("clean", source, frozenset({Site(Mlp(2), Where.at("A"))}))
        finding = broken("gpt2", change, experiment, first=7)
        assert "run on the abc prompt" in finding.message


def test_values_that_reach_no_answer_are_found_too() -> None:
    """The last MLP at a token before the last has no way to the answer, and is patched from nonetheless."""

    def change(model: Any) -> None:
        mlp = model.model.layers[2].mlp
        computed = mlp.forward
        spike = torch.tensor([[[0.0], [torch.inf], [0.0], [0.0], [0.0], [0.0], [0.0]]])
        mlp.forward = lambda x: computed(x) + spike.to(x.dtype)[:, : x.shape[1]]

    patched = Experiment("clean", Source("resample", "abc"), frozenset({Site(Mlp(2), Where.at("B"))}))
    finding = broken("llama", change, patched, first=7)
    assert finding.data["site"] == "m2"
    assert "first in m2 at token 1" in finding.message


def test_float16_that_overflows_says_what_to_do() -> None:
    model = copy.deepcopy(random_model("gpt2", layers=2, exactly=False))
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight *= 1e5
    with borrowed(model.half()), pytest.raises(CircuitspecError) as error:
        runner(model, task_of(random_prompts(0, [5]))).run([Experiment("clean")])
    (finding,) = error.value.diagnostics
    assert finding.code == "CS502"
    assert "bfloat16" in finding.hint
