from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import circuitspec.analysis.result, circuitspec.analysis.warnings
import circuitspec.report.text, circuitspec.report.document, circuitspec.report.write
print(sorted({"torch", "transformers", "pyvene"} & set(sys.modules)))
"""


def test_reading_results_needs_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
