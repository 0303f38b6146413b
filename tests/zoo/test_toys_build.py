"""How toys are built: what the docstring of toys/weights.py promises, and how a built model is loaded."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import load_model
from circuitspec.models.model_reference import resolve_reference
from circuitspec.models.shapes import read_shape
from circuitspec.models.zoo.toys import TOYS, Toy, build
from circuitspec.models.zoo.toys.blueprint import HardHead, Match, ToyNeuron
from circuitspec.models.zoo.toys.gates import AND
from tests.oracle import families, node
from tests.zoo.toy_cases import CASES, Case, oracle_prompts, toy

K = 2.0**14


@pytest.mark.parametrize("case", CASES, ids=str)
def test_norms_are_linear_within_their_bound(case: Case) -> None:
    """Everything that is read in the clean and the corrupt run, feature by feature."""
    loaded, task = toy(case.toy)
    net = families.read(loaded.model)
    norms = {"q": "pre_attention", "k": "pre_attention", "v": "pre_attention", "mlp_in": "pre_mlp"}
    (prompt,) = oracle_prompts(task, case.corruption, 1)
    for ids in (prompt.clean, prompt.corrupt):
        for receiver, x in node.forward(net, ids, record=True).reads.items():
            norm = net.final_norm if receiver[0] == "final" else getattr(net.layers[receiver[1]], norms[receiver[0]])
            assert torch.equal(x[:, ::2], -x[:, 1::2])  # pairs
            features, read = x[:, 2::2], norm(x)
            read_features = (read[:, 2::2] - read[:, 3::2]) / 2
            squares = (features**2).sum(-1, keepdim=True)
            assert squares.max() <= 128
            short = features - read_features
            allowed = features.abs() * (squares + norm.eps * 16) / (2 * K**2)
            assert (short * features.sign() >= -1e-12).all()
            assert (short.abs() <= allowed + 1e-12).all()
            one = (read[:, 0] - read[:, 1]) / 2
            assert ((1 - one) >= -1e-12).all()
            assert ((1 - one) <= 128 / (2 * K**2)).all()


LOOKED_AT = {  # at the end of the prompt
    ("and", 0, 0): 5,
    ("and", 0, 1): 9,
    ("and", 0, 2): 5,
    ("or", 0, 0): 5,
    ("or", 0, 1): 9,
    ("nobel", 0, 0): 3,
    ("negative", 0, 1): 5,
    ("negative", 1, 2): 5,
    ("backup", 0, 2): 5,
    ("backup", 1, 1): 0,
    ("swapped", 0, 2): 4,
    ("induction", 0, 0): 5,
    ("induction", 0, 1): 6,
    ("induction", 1, 1): 6,
    **{(name, 0, head): 6 for name in ("mediation", "amplification") for head in (0, 2)},
    **{(name, 1, 0): 10 for name in ("mediation", "amplification")},  # itself
}


def test_heads_look_at_one_position() -> None:
    for (name, layer, head), position in LOOKED_AT.items():
        loaded, task = toy(name)
        (prompt,) = oracle_prompts(task, task.prompts.corruptions[0], 1)
        pattern = node.forward(loaded.model, prompt.clean, record=True).patterns[layer, head]
        expected = torch.zeros(len(prompt.clean), dtype=torch.float64)
        expected[position] = 1
        np.testing.assert_allclose(pattern[-1], expected, rtol=0, atol=1e-15, err_msg=f"{name} a{layer}.h{head}")


@pytest.mark.parametrize(("name", "positions"), [("cancel", (4, 7)), ("swapped", (7, 10))])
def test_heads_that_read_two_words_look_at_each_by_half(name: str, positions: tuple[int, int]) -> None:
    loaded, task = toy(name)
    patterns = [node.forward(loaded.model, list(ids), record=True).patterns for ids in task.ids["clean"][:8]]
    for pattern, head in itertools.product(patterns, (0, 1)):
        np.testing.assert_allclose(pattern[0, head][-1, list(positions)], 0.5, rtol=0, atol=1e-8)


def test_the_induction_head_looks_behind_the_earlier_occurrence() -> None:
    loaded, task = toy("induction")
    for ids in task.ids["clean"][:8]:
        pattern = node.forward(loaded.model, list(ids), record=True).patterns[1, 0]
        np.testing.assert_allclose(pattern[-1, list(ids).index(ids[-1]) + 1], 1, rtol=0, atol=1e-15)


def test_the_previous_token_head_does_so_everywhere() -> None:
    loaded, task = toy("nobel")
    pattern = node.forward(loaded.model, list(task.ids["clean"][0]), record=True).patterns[0, 0]
    assert pattern.argmax(-1).tolist() == [0, 0, 1, 2, 3]


def test_backup_looks_at_the_thing_when_the_main_head_is_silent() -> None:
    loaded, task = toy("backup")
    (prompt,) = oracle_prompts(task, "secret", 1)
    silent = node.resample_values(loaded.model, prompt.corrupt)["head", 0, 2]
    patches = {(("head", 0, 2), position): silent[position] for position in range(len(prompt.clean))}
    pattern = node.forward(loaded.model, prompt.clean, patches, record=True).patterns[1, 1]
    assert float(pattern[-1, 5]) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("model", TOYS, ids=lambda model: model.name)
def test_built_models_load_as_any_other(model: Toy, tmp_path: Path) -> None:
    stages: list[str] = []
    spec = ModelSpec(id=f"zoo:{model.name}")
    loaded = load_model(spec, tmp_path, progress=stages.append)
    known = loaded.provenance
    assert (known.id, known.revision, known.path) == (f"zoo:{model.name}", None, None)
    assert (known.dtype, known.family, known.description) == ("float32", "gpt2", "built by code")
    assert stages == [f"building zoo:{model.name}"]
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.shape == read_shape(spec, tmp_path)
    assert loaded.shape.n_vocab == len(loaded.tokenizer) == loaded.model.lm_head.out_features
    assert loaded.model.config.activation_function == "relu"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_circuit_works_in_every_dtype(dtype: str, tmp_path: Path) -> None:
    for case in CASES:
        _, task = toy(case.toy)
        model = load_model(ModelSpec.model_validate({"id": f"zoo:{case.toy}", "dtype": dtype}), tmp_path).model
        with torch.no_grad():
            logits = model(torch.tensor([task.ids["clean"][0], task.ids[case.corruption][0]])).logits[:, -1].double()
        difference = logits[:, task.answers[0][0]] - logits[:, task.wrong[0][0]]
        np.testing.assert_allclose(difference, [case.clean, case.corrupt], rtol=0, atol=1e-4 if "32" in dtype else 0.05)


@pytest.mark.parametrize("model", TOYS, ids=lambda model: model.name)
def test_prompts_come_back_from_their_tokens(model: Toy) -> None:
    _, tokenizer = build(model)
    _, task = toy(model.name)
    for prompt in task.prompts.prompts[:5]:
        for text in prompt.texts.values():
            encoded = tokenizer(text, return_offsets_mapping=True)
            assert tokenizer.decode(encoded["input_ids"]) == text
            pieces = [text[start:end] for start, end in encoded["offset_mapping"]]
            assert pieces == tokenizer.convert_ids_to_tokens(encoded["input_ids"])
            assert tokenizer.unk_token_id not in encoded["input_ids"]


def test_building_draws_no_random_numbers_and_gives_the_same_weights() -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, _ = build(AND)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(8)
    second, _ = build(AND)
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_shapes_of_toys_need_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from circuitspec.models.shapes import read_shape;"
        "from circuitspec.hypothesis_file.schema.blocks import ModelSpec;"
        "shape = read_shape(ModelSpec(id='zoo:nobel'), Path());"
        "assert (shape.n_layers, shape.n_heads, shape.d_mlp) == (2, 4, 64);"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_built_model_has_no_path_and_no_revision(tmp_path: Path) -> None:
    reference = resolve_reference(ModelSpec(id="zoo:and"), tmp_path)
    assert (reference.kind, reference.path) == ("built", None)
    with pytest.raises(ValueError, match="built by code"):
        _ = reference.local_path
    with pytest.raises(CircuitspecError, match="CS300"):
        resolve_reference(ModelSpec(id="zoo:and", revision="607a30d"), tmp_path)
    with pytest.raises(CircuitspecError, match="CS302") as raised:
        resolve_reference(ModelSpec(id="zoo:backupp"), tmp_path)
    assert "did you mean zoo:backup?" in raised.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logits": {" lit": {"lid": 1}}}, "the logit of ' lit' reads lid, which is no feature"),
        ({"logits": {" lid": {"lit": 1}}}, "' lid' has a logit and is no token"),
        ({"tokens": {" on": {"one": 1}}, "logits": {}}, "token ' on' writes one, which is no feature"),
        ({"positions": {16: {"first": 1}}}, "there is no position 16"),
        ({"features": (*AND.features, "A")}, "15 features, all different"),
        ({"features": (*AND.features, *(f"f{i}" for i in range(10)))}, "there can be 15 features"),
        ({"heads": (HardHead(0, 4, (), {}),)}, "there is no head 4 in layer 0"),
        ({"heads": (HardHead(2, 0, (), {}),)}, "there is no head 0 in layer 2"),
        ({"heads": (HardHead(0, 0, (), {}), HardHead(0, 0, (), {}))}, "a head is given twice"),
        ({"heads": (HardHead(0, 0, (Match({}, {}),) * 9, {}),)}, "a0.h0 has room for 8 matches"),
        ({"heads": (HardHead(0, 0, (Match({"x": 1}, {}),), {}),)}, "a0.h0 reads x, which is no feature"),
        ({"heads": (HardHead(0, 0, (), {"A": {"x": 1}}),)}, "a0.h0 writes x, which is no feature"),
        ({"neurons": (ToyNeuron(1, 64, {}, {}),)}, "there is no neuron 64 in layer 1"),
        ({"neurons": (ToyNeuron(1, 3, {}, {"x": 1}),)}, "m1.n3 writes x, which is no feature"),
    ],
)
def test_a_blueprint_that_does_not_fit(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match="toy and: ") as raised:
        replace(AND, **changes)  # type: ignore[arg-type]
    assert said in str(raised.value)
