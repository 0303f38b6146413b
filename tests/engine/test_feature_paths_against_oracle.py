"""Paths on which features stand, against the oracle: float64 below 1e-9."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import ZEROS, Experiment, Source, values_in
from circuitspec.experiments.levels.path_level import along, travelling
from circuitspec.graph.paths import Stop
from circuitspec.hypothesis_file.grammar.components import Feature, Logits
from circuitspec.pipelines.interactive.named_sites import path_named
from tests.engine.support import TOLERANCE, random_prompts
from tests.engine.support import model as random_model
from tests.engine.test_edges_against_oracle import oracle_sender
from tests.engine.test_features_against_oracle import Numbers, drawn, runner_with
from tests.engine.test_paths_against_oracle import source_values, tokens
from tests.oracle import families, feature_paths, metrics, node

ABC = values_in("abc")
DICTIONARIES = {
    "early": ("r1", "standard"),
    "attn": ("a0", "standard"),
    "coder": ("m1", "transcoder"),
    "output": ("m0", "jumprelu"),
    "late": ("r2", "topk"),
    "last": ("m2", "transcoder"),
    "mid": ("r1.mid", "jumprelu"),
    "first": ("r0", "standard"),
}
SITES = {"r": ("resid", "pre"), "a": ("attn",), "m": ("mlp_added",)}


def site_of(place: str) -> tuple[Any, ...]:
    layer = int(place[1])
    if place.endswith(".mid"):
        return ("resid", layer, "mid")
    kind, *port = SITES[place[0]]
    return (kind, layer, *port)


def books_of(numbers: dict[str, Numbers], *, skips_first: bool) -> dict[str, feature_paths.Book]:
    """With `skips_first`, no dictionary says anything of a first token."""

    def weights(own: Numbers) -> Callable[[np.ndarray], np.ndarray]:
        def found(read: np.ndarray) -> np.ndarray:
            active = own.weights(read)
            active[0] *= not skips_first
            return active

        return found

    return {
        name: feature_paths.Book(site_of(own.place), weights(own), own.decoder, own.skip is not None)
        for name, own in numbers.items()
    }


def oracle_stop(one: Stop, prompt: node.Prompt) -> feature_paths.Stop:
    match one.component:
        case Feature(name, index):
            what: Any = ("feature", name, index)
        case Logits():
            return ("final",), None, range(len(prompt.clean))
        case _:
            what = oracle_sender(one.component)  # type: ignore[arg-type]
    return what, one.ports or None, tokens(one.where, prompt)


def assert_along(
    family: str,
    paths: Sequence[str],
    source: Source = ABC,
    base: str = "clean",
    through: tuple[str, ...] = ("mlp",),
    kinds: dict[str, tuple[str, str]] | None = None,
    side: Any = "right",
    skips_first: bool = False,
) -> None:
    """Each path by itself; its effect is there, so that what is compared is not nothing."""
    model = random_model(family, exactly=True)
    same = source.is_mean
    prompts = random_prompts(seed=31, lengths=[6, 6, 6] if same else [6, 5, 7])
    if same:
        prompts = [
            node.Prompt(p.clean, p.corrupt, p.template, p.answers, p.wrong, {"A": 2, "B": 3, "END": 5}) for p in prompts
        ]
    given = {name: kind for name, kind in (kinds or DICTIONARIES).items() if any(f":{name}." in p for p in paths)}
    numbers = drawn(model, **given)
    net, books = families.read(model), books_of(numbers, skips_first=skips_first)
    with borrowed(model):
        engine = runner_with(model, prompts, numbers, side, skips_first=skips_first)
        runs = {}
        for text in paths:
            path, file = path_named(text, engine.loaded.shape)
            readings = along([path], engine.loaded.shape, file)
            runs[text] = (path, travelling(base, source, readings, [path], through=through))
        plain = Experiment(base)
        found = engine.run([plain, *(run for _, run in runs.values())])

    def weights(i: int, name: str) -> np.ndarray:
        if source.prompts is None:
            return np.zeros((len(prompts[i].clean), len(books[name].decoder)))
        alike = prompts if source.is_mean else [prompts[i]]
        ids = [p.clean if source.prompts == "clean" else p.corrupt for p in alike]
        return np.mean([books[name].of(net, node.forward(net, one, record=True)) for one in ids], axis=0)

    for text, (path, run) in runs.items():
        rows = []
        for i, prompt in enumerate(prompts):
            hops = [[oracle_stop(stop, prompt) for stop in hop] for hop in path.hops]
            own = {name: weights(i, name) for name in books}
            ids = prompt.clean if base == "clean" else prompt.corrupt
            values = source_values(net, prompts, i, source)
            logits = feature_paths.along(net, ids, values, own, hops, books, through)[-1].numpy()
            clean = node.forward(net, prompt.clean).logits[-1].numpy()
            rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
        for name, expected in metrics.columns(rows).items():
            np.testing.assert_allclose(found[run][name], expected, rtol=0, atol=TOLERANCE, err_msg=f"{text}: {name}")
        assert np.abs(found[run]["logit_diff"] - found[plain]["logit_diff"]).max() > 1e-6, text


SOME = (
    "sae:early.f3 -> sae:late.f5",
    "a0.h1, sae:early.f[0-4]@A -> sae:coder.f[0-9] -> sae:late.f[0-9] -> logits",
    "a0.h0 -> sae:early.f[0-9], a2.h1<k>, sae:late.f[0-9]@END",  # a head at the end of a path beside features
)
PATHS = (
    "sae:early.f[3,4,7]@A -> sae:late.f[0-9]",
    "sae:early.f[0-9] -> sae:coder.f[0-9] -> sae:late.f[0-9]",
    "sae:coder.f[0-9] -> sae:late.f[0-9] -> logits",
    "sae:early.f[0-9] -> sae:late.f[0-9] -> sae:last.f[0-19] -> logits",
    "a0.h1 -> sae:early.f[0-9], sae:coder.f[0-9] -> sae:late.f[0-9]",
    "input -> sae:coder.f[0-9] -> a2.h0<q,k>",
    "m0 -> sae:late.f[0-9]@END -> logits",
    "sae:early.f[0-9] -> a1.h1 -> sae:late.f[0-9] -> logits",
    "sae:coder.f[0-9] -> m2",
    "sae:early.f[0-9]@END -> logits",
    "a0.h0 -> sae:early.f[0-9], a1.h1<k>, sae:coder.f[0-9]",
    "sae:output.f[0-9] -> sae:early.f[0-9] -> m1 -> sae:late.f[0-9]",
    "sae:first.f[0-9] -> a0.h1<v>, a0.h2 -> sae:early.f[0-9] -> logits",
    "input -> sae:first.f[0-9] -> sae:coder.f[0-9] -> logits",
    "input, sae:first.f[0-4] -> a0.h1 -> sae:late.f[0-9]",
    "a0.h0, sae:early.f[0-4], sae:coder.f[0-4] -> sae:late.f[0-9], logits",
)
IN_SEQUENCE = (  # where the MLP reads what the attention of its layer adds
    "sae:early.f[0-9] -> a1.h1<v>, a1.h0<q> -> sae:coder.f[0-9]",
    "a1.h0 -> sae:mid.f[0-9], sae:late.f[0-9]",
    "sae:mid.f[0-9]@A -> m1 -> sae:late.f[0-9]",
    "sae:early.f[0-9] -> sae:mid.f[0-9] -> sae:coder.f[0-9] -> logits",
    "a0.h0 -> sae:mid.f[0-9], sae:coder.f[0-9]",
)
THROUGH = pytest.mark.parametrize("through", [("mlp",), ()], ids=["through MLPs", "through nothing"])
FAMILIES = ("gpt2", "gpt_neox", "gemma2", "llama", "olmo2")


@pytest.mark.parametrize("layout", [*FAMILIES[:-1], pytest.param("olmo2", marks=pytest.mark.nightly)])
def test_some_paths(layout: str) -> None:
    assert_along(layout, SOME)


@pytest.mark.nightly
@THROUGH
@pytest.mark.parametrize("layout", FAMILIES)
def test_paths_one_by_one(layout: str, through: tuple[str, ...]) -> None:
    parallel = layout == "gpt_neox"
    assert_along(layout, SOME + PATHS + (() if parallel else IN_SEQUENCE), through=through)


@pytest.mark.nightly
@THROUGH
def test_what_heads_add_taken_apart(through: tuple[str, ...]) -> None:
    """As a start of paths: by a dictionary of what attention adds, and of the heads' outputs."""
    paths = ["sae:attn.f[0-9] -> sae:coder.f[0-9]", "sae:attn.f[0-9] -> m0 -> sae:late.f[0-9] -> logits"]
    assert_along("gpt2", paths, through=through)
    assert_along("gpt_neox", ["sae:attn.f[0-9] -> sae:early.f[0-9] -> logits"], through=through)


SOURCES = {
    "zero": ZEROS,
    "mean": Source("mean", "abc"),
    "denoising": values_in("clean"),
}


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_other_values(kind: str) -> None:
    """Means are of features, and in the corrupt run features go to what they are in the clean one."""
    assert_along("gpt2", SOME[1:], SOURCES[kind], base="abc" if kind == "denoising" else "clean")


@pytest.mark.nightly
@pytest.mark.parametrize("side", ["right", "left"])
def test_first_tokens_may_be_left_out(side: str) -> None:
    """As a path that names all positions but that one."""
    assert_along("llama", SOME[:2], side=side, skips_first=True)
