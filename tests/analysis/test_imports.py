from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import circuitspec.analysis.verification_result, circuitspec.analysis.warnings.all_warnings
import circuitspec.reports.text.text_report, circuitspec.reports.machine.json_document
import circuitspec.reports.machine.table_files
print(sorted({"torch", "transformers", "pyvene"} & set(sys.modules)))
"""


def test_reading_results_needs_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
