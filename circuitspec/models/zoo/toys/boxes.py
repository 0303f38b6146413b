"""The sentences of `zoo:negative` and `zoo:backup`: `The red box holds a ring. Inside is the`. Imports no torch.

Each thing has a feature of its own in its embedding, such as `is.ring`, and one that is its logit, `say.ring`.
A secret is none of the things.
"""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.models.zoo.toys.blueprint import Combination, Match

THINGS = ("ring", "coin", "key", "map", "pearl", "letter")
SECRETS = (" secret", " surprise", " mystery", " riddle")
KINDS = (" red", " blue", " small", " heavy", " wooden", " old")
_REST = ("The", " box", " holds", " a", ".", " Inside", " is", " the", " nothing")

IS = tuple(f"is.{thing}" for thing in THINGS)
SAY = tuple(f"say.{thing}" for thing in THINGS)
TOKENS: Mapping[str, Combination] = {
    **{f" {thing}": {feature: 1.0} for thing, feature in zip(THINGS, IS, strict=True)},
    **{word: {} for word in (*SECRETS, *KINDS, *_REST)},
}
LOGITS: Mapping[str, Combination] = {f" {thing}": {feature: 1.0} for thing, feature in zip(THINGS, SAY, strict=True)}


def a_thing(query: Combination) -> Match:
    """Looks for the word that is one of the things."""
    return Match(query, dict.fromkeys(IS, 1.0))


def saying(amount: float) -> Mapping[str, Combination]:
    """What a head copies that adds `amount` to the logit of the thing it looks at."""
    return {is_: {say: amount} for is_, say in zip(IS, SAY, strict=True)}
