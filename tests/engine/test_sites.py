"""Models that are not what their family's table says: `verify` refuses whatever `doctor` does.

Each is a small random model of which one module is called otherwise than its family does, as other architectures do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.validation.self_test import self_test
from circuitspec.engine.validation.site_tests import diagnose
from circuitspec.models.families.family_table import architecture_of
from tests.engine.support import FAMILIES, Silent, loaded, random_prompts, runner, task_of
from tests.engine.support import model as random_model


class Words:
    """A tokenizer of which only the vocabulary is asked for."""

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(60)}


def around(module: Any, call: Callable[..., Any]) -> None:
    """Let `call(own, *args, **kwargs)` stand between the module, with its hooks, and whoever calls it."""
    kind = type(module)

    class Wrapped(kind):  # type: ignore[misc, valid-type]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return call(super().__call__, *args, **kwargs)

    Wrapped.__name__ = kind.__name__  # by which some modules are told
    module.__class__ = Wrapped


def times(factor: float) -> Callable[..., Any]:
    def call(own: Any, *args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        return (factor * output[0], *output[1:]) if isinstance(output, tuple) else factor * output

    return call


def normed_heads(model: Any) -> None:
    """As in BitNet: one norm over the values of all heads, before they are projected."""
    for layer in model.model.layers:
        around(layer.self_attn.o_proj, lambda own, x: own(x / x.pow(2).mean(-1, keepdim=True).sqrt()))


def gated_heads(model: Any) -> None:
    """As in Qwen3-Next: the heads' values times a gate."""
    for layer in model.model.layers:
        around(layer.self_attn.o_proj, lambda own, x: own(x * torch.sigmoid(x.flip(-1))))


def scaled_branches(model: Any) -> None:
    """As in Granite: a multiplier between a component's output and the residual stream."""
    for layer in model.model.layers:
        around(layer.self_attn, times(0.22))
        around(layer.mlp, times(0.22))


def scaled_mlps(model: Any) -> None:
    around(model.model.layers[1].mlp, times(0.5))


def scaled_in_parallel(model: Any) -> None:
    around(model.gpt_neox.layers[1].attention, times(0.5))


def shared_values(model: Any) -> None:
    """As in Gemma 3n: a later block uses what an earlier one computed, beside the stream."""
    kept: list[Tensor] = []

    def keep(own: Any, x: Tensor) -> Any:
        kept[:] = [x.clone()]
        return own(x)

    around(model.model.layers[0].self_attn.v_proj, keep)
    around(model.model.layers[2].self_attn.v_proj, lambda own, x: own(kept[0]))


def not_causal(model: Any) -> None:
    """Whatever the config says, attention looks both ways; without padding nothing else tells."""
    for layer in model.model.layers:
        layer.self_attn.is_causal = False


def scaled_by_the_batch(model: Any) -> None:
    """As in dynamic quantisation: one scale for all rows."""
    around(model.model.layers[1].mlp.up_proj, lambda own, x: own((x / x.abs().max() * 7).round() * x.abs().max() / 7))


def remembering(model: Any) -> None:
    """As rotary embeddings do that keep the longest length: what ran before counts."""
    longest = [0]

    def call(own: Any, x: Tensor) -> Any:
        longest[0] = max(longest[0], x.shape[1])
        return own(x) * (1 + 0.1 * longest[0])

    around(model.model.layers[0].mlp.up_proj, call)


BROKEN = [
    ("llama", normed_heads, "CS503"),
    ("qwen3", normed_heads, "CS503"),
    ("gemma2", normed_heads, "CS503"),
    ("llama", gated_heads, "CS503"),
    ("llama", scaled_branches, "CS503"),
    ("mistral", scaled_mlps, "CS503"),
    ("gpt_neox", scaled_in_parallel, "CS503"),
    ("llama", shared_values, "CS503"),
    ("llama", not_causal, "CS352"),
    ("llama", scaled_by_the_batch, "CS352"),
    ("qwen2", remembering, "CS352"),
]


def by_verify(model: Any, lengths: list[int]) -> set[str]:
    with borrowed(model):
        try:
            self_test(runner(model, task_of(random_prompts(0, lengths))))
        except CircuitspecError as error:
            return {d.code for d in error.diagnostics}
    return set()


def by_doctor(model: Any) -> set[str]:
    with borrowed(model):
        found = diagnose(replace(loaded(model), tokenizer=Words()), Silent())  # type: ignore[arg-type]
    return {d.code for d in found.problems}


@pytest.mark.parametrize(("family", "breaking", "code"), BROKEN)
def test_what_doctor_refuses_verify_refuses(family: str, breaking: Callable[[Any], None], code: str) -> None:
    for refusals in (lambda model: by_verify(model, [5, 8, 6]), by_doctor):
        model = copy.deepcopy(random_model(family, exactly=False))
        assert refusals(model) == set()
        breaking(model)
        assert code in refusals(model)


def test_a_model_that_is_not_causal_is_refused_where_no_prompt_is_padded() -> None:
    model = copy.deepcopy(random_model("llama", exactly=False))
    not_causal(model)
    assert "CS503" in by_verify(model, [8, 8, 8])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_model_of_every_family(family: str, dtype: torch.dtype) -> None:
    model = copy.deepcopy(random_model(family, exactly=False, layers=2)).to(dtype)
    with borrowed(model):
        for edges in (False, True) if dtype == torch.float32 else (False,):
            tested = self_test(runner(model, task_of(random_prompts(0, [5, 14, 9]))), edges=edges)
            assert max(tested.own_values, tested.all_patched) < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_under_which_tokens_see_later_ones(family: str) -> None:
    for setting in ({"use_bidirectional_attention": True}, {"is_causal": False}):
        with pytest.raises(CircuitspecError) as error:
            architecture_of({"model_type": family, **setting})
        assert [d.code for d in error.value.diagnostics] == ["CS314"]
    architecture_of({"model_type": family, "use_bidirectional_attention": False, "is_causal": True})
    architecture_of({"model_type": family, "use_bidirectional_attention": None})
