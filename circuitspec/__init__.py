"""circuitspec: write down a circuit hypothesis, verify it on the real model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuitspec.api import Hypothesis, Result, ablation, claim, group, hypothesis, load, verify
    from circuitspec.diagnostics.diagnostic import CircuitspecError
    from circuitspec.pipelines.interactive.command_calls import check, compare, explore, lock, plan, report
    from circuitspec.pipelines.interactive.component_patching import patch, path_patch
    from circuitspec.pipelines.interactive.interchange_sweeping import interchange_sweep
    from circuitspec.pipelines.interactive.recording import record
    from circuitspec.pipelines.interactive.sweeping import sweep
    from circuitspec.pipelines.whole_model.direct_attribution import direct_attribution
    from circuitspec.pipelines.whole_model.logit_lens import logit_lens

__version__ = "0.9.0"

__all__ = [
    "CircuitspecError",
    "Hypothesis",
    "Result",
    "__version__",
    "ablation",
    "check",
    "claim",
    "compare",
    "direct_attribution",
    "explore",
    "group",
    "hypothesis",
    "interchange_sweep",
    "load",
    "lock",
    "logit_lens",
    "patch",
    "path_patch",
    "plan",
    "record",
    "report",
    "sweep",
    "verify",
]

_HOMES = {
    "CircuitspecError": "circuitspec.diagnostics.diagnostic",
    **dict.fromkeys(("patch", "path_patch"), "circuitspec.pipelines.interactive.component_patching"),
    **dict.fromkeys(
        ("check", "compare", "explore", "lock", "plan", "report"), "circuitspec.pipelines.interactive.command_calls"
    ),
    "interchange_sweep": "circuitspec.pipelines.interactive.interchange_sweeping",
    "record": "circuitspec.pipelines.interactive.recording",
    "sweep": "circuitspec.pipelines.interactive.sweeping",
    **dict.fromkeys(
        ("Hypothesis", "Result", "ablation", "claim", "group", "hypothesis", "load", "verify"), "circuitspec.api"
    ),
    "direct_attribution": "circuitspec.pipelines.whole_model.direct_attribution",
    "logit_lens": "circuitspec.pipelines.whole_model.logit_lens",
}


def __getattr__(name: str) -> object:
    """Imported on first use: every start of pytest imports this package, for its plugin."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
