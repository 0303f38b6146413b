"""How far rounding alone may move what a check compares, by the model's dtype."""

from __future__ import annotations

import torch

# Largest deviation of logits let pass, as a fraction of their standard deviation. The checks replay the same arithmetic
# on the same shapes, so what remains is rounding: in kernels that are not deterministic, and where edges are summed up
# in another order (RMS norms of transformers compute in float32 whatever the model's dtype).
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
