"""Features of dictionaries against the oracle: their maths in numpy, their patches by an explicit forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.dictionaries.dictionary import Dictionary, TopK
from circuitspec.engine.attribution.feature_activity import feature_activity, moving_features
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.metrics.dictionary_fit import dictionary_fits
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import EVERYWHERE, ZEROS, Experiment, Site, Source, SourcedSites, values_in
from circuitspec.graph.shape import DictionarySite
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import DictionaryError, Feature, Head, OfDictionary, OtherFeatures
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from tests.engine.support import Silent, assert_same, loaded, oracle_records, random_prompts, task_of
from tests.engine.support import model as random_model
from tests.oracle import families, metrics, node

A, END = Where.at("A"), Where.at("END")
ABC = values_in("abc")
N = 20
Array = np.ndarray


@dataclass(frozen=True)
class Numbers:
    """A dictionary twice: as the engine takes it, and as formulas in numpy."""

    place: str
    encoder: Array
    decoder: Array
    bias: Array
    constant: Array
    kind: str
    skip: Array | None = None

    @classmethod
    def drawn(cls, place: str, width: int, kind: str, seed: int = 5) -> Numbers:
        draw = np.random.default_rng(seed).standard_normal
        skip = draw((width, width)) * 0.1 if kind == "transcoder" else None
        return cls(place, draw((width, N)), draw((N, width)) * 0.5, draw(N) * 0.1, draw(width) * 0.2, kind, skip)

    @property
    def engine(self) -> Dictionary:
        encoder, decoder, bias, constant = (
            torch.from_numpy(one) for one in (self.encoder, self.decoder, self.bias, self.constant)
        )
        plain = Dictionary(encoder, decoder, bias, constant, "relu")
        match self.kind:
            case "standard":
                return replace(plain, centre=constant)
            case "jumprelu":
                return replace(plain, activation="jumprelu", threshold=torch.full((N,), 0.7, dtype=torch.float64))
            case "topk":
                return replace(plain, activation="topk", topk=TopK(4))
            case "layer norm":
                return replace(plain, norm="layer_norm")
            case "centred and scaled":
                return replace(plain, centred=True, scale=1.5)
            case "transcoder":
                assert self.skip is not None
                return replace(plain, reads_input=True, skip=torch.from_numpy(self.skip))
        raise ValueError(self.kind)

    def weights(self, read: Array) -> Array:
        """By what each direction is multiplied, `[pos, feature]`."""
        x, back = read, 1.0
        if self.kind == "standard":
            x = x - self.constant
        if self.kind == "layer norm":
            back = x.std(-1, ddof=1, keepdims=True)
            x = (x - x.mean(-1, keepdims=True)) / (back + 1e-5)
        if self.kind == "centred and scaled":
            x, back = (x - x.mean(-1, keepdims=True)) * 1.5, 1 / 1.5
        p = x @ self.encoder + self.bias
        if self.kind == "jumprelu":
            p = np.where(p > 0.7, p, 0)
        if self.kind == "topk":
            p = np.where(p >= np.sort(p, axis=-1)[..., -4:-3], p, 0)
        return np.maximum(p, 0) * back

    def error(self, value: Array, read: Array) -> Array:
        """What features, the constant and the skip leave."""
        constant: Any = self.constant
        if self.kind == "layer norm":
            constant = constant * read.std(-1, ddof=1, keepdims=True) + read.mean(-1, keepdims=True)
        if self.kind == "centred and scaled":
            constant = constant / 1.5
        if self.skip is not None:
            constant = constant + read @ self.skip
        return value - self.weights(read) @ self.decoder - constant


def at_place(net: Any, run: node.Run, place: DictionaryPlace, *, reads_input: bool) -> tuple[Array, Array]:
    """The value at a place in a run of the oracle, and what a dictionary of it reads."""
    layer = place.layer
    match place.kind:
        case "resid":
            value = run.values["resid", layer, "pre"]
        case "resid_mid":
            value = run.values["resid", layer, "mid"]
        case "attention":
            value = run.values["attn", layer]
        case "mlp":
            value = run.values["mlp_added", layer]
        case "z":
            heads = range(net.layers[layer].attention.heads)
            value = torch.cat([run.values["head", layer, h] for h in heads], dim=1)
    found = value.numpy()
    if not reads_input:
        return found, found
    norm = net.layers[layer].pre_mlp
    entering = run.reads["mlp_in", layer]
    return found, (entering if norm is None else norm(entering)).numpy()


def put_back(net: Any, place: DictionaryPlace, position: int, value: Array) -> dict[node.Site, Any]:
    layer, row = place.layer, torch.from_numpy(value)
    match place.kind:
        case "resid":
            return {(("resid", layer, "pre"), position): row}
        case "resid_mid":
            return {(("resid", layer, "mid"), position): row}
        case "attention":
            return {(("attn", layer), position): row}
        case "mlp":
            return {(("mlp_added", layer), position): row}
        case "z":
            heads = net.layers[layer].attention.heads
            return {(("head", layer, h), position): one for h, one in enumerate(row.chunk(heads))}
    raise ValueError(place)


def by_hand(
    model: Any,
    prompts: list[node.Prompt],
    experiment: Experiment,
    numbers: Mapping[str, Numbers],
    *,
    left_out: bool = False,
) -> dict[str, Array]:
    """Every metric of every prompt; dictionary after dictionary, each of the run with the earlier ones patched.

    With `left_out`, errors that are patched are taken away.
    """
    net = families.read(model)
    source = experiment.source
    assert source is not None

    def ids(variant: Any, prompt: node.Prompt) -> list[int]:
        return prompt.clean if variant == "clean" else prompt.corrupt

    def parts(own: Numbers, run: node.Run) -> tuple[Array, Array]:
        reads_input = own.skip is not None
        value, read = at_place(net, run, DictionaryPlace.parse(own.place), reads_input=reads_input)
        return own.weights(read), own.error(value, read)

    def given(i: int, own: Numbers) -> tuple[Array, Array]:
        """Features and error in the source."""
        assert source is not None
        if source.prompts is None:
            width = len(own.constant)
            return np.zeros((len(prompts[i].clean), N)), np.zeros((len(prompts[i].clean), width))
        alike = [prompts[i]]
        if source.kind == "mean":
            alike = prompts
        if source.kind == "mean_per_template":
            alike = [p for p in prompts if p.template == prompts[i].template]
        each = [parts(own, node.forward(net, ids(source.prompts, p), record=True)) for p in alike]
        return np.mean([one[0] for one in each], axis=0), np.mean([one[1] for one in each], axis=0)

    rows = []
    for i, prompt in enumerate(prompts):
        patches: dict[node.Site, Any] = {}
        for name, own in sorted(numbers.items(), key=lambda item: DictionaryPlace.parse(item[1].place).layer):
            sites = [s for s in experiment.sites if getattr(s.component, "dictionary", None) == name]
            place = DictionaryPlace.parse(own.place)
            run = node.forward(net, ids(experiment.base, prompt), patches or None, record=True)
            value, _ = at_place(net, run, place, reads_input=own.skip is not None)
            now, then = parts(own, run), given(i, own)
            for position in range(len(prompt.clean)):
                new, touched = value[position].copy(), False
                for site in sites:
                    named = {prompt.roles[role] for role in site.where.roles}
                    if (position in named) == site.where.inverted:
                        continue
                    touched = True
                    match site.component:
                        case Feature(_, index):
                            chosen = [index]
                        case OtherFeatures(_, but):
                            chosen = [n for n in range(N) if n not in but]
                        case _:
                            new += (0 if left_out else then[1][position]) - now[1][position]
                            continue
                    for n in chosen:
                        new += (then[0][position, n] - now[0][position, n]) * own.decoder[n]
                if touched:
                    patches |= put_back(net, place, position, new)
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        logits = node.forward(net, ids(experiment.base, prompt), patches or None).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


def runner_with(
    model: Any, prompts: list[node.Prompt], numbers: Mapping[str, Numbers], side: Any = "right", **site: Any
) -> Runner:
    plain = loaded(model)
    sites = tuple(
        DictionarySite(name, DictionaryPlace.parse(own.place), N, own.skip is not None, **site)
        for name, own in numbers.items()
    )
    shape = replace(plain.shape, dictionaries=sites)
    known = replace(plain, shape=shape, dictionaries={name: own.engine for name, own in numbers.items()})
    return Runner(known, task_of(prompts), rows=3, progress=Silent(), side=side)


def width_of(model: Any, place: str) -> int:
    config = model.config
    heads = config.num_attention_heads
    return heads * getattr(config, "head_dim", config.hidden_size // heads) if place[0] == "z" else config.hidden_size


def drawn(model: Any, **kinds: tuple[str, str]) -> dict[str, Numbers]:
    return {name: Numbers.drawn(place, width_of(model, place), kind) for name, (place, kind) in kinds.items()}


def patching(*sites: tuple[OfDictionary, Where], source: Source = ABC, base: str = "clean") -> Experiment:
    return Experiment(base, source, frozenset(Site(*one) for one in sites))


def all_but(layer: int, name: str, kept: Mapping[int, Where], error: bool) -> list[tuple[OfDictionary, Where]]:
    """What lies outside a circuit of features kept at some positions."""
    found: list[tuple[OfDictionary, Where]] = [(Feature(name, n, layer), ~where) for n, where in kept.items()]
    found.append((OtherFeatures(name, frozenset(kept), layer), EVERYWHERE))
    return [*found, *([(DictionaryError(name, layer), EVERYWHERE)] if error else [])]


CASES = [
    ("gpt2", "r1", "standard"),
    ("gpt2", "r3", "layer norm"),  # what leaves the last block
    ("llama", "z1", "topk"),
    ("gemma2", "m1", "transcoder"),
]
MORE = [
    ("gpt2", "r2.mid", "jumprelu"),
    ("gpt2", "a1", "topk"),
    ("gpt2", "z1", "jumprelu"),
    ("gpt2", "m1", "transcoder"),
    ("llama", "m1", "transcoder"),
    ("llama", "r1", "centred and scaled"),
    ("gemma2", "m1", "jumprelu"),
    ("olmo2", "m1", "transcoder"),
    ("gpt_neox", "m1", "standard"),
    ("gpt_neox", "r3", "jumprelu"),
    ("gemma2", "r3", "topk"),
    ("gpt2", "r1", "layer norm"),
]


@pytest.mark.parametrize(
    ("family", "place", "kind"), [*CASES, *(pytest.param(*case, marks=pytest.mark.nightly) for case in MORE)]
)
def test_one_dictionary(family: str, place: str, kind: str) -> None:
    model = random_model(family)
    prompts = random_prompts(seed=11, lengths=[6, 5, 7, 6])
    layer, numbers = DictionaryPlace.parse(place).layer, drawn(model, d=(place, kind))
    f3, f4, f9 = (Feature("d", n, layer) for n in (3, 4, 9))
    runs = [
        patching((f3, A)),
        patching((f3, A | END), (f4, EVERYWHERE), (f9, ~END)),
        patching((DictionaryError("d", layer), EVERYWHERE)),
        patching(*all_but(layer, "d", {3: END, 4: A | END}, error=False)),
        patching(*all_but(layer, "d", {3: END, 9: EVERYWHERE}, error=True)),
        patching((f3, EVERYWHERE), (f4, END), base="abc", source=values_in("clean")),
        patching((OtherFeatures("d", layer=layer), EVERYWHERE), source=ZEROS),
        patching((DictionaryError("d", layer), END), (f9, A), source=ZEROS),
    ]
    with borrowed(model):
        engine = runner_with(model, prompts, numbers)
        together = engine.run(runs)
        alone = runner_with(model, prompts, numbers).run(runs[3:4])
    assert_same(alone[runs[3]], by_hand(model, prompts, runs[3], numbers))
    for run in runs:
        assert_same(together[run], by_hand(model, prompts, run, numbers))


@pytest.mark.parametrize(
    ("family", "place", "kind", "side"),
    [
        ("gpt2", "r1", "jumprelu", "right"),
        ("gemma2", "m2", "transcoder", "right"),
        pytest.param("llama", "z1", "standard", "right", marks=pytest.mark.nightly),
        pytest.param("llama", "r3", "standard", "right", marks=pytest.mark.nightly),
        pytest.param("gpt_neox", "r3", "standard", "left", marks=pytest.mark.nightly),
        pytest.param("gpt2", "r0", "standard", "right", marks=pytest.mark.nightly),
        pytest.param("gpt_neox", "a1", "jumprelu", "left", marks=pytest.mark.nightly),
        pytest.param("llama", "r2", "topk", "left", marks=pytest.mark.nightly),
        pytest.param("gpt2", "r1.mid", "layer norm", "right", marks=pytest.mark.nightly),
    ],
)
def test_a_sweep_runs_the_rows_in_which_a_feature_moves(family: str, place: str, kind: str, side: Any) -> None:
    """Beside patches of heads, which run in all rows; and features that never move, which run in none."""
    model = random_model(family)
    prompts = random_prompts(seed=19, lengths=[6, 5, 7])
    layer, numbers = DictionaryPlace.parse(place).layer, drawn(model, d=(place, kind))
    dim = numbers["d"].bias - (0 if kind == "topk" else 4 if place != "r0" else 1)
    numbers["d"] = replace(numbers["d"], bias=np.where(np.arange(N) < 3, -1e3, dim))
    single = [patching((Feature("d", n, layer), (EVERYWHERE, END, A | END)[n % 3])) for n in range(N)]
    f3, f9 = Feature("d", 3, layer), Feature("d", 9, layer)
    more = [patching((f3, A), (f3, ~(A | END)), (f9, EVERYWHERE))]
    heads = [Experiment("clean", ABC, frozenset({Site(Head(1, h), where)})) for h, where in ((0, A), (1, EVERYWHERE))]
    zeros = [patching(*all_but(layer, "d", {n: END}, error=False), source=ZEROS) for n in range(4)]
    with borrowed(model):
        engine = runner_with(model, prompts, numbers, side)
        found = engine.run([*single, *more, *heads, *zeros])
    expected = {run: by_hand(model, prompts, run, numbers) for run in (*single, *more, *zeros)}
    for run, values in expected.items():
        assert_same(found[run], values)
    for run in heads:
        assert_same(found[run], oracle_records(model, prompts, run))  # type: ignore[arg-type]
    clean = by_hand(model, prompts, single[0], numbers)["logit_diff"]
    still = sum(int((abs(expected[run]["logit_diff"] - clean) < 1e-12).sum()) for run in single)
    assert 9 <= still < 3 * N - 9  # prompts that are not moved
    moved = 3 * (len(expected) + len(heads)) - still
    assert (engine.forwards - engine.forwards_saved) * 3 <= moved + 3 * 2 + 4 * 2  # both runs, and four to compare


@pytest.mark.parametrize("few", [0, N + 1])
def test_features_added_up_one_by_one(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nearly all are inactive; encoded all together, or those alone that are patched."""
    monkeypatch.setattr("circuitspec.dictionaries.dictionary.SPARSE", 0)
    monkeypatch.setattr("circuitspec.engine.execution.interventions.FEW", few)
    model = random_model("gpt2")
    prompts = random_prompts(seed=18, lengths=[6, 5])
    numbers = drawn(model, d=("r1", "jumprelu"))
    run = patching(*all_but(1, "d", {3: END, 4: A | END}, error=True))
    with borrowed(model):
        found = runner_with(model, prompts, numbers).run([run])
    assert_same(found[run], by_hand(model, prompts, run, numbers))


@pytest.mark.parametrize(
    ("family", "place", "kind"),
    [
        ("gpt2", "r1", "layer norm"),
        pytest.param("gemma2", "m1", "transcoder", marks=pytest.mark.nightly),
        pytest.param("llama", "z1", "topk", marks=pytest.mark.nightly),
    ],
)
def test_an_error_that_is_left_out(family: str, place: str, kind: str) -> None:
    """The value is what its features say, whatever values these take; and nothing else is changed by it."""
    model = random_model(family)
    prompts = [replace(p, roles={"A": 2, "END": 5}) for p in random_prompts(seed=20, lengths=[6] * 3)]
    layer, numbers = DictionaryPlace.parse(place).layer, drawn(model, d=(place, kind))
    sites = all_but(layer, "d", {3: END}, error=True)
    runs = [patching(*sites, source=source) for source in (ABC, ZEROS, Source("mean", "abc"))]
    runs += [patching((DictionaryError("d", layer), A), (Feature("d", 4, layer), EVERYWHERE))]
    runs += [patching(*sites, base="abc", source=values_in("clean"))]
    plain = patching(*sites[:-1])
    beside = replace(plain, beside=frozenset({SourcedSites(ZEROS, frozenset({Site(*sites[-1])}))}))
    with borrowed(model):
        found = runner_with(model, prompts, numbers, error_left_out=True).run([*runs, plain])
        other = runner_with(model, prompts, numbers).run([runs[0], beside])
    for run in runs:
        assert_same(found[run], by_hand(model, prompts, run, numbers, left_out=True))
    assert_same(found[plain], by_hand(model, prompts, plain, numbers))
    assert_same(other[runs[0]], by_hand(model, prompts, runs[0], numbers))
    assert_same(other[beside], by_hand(model, prompts, runs[0], numbers, left_out=True))


@pytest.mark.parametrize("kind", ["mean", "mean_per_template"])
def test_means_are_of_features(kind: str) -> None:
    """And not features of means."""
    model = random_model("gpt2")
    prompts = [replace(p, roles={"END": 5}) for p in random_prompts(seed=12, lengths=[6] * 5, templates=2)]
    numbers = drawn(model, d=("r1", "jumprelu"))
    run = patching(*all_but(1, "d", {3: END}, error=True), source=Source(kind, "abc"))
    with borrowed(model):
        found = runner_with(model, prompts, numbers).run([run])
    assert_same(found[run], by_hand(model, prompts, run, numbers))


def test_dictionaries_of_two_layers() -> None:
    """The later one takes apart what the earlier one's patch leads to."""
    model = random_model("llama")
    prompts = random_prompts(seed=13, lengths=[6, 5, 7, 6])
    numbers = drawn(model, one=("m0", "transcoder"), two=("r2", "topk"))
    run = patching(*all_but(0, "one", {1: A}, error=False), *all_but(2, "two", {5: END}, error=True))
    with borrowed(model):
        found = runner_with(model, prompts, numbers).run([run])
    assert_same(found[run], by_hand(model, prompts, run, numbers))


def test_own_values_change_nothing_and_all_of_them_are_the_source() -> None:
    model = random_model("gpt2")
    prompts = random_prompts(seed=14, lengths=[6, 5])
    numbers = drawn(model, d=("r1", "standard"))
    parts = all_but(1, "d", {}, error=True)
    own, other = patching(*parts, source=values_in("clean")), patching(*parts)
    clean, corrupt = Experiment("clean"), Experiment("abc")
    with borrowed(model):
        found = runner_with(model, prompts, numbers).run([own, other, clean, corrupt])
    np.testing.assert_allclose(found[own]["logit_diff"], found[clean]["logit_diff"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[other]["logit_diff"], found[corrupt]["logit_diff"], rtol=0, atol=1e-9)


def test_the_first_token_may_be_left_out() -> None:
    """A patch everywhere is then one everywhere but there; also of a run that begins in the middle."""
    model = random_model("gpt2")
    prompts = [replace(p, roles={**p.roles, "FIRST": 0}) for p in random_prompts(seed=15, lengths=[6, 5, 7])]
    numbers = drawn(model, d=("r2", "standard"))
    skipping = [patching((Feature("d", n, 2), EVERYWHERE)) for n in range(6)]
    but_first = [patching((Feature("d", n, 2), Where.except_at("FIRST"))) for n in range(6)]
    expected = [by_hand(model, prompts, run, numbers) for run in but_first]
    for side in ("right", "left"):
        with borrowed(model):
            found = runner_with(model, prompts, numbers, side, skips_first=True).run(skipping)
        for run, values in zip(skipping, expected, strict=True):
            assert_same(found[run], values)


def test_how_well_a_dictionary_fits() -> None:
    """Of all tokens but the first of each prompt, by hand."""
    model = random_model("gpt2")
    prompts = random_prompts(seed=17, lengths=[6, 5, 7])
    numbers = drawn(model, d=("m1", "transcoder"))
    with borrowed(model):
        (fit,) = dictionary_fits(runner_with(model, prompts, numbers))
    net, place = families.read(model), DictionaryPlace.parse("m1")
    runs = [node.forward(net, prompt.clean, record=True) for prompt in prompts]
    both = [at_place(net, run, place, reads_input=True) for run in runs]
    value, read = (np.concatenate([one[i][1:] for one in both]) for i in (0, 1))
    active = numbers["d"].weights(read) > 0
    variance = ((value - value.mean(0)) ** 2).sum()
    assert abs(fit.unexplained - (numbers["d"].error(value, read) ** 2).sum() / variance) < 1e-9
    assert fit.active == pytest.approx(active.sum(1).mean(), abs=1e-12)
    assert (fit.seen, fit.n_features) == (active.any(0).sum(), N)


def test_estimates_are_slopes() -> None:
    """All features in one backward pass: each is the derivative by its weight, times how far it moves."""
    model = random_model("gpt2")
    prompts = random_prompts(seed=16, lengths=[6, 6])
    numbers = drawn(model, d=("r1", "standard"))
    chosen = [Feature("d", n, 1) for n in range(N)]
    with borrowed(model):
        engine = runner_with(model, prompts, numbers)
        found = attribute(engine, "clean", values_in("abc"), "logit_diff", chosen, [EVERYWHERE])
    up, down = (_moved(model, prompts, numbers["d"], share) for share in (1e-5, -1e-5))
    for n, one in enumerate(chosen):
        assert abs(found.effects[one, EVERYWHERE] - (up - down)[n] / 2e-5) < 1e-6


@pytest.mark.parametrize(("family", "base"), [("gpt2", "clean"), ("llama", "abc")])
def test_estimates_by_plain_autograd(family: str, base: str) -> None:
    """The gradient at the place, of a hook on the model itself, times (w_j' - w_j) d_j, at the tokens of a position."""
    model = random_model(family)
    prompts = random_prompts(seed=18, lengths=[6, 5, 6])
    own = Numbers.drawn("r1", model.config.hidden_size, "jumprelu")
    chosen, wheres = [Feature("d", n, 1) for n in range(N)], [A, END, A | END, ~END, EVERYWHERE]
    source = values_in("abc" if base == "clean" else "clean")
    with borrowed(model):
        engine = runner_with(model, prompts, {"d": own})
        found = attribute(engine, base, source, "logit_diff", chosen, wheres)
        moving = moving_features(engine, base, source, wheres)["d"]
        active = feature_activity(engine, ["clean", "abc"], wheres)
    expected, moves, on = (np.zeros((len(wheres), N)) for _ in range(3))
    tokens = np.zeros(len(wheres))
    for prompt in prompts:
        value, slope = _slope(model, prompt.clean if base == "clean" else prompt.corrupt, prompt)
        other, _ = _slope(model, prompt.corrupt if base == "clean" else prompt.clean, prompt)
        before, after = own.weights(value), own.weights(other)
        for place, where in enumerate(wheres):
            named = {prompt.roles[role] for role in where.roles}
            at = [t for t in range(len(value)) if (t in named) != where.inverted]
            expected[place] += ((after - before) * (slope @ own.decoder.T))[at].sum(0) / len(prompts)
            moves[place] += (after != before)[at].any(0)
            on[place] += (before != 0)[at].sum(0) + (after != 0)[at].sum(0)
            tokens[place] += 2 * len(at)
    for place, where in enumerate(wheres):
        for one in chosen:
            assert abs(found.effects[one, where] - expected[place, one.index]) < 1e-9
        np.testing.assert_allclose(active.shares("d", where), on[place] / tokens[place], rtol=0, atol=1e-12)
    assert np.array_equal(moving, moves)


def _slope(model: Any, ids: list[int], prompt: node.Prompt) -> tuple[Array, Array]:
    """What enters block 1, and the gradient of the logit difference there, `[pos, d]` each."""
    blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    kept: list[torch.Tensor] = []

    def keep(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        kept.append(given[0].detach().requires_grad_())
        return (kept[0], *given[1:]), named

    handle = blocks[1].register_forward_pre_hook(keep, with_kwargs=True)
    logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    handle.remove()
    total = logits[prompt.answers].mean() - logits[prompt.wrong].mean()
    (slope,) = torch.autograd.grad(total, kept)
    return kept[0][0].detach().numpy(), slope[0].numpy()


def _moved(model: Any, prompts: list[node.Prompt], own: Numbers, share: float) -> Array:
    """The mean logit difference with each feature moved a share of its way to the other run's, one after the other."""
    net, place = families.read(model), DictionaryPlace.parse(own.place)
    totals = np.zeros(N)
    for prompt in prompts:
        run, other = (node.forward(net, ids, record=True) for ids in (prompt.clean, prompt.corrupt))
        value, _ = at_place(net, run, place, reads_input=False)
        change = own.weights(at_place(net, other, place, reads_input=False)[0]) - own.weights(value)
        for n in range(N):
            moved = value + share * change[:, n : n + 1] * own.decoder[n]
            patches: dict[node.Site, Any] = {}
            for position in range(len(prompt.clean)):
                patches |= put_back(net, place, position, moved[position])
            logits = node.forward(net, prompt.clean, patches).logits[-1].numpy()
            totals[n] += logits[prompt.answers].mean() - logits[prompt.wrong].mean()
    return totals / len(prompts)
