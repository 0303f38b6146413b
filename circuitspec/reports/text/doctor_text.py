"""What `circuitspec doctor` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from circuitspec.analysis.dictionary_figures import fit_described
from circuitspec.analysis.statistics.wording import number
from circuitspec.engine.execution.granularity import worth_saying
from circuitspec.engine.metrics.dictionary_fit import DictionaryFit
from circuitspec.engine.metrics.recovered_loss import RecoveredLoss
from circuitspec.engine.validation.site_tests import Diagnosis, SiteCheck
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.load import Provenance
from circuitspec.runtime.visible_text import as_json, no_command, visible

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ExaminedModel:
    """A model and what was found about it."""

    provenance: Provenance
    architecture: Architecture
    shape: ModelShape
    device: str
    diagnosis: Diagnosis
    dictionaries: tuple[tuple[DictionaryFit, RecoveredLoss], ...] = ()


def render_text(found: ExaminedModel) -> str:
    """Family and shape, what can be patched, the self-tests, a line per site, and the verdict; ends in a newline.

    Dictionaries, where there are any, stand before the verdict.
    """
    parts = [_heading(found), _granularities(found), _whole(found.diagnosis), _sites(found.diagnosis)]
    parts += [text for text in (_silent(found.diagnosis), _untested(found.diagnosis), _dictionaries(found)) if text]
    return no_command("\n\n".join([*parts, _verdict(found.diagnosis)])) + "\n"


def render_json(found: ExaminedModel) -> str:
    """The same as one JSON object, ending in a newline."""
    known, shape, diagnosis = found.provenance, found.shape, found.diagnosis
    document = {
        "format_version": FORMAT_VERSION,
        "model": {
            "id": known.id,
            "revision": known.revision,
            "family": known.family,
            "dtype": known.dtype,
            "device": found.device,
            "n_parameters": known.n_parameters,
            "n_layers": shape.n_layers,
            "n_heads": shape.n_heads,
            "n_kv_heads": shape.n_kv_heads,
            "d_model": shape.d_model,
            "d_head": shape.d_head,
            "d_mlp": shape.d_mlp,
            "n_experts": shape.n_experts,
            "n_vocab": shape.n_vocab,
            "max_positions": shape.max_positions,
        },
        "granularities": [
            {"name": g.name, "example": g.example, "supported": bool(g.tensors), "why_not": g.why_not or None}
            for g in worth_saying(found.architecture)
        ],
        "sound": not diagnosis.problems,
        "limit": diagnosis.limit,
        "prompt_lengths": diagnosis.lengths,
        "batches_of_one_length": diagnosis.by_length,
        "whole": [{"check": w.what, "deviation": w.deviation} for w in diagnosis.whole],
        "sites": [
            {
                "site": s.name,
                "path": s.path,
                "own_values": s.own_values,
                "handed_on": s.handed_on,
                "effect": s.effect,
                "same_values": s.same_values,
            }
            for s in diagnosis.sites
        ],
        "silent": [s.name for s in diagnosis.sites if s.silent],
        "left_padding_untested": diagnosis.untested or None,
        "dictionaries": [_dictionary_content(fit, loss) for fit, loss in found.dictionaries],
    }
    return as_json(document, indent=2) + "\n"


def _heading(found: ExaminedModel) -> str:
    known, shape = found.provenance, found.shape
    named = known.id if known.description in (known.id, "") else f"{known.id} ({known.description})"
    heads = f"{shape.n_heads} heads of {shape.d_head} channels"
    if shape.n_kv_heads != shape.n_heads:
        heads += f" over {shape.n_kv_heads} key-value heads"
    sizes = [
        f"{shape.n_layers} layers x {heads}",
        f"{shape.d_model} channels",
        f"{shape.n_experts} experts a layer" if shape.n_experts else f"{shape.d_mlp} neurons a layer",
        f"{shape.n_vocab} tokens",
    ]
    if shape.max_positions is not None:
        sizes.append(f"{shape.max_positions} positions")
    family = f"{found.architecture.title} ({known.family}), {known.n_parameters:,} parameters"
    return f"{visible(named)}   {family}, {known.dtype} on {found.device}\n{', '.join(sizes)}"


def _granularities(found: ExaminedModel) -> str:
    rows = [
        (g.name, g.example, ", ".join(g.tensors) if g.tensors else f"no: {g.why_not}")
        for g in worth_saying(found.architecture)
    ]
    return "what can be patched\n" + _aligned(rows)


def _whole(found: Diagnosis) -> str:
    lengths = " and ".join(str(n) for n in sorted(set(found.lengths)))
    padded = f"padded on {'the right' if found.untested else 'either side'}"
    if found.by_length:
        padded = "never padded, since its rotary embedding goes by the longest prompt of a batch"
    said = (
        f"on random prompts of {lengths} tokens, {padded}; deviations of up to {found.limit:g} are rounding\n"
        "all together: largest deviation of the logits, in their standard deviations"
    )
    return said + "\n" + _aligned([(w.what, _number(w.deviation) + _mark(found.off(w.deviation))) for w in found.whole])


def _sites(found: Diagnosis) -> str:
    rows = [("site", "own values", "handed on", "moves the logits by", "")]
    for site in found.sites:
        handed_on = "-" if site.handed_on is None else _number(site.handed_on)
        wrong = found.off(site.own_values) or found.off(site.handed_on)
        rows.append((site.name, _number(site.own_values), handed_on, _effect(site), site.path + _mark(wrong)))
    said = (
        "one by one: how far its own values move the logits, how far what it feeds is from what another run's values\n"
        "there lead to (- where that cannot be told), and how far the other run's values move the logits"
    )
    return said + "\n" + _aligned(rows)


def _silent(found: Diagnosis) -> str:
    silent = [s.name for s in found.sites if s.silent]
    if not silent:
        return ""
    return (
        f"changes nothing: {', '.join(silent)}\n"
        "   another run's values there left the logits as they were: suspicious, unless this model makes no use of "
        "them on random tokens"
    )


def _untested(found: Diagnosis) -> str:
    return (
        "" if not found.untested else f"padding on the left was not tested, `verify` does not use it: {found.untested}"
    )


def _dictionaries(found: ExaminedModel) -> str:
    """A block of lines for each dictionary."""
    blocks = [
        fit_described(fit) + (f"\n{_dead(fit)}\n{_loss(loss)}" if loss.tokens else "")
        for fit, loss in found.dictionaries
    ]
    return "\n".join(blocks)


def _dead(fit: DictionaryFit) -> str:
    dead = fit.n_features - fit.seen
    return f"   active at no token of these prompts: {dead:,} features ({100 * fit.dead:.3g} %)"


def _loss(loss: RecoveredLoss) -> str:
    said = "   loss recovered: "
    if loss.recovered is None:
        larger = loss.ablated > loss.clean
        said += "not a number" if larger else "not defined, the loss is no larger with the value replaced by zeros"
    else:
        said += f"{number(loss.recovered)}"
    each = (("clean", loss.clean), ("reconstructed", loss.reconstructed), ("zeros", loss.ablated))
    values = ", ".join(f"{name} {number(value) if math.isfinite(value) else 'not finite'}" for name, value in each)
    return f"{said} (nats a token over {loss.tokens:,} tokens: {values})"


def _dictionary_content(fit: DictionaryFit, loss: RecoveredLoss) -> dict[str, object]:
    return {
        "name": fit.name,
        "at": fit.place,
        "n_features": fit.n_features,
        "unexplained": _finite(fit.unexplained),
        "active": _finite(fit.active),
        "dead": _finite(fit.dead),
        "loss_recovered": loss.recovered,
        "loss": {
            "tokens": loss.tokens,
            "clean": _finite(loss.clean),
            "reconstructed": _finite(loss.reconstructed),
            "zeros": _finite(loss.ablated),
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _verdict(found: Diagnosis) -> str:
    wrong = [s for s in found.sites if found.off(s.own_values) or found.off(s.handed_on)]
    if wrong:
        return f"NOT SOUND   {len(wrong)} of {len(found.sites)} sites"
    return f"NOT SOUND   {len(found.problems)} checks" if found.problems else f"SOUND   {len(found.sites)} sites"


def _effect(site: SiteCheck) -> str:
    if site.same_values:
        return "same values"
    return "nothing" if site.effect == 0 else f"{site.effect:.2g}"


def _number(deviation: float) -> str:
    return "0" if deviation == 0 else f"{deviation:.1e}"


def _mark(wrong: bool) -> str:
    return "   WRONG" if wrong else ""


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        ("   " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
