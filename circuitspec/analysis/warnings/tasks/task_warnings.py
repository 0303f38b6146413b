"""The model does not do the task that a circuit is said to do, or does it with answers of another form."""

from __future__ import annotations

from collections import Counter

from circuitspec.analysis.prompt_rows import row_facts
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.task_behaviour import (
    BEHIND,
    UNLIKELY,
    AnswerStanding,
    Instead,
    form_advice,
    form_said,
    other_form,
)
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.prompts.tokens.answer_forms import AnswerForm


def task_not_done(found: AnswerStanding | None, instead: Instead | None) -> tuple[EvidenceWarning, ...]:
    """CS440: the model does not do the task, or does it with answers of another form."""
    form = None if instead is None else other_form(instead)
    if found is None or not (found.at_chance or found.is_unlikely or form is not None):
        return ()
    said = []
    if found.at_chance:
        said.append(f"its accuracy of {number(found.accuracy)} is not told from chance, {number(found.chance)}")
    if found.is_unlikely:
        said.append(
            f"on {found.unlikely} of {plural(found.n, 'prompt')} {BEHIND} tokens or more come before the right answer, "
            f"which has less than {UNLIKELY:.0%} of the probability"
        )
    if form is not None:
        said.append(form_said(form, found.n))
    title = "the model does not do the task" if found.at_chance or found.is_unlikely else "the model answers otherwise"
    data: dict[str, object] = {
        "accuracy": found.accuracy,
        "chance": found.chance,
        "p_value": found.p_value,
        "median_rank": found.rank,
        "median_probability": found.probability,
        "unlikely": found.unlikely,
        "n": found.n,
        "form": None if form is None else {"name": form[0].name, "prompts": form[1], "median_probability": form[2]},
    }
    return (EvidenceWarning("CS440", f"{title}: {'; '.join(said)}", _detail(found, instead, data), _help(form), data),)


def _task_not_done(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    return task_not_done(evidence.standing, evidence.instead)


TASK_NOT_DONE = WarningKind(
    "CS440",
    CLAIMS,
    "the model does not do the task",
    "A circuit recovers a share of what the model does, whatever that is, so a figure near 1 says nothing where "
    "the model does not do the task. Looked at in the clean run, always: accuracy that an exact binomial test does "
    "not tell from chance (the share of right answers among the right and wrong ones, or in the vocabulary where "
    "no wrong ones are given; told only where so many prompts could tell); and right answers that together have "
    "less than 0.01 of the probability with ten tokens or more before the best of them, on most prompts (an exact "
    "binomial test rejects one half). Where they are unlikely, the same answers are looked up with and without the "
    "space before them, and with a capital or a small first letter: a form that is ten times as likely or more on "
    "most prompts is named. Most tokenizers have words with the space before them, so that a prompt that ends in "
    'a word is continued by ` is` and hardly ever by `is`:\n\n    answer: " {VERB}"',
    _task_not_done,
)


def _detail(found: AnswerStanding, instead: Instead | None, data: dict[str, object]) -> str:
    chance = f"chance {number(found.chance)}" if found.chance >= 0.005 else f"chance {found.chance:.1g}"
    detail = (
        f"in the clean run: accuracy {number(found.accuracy)} ({chance}), and of the right answer the median rank is "
        f"{found.rank:,.0f} and the median probability {found.probability:.2g}"
    )
    form = None if instead is None else other_form(instead)
    if form is not None:
        detail += f", {form[0].name} {form[2]:.2g}"
    if instead is not None:
        (text, count), *_ = Counter(instead.likeliest).most_common(1)
        data["likeliest"] = dict(Counter(instead.likeliest).most_common(5))
        if count > 1 or found.n == 1:
            detail += f"; the likeliest token is {text!r} on {plural(count, 'prompt')}"
    return detail


def _help(form: tuple[AnswerForm, int, float] | None) -> str:
    if form is not None:
        return form_advice(form)
    return (
        "take prompts that the model does, or a model that does them; `checks: {accuracy: 0.9}` in the task makes it "
        "an error"
    )


MANY = 0.5  # of the rows


def _many_left_out(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS443: more rows of the prompts file are left out than are used."""
    rows = None if evidence.prompts is None else row_facts(evidence.prompts)
    if rows is None or sum(rows.left_out.values()) <= MANY * rows.looked_at:
        return ()
    n = sum(rows.left_out.values())
    why = ", ".join(f"{count} {kind}" for kind, count in rows.left_out.items())
    return (
        EvidenceWarning(
            "CS443",
            f"most rows are left out: {n} of {rows.looked_at} ({why})",
            f"figures are about the {rows.used} prompts that fit, which need not be like the others; what fits hangs "
            "on the tokenizer, so that another model is verified on other prompts",
            "take prompts that were made for this tokenizer, or look at what is left out: without `skip`, `check` "
            "names the rows",
            {"left_out": dict(rows.left_out), "rows": rows.looked_at, "prompts": rows.used},
        ),
    )


def two_bos(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS441: prompts begin with two BOS tokens, the text's (or a chat template's) own and one put in front of it."""
    task = evidence.task
    if task is None or not task.around.bos_twice:
        return ()
    twice, n = task.around.bos_twice, task.n
    asked = task.around.special_tokens
    help_ = "write special_tokens: none" if asked != "none" else "take one of them out of the prompts"
    if task.around.given_ids:
        help_ = "take one of them out of the ids"
    return (
        EvidenceWarning(
            "CS441",
            f"{twice} of {plural(n, 'prompt')} begin{'s' if twice == 1 else ''} with two BOS tokens",
            "models are trained with one, and the second is a token like any other to them: attention and figures "
            "change",
            f"{help_}, or go on if two are meant",
            {"prompts": twice, "n": n, "special_tokens": asked},
        ),
    )


MANY_LEFT_OUT = WarningKind(
    "CS443",
    CLAIMS,
    "most rows are left out",
    "`skip` leaves out rows of a prompts file that do not fit, and here that is more than half of those that were "
    "looked at. The prompts that are left are a selection: those whose words are single tokens are the frequent ones, "
    "and which they are hangs on the tokenizer. A figure about them is no figure about the file, and two models are "
    "compared on different prompts. Take or make prompts that fit, and leave out few.",
    _many_left_out,
)

TWO_BOS = WarningKind(
    "CS441",
    ("task",),
    "two BOS tokens",
    "Prompts begin with two BOS tokens as the model takes them: the text (or the chat template, or the list of token "
    "ids) has one already, and the tokenizer, or `special_tokens: bos`, puts another in front. Models are trained with "
    "one. They attend to the first token as to nothing else, and a second one in its place changes the figures. Write "
    "`special_tokens: none`, or take the BOS out of the texts.",
    two_bos,
)

TASK_WARNINGS = (TASK_NOT_DONE, MANY_LEFT_OUT, TWO_BOS)
