"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions
from circuitspec.pipelines.with_locks.locked import run_and_lock
from circuitspec.pipelines.with_locks.suite import Suite
from circuitspec.repository.lock_file import write_lock
from tests.exchange.support import imported
from tests.exchange.test_eap import raw
from tests.exchange.test_importing import TINY
from tests.repository.support import Quiet, edited, replaced, write_tiny

pytest_plugins = ["pytester"]

LIGHT = """
import sys
import pytest
before = set(sys.modules)
import circuitspec.pytest_plugin
print(sorted(name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names))
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hypothesis and its lock, made once."""
    file = write_tiny(tmp_path_factory.mktemp("shelf"))
    document = load_hypothesis(file)
    _, lock = run_and_lock(document, VerifyOptions("off"), Quiet())
    write_lock(file.with_suffix(".lock"), lock, file.name)
    return file.parent


@pytest.fixture
def repo(pytester: pytest.Pytester, shelf: Path) -> pytest.Pytester:
    """A repository: `hypotheses/ioi.circuit.yaml` with its word list and lock."""
    folder = pytester.mkdir("hypotheses")
    for file in shelf.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return pytester


def hypothesis(repo: pytest.Pytester) -> Path:
    return repo.path / "hypotheses" / "ioi.circuit.yaml"


def test_start_up_imports_nothing_but_pytest() -> None:
    ran = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert ran.stdout == "['circuitspec', 'circuitspec.pytest_plugin']\n"


def test_checking_is_the_default(repo: pytest.Pytester) -> None:
    done = repo.runpytest_inprocess("hypotheses", "-v")
    done.assert_outcomes(passed=1, skipped=2)
    done.stdout.fnmatch_lines(
        [
            "*hypotheses/ioi.circuit.yaml::check PASSED*",
            "*hypotheses/ioi.circuit.yaml::claim1-sufficient-logit_diff SKIPPED*",
            "*hypotheses/ioi.circuit.yaml::claim2-necessary-logit_diff SKIPPED*",
        ]
    )


def test_warnings_of_a_check_do_not_fail_it(repo: pytest.Pytester) -> None:
    """`circuitspec check` exits with 0 for a file that waits for its model and prompts."""
    folder = repo.mkdir("imported")
    imported(raw(TINY), "eap", folder)
    file = folder / "imported.circuit.yaml"
    assert CliRunner().invoke(main, ["check", str(file)]).exit_code == 0
    done = repo.runpytest_inprocess("imported", "-v", "-W", "default")
    done.assert_outcomes(passed=1, skipped=1, warnings=2)
    done.stdout.fnmatch_lines(
        [
            "*imported/imported.circuit.yaml::check PASSED*",
            "*CircuitspecWarning: imported/imported.circuit.yaml:*: warning?CS387?: *",
            "*name-the-model*",
        ]
    )
    file.write_text(file.read_text().replace("a3.h0", "a3.h0x"))
    done = repo.runpytest_inprocess("imported", "-v", "-W", "default")
    done.assert_outcomes(failed=1)


def test_checking_loads_no_torch(repo: pytest.Pytester) -> None:
    repo.makeconftest(
        """
        import sys
        def pytest_unconfigure(config):
            print("torch" in sys.modules)
        """
    )
    done = repo.runpytest_subprocess("hypotheses", "--circuitspec-locked", "-s")
    done.assert_outcomes(passed=2, skipped=2)
    assert done.outlines[-1] == "False"


def test_an_invalid_file_shows_every_mistake(repo: pytest.Pytester) -> None:
    file = hypothesis(repo)
    file.write_text(replaced(file.read_text(), ("templates:", "template:"), ("seed: 0", "sed: 0")), encoding="utf-8")
    done = repo.runpytest_inprocess("hypotheses")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["hypotheses/ioi.circuit.yaml:*unknown key template *", "*unknown key sed *"])
    done.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.nightly
def test_claims_are_verified_when_asked(repo: pytest.Pytester) -> None:
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec=verify", "--circuitspec-locked")
    done.assert_outcomes(passed=4)


def test_a_refuted_claim_shows_its_numbers_and_its_line(repo: pytest.Pytester) -> None:
    edited(hypothesis(repo), ("at_least: 0.8, at_most: 1.2", "at_most: 0.1"))
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec=verify")
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.re_match_lines(
        [
            r"_+ claim1-sufficient-logit_diff _+",
            r"hypotheses/ioi.circuit.yaml:\d+:5: error\[CS560\]: sufficient is refuted: recovered logit_diff "
            r"\d.\d+ \[0.\d+, \d.\d+\]( \(\d.\d+ measured\))?, bound at most 0.1",
            r" +\d+ \|   - sufficient: {metric: logit_diff, at_most: 0.1}",
            r" +\|     \^{10} ablating everything outside the circuit, 24 prompts: clean \d+.\d+, all ablated .*",
        ],
        consecutive=True,
    )
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")  # no traceback
    done.stdout.fnmatch_lines(["*Captured report call*", "*24 prompts", "*REFUTED*sufficient*"])


@pytest.mark.nightly
def test_an_inconclusive_claim_fails_too(repo: pytest.Pytester) -> None:
    edited(hypothesis(repo), ("prompts: 24", "prompts: 8"))
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec=verify", "-k", "claim1")
    done.assert_outcomes(failed=1, deselected=2)
    done.stdout.fnmatch_lines(["*error[[]CS561[]]: sufficient is inconclusive*8 prompts are too few*"])


def test_a_run_that_is_not_possible_is_told_once_a_claim(repo: pytest.Pytester) -> None:
    edited(
        hypothesis(repo),
        ("{accuracy: 0.95}", "{accuracy: 1.0}"),
        ('answer: " {IO}"', 'answer: " {S1}"'),
        ('wrong: " {S1}"', 'wrong: " {IO}"'),
    )
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec=verify")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["*error[[]CS504[]]*", "*error[[]CS504[]]*"])
    done.stdout.no_fnmatch_line("*During handling*")


def test_one_verification_a_file_and_one_model_for_both(repo: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    from circuitspec.pipelines import session
    from circuitspec.pipelines import verify as verification

    other = repo.mkdir("hypotheses/more")
    for file in hypothesis(repo).parent.glob("*.*"):
        (other / file.name).write_bytes(file.read_bytes())
    calls: list[str] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def calling(*args: object, **kwargs: object) -> object:
            calls.append(name)
            return function(*args, **kwargs)

        return calling

    monkeypatch.setattr(session, "load_model", counted("load", session.load_model))
    monkeypatch.setattr(verification, "verify", counted("verify", verification.verify))
    repo.makepyfile(
        test_it="""
        def test_it(circuit_report):
            assert circuit_report["hypotheses/ioi.circuit.yaml"].verdict == "SUPPORTED"
        """
    )
    repo.runpytest_inprocess("hypotheses", "test_it.py", "--circuitspec=verify").assert_outcomes(passed=7)
    assert calls == ["verify", "load", "verify"]


@pytest.mark.nightly
def test_a_model_is_let_go_after_the_last_file_that_uses_it(shelf: Path) -> None:
    suite = Suite(locked=False)
    first, last = shelf / "ioi.circuit.yaml", shelf / "last.circuit.yaml"
    last.write_bytes(first.read_bytes())
    suite.expect([first, last])
    suite.outcome(first)
    (model,) = suite._models.values()
    assert suite.outcome(first) is suite.outcome(first)
    kept = weakref.ref(model.model)
    del model
    suite.outcome(last)
    last.unlink()
    gc.collect()
    assert kept() is None


def test_what_is_collected(repo: pytest.Pytester) -> None:
    """Only what was asked for: a bare run finds no files that may be kept as data of other tests."""
    repo.makepyfile("def test_it(): pass")

    def collected(*arguments: str) -> int:
        done = repo.runpytest_inprocess("--collect-only", "-q", *arguments)
        return sum(".circuit.yaml::" in line for line in done.outlines)

    assert collected() == 0
    assert collected("hypotheses") == 3
    assert collected(".") == 3
    assert collected("hypotheses/ioi.circuit.yaml") == 3
    assert collected("hypotheses/ioi.circuit.yaml::check") == 1
    assert collected("-o", "testpaths=hypotheses") == 0
    assert collected("-o", "circuitspec_paths=hypotheses") == 3
    assert collected("-o", "circuitspec_paths=elsewhere", "hypotheses") == 0
    assert collected("-o", "circuitspec_paths=elsewhere", "hypotheses/ioi.circuit.yaml") == 3
    (repo.path / "hypotheses" / "conftest.py").write_text("collect_ignore_glob = ['*.circuit.yaml']", encoding="utf-8")
    assert collected("hypotheses") == 0


def test_where_no_file_is_among_the_tests_it_is_said(repo: pytest.Pytester) -> None:
    repo.makepyfile("def test_other(): pass")
    said = "circuitspec: no *.circuit.yaml file is among the tests, so none is verified by itself: *"
    for arguments in (["--circuitspec=verify"], ["--circuitspec-locked"]):
        done = repo.runpytest_inprocess(*arguments)
        done.assert_outcomes(passed=1)
        done.stdout.fnmatch_lines([said])
    repo.runpytest_inprocess().stdout.no_fnmatch_line(said)
    repo.runpytest_inprocess("hypotheses", "--circuitspec-locked").stdout.no_fnmatch_line(said)


def test_this_repository_keeps_its_wrong_files_out() -> None:
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/wrong_files", "tests/hypothesis_file/test_schema.py"],  # noqa: E501
        capture_output=True, text=True, cwd=root, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert ".circuit.yaml::" not in ran.stdout


def test_drift_from_the_lock(repo: pytest.Pytester) -> None:
    edited(hypothesis(repo), ("[a2.h2]", "[a2.h1]"))
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec-locked")
    done.assert_outcomes(passed=1, failed=1, skipped=2)
    done.stdout.fnmatch_lines(["*error[[]CS552[]]: `circuit.groups.inhibition.nodes[[]0[]]`*: a2.h2 -> a2.h1"])
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec-locked", "--circuitspec=verify")
    done.assert_outcomes(passed=1, failed=3)  # nothing is run


def test_what_fails_several_items_is_said_once_and_from_the_root(repo: pytest.Pytester) -> None:
    """By the first of them; the others name it. Places count from the root, wherever the run was started."""
    names = hypothesis(repo).with_name("names.txt")
    names.write_text(replaced(names.read_text(encoding="utf-8"), ("Mary", "Zoe")), encoding="utf-8")
    repo.makeini("[pytest]\n")
    repo.makepyfile(test_it='def test_it(circuit_report): circuit_report["hypotheses/ioi.circuit.yaml"]')
    arguments = ("--circuitspec-locked", "--circuitspec=verify", "-p", "no:cacheprovider")
    done = repo.runpytest_inprocess("hypotheses", "test_it.py", *arguments)
    done.assert_outcomes(passed=1, failed=4)
    output = done.stdout.str()
    told = output.partition("short test summary info")[0].splitlines()  # which repeats it, cut or, under CI, whole
    first = [line for line in told if "error[CS553]: prompt " in line]
    assert len(first) == len(set(first)) > 0
    later = [line for line in told if line.endswith("error[CS553]: as told by hypotheses/ioi.circuit.yaml::lock")]
    assert len(later) == 3  # prompts drawn from templates have no place of their own
    assert str(repo.path) not in output.partition("FAILURES")[2]
    (repo.path / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo.path / "elsewhere")
        edited(hypothesis(repo), ("[a2.h2]", "[a2.h1]"))
        done = repo.runpytest_inprocess("../hypotheses", *arguments)
    done.assert_outcomes(passed=1, failed=3)
    done.stdout.re_match_lines(
        [r"hypotheses/ioi.circuit.yaml:\d+:\d+: error\[CS552\]: .*", r" +\d+ \| .*\[a2.h1\]"], consecutive=True
    )


def test_a_missing_lock(repo: pytest.Pytester) -> None:
    hypothesis(repo).with_suffix(".lock").unlink()
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec-locked")
    done.assert_outcomes(passed=1, failed=1, skipped=2)
    done.stdout.fnmatch_lines(["*error[[]CS550[]]*"])


def test_a_number_that_moved_fails_its_claim_alone(repo: pytest.Pytester) -> None:
    from circuitspec.repository.lock_file import read_lock

    path = hypothesis(repo).with_suffix(".lock")
    lock = read_lock(path).lock
    first, second = lock.claims
    assert second.value is not None
    moved = second.model_copy(update={"value": second.value + 0.01})
    write_lock(path, lock.model_copy(update={"claims": (first, moved)}), "x")
    done = repo.runpytest_inprocess("hypotheses", "--circuitspec-locked", "--circuitspec=verify")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(["*claim2-necessary-logit_diff*", "*error[[]CS556[]]: claim 2 (necessary, logit_diff)*"])


@pytest.mark.nightly
def test_results_for_other_tests(repo: pytest.Pytester) -> None:
    repo.makepyfile(
        """
        def test_figures(circuit_report):
            result = circuit_report["hypotheses/ioi.circuit.yaml"]
            assert result is not None and result.verdict == "SUPPORTED"
            assert [claim.kind for claim in result.claims] == ["sufficient", "necessary"]
            assert "clean" in set(result.frame["experiment"])

        def test_missing(circuit_report):
            circuit_report["hypotheses/none.circuit.yaml"]
        """
    )
    repo.runpytest_inprocess().assert_outcomes(skipped=2)
    done = repo.runpytest_inprocess("--circuitspec=verify")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*error[[]CS100[]]*"])


@pytest.mark.nightly
def test_under_xdist(repo: pytest.Pytester) -> None:
    """Workers are handed the folders of `testpaths` as arguments: still only what was asked for is collected."""
    repo.makeini("[pytest]\ntestpaths = hypotheses\n")
    repo.runpytest_subprocess("-n2").assert_outcomes()
    done = repo.runpytest_subprocess("-n2", "--dist=loadfile", "-v", "hypotheses", "--circuitspec-locked")
    done.assert_outcomes(passed=2, skipped=2)
    workers = {line.split("]")[0] for line in done.outlines if line.startswith("[gw") and ".circuit.yaml" in line}
    assert len(workers) == 1


@pytest.mark.slow
def test_items_spread_over_workers_are_right_all_the_same(repo: pytest.Pytester) -> None:
    done = repo.runpytest_subprocess("-n2", "--dist=load", "hypotheses", "--circuitspec=verify", "--circuitspec-locked")
    done.assert_outcomes(passed=4)


def test_items_of_a_file_are_one_group_for_xdist(repo: pytest.Pytester) -> None:
    other = repo.path / "hypotheses" / "other.circuit.yaml"
    other.write_bytes(hypothesis(repo).read_bytes())
    items, _ = repo.inline_genitems("hypotheses")
    groups = [mark.kwargs["name"] for item in items for mark in item.iter_markers("xdist_group")]
    assert len(groups) == 6
    assert len(set(groups[:3])) == len(set(groups[3:])) == 1
    assert groups[0] != groups[3]
