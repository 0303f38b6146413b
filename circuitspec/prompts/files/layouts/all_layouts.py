"""All layouts, and which of them a file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circuitspec.hypothesis_file.schema.prompts_block import LAYOUTS
from circuitspec.prompts.files.layouts.eap_ig import EAP_IG, EAP_IG_GREATER_THAN, EAP_IG_SVA
from circuitspec.prompts.files.layouts.facts import COUNTERFACT, KNOWN_FACTS
from circuitspec.prompts.files.layouts.minimal_pairs import BLIMP, BLIMP_TWO_PREFIXES, FEATURE_CIRCUITS
from circuitspec.prompts.files.layouts.multiple_choice import MIB
from circuitspec.prompts.files.layouts.ravel import RAVEL
from circuitspec.prompts.files.layouts.row_layout import Layout

OWN = "circuitspec"  # the form of `prompts.files.named_columns`
AUTO_CIRCUIT = "auto_circuit"  # a form of the whole file

ROW_LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        EAP_IG,
        EAP_IG_GREATER_THAN,
        EAP_IG_SVA,
        FEATURE_CIRCUITS,
        BLIMP,
        BLIMP_TWO_PREFIXES,
        MIB,
        COUNTERFACT,
        KNOWN_FACTS,
        RAVEL,
    )
}
assert {OWN, AUTO_CIRCUIT, *ROW_LAYOUTS} == set(LAYOUTS)


def recognised(columns: Sequence[str], first: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Every layout that a file with these columns and this first row may have, by name, with what shows it."""
    found = {name: layout.recognised_by(columns, first) for name, layout in ROW_LAYOUTS.items()}
    shown = {name: by for name, by in found.items() if by}
    if "clean" in columns and any(name in ("corrupt", "answers") or name.startswith("corrupt:") for name in columns):
        shown[OWN] = ("clean",)
    return shown


def alike(columns: Sequence[str]) -> list[str]:
    """Layouts whose columns a file has, though its first row does not tell which of them it is."""
    return [name for name, layout in ROW_LAYOUTS.items() if any(set(one) <= set(columns) for one in layout.columns)]
