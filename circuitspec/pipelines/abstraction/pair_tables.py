"""What the high-level model says before anything is run, as tables: variables on prompts, and what pairs can tell.

Imports no torch.
"""

from __future__ import annotations

from itertools import combinations

from circuitspec.analysis.statistics.wording import MISSING, number
from circuitspec.hypothesis_file.grammar.variable_expressions import spelled
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.prompts.pairs.pair_set import PairSet, share
from circuitspec.prompts.pairs.settings import all_settings, in_words
from circuitspec.prompts.templates.template import Values
from circuitspec.runtime.text_columns import aligned

SHOWN = 3  # prompts of the task, and sources of each family
_WIDTH = 60  # characters of a prompt


def abstraction_text(pairs: PairSet, hypothesis: Hypothesis) -> str:
    """Variables and answers on a few prompts, then for each claim the share of pairs whose answer must change, and for
    each two variables the share of pairs that can tell them apart."""
    parts = [_values(pairs), _claims(pairs, hypothesis)]
    if len(pairs.model.variables) > 1:
        parts.append(_apart(pairs, hypothesis))
    return "\n\n".join(part for part in parts if part)


def _values(pairs: PairSet) -> str:
    rows = [["   prompt", *pairs.model.variables, "asks for"]]
    for i in range(min(SHOWN, len(pairs))):
        rows.append(_row(pairs, f"   {i}  {_short(pairs.bases[i].texts['clean'])}", pairs.slots(i)))
    for name, sources in pairs.families.items():
        rows.append([f"   sources of {name}", *("" for _ in pairs.model.variables), ""])
        for i in range(min(SHOWN, len(pairs))):
            rows.append(_row(pairs, f"   {i}  {_short(sources[i].text)}", sources[i].slots))
    return "variables of the high-level model\n" + aligned(rows)


def _row(pairs: PairSet, head: str, slots: Values) -> list[str]:
    values = pairs.model.run(slots)
    return [head, *(spelled(value) for value in values.values()), repr(pairs.model.answer(slots))]


def _claims(pairs: PairSet, hypothesis: Hypothesis) -> str:
    rows = [["   intervention", "answer must change", "doing nothing"]]
    for setting in all_settings(hypothesis.claims, hypothesis.abstraction):
        changed = share(pairs.changed(setting))
        rows.append([f"   {in_words(setting)}", number(changed), number(1 - changed)])
    return "share of pairs, as the high-level model has it\n" + aligned(rows) if len(rows) > 1 else ""


def _apart(pairs: PairSet, hypothesis: Hypothesis) -> str:
    """With a note where a claim intervenes on one of two variables that no pair tells apart."""
    settings = all_settings(hypothesis.claims, hypothesis.abstraction)
    claimed = {name for setting in settings for name, _ in setting}
    rows = [["   two variables", *pairs.families]]
    untold = []
    for one, other in combinations(pairs.model.variables, 2):
        shares = [share(pairs.told_apart(((one, family),), ((other, family),))) for family in pairs.families]
        rows.append([f"   {one}, {other}", *(number(found) if found else MISSING for found in shares)])
        if claimed & {one, other} and not any(shares):
            untold.append(f"\n   note: no pair tells {one} from {other} (CS450)")
    head = "share of pairs in which interventions on them ask for different answers\n"
    return head + aligned(rows) + "".join(untold)


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else "..." + text[3 - _WIDTH :]
