#!/usr/bin/env bash
# transformers 5.23.0 on torch 2.13.0: with two rope types a prompt's logits depend on other prompts.
# `longrope` chooses between short and long frequencies by the longest row of the batch, so that a short prompt gets the
# long ones where a longer prompt shares its batch. `dynamic` keeps the frequencies of the longest text so far: the same
# prompt gives other logits after a longer one was run. Both are silent, and padding has nothing to do with it.
# Seen, on a random Llama of two layers: longrope changes a logit by 2.999, dynamic by 0.586 (in float32).
# Exits 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def model(rope, longest):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=longest, initializer_range=0.3,
        rope_parameters={"rope_theta": 10000.0, **rope},
    )
    return LlamaForCausalLM(config).eval()


def last(run, ids, width):
    """Logits after the last token of the first row, padded on the right to `width`."""
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    with torch.no_grad():
        return run(input_ids=padded, attention_mask=mask).logits[0, len(ids[0]) - 1]


short, long = list(range(1, 11)), list(range(20, 34))
run = model(
    {"rope_type": "longrope", "original_max_position_embeddings": 12, "short_factor": [1.0] * 4,
     "long_factor": [5.0, 10.0, 20.0, 40.0]}, 64,
)
alone, together = last(run, [short], 10), last(run, [short, long], 14)
print(f"longrope: largest change of a logit by a longer prompt in the batch {float((alone - together).abs().max()):.3f}")
run = model({"rope_type": "dynamic", "factor": 4.0}, 14)
middle, longer = list(range(1, 21)), list(range(1, 31))
before = last(run, [middle], 20)
last(run, [longer], 30)
after = last(run, [middle], 20)
print(f"dynamic: largest change of a logit by a longer prompt run before {float((before - after).abs().max()):.3f}")
assert float((alone - together).abs().max()) > 0.05, "longrope: rows no longer depend on one another"
assert float((before - after).abs().max()) > 0.01, "dynamic: nothing is remembered any more"
PYTHON
