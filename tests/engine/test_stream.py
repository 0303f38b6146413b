"""What single senders add and single receivers compute; and what edge and path level must not depend on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.ablation.embedding_noise import noise
from circuitspec.engine.execution.batches import make_batches
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.levels.path_hops import Hops
from circuitspec.engine.validation import self_test as selftest
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.experiment import Experiment, Noised, Source
from circuitspec.experiments.levels.edge_level import keeping
from circuitspec.experiments.levels.path_level import along, path_set, travelling
from circuitspec.graph.edges import Receiver, count_edges, inputs_of, receivers, senders
from circuitspec.graph.paths import Stop
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from circuitspec.models.families.modules import submodule
from tests.engine.support import FAMILIES, TOLERANCE, WITH_NEURONS, loaded, model, runner, task_of
from tests.engine.test_edges_against_oracle import (
    Edges,
    every_edge,
    experiment_of,
    oracle_edges,
    oracle_receiver,
    oracle_sender,
    prompts_for,
    random_edges,
)
from tests.engine.test_paths_against_oracle import FILE, declared, stop, tokens
from tests.oracle import builders, edge, families, metrics, node, path, tree

RESAMPLE = Source("resample", "abc")
CLEAN = Source("resample", "clean")
LOGITS = Stop(Logits(), (), Where.everywhere())


def recorded(m: Any, run: Any) -> dict[Tap, Tensor]:
    """Of the clean prompts in one batch, unpadded: all that is read and sent, and the projections."""
    stream = run.stream
    taps = {stream.recorded_at(s) for s in senders(stream.shape)} | {
        stream.read_tap(r) for r in receivers(stream.shape)
    }
    taps |= {stream.port(r).tap for r in receivers(stream.shape) if r.port}
    (batch,) = make_batches(run.task.lengths, 10)
    with borrowed(m), torch.no_grad():
        return run.forward(batch, "clean", Actions(record=frozenset(taps)))[1]


# ------------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_are_the_oracles(family: str) -> None:
    """Every head's and MLP's, from what is recorded of a run."""
    m = model(family, exactly=True)
    prompts = prompts_for("mean", seed=2)[:3]
    run = runner(m, task_of(prompts))
    values = run.stream.with_scaled(recorded(m, run))
    shape = run.stream.shape
    for row, prompt in enumerate(prompts):
        expected = edge.contributions(families.read(m), prompt.clean)
        for sender in senders(shape):
            value = values[run.stream.kept_as(sender)]
            if isinstance(sender, Head):
                found = run.stream.heads(sender.layer, value, [sender.head])[0].view(*value.shape[:2], -1)[row]
            else:
                found = run.stream.sent(sender, value)[row]
            torch.testing.assert_close(found, expected[oracle_sender(sender)], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_of_heads_add_up_to_what_the_attention_adds(family: str) -> None:
    """But for a bias of the output projection; and those of some heads are those of all."""
    m = model(family, exactly=True)
    run = runner(m, task_of(prompts_for("mean", seed=2)[:2]))
    values, stream = recorded(m, run), run.stream
    z = stream.with_scaled(values)[stream.kept_as(Head(1, 0))]
    every = stream.heads(1, z, range(stream.shape.n_heads))
    torch.testing.assert_close(stream.heads(1, z, [0, 2]), every[[0, 2]], rtol=0, atol=TOLERANCE)
    out = submodule(m, stream.architecture.path(stream.architecture.attn_out, 1))
    norm = stream.architecture.head_norm
    own = values[Tap(1, "z")]
    added = out.forward(own if norm is None else submodule(m, stream.architecture.path(norm, 1)).forward(own))
    if stream.architecture.attn_post_norm is None:
        added = added if out.bias is None else added - out.bias
    else:
        added = submodule(m, stream.architecture.path(stream.architecture.attn_post_norm, 1)).forward(added)
    added = added * stream.architecture.residual_multiplier
    torch.testing.assert_close(every.sum(0).view_as(added), added, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_receivers_compute_is_what_the_model_computes(family: str) -> None:
    """From the model's own stream: all queries, keys and values at once, each from an input of its own, and MLPs."""
    m = model(family, exactly=True)
    run = runner(m, task_of(prompts_for("mean", seed=2)[:2]))
    values, stream = recorded(m, run), run.stream
    for layer in stream.shape.layers_with_heads:
        heads = (Head(layer, h) for h in range(stream.shape.n_heads))
        ports = dict.fromkeys(r for head in heads for r in inputs_of(head, (), stream.shape))
        for tap in {stream.port(r).tap for r in ports}:
            units = [slot.unit for r in ports for slot in stream.ports(r) if slot.tap == tap]
            entering = stream.entering_attention(layer, values[Tap(layer, "resid")]).flatten(0, 1)
            own = values[tap].view(len(entering), tap.units(stream.shape), -1)
            for chosen in (units, units[1:2], sorted(units)):
                projection = stream.projection(tap, chosen)
                at_once = projection.of_one(entering)
                each = projection.of_each(entering.unsqueeze(1).expand(-1, len(chosen), -1))
                for found in (at_once, each):
                    torch.testing.assert_close(found, own[:, chosen], rtol=0, atol=TOLERANCE)
        read = values[stream.read_tap(Receiver(Mlp(layer)))]
        output = stream.mlp_output(layer, stream.entering_mlp(layer, read))
        norm = stream.architecture.mlp_post_norm
        added = output if norm is None else submodule(m, stream.architecture.path(norm, layer)).forward(output)
        torch.testing.assert_close(added, values[stream.recorded_at(Mlp(layer))], rtol=0, atol=TOLERANCE)


# -------------------------------------------------------------------------------------------------------------- CS371

HINT = "merge adapters and undo quantisation, or write `level: node`"
APART = "this model's heads cannot be told apart at edge and path level: "


class Adapted(nn.Linear):
    """A layer that adds something to what its weight says, as adapters do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.sum(-1, keepdim=True)


def refused(family: str, change: Callable[[Any], None]) -> list[tuple[str, str, str]]:
    m = copy.deepcopy(model(family, exactly=True))
    change(m)
    shape = loaded(m).shape
    run = runner(m, task_of(prompts_for("mean", seed=2)[:2]))
    patched = keeping({}, RESAMPLE, shape)
    with borrowed(m), pytest.raises(CircuitspecError) as error:
        run.run([patched])
    return [(d.code, d.message, d.hint) for d in error.value.diagnostics]


def test_projections_that_are_no_plain_ones() -> None:
    def adapt(m: Any) -> None:
        for name in ("q_proj", "o_proj"):
            old = getattr(m.model.layers[1].self_attn, name)
            new = Adapted(old.in_features, old.out_features, bias=False, dtype=old.weight.dtype)
            setattr(m.model.layers[1].self_attn, name, new.eval())

    said = ("CS371", APART + "layer 1 has a Adapted for a projection", HINT)
    assert refused("llama", adapt) == [said, said]


def test_a_bias_under_a_norm() -> None:
    def bias(m: Any) -> None:
        old = m.model.layers[2].self_attn.o_proj
        new = nn.Linear(old.in_features, old.out_features, dtype=old.weight.dtype)
        m.model.layers[2].self_attn.o_proj = new.eval().requires_grad_(False)

    said = "the attention output of layer 2 has a bias, and a norm after it mixes it with the heads"
    assert refused("gemma2", bias) == [("CS371", APART + said, HINT)]


def test_a_norm_that_does_more_than_scale() -> None:
    def norm(m: Any) -> None:
        layer = m.model.layers[0]
        layer.post_attention_layernorm = nn.LayerNorm(m.config.hidden_size, dtype=torch.float64).eval()

    said = "the norm after the attention of layer 0 does more than scale"
    assert refused("gemma3_text", norm) == [("CS371", APART + said, HINT)]


# ------------------------------------------------------------------------------------------ what results depend on


def several(family: str) -> list[Experiment]:
    """Edges ablated to another run and to means, an open path, and a set of paths."""
    shape = loaded(model(family, exactly=True)).shape
    at_end = Where.at("END")
    ends = (stop(Head(1, 1), ports=("k",)), stop(Mlp(2), at_end))
    one = declared((stop(Head(0, 1), Where.at("A", "END")),), ends)
    chain = declared((stop(Input(), Where.at("A")),), (stop(Head(0, 0)), stop(Head(0, 1))), (stop(Head(2, 1), at_end),))
    pieces = [chain, declared((stop(Head(2, 1)),), (LOGITS,)), declared((stop(Mlp(0)),), (LOGITS,))]
    means = Source("mean_per_template", "abc")
    return [
        experiment_of(random_edges(shape, 3, 0.5), RESAMPLE),
        experiment_of(random_edges(shape, 4, 0.5), means),
        experiment_of(random_edges(shape, 5, 0.3), CLEAN, "abc"),
        travelling("clean", RESAMPLE, along([one], shape, FILE), [one], through=("mlp",)),
        travelling("abc", CLEAN, along([one], shape, FILE), [one], through=()),
        travelling("clean", means, path_set(pieces, shape, FILE), pieces, through=("mlp",), keep=True),
        travelling("clean", means, path_set(pieces, shape, FILE), pieces, through=()),
    ]


@pytest.mark.parametrize(
    "family",
    [
        "gpt2",
        pytest.param("gpt_neox", marks=pytest.mark.nightly),
        pytest.param("llama", marks=pytest.mark.nightly),
        "olmo2",
        pytest.param("qwen3", marks=pytest.mark.nightly),
    ],
)
def test_neither_batches_nor_the_side_of_padding_matter(family: str) -> None:
    m = model(family, exactly=True)
    prompts = prompts_for("mean_per_template", seed=6)
    experiments = several(family)
    with borrowed(m):
        alone = runner(m, task_of(prompts), rows=1).run(experiments)
        others = [
            runner(m, task_of(prompts), rows=rows, side=side).run(experiments)
            for rows, side in ((5, "right"), (3, "left"))
        ]
        shuffled = runner(m, task_of(prompts[::-1]), rows=3).run(experiments[::-1])
    for experiment in experiments:
        for metric, values in alone[experiment].items():
            for other in others:
                np.testing.assert_allclose(other[experiment][metric], values, rtol=0, atol=TOLERANCE, err_msg=metric)
            np.testing.assert_allclose(shuffled[experiment][metric][::-1], values, rtol=0, atol=TOLERANCE)


# -------------------------------------------------------------------------------------------------------------- noise

NOISE = Noised(2.0, Where.at("A", "END"), draws=2, seed=3)


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("family", ["gpt2", "gemma3_text"])
def test_noise_as_source_and_as_base(family: str, side: str) -> None:
    """At edge and path level, noising and denoising: each draw against the oracle, and the mean over the draws."""
    m = model(family, exactly=True, layers=2)
    net, shape = families.read(m), loaded(m).shape
    prompts = prompts_for("resample", seed=8)[:3]
    task = task_of(prompts)
    unit = float(net.embed.std(unbiased=False)) * net.embed_scale
    noisy = Source("resample", NOISE)
    cut = {e: Where.at("A", "END") if i % 2 else Where.everywhere() for i, e in enumerate(every_edge(shape)) if i % 3}
    one = declared((stop(Head(0, 1)),), (stop(Head(1, 0), ports=("q",)), stop(KvHead(1, 1), ports=("v",))))
    ways = [
        declared((stop(Head(0, 1)),), (stop(Mlp(1)),), (LOGITS,)),
        declared((stop(Input()),), (stop(Mlp(1)),), (LOGITS,)),
    ]
    ends = along([one], shape, FILE)
    runs = {
        "edges noised": experiment_of(cut, noisy),
        "edges restored": replace(experiment_of(cut, CLEAN), base=NOISE),
        "path noised": travelling("clean", noisy, ends, [one], through=("mlp",)),
        "path restored": travelling(NOISE, CLEAN, ends, [one], through=("mlp",)),
        "paths kept": travelling("clean", noisy, path_set(ways, shape, FILE), ways, through=(), keep=True),
    }
    with borrowed(m):
        records = runner(m, task, rows=2, side=side).run(runs.values())

    def oracle(run: str, prompt: node.Prompt, added: Tensor) -> Tensor:
        ids, clean = prompt.clean, node.resample_values(net, prompt.clean)
        start = clean["input",] + added
        shift = {(("input",), p): start[p] for p in range(len(ids))}
        noised = node.forward(net, ids, shift, record=True).values
        if run.startswith("edges"):
            everywhere = set(range(len(ids)))
            kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
            for (sender, receiver), where in cut.items():
                kept[oracle_sender(sender), oracle_receiver(receiver)] = everywhere - tokens(where, prompt)
            if run == "edges noised":
                return edge.edge_run(net, ids, edge.contributions(net, ids, shift), kept).logits
            return edge.edge_run(net, ids, edge.contributions(net, ids), kept, start).logits
        into = [oracle_receiver(reading.receiver) for reading in ends]
        if run == "path noised":
            return path.path_patch(net, ids, noised, ("head", 0, 1), into)
        if run == "path restored":  # the four passes again, on the noised prompt
            heads = [node.written(net, c) for c in node.nodes(net) if c[0] == "head"]
            frozen = {(c, p): noised[c][p] for c in heads for p in range(len(ids))}
            sent = node.written(net, ("head", 0, 1))
            new = {(sent, p): clean[sent][p] for p in range(len(ids))}
            seen = node.forward(net, ids, {**shift, **frozen, **new}, record=True).reads
            return node.forward(
                net, ids, shift, reads={(r, p): seen[r][p] for r in into for p in range(len(ids))}
            ).logits
        last = [(("mlp", 1), None, None), (("final",), None, None)]
        return tree.tree(net, ids, [[(c, None, None), *last] for c in (("head", 0, 1), ("input",))], clean, noised, ())

    for run, experiment in runs.items():
        draws = []
        for draw in range(NOISE.draws):
            rows = []
            for i, prompt in enumerate(prompts):
                (batch,) = make_batches([len(prompt.clean)], 1)
                added = NOISE.std * unit * noise(task, replace(batch, prompts=(i,)), NOISE, draw, shape.d_model)[0]
                clean = node.forward(net, prompt.clean).logits[-1].numpy()
                rows.append(
                    metrics.metrics(oracle(run, prompt, added)[-1].numpy(), prompt.answers, prompt.wrong, clean)
                )
            draws.append(metrics.columns(rows))
        for metric in draws[0]:
            expected = np.mean([draw[metric] for draw in draws], axis=0)
            np.testing.assert_allclose(records[experiment][metric], expected, rtol=0, atol=TOLERANCE, err_msg=run)


# ----------------------------------------------------------------------------------------------------- attention only


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def without_neurons(request: pytest.FixtureRequest) -> tuple[Any, families.Net]:
    """An attention-only model, and the oracle's reading of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        if request.param == "llama":
            m = builders.random_llama(3, attn="sdpa", intermediate_size=0)
            return m, families.read(m)
        m = builders.random_gpt2(3, attn="sdpa", n_inner=0)
        net = families.read(m)
        for block in m.transformer.h:  # Conv1D of transformers cannot compute from nothing; this gives the bias
            plain = nn.Linear(0, builders.D_MODEL, dtype=torch.float64)
            plain.bias = block.mlp.c_proj.bias
            block.mlp.c_proj = plain
    return m.eval(), net


def test_a_model_without_mlps(without_neurons: tuple[Any, families.Net]) -> None:
    """No MLP sends or receives; what the biases of its empty MLPs add is no sender's, and stays."""
    m, net = without_neurons
    shape = loaded(m).shape
    assert not shape.has_mlps
    assert not any(isinstance(s, Mlp) for s in senders(shape))
    assert count_edges(shape) == (4 + 2 * shape.n_kv_heads) * (1 + 5 + 9) + 13
    prompts = prompts_for("resample", seed=9)
    cut: Edges = random_edges(shape, 6, 0.5)
    some = experiment_of(cut, RESAMPLE)
    none_kept = keeping({}, RESAMPLE, shape)
    chain = declared((stop(Head(0, 1)),), (stop(Head(1, 0), ports=("q",)),), (LOGITS,))
    patched = travelling("clean", RESAMPLE, along([chain], shape, FILE), [chain], through=("mlp",))
    kept = travelling("clean", RESAMPLE, path_set([chain], shape, FILE), [chain], through=("mlp",), keep=True)
    with borrowed(m):
        run = runner(m, task_of(prompts))
        self_test(run, edges=True)
        records = run.run([some, none_kept, patched, kept, Experiment("abc")])
    # what an MLP without neurons sends is the same in both runs, whether its edges are kept or not
    for metric, values in oracle_edges(net, prompts, cut, RESAMPLE, "clean").items():
        np.testing.assert_allclose(records[some][metric], values, rtol=0, atol=TOLERANCE, err_msg=metric)
    for metric, values in records[Experiment("abc")].items():
        np.testing.assert_allclose(records[none_kept][metric], values, rtol=0, atol=TOLERANCE, err_msg=metric)
    for i, prompt in enumerate(prompts):
        source, clean = node.resample_values(net, prompt.corrupt), node.resample_values(net, prompt.clean)
        hops = [[(("head", 0, 1), None, None), (("head", 1, 0), "q", None), (("final",), None, None)]]
        for experiment, logits in (
            (patched, path.chain(net, prompt.clean, source, ("head", 0, 1), [("q", 1, 0), ("final",)])),
            (kept, tree.tree(net, prompt.clean, hops, clean, source)),
        ):
            found = metrics.metrics(logits[-1].numpy(), prompt.answers, prompt.wrong, clean_logits(net, prompt))
            for metric, value in found.items():
                assert records[experiment][metric][i] == pytest.approx(value, rel=0, abs=TOLERANCE), metric


def clean_logits(net: Any, prompt: node.Prompt) -> Any:
    return node.forward(net, prompt.clean).logits[-1].numpy()


# ---------------------------------------------------------------------------------------------------- half precision


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "olmo2", "qwen3"])
def test_bfloat16(family: str) -> None:
    """The self-test of every edge passes, and edges and paths are near float64 as far as the format goes."""
    exact = model(family, exactly=False, layers=2)
    half = copy.deepcopy(exact).to(torch.bfloat16)
    shape = loaded(exact).shape
    one = declared((stop(Head(0, 1)),), (stop(Head(1, 0), ports=("q",)),))
    experiments = [
        experiment_of(random_edges(shape, 3, 0.5), RESAMPLE),
        travelling("clean", RESAMPLE, along([one], shape, FILE), [one], through=("mlp",)),
    ]
    prompts = prompts_for("resample", seed=12)
    records = []
    for m in (exact, half):
        with borrowed(m):
            run = runner(m, task_of(prompts))
            tested = self_test(run, edges=True)
            records.append(run.run(experiments))
    assert 0 <= tested.own_values < 0.1
    assert 0 < tested.all_patched < (0.3 if family == "llama" else 0.1)  # whose own rounding is as large: see below
    for experiment in experiments:
        found, expected = (of[experiment]["logit_diff"] for of in records)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("family", WITH_NEURONS)
def test_what_the_self_test_lets_pass_is_the_rounding_of_the_model_itself(
    family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs that edges are compared with, against the same with the same weights in float64: edges play no part.

    Not of families with experts: where two scores of a router are alike, rounding chooses, and what that changes hangs
    on no number of roundings.
    """
    half = copy.deepcopy(model(family, exactly=False, layers=2)).to(dtype)
    runs: dict[torch.dtype, list[tuple[Tensor, float]]] = {dtype: [], torch.float64: []}
    own = selftest._moved

    def moved(run: Any, batch: Any, actions: Actions, logits: Tensor) -> float:
        by = own(run, batch, actions, logits)
        runs[run.dtype].append((logits.double(), by))
        return by

    monkeypatch.setattr(selftest, "_moved", moved)
    for m in (half, copy.deepcopy(half).double()):
        with borrowed(m):
            tested = self_test(runner(m, task_of(prompts_for("resample", seed=12))), edges=True)
    assert tested.all_patched < 1e-6  # in float64 edges are right, but for norms that compute in float32
    assert len(runs[dtype]) == len(runs[torch.float64]) == 3
    for (found, by), (exact, none) in zip(*runs.values(), strict=True):
        assert none == 0
        off = float((found - exact).abs().max() / exact.std())
        assert 0 < off < selftest.ROUNDINGS * by


def test_the_self_test_of_edges_tells_contributions_that_are_not_what_the_model_adds() -> None:
    m = model("llama", exactly=True, layers=2)
    run = runner(m, task_of(prompts_for("resample", seed=12)))
    own = run.stream.heads

    def more(layer: int, difference: torch.Tensor, heads: Any, out: torch.Tensor | None = None) -> torch.Tensor:
        found = 1.01 * own(layer, difference, heads)
        return found if out is None else out.copy_(found)

    run.stream.heads = more  # type: ignore[method-assign]
    with borrowed(m):
        self_test(run)
        with pytest.raises(CircuitspecError) as error:
            self_test(run, edges=True)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS503"
    assert finding.message.startswith(
        "patching edges with another run's values did not give what node-level patches give: by 0."
    )


def _heads_flipped(run: Any) -> None:
    own = run.stream.heads

    def flipped(layer: int, difference: torch.Tensor, heads: Any, out: torch.Tensor | None = None) -> torch.Tensor:
        found = own(layer, difference, heads).flip(0)
        return found if out is None else out.copy_(found)

    run.stream.heads = flipped


def _heads_larger(run: Any) -> None:
    own = run.stream.heads

    def larger(layer: int, difference: torch.Tensor, heads: Any, out: torch.Tensor | None = None) -> torch.Tensor:
        found = 1.3 * own(layer, difference, heads)
        return found if out is None else out.copy_(found)

    run.stream.heads = larger


def _units_swapped(run: Any) -> None:
    own = run.stream.ports
    run.stream.ports = lambda receiver: tuple(replace(slot, unit=slot.unit ^ 1) for slot in own(receiver))


@pytest.mark.parametrize("mutate", [_heads_flipped, _units_swapped])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "olmo2"])
def test_the_self_test_of_edges_tells_heads_and_receivers_apart(family: str, mutate: Any) -> None:
    """Heads whose contributions are exchanged, and receivers that are: all together they come to the same."""
    m = model(family, exactly=True, layers=2)
    run = runner(m, task_of(prompts_for("resample", seed=12)))
    with borrowed(m):
        tested = self_test(run, edges=True)
        assert 0 <= tested.own_values < 1e-9
        assert 0 <= tested.all_patched < 1e-9
        mutate(run)
        with pytest.raises(CircuitspecError) as error:
            self_test(run, edges=True)
    assert error.value.diagnostics[0].code == "CS503"


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("mutate", [_heads_flipped, _units_swapped, _heads_larger])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "olmo2"])
def test_the_self_test_of_edges_tells_them_apart_in_half_precision(
    family: str, mutate: Any, dtype: torch.dtype
) -> None:
    m = copy.deepcopy(model(family, exactly=False, layers=2)).to(dtype)
    run = runner(m, task_of(prompts_for("resample", seed=12)))
    with borrowed(m):
        self_test(run, edges=True)
        mutate(run)
        with pytest.raises(CircuitspecError) as error:
            self_test(run, edges=True)
    assert error.value.diagnostics[0].code == "CS503"


def test_the_self_test_tells_a_path_that_lets_other_heads_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hop pass in which heads are not held at their base values."""
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(prompts_for("resample", seed=12)))
    own = Hops._made

    def loose(hops: Hops, *given: Any) -> Any:
        made = own(hops, *given)
        held = {tap: swap for tap, swap in made.actions.swaps.items() if tap.kind != "z" or tap.layer == 0}
        return replace(made, actions=replace(made.actions, swaps=held))

    monkeypatch.setattr(Hops, "_made", loose)
    with borrowed(m), pytest.raises(CircuitspecError) as error:
        self_test(run, edges=True)
    assert error.value.diagnostics[0].code == "CS503"
