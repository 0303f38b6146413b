"""Run this bundle's experiments with pyvene alone: python run.py --model MODEL [--output FILE].

MODEL is a directory or a hub id that `transformers` loads. For each experiment, FILE (logits.safetensors) gets the
logits after the last token of every prompt, `[prompt, vocabulary]`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from pyvene import IntervenableConfig, IntervenableModel, RepresentationConfig, VanillaIntervention
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent


def read(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def inputs(ids: list[int]) -> dict[str, Any]:
    return {"input_ids": torch.tensor([ids]), "use_cache": False, "logits_to_keep": 1}


class Bundle:
    """The model, with pyvene interventions made from config.json as they are needed."""

    def __init__(self, model: Any) -> None:
        self.model, self.config, self.where = model, read("config.json"), read("unit_locations.json")
        self.built: dict[Any, Any] = {}

    def pyvene(self, chosen: list[int], group: int | None) -> Any:
        """These interventions; of one group they share one source run, with values given they have no group."""
        key = (tuple(chosen), group)
        if key not in self.built:
            rows = [RepresentationConfig(*self.config["representations"][i])._replace(group_key=group) for i in chosen]
            self.built = {key: IntervenableModel(IntervenableConfig(rows, VanillaIntervention), self.model)}
        return self.built[key]

    def values(self, i: int, place: Any, means: dict[str, torch.Tensor] | None, group: int | None) -> torch.Tensor:
        """What one intervention puts in: its group's means at these tokens, or zeros; shaped as pyvene gathers."""
        by_head = self.config["representations"][i][2] == "h.pos"
        tokens = place[1][0] if by_head else place[0]
        found: torch.Tensor
        if means is None:
            found = torch.zeros(len(tokens), self.config["intervention_dimensions"][i], dtype=self.model.dtype)
        else:
            found = means[self.where["interventions"][i]][group][tokens]
        return found[None, None] if by_head else found[None]

    def run(self, experiment: Any, prompt: int, variants: Any, means: dict[str, torch.Tensor] | None) -> torch.Tensor:
        base, source = inputs(variants[experiment["base"]][prompt]), experiment["source"]
        at = self.where["experiments"][experiment["name"]]
        places = at["locations"][prompt]  # [intervention, where], for those that patch something in this prompt
        logits: torch.Tensor
        if not places:
            logits = self.model(**base).logits
            return logits[0, -1]
        chosen, where = [i for i, _ in places], [place for _, place in places]
        channels = [at["channels"].get(str(i)) for i in chosen]
        subspaces = [c and [c] for c in channels] if any(channels) else None
        if source["kind"] == "run":
            other, cached = [inputs(variants[source["prompts"]][prompt])], None
        else:
            group = source["groups"][prompt] if means is not None else None
            other, cached = None, [self.values(i, place, means, group) for i, place in places]
        _, patched = self.pyvene(chosen, 0 if cached is None else None)(
            base,
            other,
            {"sources->base": (where if cached is None else None, where)},
            source_representations=cached,
            subspaces=subspaces,
        )
        logits = patched.logits
        return logits[0, -1]


@torch.no_grad()
def main() -> None:
    told = read("sources/prompts.json")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=told["model"]["hub"] is None, default=told["model"]["hub"])
    parser.add_argument("--output", default="logits.safetensors")
    given = parser.parse_args()
    revision = told["model"]["revision"] if given.model == told["model"]["hub"] else None
    model = AutoModelForCausalLM.from_pretrained(
        given.model,
        revision=revision or "main",
        dtype=getattr(torch, told["model"]["dtype"]),
        attn_implementation=told["model"]["attention"],
    )
    bundle, logits = Bundle(model.eval()), {}
    for experiment in told["experiments"]:
        file = (experiment["source"] or {}).get("file")
        means = load_file(HERE / "sources" / file) if file else None
        prompts = range(len(told["variants"][experiment["base"]]))
        logits[experiment["name"]] = torch.stack([bundle.run(experiment, i, told["variants"], means) for i in prompts])
    output = Path(given.output)
    aside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        save_file(logits, aside)
        os.replace(aside, output)
    finally:
        aside.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
