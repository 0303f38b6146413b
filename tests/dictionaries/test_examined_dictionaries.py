"""`circuitspec doctor` on dictionaries: its figures are those of plain torch, and what does not fit is refused.

The model is a random GPT-2 in float64, and its prompts are what it says itself, so that the loss grows when its stream
is taken away.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from circuitspec.cli import main
from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.recovered_loss import recovered_losses
from circuitspec.engine.validation.two_runs import random_prompts
from circuitspec.graph.shape import DictionarySite
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from tests.dictionaries.written_dictionaries import Numbers, plain, sae_lens
from tests.engine.support import Silent, loaded
from tests.engine.support import model as random_model
from tests.models.conftest import save_tokenizer, tiny_gpt2

LENGTHS = (5, 9, 7)
AND = Path(__file__).parents[2] / "hypotheses" / "toys" / "and-features.circuit.yaml"


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def examined(*arguments: object) -> dict[str, Any]:
    ran = doctor(*arguments, "--format", "json")
    assert ran.exit_code == 0, ran.output
    (found,) = json.loads(ran.stdout)["dictionaries"]
    return dict(found)


class Setting:
    """A model's folder with a tokenizer, prompts of its own words, and two dictionaries of random numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, tiny_gpt2().double()
        for weight in self.model.parameters():
            weight.data *= 5  # so that it says something
        self.model.save_pretrained(folder / "model")
        save_tokenizer(folder / "model")
        self.prompts = [self._said(first, length) for first, length in enumerate(LENGTHS, 3)]
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"clean": ids}) + "\n" for ids in self.prompts))
        self.numbers = Numbers.drawn(8, 12)
        sae_lens(folder / "sae", {"architecture": "standard", "apply_b_dec_to_input": False}, plain(self.numbers))
        self.encoder, self.decoder = torch.tensor(self.numbers.encoder), torch.tensor(self.numbers.decoder)
        self.biases = torch.tensor(self.numbers.encoder_bias), torch.tensor(self.numbers.decoder_bias)

    @torch.no_grad()
    def _said(self, first: int, length: int) -> list[int]:
        ids = [first]
        while len(ids) < length:
            ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
        return ids

    def features(self, vectors: Tensor) -> Tensor:
        return (vectors @ self.encoder + self.biases[0]).clamp(min=0)

    def reconstructed(self, vectors: Tensor) -> Tensor:
        return self.features(vectors) @ self.decoder + self.biases[1]

    @torch.no_grad()
    def loss_without_mlp(self, said: Any) -> float:
        """The loss with what the MLP of layer 1 adds replaced, after first tokens, by what is said of its input."""
        mlp = self.model.transformer.h[1].mlp

        def hook(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return torch.cat([output[:, :1], said(arguments[0])[:, 1:]], 1)

        handle = mlp.register_forward_hook(hook)
        found, _ = self.loss(lambda stream: stream)
        handle.remove()
        return found

    @torch.no_grad()
    def loss(self, replaced: Any) -> tuple[float, Tensor]:
        """The loss with what enters block 1 replaced, prompt by prompt, and what entered it after first tokens."""
        entered, losses = [], []

        def hook(module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            entered.append(arguments[0][0, 1:].clone())
            return (replaced(arguments[0]), *arguments[1:])

        handle = self.model.transformer.h[1].register_forward_pre_hook(hook)
        for ids in self.prompts:
            logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            losses += [-logprobs[place, ids[place + 1]] for place in range(len(ids) - 1)]
        handle.remove()
        return float(torch.stack(losses).mean()), torch.cat(entered)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(tmp_path_factory.mktemp("doctor"))


def but_first(replaced: Any) -> Any:
    return lambda stream: torch.cat([stream[:, :1], replaced(stream[:, 1:])], 1)


@pytest.mark.parametrize("skips_first", [False, True])
def test_figures_are_those_of_plain_torch(skips_first: bool, setting: Setting) -> None:
    folder = setting.folder
    if skips_first:
        file = folder / "skips.circuit.yaml"
        file.write_text(
            "circuitspec: 1\nname: skips\nmodel: {id: ./model, dtype: float64}\ntask: {file: prompts.jsonl}\n"
            "dictionaries: {res1: {at: r1, from: ./sae, skip_first: true}, other: {at: r2, from: ./none}}\n"
        )
        found = examined(file, "--dictionary", "res1")
    else:
        prompts = folder / "prompts.jsonl"
        found = examined(
            folder / "model", "--dtype", "float64", "--dictionary", f"r1={folder / 'sae'}", "--prompts", prompts
        )
    clean, values = setting.loss(lambda stream: stream)
    reconstructed, _ = setting.loss(but_first(setting.reconstructed))
    zeros, _ = setting.loss(but_first(torch.zeros_like))
    assert zeros > clean + 0.1
    features, error = setting.features(values), values - setting.reconstructed(values)
    assert found["name"] == ("res1" if skips_first else "sae")
    unexplained = float(error.square().sum() / (values - values.mean(0)).square().sum())
    assert found["unexplained"] == pytest.approx(unexplained, rel=1e-9)
    assert found["active"] == pytest.approx(float((features > 0).sum(1).double().mean()), rel=1e-12)
    assert found["dead"] == pytest.approx(float((features == 0).all(0).double().mean()), abs=1e-12)
    expected = {"tokens": sum(LENGTHS) - len(LENGTHS), "clean": clean, "reconstructed": reconstructed, "zeros": zeros}
    assert found["loss"] == pytest.approx(expected, rel=1e-9)
    assert found["loss_recovered"] == pytest.approx((zeros - reconstructed) / (zeros - clean), rel=1e-9)


def test_a_transcoder_is_held_against_what_the_mlp_adds(setting: Setting, tmp_path: Path) -> None:
    told = {"architecture": "transcoder", "metadata": {}}  # its files name no place
    folder = sae_lens(tmp_path / "transcoder", told, plain(setting.numbers))
    prompts = setting.folder / "prompts.jsonl"
    found = examined(
        setting.folder / "model", "--dtype", "float64", "--dictionary", f"m1={folder}", "--prompts", prompts
    )
    assert found["at"] == "m1"
    reconstructed = setting.loss_without_mlp(setting.reconstructed)
    zeros = setting.loss_without_mlp(torch.zeros_like)
    assert abs(zeros - reconstructed) > 0.01
    assert found["loss"]["reconstructed"] == pytest.approx(reconstructed, rel=1e-9)
    assert found["loss"]["zeros"] == pytest.approx(zeros, rel=1e-9)


def test_a_bad_one_is_warned_about_and_one_that_does_not_fit_is_refused(setting: Setting) -> None:
    model, prompts = setting.folder / "model", ("--prompts", setting.folder / "prompts.jsonl")
    bad = doctor(model, "--dictionary", f"r1={setting.folder / 'sae'}", *prompts)
    assert bad.exit_code == 0
    assert "warning[CS467]" in bad.stderr
    assert "loss recovered: " in bad.stdout
    refused = doctor(model, "--dictionary", f"r2={setting.folder / 'sae'}", *prompts)
    assert refused.exit_code == 5
    assert "error[CS377]" in refused.stderr
    assert "its files say blocks.1.hook_resid_pre, which is r1" in refused.stderr


def test_the_shipped_example_explains_all() -> None:
    """Its constant is what zeros take away; five of its five features are active somewhere."""
    found = examined(AND)
    assert found["unexplained"] < 1e-12
    assert found["dead"] == 0
    assert found["loss"]["reconstructed"] == pytest.approx(found["loss"]["clean"], rel=1e-6)
    assert (found["loss_recovered"] is None) == (found["loss"]["zeros"] <= found["loss"]["clean"])


def test_prompts_of_one_token_say_nothing(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_text('{"clean": [3]}\n')
    at, prompts = f"r1={setting.folder / 'sae'}", tmp_path / "short.jsonl"
    found = examined(setting.folder / "model", "--dictionary", at, "--prompts", prompts)
    assert (found["unexplained"], found["active"], found["loss"]["clean"]) == (None, None, None)
    said = doctor(setting.folder / "model", "--dictionary", at, "--prompts", prompts)
    assert "nothing measured, every prompt is one token long" in said.stdout
    assert "warning[CS467]" in said.stderr


def test_usage() -> None:
    for given, said in {
        ("zoo:and", "--dictionary", "r1=./x"): "needs --prompts FILE",
        ("zoo:and", "--dictionary", "res1"): "write AT=FOLDER",
        ("zoo:and", "--dictionary", "q1=./x"): "no place that a dictionary takes apart",
        ("zoo:and", "--dictionary", "r1="): "no folder",
        (AND, "--dictionary", "res1"): "it has stream",
        ("zoo:and", "--prompts", AND): "name one, --dictionary AT=FOLDER",
    }.items():
        ran = doctor(*given)
        assert ran.exit_code == 2
        assert said in ran.stderr


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("family", "place", "path"),
    [
        ("gemma2", "m1", "model.layers.1.post_feedforward_layernorm"),
        ("gemma2", "a1", "model.layers.1.post_attention_layernorm"),
        ("gpt_neox", "m1", "gpt_neox.layers.1.mlp"),
        ("llama", "r1", "model.layers.0"),
    ],
)
def test_losses_in_other_families(family: str, place: str, path: str) -> None:
    """With what comes out of a module replaced, in batches with padding."""
    whole = random_model(family)
    d_model = whole.config.hidden_size
    numbers = Numbers.drawn(d_model, 12)
    encoder, decoder, before, after = (
        torch.tensor(one) for one in (numbers.encoder, numbers.decoder, numbers.encoder_bias, numbers.decoder_bias)
    )
    read = Dictionary(encoder, decoder, before, after, "relu")
    plain_loaded = loaded(whole)
    site = DictionarySite("one", DictionaryPlace.parse(place), read.n_features)
    shape = replace(plain_loaded.shape, dictionaries=(site,))
    beside = replace(plain_loaded, shape=shape, dictionaries={"one": read.to(torch.device("cpu"), whole.dtype)})
    task = random_prompts(range(3, 17), 12)
    with borrowed(whole):
        (found,) = recovered_losses(Forward(beside, task, progress=Silent()))

    @torch.no_grad()
    def loss(said: Any) -> float:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            value = torch.cat([value[:, :1], said(value[:, 1:])], 1)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handle = whole.get_submodule(path).register_forward_hook(hook)
        losses = []
        for ids in task.ids["clean"]:
            logits = whole(torch.tensor([ids])).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none"))
        handle.remove()
        return float(torch.cat(losses).mean())

    assert found.clean == pytest.approx(loss(lambda value: value), rel=1e-9)
    assert found.reconstructed == pytest.approx(loss(beside.dictionaries["one"].reconstruct), rel=1e-9)
    assert found.ablated == pytest.approx(loss(torch.zeros_like), rel=1e-9)
    assert len({found.clean, found.reconstructed, found.ablated}) == 3
