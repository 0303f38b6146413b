"""The least that values on paths must carry, as text."""

from __future__ import annotations

from circuitspec.analysis.statistics.wording import briefly, number, plural
from circuitspec.exploration.variables.carried_names import CarriesFindings
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import visible


def _note(found: CarriesFindings) -> str:
    """What no entry mends: less than the target, though everything is carried."""
    recovered = found.whole.recovered
    if recovered.high is None or recovered.high >= found.share:
        return ""
    return (
        f"note: with everything carried {number(recovered.value)} is recovered: the file leaves paths out, "
        "and no entry of `carries` mends that\n\n"
    )


def render_carries(found: CarriesFindings) -> str:
    """A line an entry, then what stands in a file, ending in a newline."""
    by, whole = ", ".join(found.by), found.whole
    rows = [["  value on a path", "must carry", "recovered so far", "KL (nats)", "tried"]]
    rows.append(["  (all)", "everything", briefly(whole.recovered), number(whole.kl), "1"])
    for one in found.entries:
        said = f"{one.said} ({one.why})" if one.why else one.said
        rows.append([f"  {one.key}", said, briefly(one.scrubbing.recovered), number(one.scrubbing.kl), str(one.tried)])
    return (
        f"{visible(found.name)}   {visible(found.model)}   {plural(found.n, 'prompt')}\n"
        f"the least that values on the declared paths must carry: recovered {visible(found.metric)}, one draw for each "
        f"prompt, drawn by {visible(by)}, seed {found.seed}\n"
        f"a step is kept if {number(found.target)} is recovered, {found.share:g} of what is with everything carried, "
        f"and prompts one by one stay within {number(found.most_kl)} nats of the clean run "
        f"(KL, mean; random prompts: {number(whole.random_kl)})\n\n"
        f"{aligned(rows)}\n\n{_note(found)}"
        f"for the file (chosen on these prompts: verify it on others, with another `task: seed`)\n\n"
        f"{visible(found.draft, lines=True)}\n"
        f"({plural(round(found.forwards), 'forward')}, {found.seconds:.1f} s)\n"
    )
