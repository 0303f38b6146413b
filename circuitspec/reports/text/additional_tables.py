"""What was run beside the claims, as text, data, tables and a picture: a sweep over methods, tests of the circuit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.method_sweep import MethodScore, MethodSweep
from circuitspec.analysis.claims.random_circuit_tests import CircuitTests
from circuitspec.analysis.statistics.hypothesis_tests import HypothesisTest
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.circuits.method_grid import Choice, Method, changed
from circuitspec.reports.figures.picture import Picture
from circuitspec.reports.figures.spread import Row, off_axis, spread
from circuitspec.reports.views import Chart, Table

if TYPE_CHECKING:
    import pandas as pd

KEPT, ABLATED = "the circuit clean, the rest not", "the rest clean, the circuit not"
_QUESTIONS = (True, False)
_MOST_NAMED = 6  # methods in a picture's note


# -- text -------------------------------------------------------------------------------------------------------------


def beside_text(found: Verification) -> tuple[str, ...]:
    """A block for the sweep and one for the tests, where they were asked for."""
    blocks = []
    if found.sweep is not None:
        blocks.append("\n".join(_sweep_lines(found.sweep)))
    if found.tests is not None:
        blocks.append("\n".join(_test_lines(found.tests)))
    return tuple(blocks)


def _sweep_lines(sweep: MethodSweep) -> Iterator[str]:
    yield f"the circuit under {plural(len(sweep.scores), 'method')}, as in the file: {sweep.own}"
    yield ""
    yield from _aligned(list(_sweep_rows(sweep)), _GROUPS)
    yield ""
    for keeps in _QUESTIONS:
        known = [s for s in sweep.scores if s.recovered is not None and s.method.keeps_circuit == keeps]
        known = [s for s in known if not s.out_of_range]
        for word, score in _ends(known):
            assert score.recovered is not None
            said = KEPT if keeps else ABLATED
            yield f"  {word} with {said}: {number(score.recovered.value)} ({score.method})"
    for score in sweep.outside:
        yield f"  not counted in lowest, median and highest: {_outside(score)}"
    for why, count in sweep.reasons.items():
        yield f"  no figure for {plural(count, 'combination')}: {why}"


def _outside(score: MethodScore) -> str:
    """`recovered 4095.98 (path level, ...): out of range: ...`."""
    value = "no figure" if score.recovered is None else f"recovered {number(score.recovered.value)}"
    return f"{value} ({score.method}), {score.out_of_range}"


_HEADS = ("lowest", "median", "highest")
_GROUPS = (("", 2), ("circuit clean", 3), ("rest clean", 3), ("", 1))  # of the columns of `_sweep_rows`


def _sweep_rows(sweep: MethodSweep) -> Iterator[tuple[str, ...]]:
    """The head, all methods together, then each value of each choice; and the file's method with that change alone."""
    alone = {score.method: score for score in sweep.single_changes()}
    yield (f"  recovered {sweep.metric}", "methods", *_HEADS, *_HEADS, "this alone [95% CI]")
    everything = [sweep.values(keeps_circuit=keeps) for keeps in _QUESTIONS]
    yield (
        "  all",
        _count(sweep),
        *_range(everything[0]),
        *_range(everything[1]),
        _figure(alone.get(sweep.own)),
    )
    by_value = [{(s.choice, s.value): s.values for s in sweep.spreads(keeps_circuit=keeps)} for keeps in _QUESTIONS]
    for choice, value in dict.fromkeys([*by_value[0], *by_value[1]]):
        kept, ablated = (values.get((choice, value), ()) for values in by_value)
        one = next((s for m, s in alone.items() if m.value(choice) == value and _is_single(m, sweep.own, choice)), None)
        shown = _figure(one) if sweep.own.value(choice) != value else "as in the file"
        out = sum(score.method.value(choice) == value for score in sweep.outside)
        count = f"{len(kept) + len(ablated)}" + (f" + {out} out of range" if out else "")
        yield (f"  {choice} {value}", count, *_range(kept), *_range(ablated), shown)


def _count(sweep: MethodSweep) -> str:
    out = len(sweep.outside)
    return f"{len(sweep.scores) - out} + {out} out of range" if out else str(len(sweep.scores))


def _is_single(method: Method, own: Method, choice: Choice) -> bool:
    return method == changed(own, choice, getattr(method, choice))


def _range(values: Sequence[float]) -> tuple[str, str, str]:
    if not values:
        return (MISSING,) * 3
    ordered = sorted(values)
    return number(ordered[0]), number(ordered[len(ordered) // 2]), number(ordered[-1])


def _ends(scores: Sequence[MethodScore]) -> Iterator[tuple[str, MethodScore]]:
    ordered = sorted(scores, key=lambda score: score.recovered.value if score.recovered else 0.0)
    if ordered:
        yield "lowest", ordered[0]
    if len(ordered) > 1:
        yield "highest", ordered[-1]


def _figure(score: MethodScore | None) -> str:
    if score is None:
        return MISSING
    if score.recovered is None:
        return score.why or score.out_of_range
    return briefly(score.recovered) + (" (out of range)" if score.out_of_range else "")


def _test_lines(tests: CircuitTests) -> Iterator[str]:
    if tests.tests:
        count = plural(len(tests.tests), "test")
        yield f"tests of the circuit by {tests.metric} (Shi et al. 2024), p corrected for {count} together (Holm)"
        yield ""
        yield from _aligned([(f"  {head[0]}", *head[1:]) for head in _test_rows(tests)])
        yield ""
        for name, null in _nulls(tests.tests):
            yield f"  null hypothesis of {name}: {null}"
        yield "  a null hypothesis that is not rejected is no evidence for anything"
    yield from (f"  not tested: {why}" for why in tests.not_run)


def tests_said(tests: CircuitTests | None) -> str:
    """Which tests of the circuit reject, for it and against it, and which would speak for it and do not; in a line."""
    if tests is None or not tests.tests:
        return ""
    sorted_out = tests_sorted(tests)
    words = {"for": "for it", "against": "against it", "not_shown": "not rejected, and so not shown"}
    said = "; ".join(f"{word}: {', '.join(sorted_out[kind])}" for kind, word in words.items() if sorted_out[kind])
    return f"tests of the circuit by {tests.metric}, rejected at {tests.alpha:g} {said or 'none'}"


def tests_sorted(tests: CircuitTests) -> dict[str, list[str]]:
    """Names of the tests whose rejection speaks `for` or `against` the circuit, and of those `for` it that are not
    rejected (`not_shown`)."""
    found: dict[str, list[str]] = {"for": [], "against": [], "not_shown": []}
    for test in tests.tests:
        favours = test.rejected_means == "for the circuit"
        if test.rejects(tests.alpha):
            found["for" if favours else "against"].append(test.name)
        elif favours:
            found["not_shown"].append(test.name)
    return found


def _test_rows(tests: CircuitTests) -> Iterator[tuple[str, ...]]:
    yield "test", "of", "statistic", "p", "corrected", "at 0.05"
    for test in tests.tests:
        unit = "prompts" if test.name in ("equivalence", "equivalence shown", "independence") else "random ones"
        said = f"rejected: {test.rejected_means}" if test.rejects(tests.alpha) else "not rejected"
        adjusted = test.p_value if test.p_adjusted is None else test.p_adjusted
        statistic = f"{test.statistic_name} {test.statistic:.3g}"
        yield test.name, f"{test.n} {unit}", statistic, f"{test.p_value:.2g}", f"{adjusted:.2g}", said


def _nulls(tests: Sequence[HypothesisTest]) -> Iterator[tuple[str, str]]:
    """The null hypotheses; the many of minimality, which differ in the node alone, once."""
    told = False
    for test in tests:
        node = test.name.removeprefix("minimality of ")
        if node == test.name:
            yield test.name, test.null
        elif not told:
            told = True
            yield "minimality", test.null.replace(node, "the node")


def _aligned(rows: list[tuple[str, ...]], groups: Sequence[tuple[str, int]] = ()) -> list[str]:
    """Columns three spaces apart; the first and last flush left, those between flush right, groups over theirs."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    if groups:
        spans, first = [], 0
        for label, count in groups:
            spans.append(label.rjust(sum(widths[first : first + count]) + 3 * (count - 1)))
            first += count
        lines.append("   ".join(spans).rstrip())
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)), row[-1]]
        lines.append("   ".join(cells).rstrip())
    return lines


# -- data -------------------------------------------------------------------------------------------------------------


def sweep_data(sweep: MethodSweep) -> dict[str, object]:
    """Every method with its figure, and what was not run and why."""
    return {
        "metric": sweep.metric,
        "own": asdict(sweep.own),
        "range": {"circuit_clean": _ends_of(sweep, True), "circuit_ablated": _ends_of(sweep, False)},
        "methods": [
            {
                **asdict(score.method),
                "circuit_clean": score.method.keeps_circuit,
                "recovered": None if score.recovered is None else estimate_data(score.recovered),
                "reason": score.why or score.out_of_range,
                "in_range": score.recovered is not None and not score.out_of_range,
            }
            for score in sweep.scores
        ],
        "not_run": [{**asdict(one.method), "reason": one.reason} for one in sweep.left_out],
    }


def _ends_of(sweep: MethodSweep, keeps: bool) -> list[float] | None:
    values = sweep.values(keeps_circuit=keeps)
    return [min(values), max(values)] if values else None


def tests_data(tests: CircuitTests) -> dict[str, object]:
    """Every test with its null hypothesis, its p-value and the one that is corrected for all."""
    return {
        "metric": tests.metric,
        "alpha": tests.alpha,
        "correction": "holm",
        "summary": tests_sorted(tests),
        "tests": [{**asdict(test), "rejected": test.rejects(tests.alpha)} for test in tests.tests],
        "not_run": list(tests.not_run),
    }


def sweep_frame(sweep: MethodSweep) -> pd.DataFrame:
    """A row a method: the six choices, whether the circuit has clean values, what is recovered, and its interval."""
    import pandas as pd

    rows = []
    for score in sweep.scores:
        found = score.recovered
        ends = (None, None) if found is None else (found.low, found.high)
        values = {"recovered": None if found is None else found.value, "low": ends[0], "high": ends[1]}
        rows.append(
            {
                **asdict(score.method),
                "circuit_clean": score.method.keeps_circuit,
                **values,
                "reason": score.why or score.out_of_range,
            }
        )
    for one in sweep.left_out:
        values = dict.fromkeys(("recovered", "low", "high"))
        rows.append({**asdict(one.method), "circuit_clean": one.method.keeps_circuit, **values, "reason": one.reason})
    return pd.DataFrame(rows).astype(dict.fromkeys(("recovered", "low", "high"), "float64"))


# -- page -------------------------------------------------------------------------------------------------------------


def beside_charts(found: Verification) -> tuple[Chart, ...]:
    """The sweep's picture."""
    if found.sweep is None or not any(found.sweep.values(keeps_circuit=keeps) for keeps in _QUESTIONS):
        return ()
    note = "A mark is one combination of choices; dashed is the file's own. 1 is the clean run, 0 the anchor of each."
    return (Chart(sweep_picture(found.sweep), f"{note} {_off_axis(found.sweep)}".rstrip()),)


def _off_axis(sweep: MethodSweep) -> str:
    """In words, what the picture's axis does not reach: figures in range as arrows at its edge, others not at all."""
    far = [s for s in sweep.scores if s.recovered is not None and not s.out_of_range and off_axis(s.recovered.value)]
    said = []
    for scores, how in ((far, "Beyond the axis, arrows at its edge"), (sweep.outside, "Out of range, not drawn")):
        if scores:
            shown = [f"{'-' if s.recovered is None else number(s.recovered.value)} ({s.method})" for s in scores]
            more = f"; and {len(shown) - _MOST_NAMED} more, in the tables" if len(shown) > _MOST_NAMED else ""
            said.append(f"{how}: {'; '.join(shown[:_MOST_NAMED])}{more}.")
    return " ".join(said)


def beside_tables(found: Verification) -> tuple[Table, ...]:
    """The sweep by choice, and the tests."""
    tables = []
    if found.sweep is not None:
        head, *rows = ([cell.strip() for cell in row] for row in _sweep_rows(found.sweep))
        left = "; ".join(f"no figure for {plural(n, 'combination')}: {why}" for why, n in found.sweep.reasons.items())
        caption = (
            f"The circuit under {plural(len(found.sweep.scores), 'method')}, recovered {found.sweep.metric}. {left}"
        )
        outside = [f"Not counted in lowest, median and highest: {_outside(score)}." for score in found.sweep.outside]
        caption = " ".join((caption.rstrip(), *outside))
        tables.append(Table(caption, tuple(head), tuple(map(tuple, rows)), _GROUPS, numeric=1))
    if found.tests is not None:
        head, *rows = map(list, _test_rows(found.tests))
        nulls = [f"Null hypothesis of {name}: {null}." for name, null in _nulls(found.tests.tests)]
        nulls += [f"Not tested: {why}." for why in found.tests.not_run]
        caption = f"Tests of the circuit by {found.tests.metric}, corrected together (Holm). " + " ".join(nulls)
        tables.append(Table(caption, tuple(head), tuple(map(tuple, rows))))
    return tuple(tables)


def sweep_picture(sweep: MethodSweep) -> Picture:
    """What is recovered under each method, by choice: circuit clean, and circuit ablated."""
    by_value = [{(s.choice, s.value): s.values for s in sweep.spreads(keeps_circuit=keeps)} for keeps in _QUESTIONS]
    rows = [
        Row(value, tuple(values.get((choice, value), ()) for values in by_value), choice)
        for choice, value in dict.fromkeys([*by_value[0], *by_value[1]])
    ]
    own = next((s.recovered.value for s in sweep.scores if s.method == sweep.own and s.recovered is not None), None)
    return spread(
        rows,
        series=(KEPT, ABLATED),
        own=(own, None) if sweep.own.keeps_circuit else (None, own),
        title="Recovered performance by choice of method",
        quantity=f"recovered {sweep.metric} (share of clean - corrupt)",
    )
