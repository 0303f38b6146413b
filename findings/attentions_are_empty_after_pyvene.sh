#!/usr/bin/env bash
# transformers 5.23.0 with pyvene 0.1.8: once pyvene has run on a model, `output_attentions=True` and
# `output_hidden_states=True` give empty tuples, without a word.
# transformers records attention weights and hidden states by forward hooks, which it registers at the first call that
# asks for them and does not register again. pyvene's IntervenableModel removes every forward hook of the model around
# each of its forwards, whoever registered it. A program that looks at attentions, patches, and looks again gets nothing.
# Seen, for a GPT-2 of two layers with eager attention:
#   before pyvene: 2 attentions, 3 hidden states, 4 forward hooks; after it: 0 attentions, 0 hidden states, 0 hooks
# Where the first call that asks comes after pyvene's, all is recorded, until pyvene runs again.
# Exits 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 pyvene==0.1.8
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import torch
from pyvene import IntervenableConfig, IntervenableModel, RepresentationConfig, VanillaIntervention
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=32, n_positions=16, bos_token_id=0, eos_token_id=0)
config._attn_implementation = "eager"
model = GPT2LMHeadModel(config).eval()
ids = torch.tensor([[1, 2, 3, 4]])


def recorded() -> tuple[int, int, int]:
    with torch.no_grad():
        output = model(ids, output_attentions=True, output_hidden_states=True)
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    return len(output.attentions), len(output.hidden_states), hooks


before = recorded()
site = RepresentationConfig(0, "mlp_output", "pos", 1)
patched = IntervenableModel(IntervenableConfig([site], intervention_types=VanillaIntervention), model=model)
patched({"input_ids": ids}, [{"input_ids": ids.flip(1)}], {"sources->base": 1})
after = recorded()
print(f"before pyvene: {before[0]} attentions, {before[1]} hidden states, {before[2]} hooks")
print(f"after pyvene:  {after[0]} attentions, {after[1]} hidden states, {after[2]} hooks")
assert before[:2] == (2, 3), "transformers does not record as it did"
assert after == (0, 0, 0), "what is recorded after pyvene is no longer empty"
PYTHON
