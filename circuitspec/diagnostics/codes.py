"""The table of diagnostic codes. A code, once given out, never changes its meaning and is never reused.

The warnings that a verification finds have their texts beside what finds them (`analysis/warnings/`);
`reports/explanations.py` joins the two.
"""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo
from circuitspec.diagnostics.data_codes import DATA
from circuitspec.diagnostics.evidence_codes import EVIDENCE
from circuitspec.diagnostics.execution_codes import EXECUTION
from circuitspec.diagnostics.graph_codes import GRAPH
from circuitspec.diagnostics.syntax_codes import SYNTAX

CODES: dict[str, CodeInfo] = SYNTAX | GRAPH | DATA | EVIDENCE | EXECUTION
