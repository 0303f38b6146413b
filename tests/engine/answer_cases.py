"""Cases with answers of several tokens, or prompts of unequal lengths: in the engine's types, and by the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from circuitspec.experiments.experiment import Experiment
from circuitspec.prompts.prompt_set import AnswerSequences, Prompt, PromptSet, TokenizedTask, TokenizedVariant
from tests.engine.support import TOLERANCE, oracle_component
from tests.oracle import answers, families, node

VOCAB = 60


def random_cases(seed: int, lengths: list[int], templates: int = 1) -> list[answers.Case]:
    """Two answers and two wrong ones of one to three tokens, two of which begin alike; positions by template."""
    rng = np.random.default_rng(seed)
    places = {(t, n): int(rng.integers(0, n - 1)) for t in range(templates) for n in sorted(set(lengths))}
    cases = []
    for i, length in enumerate(lengths):
        clean, corrupt = (rng.integers(0, VOCAB, length).tolist() for _ in range(2))
        first = rng.choice(VOCAB, 3, replace=False).tolist()
        more = rng.integers(0, VOCAB, 5).tolist()
        right = [[first[0], more[0], more[1]], [first[1]]]
        wrong = [[first[0], more[0], (more[1] + 1) % VOCAB], [first[2], more[2]]]
        at = places[i % templates, length]
        roles = {"A": at, "B": (at + 2) % (length - 1), "END": length - 1}
        cases.append(
            answers.Case(clean, corrupt, right, wrong, roles, roles, {p: p for p in range(length)}, i % templates)
        )
    return cases


def unequal_cases(seed: int, lengths: list[tuple[int, int]], templates: int = 1) -> list[answers.Case]:
    """Clean and corrupt prompts of these lengths: begin, a piece that has other tokens, and an end of two tokens.

    The begin corresponds token by token, and so does the end; of the piece between them the last token alone.
    """
    rng = np.random.default_rng(seed)
    cases = []
    for case, (ours, its) in zip(random_cases(seed, [a for a, _ in lengths], templates), lengths, strict=True):
        tokens = {0: 0, 1: 1, ours - 3: its - 3, ours - 2: its - 2, ours - 1: its - 1}
        roles = {"A": 1, "B": ours - 3, "END": ours - 1}
        corrupt_roles = {"A": 1, "B": its - 3, "END": its - 1}
        corrupt = rng.integers(0, VOCAB, its).tolist()
        cases.append(replace(case, corrupt=corrupt, roles=roles, corrupt_roles=corrupt_roles, tokens=tokens))
    return cases


def task_of(cases: list[answers.Case]) -> TokenizedTask:
    """The cases as the engine takes them, their answers scored whole; corrupt prompts of other lengths in their own."""
    texts = tuple(
        Prompt(i, c.template, {"clean": f"prompt {i}", "abc": f"corrupt {i}"}, (), ()) for i, c in enumerate(cases)
    )
    labels = tuple(f"template {t}" for t in range(max(c.template for c in cases) + 1))

    def whole(side: list[list[list[int]]]) -> tuple[tuple[tuple[int, ...], ...], ...]:
        return tuple(tuple(tuple(one) for one in own) for own in side)

    none: tuple[tuple[int, ...], ...] = ((),) * len(cases)
    own = TokenizedVariant(
        tuple(tuple(c.corrupt) for c in cases),
        none,
        none,
        {role: tuple(c.corrupt_roles[role] for c in cases) for role in cases[0].roles},
        pairs=tuple(tuple(c.tokens.items()) for c in cases),
    )
    unequal = any(len(c.clean) != len(c.corrupt) for c in cases)
    return TokenizedTask(
        PromptSet(texts, ("abc",), labels, score="sum_logprob"),
        {"clean": tuple(tuple(c.clean) for c in cases), "abc": tuple(tuple(c.corrupt) for c in cases)},
        {role: tuple(c.roles[role] for c in cases) for role in cases[0].roles},
        none,
        none,
        sequences=AnswerSequences(whole([c.answers for c in cases]), whole([c.wrong for c in cases])),
        own={"abc": own} if unequal else {},
    )


def swapped(case: answers.Case) -> answers.Case:
    """The corrupt prompt in the place of the clean one."""
    return replace(
        case,
        clean=case.corrupt,
        corrupt=case.clean,
        roles=case.corrupt_roles,
        corrupt_roles=case.roles,
        tokens={there: here for here, there in case.tokens.items()},
    )


def oracle_records(model: Any, cases: list[answers.Case], experiment: Experiment) -> dict[str, np.ndarray]:
    """Every metric of every prompt at node level, by the oracle."""
    net = families.read(model)
    rows = []
    for case in cases:
        own = case if experiment.base == "clean" else swapped(case)
        run = answers.plain(net, own.clean)
        if experiment.source is not None:
            run = _patched(net, cases, case, own, experiment)
        rows.append(answers.metrics(run, len(own.clean), case, answers.plain(net, case.clean)))
    return {name: np.array([row[name] for row in rows]) for name in answers.NAMES}


def _patched(
    net: Any, cases: list[answers.Case], case: answers.Case, own: answers.Case, experiment: Experiment
) -> answers.RunOf:
    source = experiment.source
    assert source is not None

    def sites(after: answers.Ids) -> set[node.Site]:
        return {
            (oracle_component(site.component), p)
            for site in experiment.sites
            for p in answers.tokens_at(
                own.clean, after, [own.roles[role] for role in site.where.roles], site.where.inverted
            )
        }

    if source.prompts is None:
        return answers.patched(net, own.clean, sites, lambda after: node.zero_values(net, len(own.clean) + len(after)))
    there = [one.clean if source.prompts == "clean" else one.corrupt for one in cases]
    mine = case.clean if source.prompts == "clean" else case.corrupt
    same = mine is own.clean

    def tokens(at: int) -> int:
        return at if same else answers.source_token(at, own.clean, mine, own.tokens)

    if not source.is_mean:
        return answers.patched(net, own.clean, sites, answers.values_of(net, mine), tokens)
    alike = [
        (ids, [a[:-1] for a in (*one.answers, *one.wrong)])
        for ids, one in zip(there, cases, strict=True)
        if len(ids) == len(mine) and (source.kind == "mean" or one.template == case.template)
    ]
    components = {oracle_component(site.component) for site in experiment.sites}
    return answers.patched(
        net, own.clean, sites, lambda after: answers.mean_values(net, alike, components, after), tokens
    )


def assert_same(actual: Any, expected: dict[str, np.ndarray]) -> None:
    assert set(actual) == set(expected)
    for metric, values in expected.items():
        np.testing.assert_allclose(actual[metric], values, rtol=0, atol=TOLERANCE, err_msg=metric)
