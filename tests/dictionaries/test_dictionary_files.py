"""Dictionaries in every layout and architecture, held against arithmetic in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.dictionaries.readers.all_formats import FORMATS, files_of, read_dictionary
from circuitspec.dictionaries.told_places import place_told
from tests.dictionaries.written_dictionaries import (
    Array,
    Numbers,
    Writer,
    dictionary_learning,
    linear,
    plain,
    sae_lens,
    sparsify,
    tensors,
)

Maths = Callable[[Numbers, Array], tuple[Array, Array]]


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _top(x: Array, k: int) -> Array:
    kept = np.zeros_like(x)
    for row, values in enumerate(x):
        largest = sorted(range(len(values)), key=lambda i: values[i])[-k:]
        kept[row, largest] = values[largest]
    return kept


def _decoded(n: Numbers, features: Array) -> Array:
    return features @ n.decoder + n.decoder_bias


def _standard(n: Numbers, x: Array) -> tuple[Array, Array]:
    f = _relu((x - n.decoder_bias) @ n.encoder + n.encoder_bias)
    return f, _decoded(n, f)


def _not_centred(n: Numbers, x: Array) -> tuple[Array, Array]:
    f = _relu(x @ n.encoder + n.encoder_bias)
    return f, _decoded(n, f)


def _jump(n: Numbers, x: Array) -> tuple[Array, Array]:
    p = x @ n.encoder + n.encoder_bias
    f = np.where(p > n.threshold, _relu(p), 0)
    return f, _decoded(n, f)


def _centred_jump(n: Numbers, x: Array) -> tuple[Array, Array]:
    return _jump(n, x - n.decoder_bias)


def _batch(n: Numbers, x: Array) -> tuple[Array, Array]:
    p = (x - n.decoder_bias) @ n.encoder + n.encoder_bias
    f = np.where(p > 0.4, _relu(p), 0)
    return f, _decoded(n, f)


def _topk(n: Numbers, x: Array) -> tuple[Array, Array]:
    f = _relu(_top((x - n.decoder_bias) @ n.encoder + n.encoder_bias, 4))
    return f, _decoded(n, f)


def _topk_by_norm(n: Numbers, x: Array) -> tuple[Array, Array]:
    norms = np.sqrt((n.decoder**2).sum(1))
    f = _relu(_top(((x - n.decoder_bias) @ n.encoder + n.encoder_bias) * norms, 4))
    return f, _decoded(n, f / norms)


def _gated(n: Numbers, x: Array) -> tuple[Array, Array]:
    p = (x - n.decoder_bias) @ n.encoder
    f = np.where(p + n.gate_bias > 0, _relu(p * np.exp(n.r_mag) + n.encoder_bias), 0)
    return f, _decoded(n, f)


def _grouped(n: Numbers, x: Array) -> tuple[Array, Array]:
    p = _relu((x - n.decoder_bias) @ n.encoder + n.encoder_bias).reshape(len(x), 4, -1)
    f = np.where(p == p.max(-1, keepdims=True), p, 0).reshape(len(x), -1)
    return f, _decoded(n, f)


def _skipping(n: Numbers, x: Array) -> tuple[Array, Array]:
    f, out = _not_centred(n, x)
    return f, out + x @ n.skip


def _jump_skipping(n: Numbers, x: Array) -> tuple[Array, Array]:
    f, out = _jump(n, x)
    return f, out + x @ n.skip


def _top_skipping(n: Numbers, x: Array) -> tuple[Array, Array]:
    f = _top(_relu(x @ n.encoder + n.encoder_bias), 4)
    return f, _decoded(n, f) + x @ n.skip


def _layer_norm(n: Numbers, x: Array) -> tuple[Array, Array]:
    mean, std = x.mean(-1, keepdims=True), x.std(-1, keepdims=True, ddof=1)
    f, out = _standard(n, (x - mean) / (std + 1e-5))
    return f, out * std + mean


def _constant_norm(n: Numbers, x: Array) -> tuple[Array, Array]:
    factor = np.sqrt(x.shape[-1]) / np.sqrt((x**2).sum(-1, keepdims=True))
    f, out = _standard(n, x * factor)
    return f, out / factor


def _unit_directions(n: Numbers, x: Array) -> tuple[Array, Array]:
    f, out = _standard(n, x)
    return f * np.sqrt((n.decoder**2).sum(1)), out


LLAMA_NORM, LLAMA_THRESHOLD = 3.0, 0.4


def _llama(n: Numbers, x: Array) -> tuple[Array, Array]:
    scale = np.sqrt(x.shape[-1]) / LLAMA_NORM
    p = (x * scale) @ n.encoder + n.encoder_bias
    f = np.where(p > LLAMA_THRESHOLD * scale, _relu(p), 0)
    return f, _decoded(n, f) / scale


def _lens(architecture: str, *extra: str, **settings: object) -> Writer:
    def write(folder: Path, n: Numbers) -> Path:
        arrays = plain(n, *extra)
        if "skip" in arrays:
            arrays["W_skip"] = arrays.pop("skip").T
        return sae_lens(folder, {"architecture": architecture, "d_out": 6, **settings}, arrays)

    return write


def _lens_gated(folder: Path, n: Numbers) -> Path:
    arrays = plain(n, "r_mag", b_gate=n.gate_bias, b_mag=n.encoder_bias)
    del arrays["b_enc"]
    return sae_lens(folder, {"architecture": "gated"}, arrays)


def _lens_before_6(folder: Path, n: Numbers) -> Path:
    old = {"hook_point": "blocks.1.hook_resid_pre", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    return sae_lens(folder, {"metadata": None, **old}, plain(n))


def _sparsify(**settings: object) -> Writer:
    def write(folder: Path, n: Numbers) -> Path:
        arrays = linear(n, W_dec=n.decoder, b_dec=n.decoder_bias, W_skip=n.skip.T)
        del arrays["decoder.weight"]
        return sparsify(folder, {"k": 4, **settings}, arrays)

    return write


def _learned(dict_class: str, bias: str, **other: object) -> Writer:
    return lambda folder, n: dictionary_learning(folder, dict_class, linear(n, **{bias: n.decoder_bias}, **other))


def _learned_gated(folder: Path, n: Numbers) -> Path:
    arrays = linear(n, decoder_bias=n.decoder_bias, r_mag=n.r_mag, gate_bias=n.gate_bias, mag_bias=n.encoder_bias)
    del arrays["encoder.bias"]
    return dictionary_learning(folder, "GatedAutoEncoder", arrays)


def _learned_matrices(dict_class: str, threshold: object = None) -> Writer:
    def write(folder: Path, n: Numbers) -> Path:
        given = n.threshold if threshold is None else threshold
        return dictionary_learning(folder, dict_class, plain(n, threshold=given, k=4, group_sizes=[4, 8]))

    return write


def _gemma_scope(folder: Path, n: Numbers) -> Path:
    folder.mkdir()
    np.savez(folder / "params.npz", **plain(n, "threshold"))
    return folder


def _gemma_scope_2(folder: Path, n: Numbers) -> Path:
    folder.mkdir()
    hooks = {"hf_hook_point_in": "model.layers.1.mlp.input", "hf_hook_point_out": "model.layers.1.mlp.output"}
    (folder / "config.json").write_text(json.dumps({"architecture": "jump_relu", **hooks}))
    arrays = {name.lower(): value for name, value in plain(n, "threshold").items()}
    save_file(tensors({**arrays, "affine_skip_connection": n.skip}), folder / "params.safetensors")
    return folder


def _llama_scope(folder: Path, n: Numbers) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    told = {"dataset_average_activation_norm": {"in": LLAMA_NORM}, "jump_relu_threshold": LLAMA_THRESHOLD}
    (folder / "hyperparams.json").write_text(json.dumps(told))
    save_file(tensors(linear(n, **{"decoder.bias": n.decoder_bias})), folder / "checkpoints" / "final.safetensors")
    return folder


def _circuit_tracer(folder: Path, n: Numbers) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text("model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n")
    arrays = plain(n, W_skip=n.skip.T, **{"activation_function.threshold": n.threshold})
    save_file(tensors({**arrays, "W_enc": n.encoder.T}), folder / "layer_1.safetensors")
    return folder


@pytest.mark.parametrize(
    ("layout", "write", "maths"),
    [
        ("sae_lens", _lens("standard"), _standard),
        ("sae_lens", _lens("standard", apply_b_dec_to_input=False), _not_centred),
        ("sae_lens", _lens("standard", normalize_activations="layer_norm"), _layer_norm),
        ("sae_lens", _lens("standard", normalize_activations="constant_norm_rescale"), _constant_norm),
        ("sae_lens", _lens("jumprelu", "threshold"), _centred_jump),
        ("sae_lens", _lens("topk", k=4), _topk),
        ("sae_lens", _lens("topk", k=4, rescale_acts_by_decoder_norm=True), _topk_by_norm),
        ("sae_lens", _lens_gated, _gated),
        ("sae_lens", _lens("transcoder"), _not_centred),
        ("sae_lens", _lens("skip_transcoder", "skip"), _skipping),
        ("sae_lens", _lens("jumprelu_skip_transcoder", "skip", "threshold"), _jump_skipping),
        ("sae_lens", _lens_before_6, _topk),
        ("sparsify", _sparsify(), _topk),
        ("sparsify", _sparsify(activation="groupmax"), _grouped),
        ("sparsify", _sparsify(transcode=True, skip_connection=True), _top_skipping),
        ("dictionary_learning", _learned("AutoEncoder", "bias"), _unit_directions),
        ("dictionary_learning", _learned("AutoEncoderNew", "decoder.bias"), _not_centred),
        ("dictionary_learning", _learned("AutoEncoderTopK", "b_dec", k=4), _topk),
        ("dictionary_learning", _learned("BatchTopKSAE", "b_dec", threshold=0.4), _batch),
        ("dictionary_learning", _learned_gated, _gated),
        ("dictionary_learning", _learned_matrices("JumpReluAutoEncoder"), _jump),
        ("dictionary_learning", _learned_matrices("MatryoshkaBatchTopKSAE", 0.4), _batch),
        ("gemma_scope", _gemma_scope, _jump),
        ("gemma_scope_2", _gemma_scope_2, _jump_skipping),
        ("llama_scope", _llama_scope, _llama),
        ("circuit_tracer", _circuit_tracer, _jump_skipping),
    ],
)
def test_features_are_those_of_the_tools_arithmetic(layout: str, write: Writer, maths: Maths, tmp_path: Path) -> None:
    numbers = Numbers.drawn()
    path = write(tmp_path / "d", numbers)
    dictionary = read_dictionary(path, layer=1).dictionary
    x = np.random.default_rng(1).standard_normal((7, 6)) * 2 + 0.5
    features, decoded = maths(numbers, x)
    active = (features != 0).sum()
    assert 0 < active < features.size  # of a test in which all or none are active, much could be wrong
    given = torch.from_numpy(x)
    tolerance = 1e-12 if dictionary.dtype == torch.float64 else 2e-6  # dictionary_learning computes in float32
    assert np.abs(dictionary.encode(given).double().numpy() - features).max() < tolerance * 10
    assert np.abs(dictionary.reconstruct(given).double().numpy() - decoded).max() < tolerance * 10
    assert read_dictionary(path, 1, layout).dictionary.n_features == 12
    assert all(file.is_file() for file in files_of(path, 1))
    # the same as a sum of directions and a constant, with leading dimensions
    rows = given.reshape(1, 7, 6)
    assert torch.equal(dictionary.combined(dictionary.weights(rows), rows)[0], dictionary.reconstruct(given))


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("blocks.7.hook_resid_pre", "r7"),
        ("blocks.7.hook_resid_post", "r8"),
        ("blocks.7.hook_resid_mid", "r7.mid"),
        ("blocks.7.attn.hook_z", "z7"),
        ("blocks.7.hook_attn_out", "a7"),
        ("blocks.7.hook_mlp_out", "m7"),
        ("blocks.7.mlp.hook_in", "m7"),
        ("model.layers.7.output", "r8"),
        ("model.layers.7.post_feedforward_layernorm.output", "m7"),
        ("layers.7", "r8"),
        ("layers.7.mlp", "m7"),
        ("something else", "None"),
    ],
)
def test_places_in_the_words_of_tools(hook: str, place: str) -> None:
    assert str(place_told(hook)) == place


def test_every_layout_is_tested() -> None:
    marks = test_features_are_those_of_the_tools_arithmetic.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(FORMATS)


def test_at_its_threshold_a_feature_is_not_active(tmp_path: Path) -> None:
    one = {"W_enc": [[1.0, 1.0]], "W_dec": [[1.0], [1.0]], "b_enc": [0.0, 0.0], "b_dec": [0.0]}
    path = sae_lens(tmp_path / "d", {"architecture": "jumprelu"}, {**one, "threshold": [0.5, 0.25]})
    found = read_dictionary(path, 0).dictionary.encode(torch.tensor([[0.5]], dtype=torch.float64))
    assert found.tolist() == [[0.0, 0.5]]


def test_the_mean_over_channels_and_a_factor_are_undone() -> None:
    """x = (3, 1): centred (1, -1), times 2 (2, -2); features 2 and 0; back 1 and 0, and no mean."""
    eye = torch.eye(2, dtype=torch.float64)
    zeros = torch.zeros(2, dtype=torch.float64)
    dictionary = Dictionary(eye, eye, zeros, zeros, "relu", scale=2.0, centred=True)
    x = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    assert dictionary.encode(x).tolist() == [[2.0, 0.0]]
    assert dictionary.weights(x).tolist() == [[1.0, 0.0]]
    assert dictionary.reconstruct(x).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sums_of_few_directions(dtype: torch.dtype) -> None:
    """Three weights of 2 x 40 are not 0; of all features, or of some in another order; and none of none."""
    decoder = torch.arange(80, dtype=dtype).reshape(40, 2)
    zeros = torch.zeros(40, dtype=dtype)
    dictionary = Dictionary(decoder.T.contiguous(), decoder, zeros, zeros[:2], "relu")
    weights = torch.zeros(1, 2, 40, dtype=dtype)
    weights[0, 0, 3], weights[0, 0, 39], weights[0, 1, 0] = 2.0, -1.0, 5.0
    assert dictionary.summed(weights).tolist() == [[[2 * 6 - 78, 2 * 7 - 79], [0, 5]]]
    numbers = torch.arange(40).flip(0)
    assert torch.equal(dictionary.summed(weights.flip(-1), numbers), dictionary.summed(weights))
    assert dictionary.summed(weights[..., :0], numbers[:0]).tolist() == [[[0, 0], [0, 0]]]


def test_a_file_of_weights_may_be_named_itself(tmp_path: Path) -> None:
    folder = _gemma_scope(tmp_path / "d", Numbers.drawn())
    assert files_of(folder / "params.npz", 0) == (folder / "params.npz",)
    assert read_dictionary(folder / "params.npz", 0).dictionary.d_in == 6


def _code(path: Path, layer: int = 1, layout: str = "auto") -> tuple[str, str]:
    with pytest.raises(CircuitspecError) as raised:
        read_dictionary(path, layer, layout)
    (problem,) = raised.value.diagnostics
    return problem.code, f"{problem.message} {problem.hint}"


def test_what_is_not_there_is_cs373(tmp_path: Path) -> None:
    assert _code(tmp_path / "none")[0] == "CS373"
    code, said = _code(tmp_path)
    assert code == "CS373"
    assert all(one in said for one in FORMATS)
    path = _circuit_tracer(tmp_path / "d", Numbers.drawn())
    assert _code(path, layer=2)[0] == "CS373"
    assert _code(path, layout="sae_lens")[0] == "CS373"


def test_what_cannot_be_read_is_cs374(tmp_path: Path) -> None:
    for write, name in ((_lens("standard"), "sae_weights.safetensors"), (_learned("AutoEncoder", "bias"), "ae.pt")):
        folder = write(tmp_path / name, Numbers.drawn())
        (folder / name).write_bytes(b"not weights")
        assert _code(folder)[0] == "CS374"
    folder = _gemma_scope(tmp_path / "scope", Numbers.drawn())
    (folder / "params.npz").write_bytes(b"not weights")
    assert _code(folder)[0] == "CS374"
    folder = _lens("standard")(tmp_path / "settings", Numbers.drawn())
    for text in ("{", "[1]"):
        (folder / "cfg.json").write_text(text)
        assert _code(folder)[0] == "CS374"


def test_what_is_pickled_is_not_run(tmp_path: Path) -> None:
    folder = _learned("AutoEncoder", "bias")(tmp_path / "d", Numbers.drawn())
    torch.save({"bias": Path("x")}, folder / "ae.pt")
    code, said = _code(folder)
    assert code == "CS374"
    assert "something else than tensors" in said


@pytest.mark.parametrize(
    "write",
    [
        _lens("temporal"),
        _lens("batchtopk"),
        _lens("standard", normalize_activations="whitened"),
        _lens("standard", dtype="int8"),
        _sparsify(activation="softmax"),
        _learned("IdentityDict", "bias"),
    ],
)
def test_what_is_not_known_is_cs375(write: Writer, tmp_path: Path) -> None:
    code, said = _code(write(tmp_path / "d", Numbers.drawn()))
    assert code == "CS375"
    assert "known" in said


def test_settings_of_whole_suites_that_are_not_known(tmp_path: Path) -> None:
    tracer = _circuit_tracer(tmp_path / "tracer", Numbers.drawn())
    for text in ("model_kind: cross_layer_transcoder\n", "model_kind: transcoder_set\nfeature_input_hook: ln2\n"):
        (tracer / "config.yaml").write_text(text)
        assert _code(tracer)[0] == "CS375"
    llama = _llama_scope(tmp_path / "llama", Numbers.drawn())
    told = json.loads((llama / "hyperparams.json").read_text())
    for other in ({"hook_point_in": "a", "hook_point_out": "b"}, {"sparsity_include_decoder_norm": True}):
        (llama / "hyperparams.json").write_text(json.dumps({**told, **other}))
        assert _code(llama)[0] == "CS375"
    gemma = _gemma_scope(tmp_path / "transcoder", Numbers.drawn())
    assert _code(gemma)[0] == "CS375"


def test_what_does_not_go_together_is_cs376(tmp_path: Path) -> None:
    numbers, folders = Numbers.drawn(), iter(range(100))

    def code(settings: dict[str, object], arrays: dict[str, object]) -> str:
        return _code(sae_lens(tmp_path / str(next(folders)), settings, arrays))[0]

    whole = plain(numbers)
    assert code({}, {**whole, "b_enc": numbers.encoder_bias[:-1]}) == "CS376"
    assert code({}, {name: value for name, value in whole.items() if name != "b_dec"}) == "CS376"
    assert code({}, {**whole, "W_dec": numbers.decoder.T}) == "CS376"
    assert code({"d_sae": 13}, whole) == "CS376"
    assert code({}, {**whole, "b_enc": numbers.encoder_bias * np.nan}) == "CS376"
    assert code({"architecture": "jumprelu"}, whole) == "CS376"
    assert code({"architecture": "jumprelu"}, {**whole, "threshold": numbers.threshold[:3]}) == "CS376"
    assert code({"architecture": "topk"}, whole) == "CS376"
    assert code({"architecture": "topk", "k": 13}, whole) == "CS376"
    assert _code(_sparsify(k=5, activation="groupmax")(tmp_path / "groups", numbers))[0] == "CS376"
    learned = dictionary_learning(tmp_path / "learned", "AutoEncoderTopK", linear(numbers, b_dec=numbers.decoder_bias))
    assert _code(learned)[0] == "CS376"
    for k in ([3, 4], 2.5, float("nan")):  # neither is a number of features
        top = linear(numbers, b_dec=numbers.decoder_bias, k=k)
        assert _code(dictionary_learning(tmp_path / str(next(folders)), "AutoEncoderTopK", top))[0] == "CS376"
    scaled = {**whole, "scaling_factor": np.full(12, 2.0)}
    assert code({}, scaled) == "CS375"
