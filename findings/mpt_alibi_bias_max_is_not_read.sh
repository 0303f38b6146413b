#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0): MPT's attn_config.alibi_bias_max is read from config.json and then not used.
# The slopes of its position biases are 2^(-8 i / heads) whatever it says: a checkpoint that was trained with another
# maximum loads without a word, and computes other logits than it was trained to. Saving keeps the value in config.json.
# Seen: logits with alibi_bias_max 4 and 8 differ by 0.0 with the same weights; the slopes for 4, 2^(-4 i / heads), in
# place of those that are built change them by 1.2e-01.
# Exits 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import torch
from transformers import MptConfig, MptForCausalLM
from transformers.models.mpt import modeling_mpt

HEADS = 4


def logits(maximum):
    torch.manual_seed(0)
    sizes = {"d_model": 32, "n_heads": HEADS, "n_layers": 2, "vocab_size": 50, "max_seq_len": 64}
    model = MptForCausalLM(MptConfig(**sizes, attn_config={"alibi_bias_max": maximum})).eval()
    assert model.config.attn_config.alibi_bias_max == maximum
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        return model(torch.arange(1, 21)[None]).logits


four, eight = logits(4), logits(8)
built = modeling_mpt.build_mpt_alibi_tensor


def defined(num_heads, sequence_length, alibi_bias_max=8, device=None):
    """Slopes for a maximum of 4."""
    return built(num_heads, sequence_length, 4, device)


modeling_mpt.build_mpt_alibi_tensor = defined  # in this process, to see what the setting would change
meant = logits(4)
modeling_mpt.build_mpt_alibi_tensor = built
ignored, changes = (four - eight).abs().max().item(), (meant - four).abs().max().item()
print(f"alibi_bias_max 4 against 8: {ignored:.1e}; with the slopes for 4: {changes:.1e}")
assert ignored == 0
assert changes > 1e-3
PYTHON
echo "still so: alibi_bias_max changes nothing"
