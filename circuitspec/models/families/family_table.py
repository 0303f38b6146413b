"""Every supported family, in one table. Imports no torch.

To add a family, add its `Architecture` to the module of its layout, and a random model of it to the tests: that every
path means what the field says (`tests/models/test_model_architecture.py`), and that patching it agrees with an
independent program (`tests/engine/test_against_oracle.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.models.families.architecture import Architecture, Refusal, setting
from circuitspec.models.families.expert_families import MIXTURES
from circuitspec.models.families.parallel_families import PARALLEL
from circuitspec.models.families.post_norm_families import POST_NORM
from circuitspec.models.families.registered_families import registered
from circuitspec.models.families.sequential_families import SEQUENTIAL
from circuitspec.models.families.text_models import said_of_text_model
from circuitspec.models.families.unsupported_families import said_of, spelt_otherwise

# In every family: a token that sees later ones sees padding too, and what is patched at it changes earlier ones.
_NOT_CAUSAL = (
    Refusal("use_bidirectional_attention", True, "its tokens see later ones, so that it is no causal language model"),
    Refusal("is_causal", False, "its tokens see later ones, so that it is no causal language model"),
)

_TABLE: Mapping[str, Architecture] = {
    architecture.family: architecture for architecture in (*SEQUENTIAL, *POST_NORM, *PARALLEL, *MIXTURES)
}

# Every family is held against an independent implementation: `tests/engine/test_against_oracle.py`.
SUPPORTED: tuple[str, ...] = tuple(_TABLE)


def architecture_named(family: str, inside: str = "") -> Architecture:
    """The table of a supported family, or of one that a package registers.

    CS304 for any other, with what is known of a text model `inside`; CS397 for one that is registered wrongly.
    """
    if family in _TABLE:
        return _TABLE[family]
    if (own := registered(family, Architecture)) is not None:
        return own
    close, against = spelt_otherwise(family, SUPPORTED), inside or said_of(family)
    meant = f"`model_type` is written {close}; " if close else ""
    step = (
        "to add one, write its Architecture (config keys; paths of block, norms, q/k/v, attention output, MLP) in "
        "circuitspec/models/families; `circuitspec doctor --new DIR` says which other entry fits it"
    )
    raise CircuitspecError(
        Diagnostic(
            "CS304",
            f"models of the family {family!r} are not supported" + (f": {against}" if against else ""),
            label="the model of another family",
            hint=f"{meant}supported: {', '.join(SUPPORTED)}" + ("" if against else f"; {step}"),
            data={"family": family, "supported": list(SUPPORTED)},
        )
    )


def architecture_of(config: Mapping[str, object]) -> Architecture:
    """The architecture for a parsed config.json.

    Raises CS305 where it names no `model_type` or something else for a number, CS304 for an unknown family, and CS314
    where a setting changes what the table's modules mean.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise CircuitspecError(
            Diagnostic(
                "CS305",
                "config.json names no `model_type`",
                hint='a Hugging Face causal language model says which family it is, such as `"model_type": "gpt2"`',
            )
        )
    architecture = architecture_named(family, said_of_text_model(config, SUPPORTED))
    found = [
        Diagnostic(
            "CS314",
            f"config.json sets {refusal.key} to {value!r}: {refusal.reason}",
            hint="components of this model would not mean what the hypothesis says; use a model without this setting",
            data={"key": refusal.key, "value": value},
        )
        for refusal in (*architecture.refused, *_NOT_CAUSAL)
        if refusal.applies(value := setting(config, refusal.key))
    ]
    if found:
        raise CircuitspecError(*found)
    try:
        return architecture.of(config)
    except ValueError as error:
        raise CircuitspecError(
            Diagnostic(
                "CS305",
                f"config.json gives no number where one belongs: {error}",
                hint="copy or download the file again",
            )
        ) from error
