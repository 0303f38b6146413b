from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.engine.records import SelfTest
from circuitspec.reports.machine.json_document import plain, render_json, to_document
from tests.reports.support import SUFFICIENT, example, restoring


def test_the_whole_document() -> None:
    document = json.loads(render_json(example()))
    for claim in document["claims"]:
        for key in ("means", "runs"):
            claim[key] = {name: round(mean, 6) for name, mean in claim[key].items()}
    experiment = "ablating everything outside the circuit"
    assert document == {
        "format_version": 1,
        "hypothesis": {"name": "ioi-tiny", "digest": "sha256:12ab"},
        "model": {
            "id": "zoo:ioi-tiny",
            "revision": None,
            "dtype": "float32",
            "family": "GPT-2",
            "n_layers": 4,
            "n_heads": 4,
        },
        "methodology": {
            "level": "node",
            "noised": ["heads"],
            "free": ["MLPs"],
            "ablation": "mean_per_template",
            "source": "abc",
            "averaged": None,
            "positions": "declared",
            "direction": "noising",
            "set": "everything outside the circuit",
            "kept": None,
            "through": None,
            "description": f"{experiment}: node level, mean_per_template from abc, declared positions, MLPs free",
        },
        "n_prompts": 100,
        "prompts_digest": None,
        "around_prompts": {
            "special_tokens": "auto",
            "in_front": [0, 0],
            "token_ids": False,
            "answer_ids": {},
            "chat": None,
        },
        "rows": None,
        "reference": None,
        "verdict": "REFUTED",
        "drift": [],
        "claims": [
            {
                "index": 0,
                "claim": "sufficient",
                "measure": "recovered",
                "metric": "logit_diff",
                "status": "SUPPORTED",
                "value": 0.88,
                "uncorrected": 0.88,
                "means_error": None,
                "ci": [0.84, 0.91],
                "level": 0.95,
                "ci_method": "bca",
                "bound": {"at_least": 0.8, "at_most": 1.2},
                "n": 100,
                "reason": "",
                "parts": [],
                "found": None,
                "notes": [],
                "experiment": experiment,
                "direction": "noising",
                "base": "clean",
                "source": "mean_per_template of abc",
                "means": {"clean": 4.31, "corrupt": -0.02, "patched": 3.79},
                "runs": {"clean": 4.31, "corrupt": -0.02, "circuit": 3.79},
            },
            {
                "index": 1,
                "claim": "necessary",
                "measure": "recovered",
                "metric": "logit_diff",
                "status": "REFUTED",
                "value": 0.52,
                "uncorrected": 0.52,
                "means_error": None,
                "ci": [0.47, 0.58],
                "level": 0.95,
                "ci_method": "bca",
                "bound": {"at_least": None, "at_most": 0.3},
                "n": 100,
                "reason": "",
                "parts": [],
                "found": None,
                "notes": [],
                "experiment": "ablating the circuit",
                "direction": "noising",
                "base": "clean",
                "source": "mean_per_template of abc",
                "means": {"clean": 4.31, "corrupt": -0.02, "patched": 2.23},
                "runs": {"clean": 4.31, "corrupt": -0.02, "circuit ablated": 2.23},
            },
        ],
        "self_test": None,
        "warnings": [
            {
                "code": "CS401",
                "message": "negative components are left out: a3.h1 (-0.14), a2.h0 (-0.06)",
                "detail": "recovered logit_diff 0.88 as declared, 0.69 with all of them restored",
                "help": "add them to a group with `effect: negative`, or explain why they are not part of the circuit",
                "data": {"screened": 14},
            }
        ],
        "breakdowns": [],
        "paths": [],
        "negatives": None,
        "sweep": None,
        "tests": None,
        "scrubs": [],
        "effects": None,
        "cost": {"experiments": 14, "stored": 0, "forwards": 31, "seconds": 2.94},
        "artifacts": [],
        "environment": None,
    }


def test_the_self_test() -> None:
    found = dataclasses.replace(example(), self_test=SelfTest(0.0, 2.5e-3))
    assert json.loads(render_json(found))["self_test"] == {"own_values": 0.0, "all_patched": 0.0025}


def test_a_denoising_claim_says_so() -> None:
    (claim,) = json.loads(render_json(restoring()))["claims"]
    assert claim["claim"] == "cross_section"
    assert claim["experiment"] == "denoising mover, a0.h1"
    assert (claim["direction"], claim["base"], claim["source"]) == ("denoising", "abc", "resample of clean")


def test_a_claim_without_a_figure() -> None:
    claims = (dataclasses.replace(SUFFICIENT, status="INCONCLUSIVE", estimate=None, reason="no ratio"),)
    (claim, *_) = json.loads(render_json(dataclasses.replace(example(), claims=claims)))["claims"]
    assert (claim["value"], claim["ci"], claim["level"], claim["ci_method"]) == (None, None, None, None)
    assert claim["reason"] == "no ratio"


def test_no_value_is_nan_or_infinite() -> None:
    warning = EvidenceWarning("CS499", "m", data={"a": math.nan, "b": [np.float64("inf"), np.int64(3), np.bool_(True)]})
    found = dataclasses.replace(example(), warnings=(warning,))
    text = render_json(found)
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["warnings"][0]["data"] == {"a": None, "b": [None, 3, True]}


def test_text_is_written_as_it_is() -> None:
    found = dataclasses.replace(example(), name="größer")
    assert '"name": "größer"' in render_json(found)


def test_artifacts() -> None:
    found = dataclasses.replace(example(), artifacts=("out/experiments.parquet",))
    assert to_document(found)["artifacts"] == ["out/experiments.parquet"]


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON value for object"):
        plain({"a": [object()]})
