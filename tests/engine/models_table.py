"""The table of families in `docs/models.md`: `python -m tests.engine.models_table` (or `make docs`) writes it anew."""

from __future__ import annotations

from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.granularity import Granularity, granularities
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.family_table import SUPPORTED, architecture_named
from tests.engine.support import loaded
from tests.engine.support import model as random_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def levels(family: str) -> str:
    """The levels at which a model of the family can be patched: whether single heads can be told apart in it."""
    try:
        Stream(loaded(random_model(family, layers=1)))
    except CircuitspecError:
        return "node"
    return "node, edge, path"


def block(of: Architecture) -> str:
    """How the family's blocks add to the residual stream."""
    said = ["both from the block's input" if of.residual == "parallel" else "attention, then MLP"]
    said += ["one norm for both"] if of.attn_norm is not None and of.attn_norm == of.mlp_norm else []
    after = of.attn_post_norm is not None
    said += [f"norms {'before and after' if of.attn_norm else 'after'}"] if after else []
    given = {number.field for number in of.numbers}
    said += ["multiplied as it is added"] if "residual_multiplier" in given else []
    said += ["logits multiplied"] if "logit_multiplier" in given else []
    said += ["queries, keys and values clipped"] if "qkv_clip" in given else []
    said += ["heads gated"] if of.query_gates else []
    said += ["heads normed together"] if of.head_norm else []
    said += ["a head is two, one less the other"] if of.paired_heads else []
    said += ["mixers in place of heads in some layers"] if of.mixers else []
    beyond = of.beyond
    if beyond is not None:
        said += ["several streams"] if beyond.several else ["the stream multiplied after each"]
        said += ["inputs of each layer's own", "later layers read keys and values of earlier ones"]
    said += ["or otherwise, by its settings"] if of.variants else []
    return "; ".join(said)


def there(granularity: Granularity, of: Architecture) -> str:
    """Whether the family has it; neurons of whole MLPs are there in layers without a choice among experts."""
    if granularity.name == "neuron" and of.experts is not None and of.experts.dense_down is not None:
        return "in some layers"
    return "yes" if granularity.tensors else "no"


def table() -> str:
    """The table of the document, from the code."""
    names = [g.name for g in granularities(architecture_named("gpt2"))]
    rows = [["family", "`model_type`", *names, "levels", "block"]]
    for family in SUPPORTED:
        architecture = architecture_named(family)
        rows.append(
            [
                architecture.title,
                f"`{family}`",
                *(there(g, architecture) for g in granularities(architecture)),
                levels(family),
                block(architecture),
            ]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def with_table(text: str) -> str:
    """The document with the table as the code has it."""
    begin = text.index("| family |")
    return text[:begin] + table() + text[text.index("\n\n", begin) :]


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
