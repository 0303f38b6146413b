"""Hooks on a model in memory: named where they are set aside; where kept, held against a plain torch program."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize, prune
from transformers import AutoModelForCausalLM, AutoTokenizer

import circuitspec
from circuitspec.models.zoo import zoo_path
from circuitspec.reports.report_formats import FORMATS
from circuitspec.reports.views import PLAIN

TINY = Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml"
KEPT = ((2, 1), (3, 0), (3, 3))  # heads of the circuit


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))


@functools.cache
def small(level: str = "node") -> circuitspec.Hypothesis:
    """Three heads, and every other one ablated at all tokens; prompts of different length."""
    tiny = circuitspec.load(TINY)
    return circuitspec.hypothesis(
        "small",
        model="zoo:ioi-tiny",
        task={**tiny.parts["task"], "prompts": 8},
        groups={"heads": [f"a{layer}.h{head}" for layer, head in KEPT]},
        free=["m*"],
        paths=[] if level == "node" else ["input -> heads", "heads -> logits"],
        ablation={"value": "resample", "from": "abc", "positions": "all", "level": level},
        claims=[circuitspec.claim("sufficient", metric="logit_diff", at_least=0.1)],
        folder=TINY.parent,
    )


def steer(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    """A direction added at every token."""
    return output + 0.4 * torch.linspace(-1, 1, output.shape[-1])


def damp(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the projection of the heads reads, smaller: a pre-hook at a place that is patched too."""
    return (args[0] * 0.7, *args[1:])


def last_token_only(module: Any, args: Any, kwargs: Any, output: torch.Tensor) -> torch.Tensor:
    """A hook that counts tokens from the end: right only for a prompt by itself."""
    changed = output.clone()
    changed[:, -1] *= 1.5
    return changed


def with_hooks(model: Any) -> Any:
    model.transformer.h[1].mlp.register_forward_hook(steer)
    model.transformer.h[2].attn.c_proj.register_forward_pre_hook(damp)
    model.transformer.h[3].mlp.register_forward_hook(last_token_only, with_kwargs=True)
    return model


@torch.no_grad()
def by_hand(model: Any, task: Any) -> dict[str, np.ndarray]:
    """Logit differences, prompt by prompt: clean, corrupt, and with every head but the circuit's from the corrupt run.

    Hooks are torch's own; one that patches is registered after those of the model, and so runs after them.
    """
    model.eval()
    shape = (model.config.n_head, model.config.n_embd // model.config.n_head)
    found: dict[str, list[float]] = {"clean": [], "corrupt": [], "circuit": []}

    def difference(ids: torch.Tensor, prompt: int) -> float:
        logits = model(ids).logits[0, -1]
        right, wrong = (list(ids) for ids in (task.answers[prompt], task.wrong[prompt]))
        return float(logits[right].mean() - logits[wrong].mean())

    for prompt in range(task.n):
        clean, corrupt = (torch.tensor([task.ids[name][prompt]]) for name in ("clean", "abc"))
        values: dict[int, torch.Tensor] = {}
        taken = [
            block.attn.c_proj.register_forward_pre_hook(
                lambda module, args, layer=layer, values=values: values.update({layer: args[0].clone()})
            )
            for layer, block in enumerate(model.transformer.h)
        ]
        found["corrupt"].append(difference(corrupt, prompt))
        for handle in taken:
            handle.remove()

        def patch(module: Any, args: tuple[Any, ...], layer: int, values: Any = values) -> tuple[Any, ...]:
            own, other = (z.view(*z.shape[:2], *shape) for z in (args[0], values[layer]))
            keep = torch.tensor([(layer, head) in KEPT for head in range(shape[0])])[:, None]
            return (torch.where(keep, own, other).flatten(-2), *args[1:])

        found["clean"].append(difference(clean, prompt))
        placed = [
            block.attn.c_proj.register_forward_pre_hook(functools.partial(patch, layer=layer))
            for layer, block in enumerate(model.transformer.h)
        ]
        found["circuit"].append(difference(clean, prompt))
        for handle in placed:
            handle.remove()
    return {name: np.array(values) for name, values in found.items()}


def figures(result: circuitspec.Result) -> dict[str, np.ndarray]:
    frame = result.prompt_frame
    return {
        name: frame[frame["experiment"] == name].sort_values("prompt")["logit_diff"].to_numpy()
        for name in ("clean", "corrupt", "circuit")
    }


def about_the_model(result: circuitspec.Result) -> list[Any]:
    return [warning for warning in result.warnings if warning.code == "CS438"]


def steer_the_stream(model: Any) -> None:
    """On a whole block, as steering vectors and dictionaries of the residual stream are put in."""
    along = torch.linspace(-0.3, 0.3, model.config.n_embd)
    model.transformer.h[1].register_forward_hook(
        lambda module, args, output: (output[0] + along, *output[1:]) if isinstance(output, tuple) else output + along
    )


def lose_a_head(model: Any) -> None:
    """The second head of the first layer gives nothing."""
    width = model.config.n_embd // model.config.n_head

    def zero(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z = args[0].clone()
        z[..., width : 2 * width] = 0
        return (z, *args[1:])

    model.transformer.h[0].attn.c_proj.register_forward_pre_hook(zero)


@pytest.mark.parametrize("place", [steer_the_stream, lose_a_head])
def test_steering_and_ablations_that_are_kept(place: Callable[[Any], None], model: Any, tokenizer: Any) -> None:
    bare = by_hand(model, circuitspec.verify(small(), model, tokenizer, negatives="off").task)
    place(model)
    result = circuitspec.verify(small(), model, tokenizer, negatives="off", keep_hooks=True)
    expected = by_hand(model, result.task)
    for name, values in expected.items():
        np.testing.assert_allclose(figures(result)[name], values, atol=2e-5, err_msg=name)
    assert float(np.abs(expected["clean"] - bare["clean"]).max()) > 1e-2


def test_the_plain_model_says_nothing(model: Any, tokenizer: Any) -> None:
    model(torch.tensor([[1, 2]]), output_hidden_states=True)  # transformers leaves hooks of its own behind
    model.enable_input_require_grads()
    result = circuitspec.verify(small(), model, tokenizer)
    assert about_the_model(result) == []
    for name, expected in by_hand(model, result.task).items():
        np.testing.assert_allclose(figures(result)[name], expected, atol=2e-5, err_msg=name)


def test_hooks_set_aside_are_named_in_every_format(model: Any, tokenizer: Any) -> None:
    bare = by_hand(model, circuitspec.verify(small(), model, tokenizer, negatives="off").task)
    calls: list[int] = []
    with_hooks(model).transformer.h[0].register_full_backward_hook(lambda *_: calls.append(1))
    result = circuitspec.verify(small(), model, tokenizer)
    assert calls == []
    for name, expected in bare.items():
        np.testing.assert_allclose(figures(result)[name], expected, atol=2e-5, err_msg=name)
    (warning,) = about_the_model(result)
    places = ("transformer.h.1.mlp (forward hook)", "transformer.h.2.attn.c_proj (forward pre-hook)")
    assert list(warning.data["hooks"]) == [
        "transformer.h.0 (backward hook)",
        *places,
        "transformer.h.3.mlp (forward hook)",
    ]
    assert warning.data["kept"] is False
    texts = [str(result), result.to_json(), result.to_html(), *in_other_formats(result)]
    for text in texts:
        assert "CS438" in text
        assert all(place in text.replace("\\", "") for place in places), text


def in_other_formats(result: circuitspec.Result) -> list[str]:
    from circuitspec.reports.live_views import LiveViews

    views = LiveViews(result._reported)
    return [FORMATS[name](views, PLAIN) for name in ("markdown", "junit", "github")]


@pytest.mark.parametrize("negatives", [pytest.param("screen", marks=pytest.mark.nightly), "off"])
def test_kept_hooks_run_first_and_what_they_leave_is_patched(model: Any, tokenizer: Any, negatives: Any) -> None:
    with_hooks(model)
    registries = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    result = circuitspec.verify(small(), model, tokenizer, keep_hooks=True, negatives=negatives)
    assert all(
        a is m._forward_hooks and b is m._forward_pre_hooks
        for (a, b), m in zip(registries, model.modules(), strict=True)
    )
    expected = by_hand(model, result.task)
    for name, values in expected.items():
        np.testing.assert_allclose(figures(result)[name], values, atol=2e-5, err_msg=name)
    (warning,) = about_the_model(result)
    assert warning.data["kept"] is True
    assert "with its forward hooks" in result.verification.model.description
    bare = circuitspec.verify(small(), model, tokenizer, negatives="off")
    assert abs(figures(bare)["clean"] - expected["clean"]).max() > 0.1  # they do change the figures


def test_replaced_forwards_take_part_and_are_named(model: Any, tokenizer: Any) -> None:
    mlp = model.transformer.h[1].mlp
    mlp.forward = lambda entering, own=mlp.forward: own(entering) * 0.5
    result = circuitspec.verify(small(), model, tokenizer, negatives="off")
    for name, expected in by_hand(model, result.task).items():
        np.testing.assert_allclose(figures(result)[name], expected, atol=2e-5, err_msg=name)
    (warning,) = about_the_model(result)
    assert list(warning.data["replaced"]) == ["transformer.h.1.mlp"]


class Doubled(torch.nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_parametrized_weights_take_part(model: Any, tokenizer: Any) -> None:
    parametrize.register_parametrization(model.transformer.h[1].mlp.c_proj, "weight", Doubled())
    result = circuitspec.verify(small(), model, tokenizer, negatives="off")
    for name, expected in by_hand(model, result.task).items():
        np.testing.assert_allclose(figures(result)[name], expected, atol=2e-5, err_msg=name)


def test_pruned_weights_are_pruned(model: Any, tokenizer: Any) -> None:
    """torch's prune keeps its mask in a forward pre-hook: the weights are the pruned ones also without it."""
    prune.l1_unstructured(model.transformer.h[1].mlp.c_proj, "weight", amount=0.5)
    result = circuitspec.verify(small(), model, tokenizer, negatives="off")
    for name, expected in by_hand(model, result.task).items():
        np.testing.assert_allclose(figures(result)[name], expected, atol=2e-5, err_msg=name)
    assert about_the_model(result)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(circuitspec.CircuitspecError) as raised:
        call()
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.hint
    return diagnostic.code


def test_edges_are_refused_with_hooks(model: Any, tokenizer: Any) -> None:
    with_hooks(model)
    assert code_of(lambda: circuitspec.verify(small("edge"), model, tokenizer, keep_hooks=True)) == "CS371"


@pytest.mark.parametrize("place", ["", "transformer.ln_f", "lm_head"])
def test_hooks_past_which_logits_are_read_are_not_kept(model: Any, tokenizer: Any, place: str) -> None:
    model.get_submodule(place).register_forward_hook(lambda *_: None)
    assert code_of(lambda: circuitspec.verify(small(), model, tokenizer, keep_hooks=True)) == "CS515"


def test_keeping_hooks_is_for_models_in_memory_prompt_by_prompt(model: Any, tokenizer: Any) -> None:
    with pytest.raises(TypeError, match="keep_hooks"):
        circuitspec.verify(small(), keep_hooks=True)
    with pytest.raises(TypeError, match="batch_size"):
        circuitspec.verify(small(), model, tokenizer, keep_hooks=True, batch_size=4)


def test_another_tokenizer_than_the_files(model: Any, tmp_path: Path, tokenizer: Any) -> None:
    changed = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    assert about_the_model(circuitspec.verify(small(), model, changed, negatives="off")) == []
    filed = json.loads((zoo_path("ioi-tiny") / "tokenizer.json").read_text())
    vocabulary = filed["model"]["vocab"]
    vocabulary[" the"], vocabulary[" to"] = vocabulary[" to"], vocabulary[" the"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(filed))
    changed.name_or_path = str(tmp_path)
    (warning,) = about_the_model(circuitspec.verify(small(), model, changed, negatives="off"))
    assert "tokenizer" in warning.data
