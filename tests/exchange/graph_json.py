"""Attribution graphs and transcoders as circuit-tracer writes them, made by hand from plain numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Place = tuple[int, int, int]  # layer, number, token


def cantor(layer: int, number: int) -> int:
    return (layer + number) * (layer + number + 1) // 2 + number


@dataclass
class WrittenGraph:
    """What a file says. `old`: errors are called 0_LAYER_TOKEN; `by_cantor`: how `feature` is made of two numbers."""

    tokens: Sequence[str]
    ids: Sequence[int]
    features: Sequence[Place] = ()
    errors: Sequence[tuple[int, int]] = ()  # layer, token
    logits: Sequence[tuple[int, float]] = ()
    n_layers: int = 2
    influence: dict[Place | tuple[int, int], float] = field(default_factory=dict)
    links: Sequence[tuple[str, str, float]] = ()
    old: bool = True
    by_cantor: bool = True
    pinned: Sequence[str] = ()
    supernodes: Sequence[Sequence[str]] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def error_id(self, layer: int, token: int) -> str:
        return f"0_{layer}_{token}" if self.old else f"{layer}_-1_{token}"

    def nodes(self) -> Iterable[dict[str, Any]]:
        for layer, number, token in self.features:
            one = cantor(layer, number) if self.by_cantor else layer * 100_000 + number
            yield self._node(f"{layer}_{number}_{token}", one, layer, token, "cross layer transcoder") | {
                "influence": self.influence.get((layer, number, token)),
                "activation": 1.5,
            }
        for layer, token in self.errors:
            name = self.error_id(layer, token)
            yield self._node(name, -1, layer, token, "mlp reconstruction error") | {
                "influence": self.influence.get((layer, token))
            }
        for token, number in enumerate(self.ids):
            yield self._node(f"E_{number}_{token}", token, "E", token, "embedding")
        for place, (number, chance) in enumerate(self.logits):
            last = len(self.tokens) - 1
            yield self._node(f"{self.n_layers + 1}_{number}_{last}", number, self.n_layers + 1, last, "logit") | {
                "token_prob": chance,
                "is_target_logit": place == 0,
                "clerp": f'Output "x" (p={chance:.3f})',
            }

    @staticmethod
    def _node(name: str, feature: int, layer: object, token: int, kind: str) -> dict[str, Any]:
        return {
            "node_id": name,
            "feature": feature,
            "layer": str(layer),
            "ctx_idx": token,
            "feature_type": kind,
            "token_prob": 0.0,
            "is_target_logit": False,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": f"{name}-0",
            "clerp": "",
            "influence": None,
            "activation": None,
        }

    def content(self) -> dict[str, Any]:
        metadata = {
            "slug": "made-by-hand",
            "scan": "toy",
            "transcoder_list": [],
            "prompt_tokens": [*self.tokens],
            "prompt": "".join(self.tokens),
            "node_threshold": 0.8,
            "schema_version": 1,
        }
        return {
            "metadata": {**metadata, **self.metadata},
            "qParams": {
                "pinnedIds": [*self.pinned],
                "supernodes": [[*one] for one in self.supernodes],
                "linkType": "both",
                "clickedId": "",
                "sg_pos": "",
            },
            "nodes": [*self.nodes()],
            "links": [{"source": a, "target": b, "weight": w} for a, b, w in self.links],
        }

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(self.content()), encoding="utf-8")
        return path


def transcoder(d_model: int, n: int, seed: int) -> dict[str, torch.Tensor]:
    """Tensors of a layer's transcoder in float64: jumprelu, whose thresholds some features do not reach."""
    draw = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return {
        "W_enc": drawn(n, d_model),
        "b_enc": drawn(n) * 0.3,
        "W_dec": drawn(n, d_model),
        "b_dec": drawn(d_model) * 0.3,
        "activation_function.threshold": drawn(n).abs() * 0.3,
    }


def write_transcoders(folder: Path, layers: Sequence[dict[str, torch.Tensor]], kind: str = "transcoder_set") -> Path:
    folder.mkdir()
    said = {"model_kind": kind, "feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    (folder / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    for layer, tensors in enumerate(layers):
        save_file(tensors, folder / f"layer_{layer}.safetensors")
    return folder
