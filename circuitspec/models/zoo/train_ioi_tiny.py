"""Train `zoo:ioi-tiny`: `python -m circuitspec.models.zoo.train_ioi_tiny --out DIR`.

Every document is written afresh, so there are no epochs. The same seed, number of threads and torch version
give the same weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING

import click
import torch

from circuitspec.models.zoo.ioi_corpus import (
    ORDERS,
    TEST_TEMPLATES,
    document,
    held_out_pairs,
    held_out_prompts,
    vocabulary,
)
from circuitspec.models.zoo.word_tokenizer import word_tokenizer
from circuitspec.runtime.files import write_text_whole

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

IGNORED = -100  # the label that cross entropy leaves out
EVALUATION_SEED = 1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    steps: int = 2500
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 64
    n_positions: int = 64
    initial_std: float = 0.08  # GPT-2's 0.02 is for a width of 768; here attention would take long to leave uniform
    first_use_weight: float = 0.1  # of the loss on words that are new to their document, hence mostly chance


def train(recipe: Recipe, report_every: int = 100) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A model in evaluation mode and its tokenizer."""
    torch.manual_seed(recipe.seed)
    tokenizer = word_tokenizer(vocabulary(), recipe.n_positions)
    model = _fresh_model(recipe, tokenizer).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    batches = _batches(recipe, tokenizer)
    start = perf_counter()
    for step in range(1, recipe.steps + 1):
        loss = _loss(model, *next(batches), recipe.first_use_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % report_every == 0 or step == recipe.steps:
            worst = min(accuracies(model, tokenizer, count=50).values())
            seconds = perf_counter() - start
            click.echo(f"step {step}  loss {loss.item():.4f}  worst held-out {worst:.2f}  {seconds:.0f} s", err=True)
    return model.eval(), tokenizer


@torch.no_grad()
def accuracies(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, count: int) -> dict[str, float]:
    """Per test template and order: the share of `count` held-out prompts on which the receiver's logit wins."""
    was_training = model.training
    model.eval()
    rng = Random(EVALUATION_SEED)
    result = {}
    for number, template in enumerate(TEST_TEMPLATES):
        for order in ORDERS:
            prompts = held_out_prompts(template, order, count, rng)
            ids = torch.tensor([tokenizer(p.text).input_ids for p in prompts])  # one template: one length
            final = model(ids).logits[:, -1]
            right = tokenizer.convert_tokens_to_ids([f" {p.receiver}" for p in prompts])
            wrong = tokenizer.convert_tokens_to_ids([f" {p.giver}" for p in prompts])
            rows = torch.arange(count)
            result[f"template {number} {order}"] = (final[rows, right] > final[rows, wrong]).float().mean().item()
    model.train(was_training)
    return result


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seconds: float, out: Path) -> None:
    """Weights, tokenizer and `metrics.json`, complete for `from_pretrained(out)`."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = out / "tokenizer_config.json"
    # transformers 5 writes a class name here that transformers 4 does not know; both know this one.
    _write_json(config, json.loads(config.read_text("utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"})
    metrics = {
        "held_out_accuracy": accuracies(model, tokenizer, count=500),
        "held_out_pairs": len(held_out_pairs()),
        "recipe": asdict(recipe),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    _write_json(out / "metrics.json", metrics)


def _fresh_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=recipe.n_positions,
        n_embd=recipe.n_embd,
        n_layer=recipe.n_layer,
        n_head=recipe.n_head,
        initializer_range=recipe.initial_std,
        resid_pdrop=0.0,  # dropout teaches the heads to back each other up; the circuit should stay legible
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def _batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, labels), both [batch, tokens]; padding stands on the right, under labels that are ignored."""
    rng = Random(recipe.seed)
    while True:
        texts = [document(rng) for _ in range(recipe.batch)]
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=recipe.n_positions, return_tensors="pt")
        yield encoded.input_ids, encoded.input_ids.masked_fill(encoded.attention_mask == 0, IGNORED)


def _loss(model: GPT2LMHeadModel, ids: torch.Tensor, labels: torch.Tensor, first_use_weight: float) -> torch.Tensor:
    """Weighted mean of the next-token cross entropies, in nats, over all tokens but padding."""
    losses = torch.nn.functional.cross_entropy(
        model(ids).logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    used_before = (ids[:, 1:, None] == ids[:, None, :]).tril().any(-1)  # [batch, token, earlier token]
    weights = torch.where(used_before, 1.0, first_use_weight) * (labels[:, 1:] != IGNORED)
    return (losses * weights).sum() / weights.sum()


def _rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to nothing; a factor of the learning rate."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _write_json(path: Path, value: object) -> None:
    write_text_whole(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory to write.")
@click.option("--steps", default=Recipe.steps, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=Recipe.seed, show_default=True)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1))
def main(out: Path, steps: int, seed: int, threads: int) -> None:
    """Train ioi-tiny from scratch and write it to a directory."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    recipe = Recipe(seed=seed, steps=steps)
    start = perf_counter()
    model, tokenizer = train(recipe)
    save(model, tokenizer, recipe, perf_counter() - start, out)


if __name__ == "__main__":
    main()
