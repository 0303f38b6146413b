"""The table of ablation values: what its rows may say, and that nothing else compares with their names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, AblationKind

PACKAGE = Path(str(resources.files("circuitspec")))
TABLE = "hypothesis_file/grammar/ablation_kinds.py"
EXAMPLE = "hypothesis_file/schema/blocks.py"  # in the schema: what an ablation looks like
TELLING = ("resample", "mean_per_template", "gaussian")  # `mean` and `zero` are also words for other things


def named() -> Iterator[tuple[str, ast.Constant]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(found, ast.Constant) and found.value in TELLING:
                yield file.relative_to(PACKAGE).as_posix(), found


def test_no_other_module_names_a_value() -> None:
    assert {file for file, _ in named()} == {TABLE, EXAMPLE}


def test_the_properties_of_the_five_values() -> None:
    said = {name: (kind.takes_prompts, kind.averages, kind.has_corrupt_run) for name, kind in ABLATIONS.items()}
    assert said == {
        "resample": (True, False, True),
        "mean": (True, True, True),
        "mean_per_template": (True, True, True),
        "zero": (False, False, False),
        "gaussian": (False, False, True),
    }
    assert [name for name, kind in ABLATIONS.items() if kind.source != name] == ["gaussian"]
    assert {name: kind.bundle_form for name, kind in ABLATIONS.items()} == {
        "resample": "run",
        "mean": "means",
        "mean_per_template": "means",
        "zero": "zeros",
        "gaussian": None,
    }


@pytest.mark.parametrize(
    "facts",
    [
        {"made_of": "means", "is_run": True},
        {"made_of": "run", "is_zero": True},
        {"made_of": "run", "by_template": True},
        {"made_of": "nothing", "noise": True},
    ],
)
def test_rows_that_contradict_themselves_are_refused(facts: Any) -> None:
    with pytest.raises(ValueError, match="new:"):
        AblationKind("new", "something", **facts)
