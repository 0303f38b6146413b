"""What `align` found, as text: the choice on validation pairs, the test beside its controls, and what to write."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.abstraction.subspace_figures import state_words
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.wording import MISSING, number, with_interval
from circuitspec.engine.attribution.subspace_training import PairHits
from circuitspec.experiments.subspaces.subspace_files import where_name
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.pipelines.abstraction.alignment_warnings import family_shares, warnings_of
from circuitspec.pipelines.abstraction.subspace_search import AlignedVariable, Alignments
from circuitspec.runtime.visible_text import visible

_HEAD = ("rank", "IIA, changed [95% CI]", "top-1, changed", "unchanged", "pairs")


def render_alignments(found: Alignments, file: str) -> str:
    """All of it. `file` is where the bases were written."""
    split = "words and templates of training, validation and test\n" + "".join(f"   {one}\n" for one in found.split)
    return "\n".join([split, *(_variable(one, file) for one in found.variables)])


def _variable(one: AlignedVariable, file: str) -> str:
    at = f"{format_name(one.site.component)} at {where_name(one.site.where)}"
    lines = [f"{visible(one.variable)}: rank {one.rank} of {at} (seed {one.seed}, step {one.step})"]
    if len(one.tried) > 1:
        lines += ["   chosen on validation pairs: the earliest site and smallest rank within the interval of the best"]
        rows = [["   site", "rank", "all pairs [95% CI]"]]
        rows += [
            [f"   {format_name(t.site.component)}", str(t.rank), _interval(t.learned.validation, "all")]
            for t in one.tried
        ]
        lines += _aligned(rows)
    lines += _aligned([["   test, once", *_HEAD], *_rows(one)])
    lines += _states(one)
    if one.angles:
        angles = ", ".join(number(angle) for angle in one.angles)
        scores = ", ".join(number(score) for score in one.others)
        lines.append(
            f"   other seeds: largest principal angle with this subspace {angles} rad; all pairs of validation {scores}"
        )
    lines += [f"   warning[{code}]: {said}" for code, said in warnings_of(one)]
    component, where = format_name(one.site.component), ", ".join(sorted(one.site.where.roles))
    at_words = f", at: [{where}]" if where and not one.site.where.inverted else ""
    entry = f"{one.variable}: {{nodes: [{component}]{at_words}, subspace: {{rank: {one.rank}, file: {file}}}}}"
    lines.append(f"   to write under `align`:   {entry}")
    return "\n".join(lines) + "\n"


def _states(one: AlignedVariable) -> Iterator[str]:
    """How far the patched states of changed pairs are from natural ones."""
    states, counted = one.rows.states, one.test.kept & one.test.changed
    if states is None or not counted.any():
        return
    told = state_words(states, counted)
    yield f"   patched states outside the natural range: {told}"


def _rows(one: AlignedVariable) -> Iterator[list[str]]:
    yield ["   subspace", str(one.rank), *_figures(one.test)]
    by_family = family_shares(one)
    if len(by_family) > 1:
        for name, own in by_family.items():
            yield [f"     of {visible(name)}", "", with_interval(own)]
    for control in one.controls:
        rank = "all" if control.rank is None else str(control.rank)
        yield [f"   {control.name}", rank, *_figures(control.hits), *([control.note] if control.note else [])]
    kept, changed = one.test.kept, one.test.kept & one.test.changed
    same = one.test.kept & ~one.test.changed
    shares = [share_of(one.test.nothing[mask]) for mask in (changed, same)]
    told = [MISSING if share is None else with_interval(share) for share in shares]
    yield ["   doing nothing", "0", told[0], MISSING, told[1], f"{int(kept.sum())} of {len(kept)}"]


def _figures(hits: PairHits) -> list[str]:
    counts = f"{int(hits.kept.sum())} of {len(hits.kept)}"
    return [_interval(hits, "changed"), _interval(hits, "top"), _interval(hits, "unchanged"), counts]


def _interval(hits: PairHits, which: str) -> str:
    mask = {"all": hits.kept, "unchanged": hits.kept & ~hits.changed}.get(which, hits.kept & hits.changed)
    share = share_of((hits.top if which == "top" else hits.hit)[mask])
    return MISSING if share is None else with_interval(share)


def _aligned(rows: list[list[str]]) -> list[str]:
    width = max(map(len, rows))
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in padded) for i in range(width)]
    return ["   ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in padded]
