"""What features of a dictionary cost: 100 of them patched in one forward, and 500 patched one by one.

A model of GPT-2 small's shape in random weights, float32, 8 prompts of 16 tokens, and a jumprelu dictionary of 16,384
features of the stream that enters block 6, with about 80 active at a token. The comparison of the first is a plain
Hugging Face forward with logits at the last position; of the others (100 features kept, all others ablated: a circuit)
too. The sweep is of the 500 features that are most active, at all positions. It is compared with what one would write
by hand: for each feature a forward with a hook that encodes the stream and adds what the feature's direction changes
by, from activations that were recorded once; and with a loop whose hook encodes the one feature alone. The loops run
a few of the features (`--sample`), since one forward takes as long as another. Values are those of the run on another
prompt, so that a feature moves in some of the prompts; the sweep is also made with zeros.

Ratios are taken within a round, half of the loop by hand before the sweep and half after it, and medians over rounds
are printed.

    python benchmarks/features.py
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from functools import partial

import torch
from random_gpt2 import PROMPTS, TOKENS, random_model, random_task
from sweep import SOURCE, Cost, timed
from transformers import GPT2LMHeadModel

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import EVERYWHERE, ZEROS, Experiment, Site
from circuitspec.graph.shape import DictionarySite
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from circuitspec.runtime.progress import Silent

LAYER, N, NAMED, SWEPT = 6, 16_384, 100, 500
LAST = Where.at("P15")


def dictionary_of(streams: torch.Tensor) -> Dictionary:
    """Random directions; the threshold lets through about 80 features of a token."""
    width = streams.shape[-1]
    drawn = torch.Generator().manual_seed(0)
    encoder = torch.randn(width, N, generator=drawn) / width**0.5
    decoder = torch.randn(N, width, generator=drawn) / width**0.5
    before = streams.reshape(-1, width) @ encoder
    above = float(before.flatten().kthvalue(int(before.numel() * (1 - 80 / N))).values)
    threshold = torch.full((N,), above)
    return Dictionary(encoder, decoder, torch.zeros(N), torch.zeros(width), "jumprelu", threshold=threshold)


def by_hand(
    model: GPT2LMHeadModel, dictionary: Dictionary, ids: torch.Tensor, source: torch.Tensor, n: int, *, alone: bool
) -> None:
    """One feature at all positions."""
    encoding = dictionary.of_features(torch.tensor([n])) if alone else dictionary
    assert encoding is not None

    def splice(_: object, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        encoded = encoding.encode(args[0])
        own = encoded if alone else encoded[..., n : n + 1]
        return (args[0] + (source[..., n : n + 1] - own) * dictionary.decoder[n], *args[1:])

    handle = model.transformer.h[LAYER].register_forward_pre_hook(splice)
    model(input_ids=ids, use_cache=False, logits_to_keep=torch.tensor([ids.shape[1] - 1]))
    handle.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sample", type=int, default=8, help="features of the loop by hand")
    given = parser.parse_args()
    rounds, sample = given.rounds, given.sample
    loaded = random_model()
    model, task = loaded.model, random_task(PROMPTS, TOKENS, loaded.shape.n_vocab)
    clean, corrupt = (torch.tensor(task.ids[name]) for name in ("clean", "abc"))
    streams: list[torch.Tensor] = []
    handle = model.transformer.h[LAYER].register_forward_pre_hook(lambda _, args: streams.append(args[0]))
    with torch.no_grad():
        model(input_ids=corrupt), model(input_ids=clean)
    handle.remove()
    dictionary = dictionary_of(torch.cat(streams))
    source = dictionary.encode(streams[0])
    active = torch.maximum(source, dictionary.encode(streams[1])).amax((0, 1)).argsort(descending=True)
    chosen = [int(n) for n in active[: max(NAMED, SWEPT)]]
    site = DictionarySite("res", DictionaryPlace("resid", LAYER), N)
    known = replace(loaded, shape=replace(loaded.shape, dictionaries=(site,)), dictionaries={"res": dictionary})
    named = [Feature("res", n, LAYER) for n in chosen[:NAMED]]
    others = OtherFeatures("res", frozenset(chosen[:NAMED]), LAYER)
    noised = Experiment("clean", SOURCE, frozenset(Site(one, EVERYWHERE) for one in named))
    kept = {Site(one, ~LAST) for one in named} | {Site(others, EVERYWHERE)}
    circuit = Experiment("clean", SOURCE, frozenset(kept))
    swept = {
        source: [Experiment("clean", source, frozenset({Site(Feature("res", n, LAYER), EVERYWHERE)})) for n in chosen]
        for source in (SOURCE, ZEROS)
    }
    last = torch.tensor([TOKENS - 1])
    ratios: dict[str, list[float]] = {}
    with torch.no_grad(), borrowed(model):
        runner = Runner(known, task, rows=8, progress=Silent())
        (batch,) = runner.batches
        for round_ in range(rounds + 1):
            bare = timed(lambda: [model(input_ids=clean, use_cache=False, logits_to_keep=last) for _ in range(3)]).per(
                3
            )
            for name, run in (("100 features noised", noised), ("all but 100 features ablated", circuit)):
                taps = runner.taps_of([run])
                values = runner.source_values(batch, SOURCE, taps)

                def patched(run: Experiment = run, values: object = values) -> None:
                    for _ in range(3):
                        swaps = runner.swaps(batch, run, values)
                        runner.forward(batch, "clean", Actions(swaps))

                cost = timed(patched).per(3)
                if round_:
                    ratios.setdefault(name, []).append(cost.cpu / bare.cpu)

            def loop(part: list[int], *, alone: bool) -> Cost:
                return timed(lambda: [by_hand(model, dictionary, clean, source, n, alone=alone) for n in part])

            half, rest = chosen[: sample // 2], chosen[sample // 2 : sample]
            hand = {alone: loop(half, alone=alone) for alone in (False, True)}
            sweeps = {}
            for values, experiments in swept.items():
                sweeper = Runner(known, task, rows=8, progress=Silent())
                sweeper.fill_memory()
                sweeps[values] = timed(partial(sweeper.run, experiments)).per(SWEPT)
            for alone, before in hand.items():
                each = (before + loop(rest, alone=alone)).per(sample)
                for values, sweep in sweeps.items():
                    kind = "its own feature encoded" if alone else "all features encoded"
                    if round_:
                        ratios.setdefault(f"sweep, {values}; by hand, {kind}", []).append(each.cpu / sweep.cpu)
    for name, found in ratios.items():
        middle, low, high = statistics.median(found), min(found), max(found)
        unit = "times faster than by hand" if name.startswith("sweep") else "bare forwards"
        print(f"{name:65} {middle:.2f} {unit}   {low:.2f} .. {high:.2f} in {rounds} rounds")


if __name__ == "__main__":
    main()
