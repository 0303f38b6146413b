"""What features of a dictionary cost: 100 of them patched in one forward, and 96 patched one by one.

A model of GPT-2 small's shape in random weights, float32, 8 prompts of 16 tokens, and a jumprelu dictionary of 16,384
features of the stream that enters block 6, with about 80 active at a token. The comparison of the first is a plain
Hugging Face forward with logits at the last position; of the others (100 features kept, all others ablated: a circuit)
too. The sweep is compared with what one would write by hand: for each feature a forward with a hook that encodes the
stream and adds what the feature's direction changes by, from activations that were recorded once. Ratios are taken
within a round, and medians over rounds are printed.

    python benchmarks/features.py
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from functools import partial

import torch
from random_gpt2 import PROMPTS, TOKENS, random_model, random_task
from sweep import SOURCE, timed
from transformers import GPT2LMHeadModel

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import EVERYWHERE, Experiment, Site
from circuitspec.graph.shape import DictionarySite
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from circuitspec.runtime.progress import Silent

LAYER, N, NAMED, SWEPT = 6, 16_384, 100, 96
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


def by_hand(model: GPT2LMHeadModel, dictionary: Dictionary, ids: torch.Tensor, source: torch.Tensor, n: int) -> None:
    """One feature at all positions."""

    def splice(_: object, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        own = dictionary.encode(args[0])[..., n : n + 1]
        return (args[0] + (source[..., n : n + 1] - own) * dictionary.decoder[n], *args[1:])

    handle = model.transformer.h[LAYER].register_forward_pre_hook(splice)
    model(input_ids=ids, use_cache=False, logits_to_keep=1)
    handle.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
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
    swept = [
        Experiment("clean", SOURCE, frozenset({Site(Feature("res", n, LAYER), EVERYWHERE)})) for n in chosen[:SWEPT]
    ]
    ratios: dict[str, list[float]] = {"100 features noised": [], "all but 100 features ablated": [], "sweep": []}
    with torch.no_grad(), borrowed(model):
        runner = Runner(known, task, rows=8, progress=Silent())
        (batch,) = runner.batches
        for round_ in range(rounds + 1):
            bare = timed(lambda: [model(input_ids=clean, use_cache=False, logits_to_keep=1) for _ in range(3)]).per(3)
            for name, run in (("100 features noised", noised), ("all but 100 features ablated", circuit)):
                taps = runner.taps_of([run])
                values = runner.source_values(batch, SOURCE, taps)

                def patched(run: Experiment = run, values: object = values) -> None:
                    for _ in range(3):
                        swaps = runner.swaps(batch, run, values)
                        runner.forward(batch, "clean", Actions(swaps))

                cost = timed(patched).per(3)
                if round_:
                    ratios[name].append(cost.cpu / bare.cpu)
            hand = timed(lambda: [by_hand(model, dictionary, clean, source, n) for n in chosen[:6]]).per(6)
            sweeper = Runner(known, task, rows=8, progress=Silent())
            sweeper.fill_memory()
            sweep = timed(partial(sweeper.run, swept)).per(SWEPT)
            if round_:
                ratios["sweep"].append(hand.cpu / sweep.cpu)
    for name, found in ratios.items():
        middle, low, high = statistics.median(found), min(found), max(found)
        unit = "times faster than by hand" if name == "sweep" else "bare forwards"
        print(f"{name:32} {middle:.2f} {unit}   {low:.2f} .. {high:.2f} in {rounds} rounds")


if __name__ == "__main__":
    main()
