"""`pytest hypotheses/`: hypothesis files as tests.

Collected are the `*.circuit.yaml` files that someone asked for: those named on the command line, those below a folder
named there, and those below the folders of the ini option `circuitspec_paths`. Where that option is set, a folder on
the command line gives only what lies below these. A bare `pytest` without the option collects none, so that files which
are kept as data of other tests are left alone; `collect_ignore_glob` in a `conftest.py` excludes more.

A file's items are `check` (its mistakes, without running anything; what is no error becomes a warning), `lock`
with `--circuitspec-locked` (what is not as in the lock beside it, as far as that can be known without running), and one
for each claim, which runs with `--circuitspec=verify` alone. A file is verified once, by the first item that needs it,
and a model is loaded once a session, and kept while files that use it are left. Under xdist all items of a file go to
one worker with `--dist loadfile` or `loadgroup`; otherwise each worker that has one of them verifies the file itself.
What fails several items is said in full by the first of them; the others name that one.

The fixture `circuit_report` gives the results to other tests: `circuit_report["hypotheses/ioi.circuit.yaml"]`, the path
counted from the root of the test run, is a `circuitspec.Result`.

pytest imports this module at every start, so it imports nothing of circuitspec until there is something to do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from circuitspec.api import Result
    from circuitspec.diagnostics.diagnostic import Diagnostic
    from circuitspec.pipelines.with_locks.suite import Suite

SUFFIX = ".circuit.yaml"
_NOT_VERIFYING = "needs --circuitspec=verify"
_NAMED = "circuitspec_named"

_suites = pytest.StashKey["Suite"]()
_findings = pytest.StashKey[dict[str, str]]()  # what was said in full -> the item that said it


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("circuitspec")
    group.addoption(
        "--circuitspec",
        choices=("check", "verify"),
        default="check",
        help="check: report the mistakes in *.circuit.yaml files; verify: run their claims too (default: check)",
    )
    group.addoption(
        "--circuitspec-locked",
        action="store_true",
        help="compare with the lock beside each *.circuit.yaml file, and fail on whatever is not as locked",
    )
    parser.addini("circuitspec_paths", "folders whose *.circuit.yaml files are tests", type="paths", default=[])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist hands a worker the folders of `testpaths` as if they had been named."""
    node.workerinput[_NAMED] = [str(path) for path in _named(node.config)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> HypothesisFile | None:
    if not file_path.name.endswith(SUFFIX) or not _asked_for(file_path, parent.config):
        return None
    from circuitspec.runtime.visible_text import visible

    # as pytest names it, unless that cannot be printed in a line as it is
    name = file_path.relative_to(parent.config.rootpath).as_posix() if _is_below(file_path, parent.config) else ""
    own: dict[str, Any] = {"nodeid": visible(name)} if visible(name) != name else {}
    file: HypothesisFile = HypothesisFile.from_parent(parent, path=file_path, **own)
    return file


def _is_below(file: Path, config: pytest.Config) -> bool:
    return file.is_relative_to(config.rootpath)


def pytest_collection_finish(session: pytest.Session) -> None:
    claims = {item.path for item in session.items if isinstance(item, ClaimItem)}
    if claims and _verifying(session.config):
        _suite(session.config).expect(sorted(claims))


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | list[str]:
    """Where hypothesis files are to be verified or compared with locks, and there is none: that, and why."""
    asked = _verifying(config) or config.getoption("--circuitspec-locked")
    elsewhere = config.pluginmanager.hasplugin("dsession")  # xdist's workers have the items
    if not asked or elsewhere or any(isinstance(item, _FileItem) for item in items):
        return []
    return (
        f"circuitspec: no *{SUFFIX} file is among the tests, so none is verified by itself: "
        "name files or folders, or set circuitspec_paths"
    )


@pytest.fixture(scope="session")
def circuit_report(request: pytest.FixtureRequest) -> CircuitReports:
    """Results of hypothesis files by their path. Without --circuitspec=verify, asking for one skips the test."""
    return CircuitReports(request.config)


class CircuitReports:
    """`reports["hypotheses/ioi.circuit.yaml"]` is the result of that file, verified now unless it was before."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def __getitem__(self, path: str | os.PathLike[str]) -> Result:
        """The path counts from the root folder of the test run. A file that cannot be verified fails the test."""
        if not _verifying(self._config):
            pytest.skip(_NOT_VERIFYING)
        from circuitspec.api import Result

        with _told(self._config):
            suite, file = _suite(self._config), Path(os.path.normpath(self._config.rootpath / path))
            outcome = suite.outcome(file)
        return Result(outcome.verification, outcome.task, suite.document(file))


class HypothesisFile(pytest.File):
    """A hypothesis file: an item for its mistakes, one for its lock, and one for each of its claims."""

    def collect(self) -> Iterator[pytest.Item]:
        from circuitspec.diagnostics.diagnostic import CircuitspecError
        from circuitspec.runtime.visible_text import visible

        yield CheckItem.from_parent(self, name="check")
        if self.config.getoption("--circuitspec-locked"):
            yield LockItem.from_parent(self, name="lock")
        try:
            document = _suite(self.config).document(self.path)
        except CircuitspecError:  # told by `check`
            return
        for index, claim in enumerate(document.hypothesis.claims):
            line = document.source.span(("claims", index)).line
            name = visible(f"claim{index + 1}-{claim.kind}-{claim.metric}")
            yield ClaimItem.from_parent(self, name=name, index=index, line=line)


class _FileItem(pytest.Item):
    """An item of a hypothesis file, at a line of it."""

    def __init__(self, *, line: int = 1, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._line = line
        if self.config.pluginmanager.hasplugin("xdist"):
            # for --dist loadgroup, which reads names out of node ids: no text of the path in it
            name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            self.add_marker(pytest.mark.xdist_group(name=f"circuitspec-{name}"))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._line - 1, self.name


class CircuitspecWarning(pytest.PytestWarning):
    """What is to be said of a hypothesis file, and is no error unless the run's own filters make it one."""


class CheckItem(_FileItem):
    """The file's mistakes, without running anything."""

    def runtest(self) -> None:
        from circuitspec.pipelines.check import check_file

        problems, _ = check_file(Path(os.path.relpath(self.path)))
        if any(problem.severity == "error" for problem in problems):
            raise _failure(problems, self.config)
        for problem in problems:  # as with `circuitspec check`, none of which fails
            self.warn(CircuitspecWarning(_rendered(problem, self.config)))


class LockItem(_FileItem):
    """What is not as locked, as far as that can be known without running the model."""

    def runtest(self) -> None:
        with _told(self.config):
            _, examined = _suite(self.config).examined(self.path)
            examined.refuse()


class ClaimItem(_FileItem):
    """A claim. It passes if it is SUPPORTED, and as locked where that is asked for."""

    def __init__(self, *, index: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._index = index

    def runtest(self) -> None:
        if not _verifying(self.config):
            pytest.skip(_NOT_VERIFYING)
        with _told(self.config):
            reported = _suite(self.config).reported(self.path)
        from circuitspec.reports.text.text_report import render_text

        said = render_text(reported.verification, findings=reported.findings)
        self.add_report_section("call", "report", said)
        told = reported.claim_finding(self._index)
        drift = [finding for finding in reported.findings if finding.data.get("claim") == self._index]
        if told is not None or drift:
            notes = [finding for finding in reported.findings if finding.severity == "note"]
            raise _failure([*([told] if told else []), *drift, *(notes if drift else [])], self.config)


def _suite(config: pytest.Config) -> Suite:
    if _suites not in config.stash:
        from circuitspec.pipelines.with_locks.suite import Suite

        config.stash[_suites] = Suite(locked=config.getoption("--circuitspec-locked"))
    return config.stash[_suites]


def _verifying(config: pytest.Config) -> bool:
    return bool(config.getoption("--circuitspec") == "verify")


def _asked_for(file: Path, config: pytest.Config) -> bool:
    named = _named(config)
    folders: list[Path] = config.getini("circuitspec_paths") or named
    return file in named or any(file.is_relative_to(folder) for folder in folders)


def _named(config: pytest.Config) -> list[Path]:
    """Files and folders on the command line of the run that was started."""
    if hasattr(config, "workerinput"):
        return [Path(path) for path in config.workerinput[_NAMED]]
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    start = config.invocation_params.dir
    return [Path(os.path.normpath(start / argument.partition("::")[0])) for argument in config.args]


@contextmanager
def _told(config: pytest.Config) -> Iterator[None]:
    """What is raised within fails the item with all that it says."""
    from circuitspec.diagnostics.diagnostic import CircuitspecError

    try:
        yield
    except CircuitspecError as error:
        raise _failure(error.diagnostics, config) from None


def _failure(diagnostics: Iterable[Diagnostic], config: pytest.Config) -> BaseException:
    """A failure of the running item that says all of `diagnostics`, without a traceback.

    An error that an earlier item said is one line that names that item; a note that one said is left out.
    """
    from circuitspec.diagnostics.diagnostic import render

    said = config.stash.setdefault(_findings, {})
    item = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    new, sources, before = [], {}, []
    for finding in diagnostics:
        shown, file = _from_root(finding, config)
        first = said.setdefault(render([shown], {}), item)
        if first == item:
            new.append(shown)
            if file is not None and shown.span is not None:
                sources[shown.span.file] = file
        elif shown.severity == "error":
            place = "" if shown.span is None else f"{shown.span.file}:{shown.span.line}:{shown.span.column}: "
            before.append(f"{place}error[{shown.code}]: as told by {first}\n")
    texts = {name: _text_of(file) for name, file in sources.items()}
    return pytest.fail.Exception(render(new, texts) + "".join(dict.fromkeys(before)), pytrace=False)


def _rendered(finding: Diagnostic, config: pytest.Config) -> str:
    from circuitspec.diagnostics.diagnostic import render

    shown, file = _from_root(finding, config)
    texts = {} if file is None or shown.span is None else {shown.span.file: _text_of(file)}
    return render([shown], texts).rstrip()


def _from_root(finding: Diagnostic, config: pytest.Config) -> tuple[Diagnostic, Path | None]:
    """The finding with all paths counted from the root folder of the test run, as in the names of items; its file."""
    from dataclasses import replace

    root = f"{config.rootpath}{os.sep}"
    texts = {name: getattr(finding, name).replace(root, "") for name in ("message", "label", "hint")}
    if finding.span is None:
        return replace(finding, **texts), None
    file = Path(os.path.normpath(config.invocation_params.dir / finding.span.file))
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
    return replace(finding, **texts, span=replace(finding.span, file=name)), file


def _text_of(file: Path) -> str:
    from circuitspec.runtime.files import read_regular

    try:
        return read_regular(file, 16_000_000).decode("utf-8", errors="replace")
    except (OSError, ValueError):  # then its lines are not shown
        return ""
