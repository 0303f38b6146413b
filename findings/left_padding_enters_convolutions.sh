#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): in LFM2 and Bamba, left padding reaches the logits where a projection has a bias.
# What stands at padded tokens is set to zero before the input projection of a convolution or a state-space mixer; the
# projection's bias (lfm2: conv_bias, bamba: mamba_proj_bias) then puts something there again, and the tokens
# behind read it. Without that bias, and with padding on the right, a padded row has the logits that it has alone.
# Seen (float64, 5 tokens padded to 9, attention mask and position ids given; largest difference of logits):
#   lfm2  with bias: left 1.2e-01, right 2.2e-16; without: left 0.0e+00
#   bamba with bias: left 4.0e-01, right 1.7e-16; without: left 0.0e+00
# Batches of unequal prompts belong padded on the right in these families.
# Exits 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import torch
from transformers import BambaConfig, BambaForCausalLM, Lfm2Config, Lfm2ForCausalLM

TOKENS = torch.arange(1, 6)[None]
PADDED = 4
EVEN = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}


def lfm2(bias):
    kinds = ["conv", "full_attention", "conv"]
    config = Lfm2Config(**EVEN, num_hidden_layers=3, layer_types=kinds, conv_bias=bias, conv_L_cache=3)
    return Lfm2ForCausalLM(config)


def bamba(bias):
    mixer = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_expand": 2}
    config = BambaConfig(**EVEN, **mixer, num_hidden_layers=3, attn_layer_indices=[1], mamba_proj_bias=bias)
    return BambaForCausalLM(config)


@torch.no_grad()
def off(make, bias, left):
    torch.manual_seed(0)
    model = make(bias).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    alone = model(TOKENS, use_cache=False).logits[0]
    n = TOKENS.shape[1]
    real = slice(PADDED, None) if left else slice(0, n)
    ids, mask = torch.zeros(1, n + PADDED, dtype=torch.long), torch.zeros(1, n + PADDED, dtype=torch.long)
    ids[0, real], mask[0, real] = TOKENS[0], 1
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    padded = model(ids, attention_mask=mask, position_ids=places, use_cache=False).logits[0, real]
    return (padded - alone).abs().max().item()


for name, make in (("lfm2", lfm2), ("bamba", bamba)):
    leak, right, without = off(make, True, True), off(make, True, False), off(make, False, True)
    print(f"{name}: with bias left {leak:.1e}, right {right:.1e}; without left {without:.1e}")
    assert leak > 1e-3
    assert right < 1e-9
    assert without < 1e-9
PYTHON
echo "still so: left padding reaches the logits through a bias"
