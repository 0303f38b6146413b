"""What the parts of a declared circuit do: as a table for people, and as plain values for programs."""

from __future__ import annotations

from circuitspec.analysis.circuit_effects.backup_behaviour import BackupCheck, Knockout
from circuitspec.analysis.circuit_effects.component_effects import Ablated, CircuitEffects, SetScore
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.analysis.verification_result import Verification
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.runtime.visible_text import visible

_NAMED = 4  # compensating components in a row; all are in the document


def effects_text(found: Verification) -> tuple[str, ...]:
    """Blocks of lines: groups ablated one by one, and the circuit with and without its negative components.

    Of components, those are listed that are negative or can be lost without loss.
    """
    effects = found.effects
    if effects is None:
        return ()
    chosen = found.methodology
    value = chosen.ablation  # over which prompts means are: said above
    value += "" if chosen.source is None else visible(f" from {chosen.source}")
    against = any(effects.note(one) == "negative" for one in _all(effects))
    head = (
        f"per-component ablation of the circuit in the clean run: node level, {value}, {chosen.positions} positions\n"
        f"(drop: share of the clean - corrupt difference; direct effect: in {METRICS[effects.metric].unit}"
        + ("; negative: in the circuit alone too)" if against else ")")
    )
    knockouts = {out.name: out for out in effects.knockouts}
    rows = [["", "declared", f"{effects.metric} drop", "", "direct effect", "compensated by"]]
    alone = {one.part.groups[0] for one in effects.groups if _is_one(one, effects)}
    listed = [
        one
        for one in effects.components
        if not (set(one.part.groups) <= alone) and (one.sign == "hurts" or one.is_silent)
    ]
    rows += [_row(one, one.part.name, effects.note(one), knockouts) for one in effects.groups]
    rows += [
        _row(one, f"{one.part.name} ({', '.join(one.part.groups)})", effects.note(one), knockouts) for one in listed
    ]
    together = [out for name, out in knockouts.items() if name not in {one.part.name for one in _all(effects)}]
    rows += [[out.name, "", "", "", number(out.direct), _compensated(out)] for out in together]
    blocks = [head + "\n\n" + _columns(rows)] if len(rows) > 1 else []
    if effects.untaken:
        several = plural(effects.untaken, "component")
        joint = " (these all together)" if any(len(one.part.groups) > 1 for one in effects.groups) else ""
        out, asked = (
            ("", "takes all")
            if effects.backups
            else ("; nothing was knocked out to see what compensates", "does it all")
        )
        blocks.append(
            f"{several} of the circuit were not ablated one by one, and of the groups only those declared "
            f"negative{joint} or backup{out}; --negatives exact {asked}"
        )
    if effects.estimated:
        blocks.append(_estimated(effects))
    if effects.direct_unknown:
        blocks.append(f"direct effects were not looked at: {effects.direct_unknown}")
    if effects.sets:
        blocks.append(_sets(effects))
    return tuple(blocks)


def _estimated(effects: CircuitEffects) -> str:
    """What first-order estimates say of components that were not ablated one by one, and what the circuit does without
    those that they speak against."""
    doubtful = sorted(effects.doubtful, key=lambda one: one.drop.value)
    if not doubtful:
        return "by first-order estimates in the circuit alone, no component is negative but those declared so"
    named = ", ".join(f"{one.part.name} {number(one.drop.value)}" for one in doubtful[:_NAMED])
    more = f" and {len(doubtful) - _NAMED} more" if len(doubtful) > _NAMED else ""
    said = (
        f"by first-order estimates in the circuit alone, the loss of {plural(len(doubtful), 'component')} that the "
        f"hypothesis does not call negative should raise {effects.metric} (drop): {named}{more}"
    )
    if not effects.joint:
        return f"{said}; little in all, and not tried"
    alone = effects.joint[1].drop
    if alone.value < 0:
        return f"{said}; tried all at once, their loss does: {briefly(alone)}"
    return (
        f"{said}; tried all at once, their loss does not: {briefly(alone)}. The estimates are wrong about some; "
        "--negatives exact tells about each"
    )


def _is_one(group: Ablated, effects: CircuitEffects) -> bool:
    """Whether a group is a single component, which then needs no row of its own."""
    return sum(group.part.name in one.part.groups for one in effects.components) == 1


def _all(effects: CircuitEffects) -> tuple[Ablated, ...]:
    return (*effects.groups, *effects.components)


def _row(one: Ablated, name: str, note: str, knockouts: dict[str, Knockout]) -> list[str]:
    out = knockouts.get(one.part.name)
    direct = MISSING if out is None else number(out.direct)
    compensated = MISSING if out is None else _compensated(out)
    return [name, one.part.declared, briefly(one.drop), note, direct, compensated]


def _compensated(out: Knockout) -> str:
    named = ", ".join(f"{c.component} {number(c.share)} ({c.standing})" for c in out.compensators[:_NAMED])
    more = f" and {len(out.compensators) - _NAMED} more" if len(out.compensators) > _NAMED else ""
    return briefly(out.compensated) + (f", by {named}{more}" if named else "")


def _sets(effects: CircuitEffects) -> str:
    rows = [["circuit", f"recovered {effects.metric}", "kl (nats)", "recovered kl"]]
    for one in effects.sets:
        by_kl = MISSING if one.recovered_kl is None else briefly(one.recovered_kl)
        named = ", ".join(one.negatives[:_NAMED]) + (", ..." if len(one.negatives) > _NAMED else "")
        rows.append([f"{one.name} ({named})" if named else one.name, briefly(one.recovered), number(one.kl), by_kl])
    return "the circuit with and without negative components\n\n" + _columns(rows)


def _columns(rows: list[list[str]]) -> str:
    rows = [[visible(cell) for cell in row] for row in rows]
    used = [i for i in range(len(rows[0])) if any(row[i] for row in rows)]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    return "\n".join("  " + "   ".join(row[i].ljust(widths[i]) for i in used).rstrip() for row in rows)


def effects_data(effects: CircuitEffects) -> dict[str, object]:
    """Everything, for the document."""
    return {
        "metric": effects.metric,
        "groups": [_ablated(one) for one in effects.groups],
        "components": [_ablated(one) for one in effects.components],
        "knockouts": [_knockout(out) for out in effects.knockouts],
        "backups": [_backup(check) for check in effects.backups],
        "sets": [_set(one) for one in effects.sets],
        "direct_unknown": effects.direct_unknown or None,
        "untaken": effects.untaken,
        "within": [_ablated(one) for one in effects.within],
        "estimated": [_ablated(one) for one in effects.estimated],
        "joint": [_ablated(one) for one in effects.joint],
        "second_metric": effects.second or None,
        "by_second_metric": [_ablated(one) for one in effects.by_second],
    }


def _estimate(estimate: Estimate | None) -> dict[str, object] | None:
    return None if estimate is None else estimate_data(estimate)


def _ablated(one: Ablated) -> dict[str, object]:
    return {
        "name": one.part.name,
        "groups": one.part.groups,
        "declared": one.part.declared,
        "effect": one.effect,
        "drop": estimate_data(one.drop),
        "p_adjusted": one.p_adjusted,
        "sign": one.sign,
        "rise": _estimate(one.rise),
        "besides": None
        if one.besides is None
        else {"name": one.besides.name, "drop": estimate_data(one.besides.further)},
    }


def _knockout(out: Knockout) -> dict[str, object]:
    return {
        "name": out.name,
        "direct": out.direct,
        "total": estimate_data(out.total),
        "compensated": estimate_data(out.compensated),
        "by_components": _estimate(out.by_components),
        "reached": out.reached,
        "components": [
            {
                "component": c.component,
                "standing": c.standing,
                "growth": c.growth,
                "share": c.share,
                "p_adjusted": c.p_adjusted,
            }
            for c in out.compensators
        ],
    }


def _backup(check: BackupCheck) -> dict[str, object]:
    return {
        "group": check.group,
        "knocked_out": check.knocked_out,
        "growth": _estimate(check.growth),
        "p_adjusted": check.p_adjusted,
        "grows": check.grows,
        "besides": check.besides,
        "holds": check.holds,
    }


def _set(one: SetScore) -> dict[str, object]:
    return {
        "name": one.name,
        "negatives": one.negatives,
        "recovered": estimate_data(one.recovered),
        "kl": one.kl,
        "recovered_kl": _estimate(one.recovered_kl),
    }
