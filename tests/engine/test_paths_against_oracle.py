"""Path level against the oracle: path patching, chains of hops, and sets of paths, float64 below 1e-9."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels.path_level import along, nothing_kept, path_set, travelling
from circuitspec.graph.edges import inputs_of, precedes, receivers, senders
from circuitspec.graph.paths import DeclaredPath, Stop
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.yaml.source import parse_source
from tests.engine.support import FAMILIES, TOLERANCE, loaded, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import (
    LENGTHS,
    SOURCES,
    WHERES,
    oracle_sender,
    prompts_for,
)
from tests.oracle import families, metrics, node, path, tree

FILE = parse_source("circuitspec: 1\n", "paths.circuit.yaml")
EVERYWHERE = Where.everywhere()
LOGITS = Stop(Logits(), (), EVERYWHERE)
FINAL = (("final",), None, None)
THROUGH = pytest.mark.parametrize("through", [("mlp",), ()], ids=["through MLPs", "through nothing"])
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
CHOICES = ((), ("q",), ("k", "v"), ("v",))  # of a head's inputs


def stop(component: Any, where: Where = EVERYWHERE, ports: Any = ()) -> Stop:
    return Stop(component, ports, where)


def declared(*hops: tuple[Stop, ...]) -> DeclaredPath:
    return DeclaredPath(" -> ".join(str(hop) for hop in hops), (), hops)


def tokens(where: Where, prompt: node.Prompt) -> frozenset[int]:
    named = {prompt.roles[role] for role in where.roles}
    return frozenset(p for p in range(len(prompt.clean)) if (p in named) != where.inverted)


def prompts_of(kind: str) -> list[node.Prompt]:
    return prompts_for(kind, seed=21)[:4]


def source_values(net: Any, prompts: list[node.Prompt], i: int, source: Source) -> node.Values:
    ids = [p.clean if source.prompts == "clean" else p.corrupt for p in prompts]
    match source.kind:
        case "zero":
            return node.zero_values(net, len(ids[i]))
        case "mean":
            return node.mean_values(net, ids)
        case "mean_per_template":
            return node.mean_values_per_template(net, ids, [p.template for p in prompts])[prompts[i].template]
    return node.resample_values(net, ids[i])


def assert_logits(
    family: str,
    experiment: Experiment,
    expected: Callable[[Any, int], Any],
    prompts: list[node.Prompt],
    side: str = "right",
) -> None:
    """The engine's metrics are those of `expected(net, prompt number)`, logits `[position, vocabulary]`."""
    m = model(family, exactly=True)
    net = families.read(m)
    with borrowed(m):
        found = runner(m, task_of(prompts), rows=3, side=side).run([experiment])[experiment]
    rows = []
    for i, prompt in enumerate(prompts):
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(expected(net, i)[-1].numpy(), prompt.answers, prompt.wrong, clean))
    for name, values in metrics.columns(rows).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=f"{family} {name}")


def shape_of(family: str) -> ModelShape:
    return loaded(model(family, exactly=True)).shape


# ------------------------------------------------------------------------------------------------------ sets of paths


def random_stops(shape: ModelShape, rng: np.random.Generator, wheres: dict[Any, Where]) -> list[Stop]:
    """A chain of one to three components in the order of layers, each acting where `wheres` says."""
    order = senders(shape)
    drawn = sorted(int(i) for i in rng.integers(len(order), size=int(rng.integers(1, 4))))
    kept: list[Stop] = []
    for component in (order[i] for i in drawn):
        if kept and (
            isinstance(component, Input)
            or not precedes(kept[-1].component, next(inputs_of(component, (), shape)), shape)  # type: ignore[arg-type]
        ):
            continue
        ports = CHOICES[int(rng.integers(len(CHOICES)))] if kept and isinstance(component, Head) else ()
        where = wheres.setdefault(component, WHERES[int(rng.integers(len(WHERES)))])
        kept.append(stop(component, where, ports))
    return kept


def oracle_hop(one: Stop, prompt: node.Prompt, entered: bool = True) -> tree.Hop:
    if isinstance(one.component, Logits):
        return FINAL
    ports = frozenset(one.ports) if one.ports and entered else None
    return oracle_sender(one.component), ports, tokens(one.where, prompt)  # type: ignore[arg-type]


def oracle_end(one: Stop, at: Collection[int] | None = None) -> path.End:
    """The end of a path, at all positions unless it says where."""
    match one.component:
        case KvHead(layer, head):
            return ("kv", layer, head), one.ports, at
        case Logits():
            return FINAL
        case _:
            return oracle_sender(one.component), one.ports or None, at  # type: ignore[arg-type]


def assert_set(
    family: str,
    paths: list[DeclaredPath],
    whole: Callable[[Any, node.Prompt], list[list[tree.Hop]]],
    source: Source = SOURCES["resample"],
    *,
    keep: bool = True,
    through: tuple[str, ...] = (),
    prompts: list[node.Prompt] | None = None,
) -> None:
    """A set of declared paths against the oracle's tree over `whole(net, prompt)`, the paths to the logits."""
    given = prompts or prompts_of(source.kind)
    readings = path_set(paths, shape_of(family), FILE)
    experiment = travelling("clean", source, readings, paths, through=through, keep=keep)

    def expected(net: Any, i: int) -> Any:
        clean, other = node.resample_values(net, given[i].clean), source_values(net, given, i, source)
        kept, frozen = (clean, other) if keep else (other, clean)
        return tree.tree(net, given[i].clean, whole(net, given[i]), kept, frozen, through)

    assert_logits(family, experiment, expected, given, side="left" if keep else "right")


def pieces(net: Any, prompt: node.Prompt, paths: list[DeclaredPath]) -> list[list[tree.Hop]]:
    """Declared paths by the oracle: pieces that continue one another put together."""
    hops = [[[oracle_hop(s, prompt, n > 0) for s in hop] for n, hop in enumerate(p.hops)] for p in paths]
    return tree.complete(net, hops)


@THROUGH
@EVERY_FAMILY
@pytest.mark.parametrize(
    ("kind", "keep"),
    [
        ("resample", True),
        ("resample", False),
        pytest.param("mean_per_template", True, marks=pytest.mark.nightly),
        ("mean", False),
        pytest.param("zero", True, marks=pytest.mark.nightly),
    ],
)
def test_sets_of_paths(family: str, kind: str, keep: bool, through: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(family) + 100 * keep + 7 * len(kind))
    wheres: dict[Any, Where] = {}
    chains = [random_stops(shape_of(family), rng, wheres) for _ in range(4)]
    paths = [declared(*[(one,) for one in chain], (LOGITS,)) for chain in chains]

    def whole(net: Any, prompt: node.Prompt) -> list[list[tree.Hop]]:
        return [[*(oracle_hop(one, prompt) for one in chain), FINAL] for chain in chains]

    assert_set(family, paths, whole, SOURCES[kind], keep=keep, through=through)


@EVERY_FAMILY
def test_pieces_are_one_path_where_one_starts_at_the_end_of_the_other(family: str) -> None:
    late = stop(Mlp(1 if shape_of(family).has_resid_mid else 2), Where.at("END"))
    paths = [
        declared((stop(Input(), Where.at("A")),), (stop(Head(0, 1), ports=("v",)),)),
        declared((stop(Head(0, 1)), stop(Mlp(0))), (stop(Head(1, 0), ports=("k", "v")),)),
        declared((stop(Head(1, 0)),), (late, LOGITS)),
        declared((late,), (LOGITS,)),
    ]
    assert_set(family, paths, lambda net, prompt: pieces(net, prompt, paths))


@EVERY_FAMILY
def test_a_group_that_leads_to_itself_is_every_way_through_it(family: str) -> None:
    """`mlps -> mlps` and `mlps -> logits`: m0 alone, m0 to m1, m0 to m1 to m2, and so on; m0 is where all start."""
    mlps = tuple(stop(Mlp(layer), Where.at("A", "END")) for layer in range(3))
    paths = [declared(mlps, mlps), declared(mlps, (LOGITS,))]

    def whole(net: Any, prompt: node.Prompt) -> list[list[tree.Hop]]:
        at = tokens(mlps[0].where, prompt)
        ways: list[tuple[int, ...]] = [(0,), (0, 1), (0, 2), (0, 1, 2)]
        return [[*((("mlp", layer), None, at) for layer in way), FINAL] for way in ways]

    assert_set(family, paths, whole)


@EVERY_FAMILY
def test_pieces_that_end_at_one_component_at_different_positions_stay_apart(family: str) -> None:
    """Keys are read anywhere, but what is computed from them is sent from where each path ends."""
    paths = [
        declared((stop(Head(0, 0)),), (stop(Head(1, 0), Where.at("A"), ("k",)),)),
        declared((stop(Head(0, 1)),), (stop(Head(1, 0), Where.at("B"), ("k",)),)),
        declared((stop(Head(1, 0), Where.at("A", "B")),), (stop(Mlp(2)),), (LOGITS,)),
    ]

    def whole(net: Any, prompt: node.Prompt) -> list[list[tree.Hop]]:
        return [
            [(("head", 0, h), None, None), (("head", 1, 0), "k", {prompt.roles[role]}), (("mlp", 2), None, None), FINAL]
            for h, role in ((0, "A"), (1, "B"))
        ]

    assert_set(family, paths, whole, prompts=apart())


@EVERY_FAMILY
def test_an_mlp_may_compute_different_values_at_different_positions(family: str) -> None:
    last = stop(Head(2, 0))
    paths = [
        declared((stop(Head(0, 0)),), (stop(Mlp(1), Where.at("A")),), (last,), (LOGITS,)),
        declared((stop(Head(0, 1)),), (stop(Mlp(1), Where.at("B")),), (last,), (LOGITS,)),
    ]
    assert_set(family, paths, lambda net, prompt: pieces(net, prompt, paths), prompts=apart())


def test_a_start_dominates_at_its_positions_alone() -> None:
    """a1.h0 has its clean value at A, where a path starts, and at END what a0.h0 makes of it."""
    middle = stop(Head(1, 0), Where.at("A", "END"))
    paths = [
        declared((stop(Head(0, 0)),), (middle,), (LOGITS,)),
        declared((stop(Head(1, 0), Where.at("A")),), (LOGITS,)),
    ]
    prompts = [p for p in apart() if p.roles["A"] != p.roles["END"]]
    assert_set("gpt2", paths, lambda net, prompt: pieces(net, prompt, paths), prompts=prompts)


def test_nothing_arrives_along_stops_that_are_not_in_order() -> None:
    """Every two neighbouring hops have an edge, but no three stops are in order: all is ablated, nothing is kept."""
    hops = (stop(Head(1, 0)),), (stop(Head(0, 0)), stop(Head(2, 0))), (stop(Head(1, 1)),), (LOGITS,)
    one = declared(*hops)
    prompts = prompts_of("resample")
    for through in ((), ("mlp",)):
        readings = path_set([one], shape_of("gpt2"), FILE)
        kept = travelling("clean", SOURCES["resample"], readings, [one], through=through, keep=True)
        assert kept == nothing_kept(SOURCES["resample"], [one], through)
        assert_logits("gpt2", kept, lambda net, i: node.forward(net, prompts[i].corrupt).logits, prompts)


@EVERY_FAMILY
def test_no_path_kept_is_the_source_run(family: str) -> None:
    prompts = prompts_of("resample")
    for through in ((), ("mlp",)):
        nothing = nothing_kept(SOURCES["resample"], [], through)
        assert_logits(family, nothing, lambda net, i: node.forward(net, prompts[i].corrupt).logits, prompts)


# ------------------------------------------------------------------------------------------------------ path patching


@pytest.mark.parametrize(
    "through",
    [
        pytest.param(("mlp",), id="through MLPs"),
        pytest.param((), id="through nothing", marks=pytest.mark.nightly),
    ],
)
@EVERY_FAMILY
@pytest.mark.parametrize("base", ["clean", pytest.param("abc", marks=pytest.mark.nightly)])
def test_path_patching_into_several_receivers(family: str, base: str, through: tuple[str, ...]) -> None:
    """Wang et al.'s four passes: the receivers read what they read with the sender new and all other heads frozen."""
    shape = shape_of(family)
    rng = np.random.default_rng(5 + len(family))
    prompts = prompts_of("resample")
    source = Source("resample", "abc" if base == "clean" else "clean")
    for sender in (Input(), Head(0, 1), Mlp(0)):
        later = [r for r in receivers(shape) if precedes(sender, r, shape) and not isinstance(r.component, Logits)]
        if through:  # an MLP that a path names is a stop of it, and the oracle's passes go through all
            later = [r for r in later if not isinstance(r.component, Mlp)]
        chosen = [later[i] for i in sorted(rng.choice(len(later), 3, replace=False))]
        where = WHERES[int(rng.integers(len(WHERES)))]
        ends = tuple(stop(r.component, ports=() if r.port is None else (r.port,)) for r in chosen)
        one = declared((stop(sender, where),), ends)
        readings = along([one], shape, FILE)
        assert {r.receiver for r in readings} == set(chosen)
        experiment = travelling(base, source, readings, [one], through=through)

        def expected(net: Any, i: int, sender: Any = sender, ends: Any = ends, where: Where = where) -> Any:
            prompt = prompts[i]
            ids, other = (prompt.clean, prompt.corrupt) if base == "clean" else (prompt.corrupt, prompt.clean)
            return path.open_ends(
                net,
                ids,
                node.resample_values(net, other),
                oracle_sender(sender),
                [oracle_end(one) for one in ends],
                set(through),
                sorted(tokens(where, prompt)),
            )

        assert_logits(family, experiment, expected, prompts)


@EVERY_FAMILY
@pytest.mark.parametrize("end", ["q", "mlp"])
def test_receivers_read_at_their_own_positions(family: str, end: str) -> None:
    """A path that ends at a head's query or an MLP, at one position and at another (as in two groups)."""
    component, ports = (Head(2, 1), ("q",)) if end == "q" else (Mlp(2), ())
    ends = tuple(stop(component, Where.at(role), ports) for role in ("A", "B"))
    one = declared((stop(Head(0, 0)),), ends)
    experiment = travelling("clean", SOURCES["resample"], along([one], shape_of(family), FILE), [one], through=())
    prompts = apart()

    def expected(net: Any, i: int) -> Any:
        prompt = prompts[i]
        values = node.resample_values(net, prompt.corrupt)
        at = [prompt.roles["A"], prompt.roles["B"]]
        return path.open_ends(net, prompt.clean, values, ("head", 0, 0), [oracle_end(ends[0], at)], ())

    assert_logits(family, experiment, expected, prompts)


@EVERY_FAMILY
def test_heads_act_on_keys_and_values_at_their_own_positions(family: str) -> None:
    """Where a path ends in them: other queries, and other heads that share them there, use the keys as they are."""
    shape = shape_of(family)
    prompts = apart()
    kv = shape.n_kv_heads - 1
    ends = (
        stop(KvHead(1, 0), Where.at("A"), ("k",)),
        stop(KvHead(1, kv), Where.at("B"), ("v",)),
        stop(KvHead(2, kv), Where.at("A", "END"), ("k", "v")),
        stop(Head(2, 0), ports=("q",)),
    )
    for sender in (Head(0, 1), Input()):
        one = declared((stop(sender),), ends)
        readings = along([one], shape, FILE)
        experiment = travelling("clean", SOURCES["resample"], readings, [one], through=())

        def expected(net: Any, i: int, sender: Any = sender) -> Any:
            prompt = prompts[i]
            values = node.resample_values(net, prompt.corrupt)
            last = [oracle_end(one, tokens(one.where, prompt)) for one in ends]
            return path.open_ends(net, prompt.clean, values, oracle_sender(sender), last, ())

        assert_logits(family, experiment, expected, prompts)


def test_keys_after_a_head_do_not_reach_it() -> None:
    """A sender that writes after the receiver's position: whatever later queries see, nothing is changed."""
    prompts = [p for p in apart() if p.roles["A"] < p.roles["B"]]
    assert prompts
    one = declared((stop(Head(0, 0), Where.at("B")),), (stop(Head(1, 2), Where.at("A"), ("k", "v")),))
    shape = shape_of("llama")
    for through in ((), ("mlp",)):
        experiment = travelling("clean", SOURCES["resample"], along([one], shape, FILE), [one], through=through)
        assert_logits("llama", experiment, lambda net, i: node.forward(net, prompts[i].clean).logits, prompts)


def test_an_end_that_nothing_reaches_is_frozen() -> None:
    """a2.h0 reads at END what the input at A does not write there; a1.h2 does, but that is no hop of the path."""
    prompts = [p for p in apart() if p.roles["A"] != p.roles["END"]]
    ends = stop(Head(1, 2), ports=("v",)), stop(Head(2, 0), Where.at("END"), ("q",))
    one = declared((stop(Input(), Where.at("A")),), ends)
    readings = along([one], shape_of("gpt2"), FILE)
    assert {(r.receiver.port, bool(r.senders)) for r in readings} == {("v", True), ("q", False)}
    experiment = travelling("clean", SOURCES["resample"], readings, [one], through=())

    def expected(net: Any, i: int) -> Any:
        prompt = prompts[i]
        values, a = node.resample_values(net, prompt.corrupt), [prompt.roles["A"]]
        last = [oracle_end(one, tokens(one.where, prompt)) for one in ends]
        return path.open_ends(net, prompt.clean, values, ("input",), last, (), a)

    assert_logits("gpt2", experiment, expected, prompts)


@THROUGH
@EVERY_FAMILY
@pytest.mark.parametrize(
    ("port", "end"), [("q", "logits"), ("k", "open"), pytest.param("v", "logits", marks=pytest.mark.nightly)]
)
def test_chains_of_hops(family: str, end: str, port: str, through: tuple[str, ...]) -> None:
    """Through one input of a head, or through the keys or values that all heads of a group share."""
    shape = shape_of(family)
    heads = 1 if port == "q" else shape.n_heads // shape.n_kv_heads
    where = Where.at("A", "END")
    last = stop(Head(2, 1), ports=("q",)) if end == "open" else LOGITS
    middle = tuple(stop(Head(1, h), ports=(port,)) for h in range(heads))
    one = declared((stop(Head(0, 0), where),), middle, (last,))
    experiment = travelling("clean", SOURCES["resample"], along([one], shape, FILE), [one], through=through)
    prompts = prompts_of("resample")

    def expected(net: Any, i: int) -> Any:
        prompt = prompts[i]
        final: Any = ("q", 2, 1) if end == "open" else ("final",)
        values = node.resample_values(net, prompt.corrupt)
        at = sorted(tokens(where, prompt))
        return path.chain(net, prompt.clean, values, ("head", 0, 0), [(port, 1, 0), final], set(through), at)

    assert_logits(family, experiment, expected, prompts)


# ----------------------------------------------------------------------------------------- positions that are one token


def apart() -> list[node.Prompt]:
    """Prompts in which A and B are different tokens."""
    return [p for p in random_prompts(21, LENGTHS) if p.roles["A"] != p.roles["B"]]


@pytest.mark.parametrize("kind", ["values", "reads"])
def test_two_values_at_one_token_are_refused(kind: str) -> None:
    ends = tuple(stop(Mlp(1), Where.at(role)) for role in ("B", "A"))
    paths = [declared((stop(Head(0, h)),), (end,)) for h, end in enumerate(ends)]
    if kind == "values":
        paths = [declared(*p.hops, (stop(Head(2, 0)),), (LOGITS,)) for p in paths]
    readings = along(paths, shape_of("gpt2"), FILE)
    experiment = travelling("clean", SOURCES["resample"], readings, paths, through=())
    m = model("gpt2", exactly=True)
    prompts = apart()
    meeting = [*prompts, replace(prompts[0], roles={**prompts[0].roles, "B": prompts[0].roles["A"]})]
    with borrowed(m):
        runner(m, task_of(prompts)).run([experiment])
        with pytest.raises(CircuitspecError) as error:
            runner(m, task_of(meeting)).run([experiment])
    (finding,) = error.value.diagnostics
    assert (finding.code, finding.message, finding.hint) == (
        "CS229",
        "m1 has different values at A and at B before the same rest of a path, and in some prompt these are one token",
        "give it the same positions in all paths, or take prompts in which they are apart",
    )
