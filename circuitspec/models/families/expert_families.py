"""The entries of families whose MLPs are choices among experts; all are laid out like Llama otherwise. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from circuitspec.models.families.expert_layers import Experts, dense_below, dense_between, dense_if_listed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Entry = TypeVar("Entry", bound="DataclassInstance")
"""An `Architecture`, whose module reads this one."""

_EXPERTS = Experts("mlp.experts", "mlp.gate", ("num_local_experts", "num_experts"))
_IN_SOME_LAYERS = replace(_EXPERTS, dense=dense_if_listed)


def with_experts(llama: Entry) -> Iterator[Entry]:
    """The entry of each family, made of that of Llama."""
    mixture = replace(llama, mlp_down=None, experts=_EXPERTS)
    routed = replace(_EXPERTS, router="mlp.router")
    yield replace(mixture, family="mixtral", title="Mixtral")
    yield replace(
        mixture,
        family="qwen2_moe",
        title="Qwen2 MoE",
        experts=replace(_IN_SOME_LAYERS, shared="mlp.shared_expert"),
    )
    yield replace(mixture, family="qwen3_moe", title="Qwen3 MoE", experts=_IN_SOME_LAYERS)
    yield replace(mixture, family="olmoe", title="OLMoE", joint_qk_norm=True)
    yield replace(mixture, family="phimoe", title="Phi-3.5 MoE", experts=routed)
    yield replace(
        mixture, family="gpt_oss", title="gpt-oss", experts=routed, has_sinks=True, attention="eager"
    )  # sdpa knows no sinks
    yield replace(
        mixture,
        family="glm4_moe",
        title="GLM-4.5",
        experts=Experts(
            "mlp.experts", "mlp.gate", ("n_routed_experts", "num_local_experts"), "mlp.shared_experts", dense_below
        ),
    )
    yield replace(
        mixture,
        family="llama4_text",
        title="Llama 4",
        mlp="feed_forward",
        experts=Experts(
            "feed_forward.experts",
            "feed_forward.router",
            ("num_local_experts",),
            "feed_forward.shared_expert",
            dense_between,
        ),
    )
