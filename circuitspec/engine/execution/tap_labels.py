"""What is patched at a tap, in the words of hypothesis files."""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.engine.execution.taps import Tap, TapKind


def label(tap: Tap) -> str:
    """`a3`, `r2.mid`, `m1.n*` (all neurons of layer 1), `a3.kv* (keys)`."""
    labels: Mapping[TapKind, str] = {
        "embed": "embeddings",
        "resid": f"r{tap.layer}",
        "qkv": f"a{tap.layer} (q, k, v)",
        "k": f"a{tap.layer}.kv* (keys)",
        "v": f"a{tap.layer}.kv* (values)",
        "z": f"a{tap.layer}",
        "resid_mid": f"r{tap.layer}.mid",
        "neurons": f"m{tap.layer}.n*",
        "mlp": f"m{tap.layer}",
        "final": "last residual stream",
    }
    return labels[tap.kind]
