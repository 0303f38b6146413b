"""TransformerLens's names of places in a model, as auto-circuit, ACDC and InterpBench use them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from circuitspec.exchange.edge_lists import Size
from circuitspec.graph.edges import Receiver, Sender, Writer
from circuitspec.hypothesis_file.grammar.components import Feature, Head, Input, KvHead, Logits, Mixer, Mlp
from circuitspec.hypothesis_file.grammar.names import Port

INPUT = "blocks.0.hook_resid_pre"
EMBEDDINGS = ("hook_embed", "hook_pos_embed")

_BLOCK = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.([a-z_.]+)")


@dataclass(frozen=True)
class Hook:
    """A place in a model: what it is called within its block."""

    layer: int
    name: str


def parse_hook(text: object) -> Hook | None:
    """The place that a name such as `blocks.3.attn.hook_result` stands for; None for what is no such name."""
    match = _BLOCK.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else Hook(int(match[1]), match[2])


def sender_of(text: object, head: int | None) -> Sender | None:
    """The component that writes what is found at a place (of one head where `head` is given); None if none does."""
    if text == INPUT or text in EMBEDDINGS:
        return Input() if head is None else None
    hook = parse_hook(text)
    if hook is None:
        return None
    if hook.name == "attn.hook_result" and head is not None:
        return Head(hook.layer, head)
    return Mlp(hook.layer) if hook.name == "hook_mlp_out" and head is None else None


def receiver_of(text: object, head: int | None) -> tuple[Writer | Logits, tuple[Port, ...]] | None:
    """The component that reads the residual stream at a place, and by which inputs (none: all); None if none does."""
    hook = parse_hook(text)
    if hook is None:
        return None
    match hook.name:
        case "hook_q_input" | "hook_k_input" | "hook_v_input" if head is not None:
            ports: dict[str, Port] = {"q": "q", "k": "k", "v": "v"}
            return Head(hook.layer, head), (ports[hook.name[5]],)
        case "hook_attn_in" if head is not None:
            return Head(hook.layer, head), ()
        case "hook_mlp_in" | "hook_resid_mid" if head is None:
            return Mlp(hook.layer), ()
        case "hook_resid_post" if head is None:
            return Logits(), ()
        case _:
            return None


def sender_place(sender: Sender) -> tuple[str, int | None]:
    """Where what a component writes is found: the hook, and the head within it."""
    match sender:
        case Input():
            return INPUT, None
        case Head(layer, head):
            return f"blocks.{layer}.attn.hook_result", head
        case Mlp(layer):
            return f"blocks.{layer}.hook_mlp_out", None
        case Feature() | Mixer():
            raise ValueError(f"no hook is that of {sender.kind.plural}")


def receiver_place(receiver: Receiver, size: Size) -> tuple[str, int | None]:
    """Where what a component reads is found: the hook, and the head within it."""
    match receiver.component:
        case Logits():
            return f"blocks.{size.n_layers - 1}.hook_resid_post", None
        case Mlp(layer):
            return f"blocks.{layer}.hook_mlp_in", None
        case Head(layer, head) | KvHead(layer, head):
            return f"blocks.{layer}.hook_{receiver.port}_input", head
        case Feature() | Mixer() as other:
            raise ValueError(f"no hook is that of {other.kind.plural}")
