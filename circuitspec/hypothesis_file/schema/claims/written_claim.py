"""How a claim is written: one name with its settings below it."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import BeforeValidator, Field

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS


def _claim_from_mapping(value: object) -> object:
    """The written form `{sufficient: {...}}` as the tagged form `{kind: sufficient, ...}`."""
    if not isinstance(value, dict):
        return value
    known = ", ".join(CLAIMS)
    if len(value) != 1:
        named = [key for key in value if key in CLAIMS]
        hint = "write - sufficient: {metric: logit_diff, at_least: 0.8}"
        if named:
            hint = f"start every claim with its own dash, and indent its settings below {named[0]}"
        first = next(iter(value), None)
        raise texts.problem(
            "CS120",
            "a claim is one name with its settings below it",
            hint=hint,
            at=() if first is None else (first,),
            key=True,
        )
    ((name, body),) = value.items()
    if name not in CLAIMS:
        raise texts.problem(
            "CS120",
            f"there is no claim {name}",
            hint=texts.did_you_mean(str(name), CLAIMS) or f"the claims are {known}",
            at=(name,),
            key=True,
        )
    if not isinstance(body, dict):
        raise texts.problem(
            "CS120",
            f"the claim {name} has no settings",
            hint=f"write {name}: {{metric: logit_diff, ...}}, or indent its settings below it",
            at=(name,),
            key=True,
        )
    if "kind" in body:
        raise texts.problem("CS110", f"unknown key kind in the claim {name}", at=(name, "kind"), key=True)
    return {"kind": name, **body}


if TYPE_CHECKING:
    Claim: TypeAlias = ClaimBlock
else:
    Claim: TypeAlias = Annotated[
        Annotated[reduce(or_, CLAIMS.values()), Field(discriminator="kind")],
        BeforeValidator(_claim_from_mapping),
    ]
