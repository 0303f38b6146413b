#!/usr/bin/env bash
# torch 2.13.0, and pyvene 0.1.8 on it: a learned low-rank subspace becomes nothing after one step with weight decay.
# torch.nn.utils.parametrizations.orthogonal keeps a matrix with more rows than columns as Householder vectors with the
# signs of the columns on the diagonal, and reads these by truncation to whole numbers. Weight decay makes 1 to 0.9999,
# which is read as 0: the "orthogonal" matrix is all zeros from the first step on, silently. AdamW decays by default.
# pyvene's LowRankRotatedSpaceIntervention has its rotation from there, so its intervention then changes nothing.
# Without decay, and for square matrices (RotatedSpaceIntervention), all is well.
# Seen: torch, largest entry of W^T W after one step: 1.000 with Adam, 0.000 with AdamW, 0.000 with SGD and weight decay.
# pyvene: largest change by the intervention 1.349 before and 0.000 after one step of AdamW, 1.334 after one of Adam.
# Exits 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 pyvene==0.1.8
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import contextlib
import io

import torch

with contextlib.redirect_stdout(io.StringIO()):
    from pyvene import LowRankRotatedSpaceIntervention


class Plain(torch.nn.Module):
    def __init__(self, rows, columns):
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(torch.linalg.qr(torch.randn(rows, columns)).Q)
        torch.nn.utils.parametrizations.orthogonal(self)


def step(parameters, loss, optimizer, **options):
    chosen = optimizer(parameters, lr=1e-2, **options)
    loss.backward()
    chosen.step()


def size(optimizer, columns=2, **options):
    plain = Plain(6, columns)
    step(plain.parameters(), (plain.weight * torch.arange(6 * columns).reshape(6, columns)).sum(), optimizer, **options)
    return float((plain.weight.T @ plain.weight).detach().abs().max())


adam, adamw = size(torch.optim.Adam), size(torch.optim.AdamW)
sgd, square = size(torch.optim.SGD, weight_decay=1e-2), size(torch.optim.AdamW, columns=6)
print(f"torch: W^T W after one step: Adam {adam:.3f}, AdamW {adamw:.3f}, SGD with decay {sgd:.3f}; square, AdamW {square:.3f}")


def moved(optimizer):
    """By how much an intervention changes a value, before and after one step."""
    torch.manual_seed(0)
    own = LowRankRotatedSpaceIntervention(embed_dim=16, low_rank_dimension=2)
    base, source = torch.randn(4, 16), torch.randn(4, 16)

    def change():
        with torch.no_grad():
            return float((own(base, source) - base).abs().max())

    before = change()
    step(own.parameters(), own(base, source).sum(), optimizer)
    return before, change()


before, decayed = moved(torch.optim.AdamW)
_, kept = moved(torch.optim.Adam)
print(f"pyvene: largest change {before:.3f} before, {decayed:.3f} after a step of AdamW, {kept:.3f} after one of Adam")
assert adam > 0.99 and square > 0.99, "a rotation without decay, or a square one, is no longer orthogonal"
assert adamw == 0 and sgd == 0, "weight decay no longer sets the rotation to zero"
assert before > 0.1 and decayed == 0 and kept > 0.1, "pyvene's subspace survives weight decay"
PYTHON
