"""Many experiments in few forwards, begun at the first patched layer and token: the same numbers as by the oracle."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batch_size import activation_bytes, late_bytes
from circuitspec.engine.execution.compiler import KEPT, Actions, borrowed
from circuitspec.engine.execution.memory import Rows, out_of_memory
from circuitspec.engine.execution.skipped_blocks import SkippedBlocks
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.engine.scheduling.batched_sweep import ENOUGH, sweeps_of
from circuitspec.engine.scheduling.forward_cost import ForwardCost
from circuitspec.engine.scheduling.partial_forward import Shortcut, Start
from circuitspec.experiments.experiment import ZEROS, Experiment, Noised, Site, Source, Variant
from circuitspec.graph.nodes import NodeComponent, is_node
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, KV_HEAD, MIXER
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mlp, Neuron, Resid, all_of
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.families.modules import computing
from tests.engine.support import (
    FAMILIES,
    Silent,
    assert_same,
    loaded,
    oracle_records,
    oracle_sites,
    parts_of_mlp,
    random_prompts,
    runner,
    task_of,
    wide_windows,
)
from tests.engine.support import model as random_model
from tests.engine.test_noise import drawn
from tests.oracle import families, metrics, node

EVERYWHERE = Where.everywhere()
WHERES = (EVERYWHERE, Where.at("A"), Where.at("B"), Where.at("END"), Where.at("A", "B"), Where.except_at("A"))
NOISING, DENOISING = Source("resample", "abc"), Source("resample", "clean")


def every_component(model: Any) -> list[NodeComponent]:
    """All heads, MLPs, key-value heads and residual streams, the input, and some parts of each MLP."""
    shape = loaded(model).shape
    found: list[NodeComponent] = [Input()]
    for layer in range(shape.n_layers):
        for kind in (HEAD, KV_HEAD, MIXER):
            found += [one for one in all_of(kind, layer, shape.counts) if is_node(one)]
        found += [Mlp(layer), *parts_of_mlp(model, layer), Resid(layer)]
        found += [Resid(layer, mid=True)] if shape.has_resid_mid else []
    return found


def sweep_of(model: Any, base: Variant, source: Source, seed: int, share: float = 1.0) -> list[Experiment]:
    """Single components, each at positions drawn for it, and a few pairs of components at different positions."""
    rng = random.Random(seed)
    components = every_component(model)
    sets = [{Site(c, rng.choice(WHERES))} for c in components if rng.random() < share]
    sets += [{Site(c, rng.choice(WHERES[1:])) for c in rng.sample(components, 2)} for _ in range(4)]
    sets += [{Site(Mlp(loaded(model).shape.n_layers - 1), Where.at("END"))}]
    return [Experiment(base, source, frozenset(sites)) for sites in sets]


class Oracle:
    """The oracle's records, with what its experiments share computed once."""

    def __init__(self, model: Any, prompts: list[node.Prompt]) -> None:
        self.net, self.prompts = families.read(model), prompts
        self.clean = [node.forward(self.net, p.clean).logits[-1].numpy() for p in prompts]
        self.values = cache(self._values)

    def _ids(self, variant: Variant, prompt: node.Prompt) -> list[int]:
        return prompt.clean if variant == "clean" else prompt.corrupt

    def _values(self, source: Source, i: int) -> node.Values:
        prompt = self.prompts[i]
        if source.prompts is None:
            return node.zero_values(self.net, len(prompt.clean))
        if source.kind == "resample":
            return node.resample_values(self.net, self._ids(source.prompts, prompt))
        alike = [p for p in self.prompts if source.kind == "mean" or p.template == prompt.template]
        return node.mean_values(self.net, [self._ids(source.prompts, p) for p in alike])

    def __call__(self, experiment: Experiment) -> dict[str, np.ndarray]:
        assert experiment.source is not None
        rows = []
        for i, prompt in enumerate(self.prompts):
            ids, sites = self._ids(experiment.base, prompt), oracle_sites(prompt, experiment)
            logits = node.noise(self.net, ids, self.values(experiment.source, i), sites)[-1].numpy()
            rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, self.clean[i]))
        return metrics.columns(rows)


def check(model: Any, prompts: list[node.Prompt], experiments: list[Experiment], **options: Any) -> Runner:
    """Every experiment is as by the oracle, and some of it was not computed; the runner."""
    oracle = Oracle(model, prompts)
    with borrowed(model):
        ran = runner(model, task_of(prompts), **options)
        records = ran.run(experiments)
    for experiment in experiments:
        assert_same(records[experiment], oracle(experiment))
    assert ran.forwards_saved > 0
    return ran


@pytest.mark.parametrize("family", FAMILIES)
def test_noising_and_denoising_single_components_and_pairs(family: str) -> None:
    """At all positions and by position, which differ from prompt to prompt; with the families' sliding windows."""
    model = random_model(family)
    prompts = random_prompts(seed=31, lengths=[6, 8])
    experiments = sweep_of(model, "clean", NOISING, seed=1, share=0.5)
    experiments += sweep_of(model, "abc", DENOISING, seed=2, share=0.5)
    check(model, prompts, experiments, rows=16)


@pytest.mark.parametrize("family", FAMILIES)
def test_starting_at_the_patched_position(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles late in all prompts, so that keys and values of earlier tokens are taken over; windows wide enough.

    Each begins where it can: none is held to be so small that others had better join it.
    """
    monkeypatch.setattr("circuitspec.engine.scheduling.batched_sweep.tokens_beside", lambda *of: 0)
    model = random_model(family, **wide_windows(family))
    prompts = random_prompts(seed=32, lengths=[8, 7, 8])
    for i, prompt in enumerate(prompts):
        prompt.roles.update(A=4 + i % 2, B=6)
    components = every_component(model)
    at = (Where.at("A"), Where.at("B", "END"), Where.at("END"))
    sites = [frozenset({Site(c, at[i % 3])}) for i, c in enumerate(components)]
    ran = check(model, prompts, [Experiment("clean", NOISING, s) for s in sites], rows=24)
    blocks_alone = check(model, prompts, [Experiment("clean", NOISING, s) for s in sites], rows=24, side="left")
    if architecture_named(family).mixers is None:
        assert ran.forwards_saved > blocks_alone.forwards_saved + len(sites) / 4
    else:  # whose states hold what came before
        assert ran.forwards_saved == blocks_alone.forwards_saved


@pytest.mark.parametrize("family", FAMILIES)
def test_means_and_zeros(family: str) -> None:
    model = random_model(family)
    prompts = random_prompts(seed=33, lengths=[5] * 4, templates=2)
    for prompt in prompts:  # a mean's positions must mean the same in its group
        prompt.roles.update(A=2 + prompt.template, B=3)
    sources = (Source("mean", "abc"), Source("mean_per_template", "abc"), ZEROS)
    experiments = [e for i, s in enumerate(sources) for e in sweep_of(model, "clean", s, seed=i, share=0.2)]
    check(model, prompts, experiments, rows=9)


def test_zeros_that_leave_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing has a bias, a stream of zeros stays one. That tells not whether short cuts are exact: others do."""
    model = random_model("llama")
    prompts = random_prompts(5, [5, 7, 6])
    zeros = [Experiment("clean", ZEROS, frozenset({Site(Resid(layer), EVERYWHERE)})) for layer in (1, 2)]
    others = [Experiment("clean", ZEROS, frozenset({Site(Head(1, h), EVERYWHERE)})) for h in range(ENOUGH)]
    check(model, prompts, [*zeros, *others])
    whole = Shortcut.forward
    monkeypatch.setattr(Shortcut, "forward", lambda *args: 1.1 * whole(*args))
    with borrowed(model), pytest.raises(CircuitspecError, match=r"CS503.*beginning at layer 1"):
        runner(model, task_of(prompts)).run([*zeros, *others])


def test_noise_on_the_embeddings() -> None:
    """As base and as source, with two draws of it: a base run's residual stream and keys are those of its draw."""
    model = random_model("llama")
    prompts = random_prompts(seed=34, lengths=[6, 5])
    for prompt in prompts:
        prompt.roles.update(A=3, B=4)
    task, net = task_of(prompts), families.read(model)
    noise = Noised(2.0, Where.at("A"), draws=2, seed=3)
    unit = float(net.embed.std(unbiased=False)) * net.embed_scale

    def added(noised: Noised, draw: int, prompt: int) -> torch.Tensor:
        return torch.from_numpy(noised.std * unit * drawn(task, noised, draw, prompt, net.embed.shape[1]))

    sites = [Site(Head(2, 1), Where.at("B")), Site(Head(0, 0), Where.at("A")), Site(Mlp(1), EVERYWHERE)]
    sites += [Site(Resid(1), Where.at("END")), Site(Head(0, 3), EVERYWHERE)]
    experiments = [Experiment("clean", Source("resample", noise), frozenset({site})) for site in sites]
    experiments += [Experiment(noise, Source("resample", "clean"), frozenset({site})) for site in sites]
    progress = Silent()
    with borrowed(model):
        ran = Runner(loaded(model), task, rows=8, progress=progress)
        records = ran.run(experiments)
    assert ran.forwards_saved > 0
    assert progress.done == progress.expected
    for experiment in experiments:
        assert_same(records[experiment], oracle_records(model, prompts, experiment, added))  # type: ignore[arg-type]


def test_results_depend_on_neither_grouping_nor_batches_nor_order() -> None:
    """Alone, together, one at a time from the beginning, in batches of any size, in any order, on either side."""
    model = random_model("llama")
    prompts = random_prompts(seed=35, lengths=[5, 8, 7, 8, 6])
    experiments = [Experiment("abc"), *sweep_of(model, "clean", NOISING, seed=7)]
    oracle = Oracle(model, prompts)
    expected = {e: oracle(e) for e in experiments if e.source is not None}
    shuffled = random.Random(0).sample(experiments, len(experiments))
    for given, rows, side, sweeps in (
        (experiments, 1, "right", True),
        (shuffled, 3, "right", True),
        (experiments, 40, "right", True),
        (shuffled, 200, "left", True),
        (experiments, 2, "right", False),
    ):
        with borrowed(model):
            ran = Runner(loaded(model), task_of(prompts), rows=rows, progress=Silent(), side=side, sweeps=sweeps)  # type: ignore[arg-type]
            records = ran.run(given)
            for part in (given[:5], given[5:9]):
                again = ran.run(part)
                for experiment in part:
                    assert_same(again[experiment], dict(records[experiment]))
        assert list(records.values) == given
        for experiment, values in expected.items():
            assert_same(records[experiment], values)
        assert (ran.forwards_saved > 0) is sweeps


def test_prompts_of_one_token() -> None:
    model = random_model("gpt2")
    prompts = random_prompts(seed=36, lengths=[1, 3, 1])
    check(model, prompts, sweep_of(model, "clean", NOISING, seed=3, share=0.5), rows=5)


# ------------------------------------------------------------------------------------------------- what is computed


@contextmanager
def tokens_computed(model: Any) -> Iterator[list[int]]:
    """Rows times positions that each block's MLP computes."""
    counts = [0] * len(model.transformer.h)
    before = [block.mlp.forward for block in model.transformer.h]

    def counting(layer: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(x: torch.Tensor) -> Any:
            counts[layer] += x.shape[0] * x.shape[1]
            return forward(x)

        return counted

    for layer, block in enumerate(model.transformer.h):
        block.mlp.forward = counting(layer, before[layer])
    try:
        yield counts
    finally:
        for block in model.transformer.h:
            del block.mlp.forward


def run_counted(model: Any, experiments: list[Experiment], rows: int) -> tuple[list[int], Runner]:
    prompts = random_prompts(seed=37, lengths=[8] * 4)
    for prompt in prompts:
        prompt.roles.update(A=5, B=6)
    progress = Silent()
    with borrowed(model), tokens_computed(model) as counts:
        ran = Runner(loaded(model), task_of(prompts), rows=rows, progress=progress)
        ran.run(experiments)
    assert progress.done == progress.expected == round(ran.forwards * 4)
    return counts, ran


def test_only_what_a_patch_reaches_is_computed() -> None:
    """Four heads of the last of three layers at the sixth of eight tokens, in four prompts: by arithmetic."""
    model = copy.deepcopy(random_model("gpt2"))
    sweep = [Experiment("clean", NOISING, frozenset({Site(Head(2, h), Where.at("A"))})) for h in range(4)]
    counts, ran = run_counted(model, sweep, rows=100)
    # the clean and the corrupt run on 4 prompts, and 2 prompts whole in each of the two checks (blocks and columns);
    # in block 2 four experiments on 4 prompts, and 2 prompts in either check: at 3 of 8 tokens, and in its MLP, the
    # last, at the one where the answer is
    whole, late = 8 * (4 + 4 + 2 + 2), 1 * (4 * 4 + 2 + 2)
    assert counts == [whole, whole, whole + late]
    assert ran.forwards == 1 + 1 + 4 + 4 * 2 / 4
    assert ran.forwards_saved == pytest.approx((4 * 4 + 2 + 2) * (1 - 1 / 3 * 3 / 8) / 4)


def test_a_second_run_checks_nothing_anew() -> None:
    model = copy.deepcopy(random_model("gpt2"))
    sweep = [Experiment("abc", DENOISING, frozenset({Site(Head(1, h), EVERYWHERE)})) for h in range(4)]
    prompts = random_prompts(seed=38, lengths=[8] * 4)
    progress = Silent()
    with borrowed(model), tokens_computed(model) as counts:
        ran = Runner(loaded(model), task_of(prompts), rows=100, progress=progress)
        ran.run(sweep)
        first = list(counts)
        ran.run(sweep)
    # clean, corrupt, both ways of the check; the last MLP of what begins later at the answers alone
    assert first == [8 * (4 + 4 + 2), 8 * (4 + 4 + 2 + 2 + 16), 8 * (4 + 4 + 2) + 2 + 16]
    assert [now - then for now, then in zip(counts, first, strict=True)] == [8 * 8, 8 * (8 + 16), 8 * 8 + 16]
    assert progress.done == progress.expected


def test_no_more_rows_than_allowed_run_together() -> None:
    """Whole rows as many as were asked for, and of those that begin late as many as hold no more memory."""
    model = copy.deepcopy(random_model("gpt2"))
    shape = loaded(model).shape
    seen: list[tuple[int, int]] = []
    original = model.forward
    model.forward = lambda **inputs: (seen.append(tuple(inputs["input_ids"].shape)), original(**inputs))[1]
    sites = [Site(Neuron(layer, n), w) for layer in range(3) for n in range(20) for w in (EVERYWHERE, Where.at("A"))]
    run_counted(model, [Experiment("clean", NOISING, frozenset({site})) for site in sites], rows=8)
    assert {tokens for _, tokens in seen} == {8, 3}
    assert max(rows for rows, tokens in seen if tokens == 8) == 8
    room = 8 * late_bytes(shape, 8, 0, "float64") // late_bytes(shape, 8, 5, "float64")
    assert max(rows for rows, tokens in seen if tokens == 3) == room // 4 * 4 > 8


def test_experiments_that_begin_later_join_while_more_of_what_is_computed_is_needed() -> None:
    """By hand, of six layers and four columns: a block takes as long as for three tokens beside those of its rows."""
    cost = ForwardCost(layers=6, beside=3)
    last = [(Start(layer, 3), 2) for layer in range(6)]
    # of two rows: 6 x (3 + 2) for 12 needed; 6 x 7 for 22 (1.91); 6 x 9 for 30 (1.8); 6 x 11 for 36 (1.83)
    assert cost.together(last, room=20, width=4) == (Start(0, 3), 3)
    assert cost.together(last, room=5, width=4) == (Start(0, 3), 2)
    assert cost.together(last, room=0, width=4) == (Start(0, 3), 1)
    # those that begin alike are split, and others join none or all of them
    alike = [(start, 1) for start in [Start(1, 2)] * 3 + [Start(1, 3)] * 2 + [Start(0, 3)]]
    assert cost.together(alike, room=2, width=4) == (Start(1, 2), 2)
    assert cost.together(alike, room=4, width=4) == (Start(1, 2), 3)
    # 5 x (3 + 6) for 30 needed; 5 x 13 for 40 is no better
    assert cost.together(alike, room=9, width=4) == (Start(1, 2), 3)
    # of runs that have some of the rows, as many as there is room for their rows
    uneven = [(Start(1, 2), rows) for rows in (2, 1, 4)]
    assert [cost.together(uneven, room, width=4)[1] for room in (1, 2, 3, 6, 7)] == [1, 1, 2, 2, 3]
    # 6 x (50 + 2) for 12; with one that begins before it, 7 x (50 + 4) for 26
    cost = ForwardCost(layers=7, beside=50)
    assert cost.together([(Start(1, 2), 1), (Start(0, 3), 1)], room=9, width=4) == (Start(0, 2), 2)


def test_few_experiments_run_one_by_one() -> None:
    model = random_model("gpt2")
    sites = [frozenset({Site(Head(1, h), EVERYWHERE)}) for h in range(4)]
    few = [Experiment("clean", NOISING, s) for s in sites[: ENOUGH - 1]] + [Experiment("clean", ZEROS, sites[3])]
    units_of = runner(model, task_of(random_prompts(0, [5]))).units_of
    assert sweeps_of(few, units_of, 3) == ()
    (sweep,) = sweeps_of([*few, Experiment("clean", NOISING, sites[3]), Experiment("clean")], units_of, 3)
    assert set(sweep.experiments) == {Experiment("clean", NOISING, s) for s in sites}
    assert sweep.streams == {Tap(1, "resid")}


def test_pyvene_models_are_not_kept_without_end() -> None:
    """Each set of patched tensors takes a pyvene model of its own; those of many different sets are let go."""
    model = random_model("gpt2", layers=2)
    compiler = runner(model, task_of(random_prompts(0, [4]))).executor
    taps = [Tap(layer, kind) for layer in range(2) for kind in ("z", "mlp", "neurons", "resid_mid")]  # type: ignore[arg-type]
    inputs = {"input_ids": torch.tensor([[1, 2]])}
    sets = [frozenset(t for i, t in enumerate(taps) if number >> i & 1) for number in range(1, KEPT + 20)]
    with borrowed(model), torch.no_grad():
        for chosen in sets:
            _, recorded = compiler.forward(inputs, Actions(record=chosen))
            assert set(recorded) == chosen
    assert len(compiler._built) == KEPT


# --------------------------------------------------------------------------------------------------- what goes wrong


SWEEP = [
    Experiment("clean", NOISING, frozenset({Site(Head(layer, h), EVERYWHERE)})) for layer in (1, 2) for h in (0, 1)
]


def failing(model: Any, layer: int, error: BaseException, calls: int) -> None:
    """The block's MLP raises when it is called for the `calls`-th time."""
    mlp = model.transformer.h[layer].mlp
    original, count = mlp.forward, 0

    def forward(x: torch.Tensor) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            raise error
        return original(x)

    mlp.forward = forward


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_the_model_is_left_as_it_was_also_on_ctrl_c(error: BaseException) -> None:
    """In every forward that is interrupted: no block keeps another forward, no hook stays, and results are the same."""
    prompts = random_prompts(seed=39, lengths=[5, 5])
    oracle = Oracle(random_model("gpt2"), prompts)
    interrupted = 0
    for calls in range(1, 8):
        model = copy.deepcopy(random_model("gpt2"))
        before = model(torch.tensor([[1, 2, 3]])).logits

        def own(*args: Any, block: Any = model.transformer.h[0], **kwargs: Any) -> Any:
            return type(block).forward(block, *args, **kwargs)

        model.transformer.h[0].forward = own  # as tools that wrap blocks leave them
        failing(model, 2, error, calls)
        with borrowed(model):
            run = runner(model, task_of(prompts), rows=2)
            with pytest.raises(type(error)):
                run.run(SWEEP)
            del model.transformer.h[2].mlp.forward
            assert model.transformer.h[0].forward is own
            assert [b for b in model.transformer.h if "forward" in vars(b)] == [model.transformer.h[0]]
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
            assert torch.equal(model(torch.tensor([[1, 2, 3]])).logits, before)
            records = run.run(SWEEP)
        for experiment in SWEEP:
            assert_same(records[experiment], oracle(experiment))
        interrupted += 1
    assert interrupted == 7


def test_blocks_that_hand_on_more_than_the_stream_are_found_out() -> None:
    """A later block reads what an earlier one left aside in the same forward, which the short cut does not compute."""
    model = copy.deepcopy(random_model("gpt2"))
    first, last = model.transformer.h[0].mlp, model.transformer.h[2].mlp
    aside: list[torch.Tensor] = []
    inner, outer = first.forward, last.forward
    first.forward = lambda x: aside.append(inner(x)) or aside[-1]
    last.forward = lambda x: outer(x) + (aside.pop() if aside else 0.0)
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        runner(model, task_of(random_prompts(seed=40, lengths=[5, 5])), rows=8).run(SWEEP)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS503"
    assert "beginning at layer 2, token 0" in finding.message
    assert "one by one" in str(finding.hint)


def test_models_that_look_back_otherwise_than_by_keys_and_values_are_found_out() -> None:
    """An MLP that sums over all tokens before: exact past whole blocks, but not from a later token on."""
    model = copy.deepcopy(random_model("llama"))
    prompts = random_prompts(seed=41, lengths=[6, 6])
    for prompt in prompts:
        prompt.roles.update(A=4)
    mlp = model.model.layers[1].mlp
    original = mlp.forward
    mlp.forward = lambda x: original(x).cumsum(1)
    with borrowed(model):
        run = runner(model, task_of(prompts), rows=8)
        run.run(SWEEP)  # at all positions
        assert run.forwards_saved > 0
        with pytest.raises(CircuitspecError) as error:
            run.run([Experiment("clean", NOISING, frozenset({Site(Head(1, h), Where.at("A"))})) for h in range(4)])
    (finding,) = error.value.diagnostics
    assert finding.code == "CS503"
    assert "beginning at layer 1, token 4" in finding.message


def test_what_is_not_finite_is_named() -> None:
    """The last MLP overflows on what one patch alone leads to: the place is named, though that run began later."""
    model = copy.deepcopy(random_model("gpt2"))
    prompts = random_prompts(seed=42, lengths=[6, 6])
    mlp, seen = model.transformer.h[2].mlp, list[torch.Tensor]()
    original = mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        """Infinite in rows that are as in the corrupt run, once the unpatched runs have been made."""
        seen.append(x)
        alike = ((x[:, None] - corrupt[:, -x.shape[1] :]).abs().amax((2, 3)) < 1e-9).any(1)[:, None, None]
        return original(x) if len(seen) <= 2 else torch.where(alike, torch.inf, original(x))

    with borrowed(model), torch.no_grad():
        run = runner(model, task_of(prompts), rows=2)
        tap = Tap(2, "mlp_in")
        corrupt = run.forward(run.batches[0], "abc", Actions(record=frozenset({tap})))[1][tap]
        mlp.forward = forward
        whole_stream = Experiment("clean", NOISING, frozenset({Site(Resid(1), EVERYWHERE)}))
        with pytest.raises(CircuitspecError) as error:
            run.run([*SWEEP, whole_stream])
    (finding,) = error.value.diagnostics
    assert finding.code == "CS502"
    assert "in m2 at token 0" in finding.message


# ------------------------------------------------------------------------------------------------------------- memory


def limited(run: Runner, most: int, error: Callable[[], BaseException]) -> list[int]:
    """Let forwards of more than `most` rows fail; the rows of each forward that is tried."""
    original, tried = run.executor.forward, []

    def forward(inputs: Any, actions: Actions) -> Any:
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > most:
            raise error()
        return original(inputs, actions)

    run.executor.forward = forward  # type: ignore[method-assign]
    return tried


def cpu_allocator() -> BaseException:
    """What the processor's allocator really says."""
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [lambda: torch.OutOfMemoryError("CUDA out of memory"), pytest.param(cpu_allocator, marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize(("most", "rows"), [(6, 32), pytest.param(2, 32, marks=pytest.mark.nightly), (1, 3)])
def test_rows_are_halved_where_memory_runs_out(error: Callable[[], BaseException], most: int, rows: int) -> None:
    """Down to a batch size of 1, in every kind of run; the numbers are the same, and progress adds up."""
    model = random_model("gpt2")
    prompts = random_prompts(seed=43, lengths=[6] * 5, templates=1)
    experiments = [Experiment("abc"), *sweep_of(model, "clean", Source("mean", "abc"), seed=5, share=0.4)]
    for prompt in prompts:
        prompt.roles.update(A=2, B=4)
    oracle = Oracle(model, prompts)
    progress = Silent()
    with borrowed(model):
        run = Runner(loaded(model), task_of(prompts), rows=rows, progress=progress)
        tried = limited(run, most, error)
        records = run.run(experiments)
        refused = sum(n > most for n in tried)
        assert 0 < refused <= 6
        run.run(experiments)
    assert sum(n > most for n in tried) == refused  # what did not fit is not tried again
    assert max(n for n in tried if n <= most) == most if most < 6 else 5
    for experiment in experiments[1:]:
        assert_same(records[experiment], oracle(experiment))
    assert_same(records[experiments[0]], oracle_records(model, prompts, experiments[0]))
    assert progress.done == progress.expected


def test_a_single_prompt_that_does_not_fit_is_an_error() -> None:
    model = random_model("gpt2")
    with borrowed(model):
        run = runner(model, task_of(random_prompts(seed=44, lengths=[5, 6, 7])), rows=8)
        limited(run, 0, cpu_allocator)
        with pytest.raises(CircuitspecError) as error:
            run.run(SWEEP)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS547"
    assert "prompt 0, 5 tokens long" in finding.message


def test_other_failures_are_not_taken_for_a_lack_of_memory() -> None:
    assert out_of_memory(cpu_allocator())
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(KeyError("DefaultCPUAllocator"))
    model = random_model("gpt2")
    with borrowed(model):
        run = runner(model, task_of(random_prompts(seed=45, lengths=[5, 6])), rows=8)
        tried = limited(run, 3, lambda: RuntimeError("another"))
        with pytest.raises(RuntimeError, match="another"):
            run.run(SWEEP)
    assert sum(n > 3 for n in tried) == 1


def test_rows_that_begin_late_are_more() -> None:
    """As many as hold no more memory than the whole ones, until memory runs out."""
    rows = Rows(16, lambda positions, column: 100 * (positions - column) + 10 * column)
    assert rows.beginning_at(0, 16) == 16
    assert rows.beginning_at(8, 16) == 16 * 1600 // 880
    rows.halve(40)
    assert (rows.whole, rows.beginning_at(8, 16), rows.beginning_at(15, 16)) == (16, 20, 20)
    rows.halve(3)
    assert (rows.whole, rows.beginning_at(15, 16)) == (1, 1)


def test_late_rows_hold_less() -> None:
    """By hand: two layers, keys and values of two heads of 8 channels, float32, three copies of five positions."""
    shape = loaded(random_model("llama", layers=2)).shape
    whole, late = (activation_bytes(shape, n, "float32") for n in (8, 3))
    assert late_bytes(shape, 8, 0, "float32") == whole
    assert late_bytes(shape, 8, 5, "float32") == late + 4 * 3 * (2 * 2 * 2 * 8) * 5 < whole


# --------------------------------------------------------------------------------------------------------------- blocks


def test_blocks_that_return_tuples() -> None:
    """What blocks return is seen in a whole forward: a tensor, or a tuple, as in older versions of transformers."""
    stream = torch.ones(1, 3, 32, dtype=torch.float64)

    def blocks(output: Callable[[torch.Tensor], Any]) -> tuple[SkippedBlocks, list[torch.nn.Module]]:
        two: list[torch.nn.Module] = [torch.nn.Module() for _ in range(2)]
        for block in two:
            block.forward = output
        return SkippedBlocks(two), two

    skipped, (first, _) = blocks(lambda x: 2 * x)
    with computing(skipped.before(1)), pytest.raises(ValueError, match="watched"):
        first(stream)
    with skipped.watching():
        first(stream)
    with computing(skipped.before(1)):
        assert first(hidden_states=stream) is stream
    skipped, (first, second) = blocks(lambda x: (2 * x, "attention weights"))
    with skipped.watching():
        first(stream)
    with computing(skipped.before(1)):
        handed, nothing = first(stream, attention_mask=None)
        assert second(stream)[1] == "attention weights"
    assert handed is stream
    assert nothing is None
