from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.verification_result import Verification
from circuitspec.prompts.prompt_set import Prompt, PromptSet
from circuitspec.reports.text.prompt_lines import prompt_lines
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, KNOCKED_OUT, make_records
from tests.reports.support import example

N = 12


def prompts() -> PromptSet:
    names = [("Mary", "John"), ("John", "Mary")]
    made = (
        Prompt(i, i % 2, {"clean": "{} and {} met.\nJohn left".format(*names[i % 2])}, (" Mary",), (" John",))
        for i in range(N)
    )
    return PromptSet(tuple(made), (), ("{IO} and {S} met.\n{S} left", "{S} and {IO} met.\n{S} left"))


def verification() -> Verification:
    """Prompts of template 0 recover all, those of template 1 half, and prompt 11 nothing."""
    clean, circuit = np.full(N, 4.0), np.array([4.0, 2.0] * 6)
    circuit[11] = 0.0
    values = {CLEAN: clean, CORRUPT: np.zeros(N), CIRCUIT: circuit, KNOCKED_OUT: np.zeros(N)}
    found = example()
    records = make_records({run: {"logit_diff": v} for run, v in values.items()}, [i % 2 for i in range(N)])
    return dataclasses.replace(found, records=records, claims=judge(found.plan, records))


EXPECTED = """\
prompts behind sufficient (circuit), recovered logit_diff 0.71 [{interval}]
  each adds: 5% 0.28   25% 0.50   median 0.75   75% 1.00   95% 1.00

  template                     prompts   recovered
  {{IO}} and {{S}} met. {{S}} left         6   1.00 [1.00, 1.00] (the same for every prompt)
  {{S}} and {{IO}} met. {{S}} left         6   0.42 [{second}]

  answer order               prompts   recovered
  right answer named first         6   1.00 [1.00, 1.00] (the same for every prompt)
  wrong answer named first         6   0.42 [{second}]

  prompts that are furthest off, logit_diff:
  prompt   clean   corrupt   patched   adds   text
      11    4.00      0.00      0.00   0.00   John and Mary met. John left
       1    4.00      0.00      2.00   0.50   John and Mary met. John left

prompts behind necessary (circuit ablated), recovered logit_diff 0.00 [0.00, 0.00] (the same for every prompt)
  each adds the same"""
# recovered: (6 x 4 + 5 x 2 + 0) / 48 = 0.708; template 1 alone 10 / 24 = 0.417


def test_the_whole_view() -> None:
    found = verification()
    text = "\n".join(prompt_lines(found, prompts(), worst=2))
    interval = text.split("0.71 [", 1)[1].split("]", 1)[0]
    second = text.split("0.42 [", 1)[1].split("]", 1)[0]
    assert text == EXPECTED.format(interval=interval, second=second)


def test_claims_about_the_same_figure_are_shown_once() -> None:
    found = verification()
    first = found.plan.claims[0]
    plan = dataclasses.replace(found.plan, claims=(first, dataclasses.replace(first, index=1)))
    twice = dataclasses.replace(found, plan=plan, claims=judge(plan, found.records))
    assert sum(line.startswith("prompts behind") for line in prompt_lines(twice, prompts())) == 1


def test_long_texts_are_cut() -> None:
    texts = tuple(dataclasses.replace(p, texts={"clean": "w" * 200}) for p in prompts().prompts)
    lines = prompt_lines(verification(), PromptSet(texts, (), ("long " * 50, "b")))
    assert max(map(len, lines)) < 180
    assert sum(line.endswith("www...") for line in lines) == 5


def test_the_prompts_must_be_those_of_the_verification() -> None:
    with pytest.raises(ValueError, match="12 prompts, but a verification of 100"):
        prompt_lines(example(), prompts())
