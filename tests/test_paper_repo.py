"""The example repository as its readers meet it: a copy, and `pytest`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from circuitspec import __version__
from circuitspec.repository.lock_file import read_lock
from tests.repository.support import replaced

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "paper-repo"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "paper-repo"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    return folder


def run_pytest(repo: Path, python: Path = Path(sys.executable)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    if python != Path(sys.executable):
        environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider"],
        capture_output=True, text=True, cwd=repo, env=environment, check=False, timeout=300,
    )  # fmt: skip


def change(file: Path, *changes: tuple[str, str]) -> None:
    file.write_text(replaced(file.read_text(encoding="utf-8"), *changes), encoding="utf-8")


@pytest.mark.nightly
def test_it_passes(repo: Path) -> None:
    before = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    passes(run_pytest(repo))
    assert {path: path.read_bytes() for path in before} == before


def passes(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stdout
    assert re.search(r"=+ 6 passed in ", ran.stdout)  # check, lock, two claims, two tests of the paper's figures


def named(said: str, ran: subprocess.CompletedProcess[str]) -> int:
    """How often the failures say it: once, and not by every item that fails for it."""
    return len(re.findall(said, ran.stdout.partition("short test summary info")[0]))


def corrupt_a_digit_of_the_lock(repo: Path) -> str:
    lock = repo / "hypotheses" / "ioi.circuit.lock"
    value = read_lock(lock).lock.claims[0].value
    assert value is not None
    shown = f"value: {value!r}"
    change(lock, (shown, shown[:-3] + str((int(shown[-3]) + 1) % 10) + shown[-2:]))
    return (
        r"hypotheses/ioi\.circuit\.lock:\d+:\d+: error\[CS551\]: claim 1 \(sufficient, logit_diff\) was changed after "
        r"the lock was written"
    )


def corrupt_a_head_of_the_circuit(repo: Path) -> str:
    change(repo / "hypotheses" / "ioi.circuit.yaml", ("a1.h3", "a1.h2"))
    return (
        r"hypotheses/ioi\.circuit\.yaml:17:29: error\[CS552\]: `circuit\.groups\.subject_again\.nodes\[0\]` changed "
        r"since it was locked: a1\.h3 -> a1\.h2\n   17 \|     subject_again: \{nodes: \[a1\.h2, a2\.h0\], at: S2\}\n"
    )


def corrupt_a_prompt(repo: Path) -> str:
    prompts = repo / "hypotheses" / "prompts.jsonl"
    assert "Daniel and Martin met" in prompts.read_text(encoding="utf-8").splitlines()[2]
    change(prompts, ("When Daniel and Martin met", "When Daniel and Edward met"))
    return (
        r"hypotheses/prompts\.jsonl:3:1: error\[CS553\]: prompt 2 \(prompts\.jsonl:3\) changed since it was locked: "
        r'clean: "When Daniel and Martin met .*" -> "When Daniel and Edward met '
    )


CORRUPTIONS = [corrupt_a_digit_of_the_lock, corrupt_a_head_of_the_circuit, corrupt_a_prompt]


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@pytest.mark.nightly
def test_what_is_corrupted_is_named(corrupt: Callable[[Path], str], repo: Path) -> None:
    said = corrupt(repo)
    ran = run_pytest(repo)
    assert ran.returncode == 1
    assert named(said, ran) == 1


def test_what_is_required_is_what_the_lock_lists(repo: Path) -> None:
    required = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (repo / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert required["circuitspec"] == __version__
    packages = read_lock(repo / "hypotheses" / "ioi.circuit.lock").lock.environment.packages
    locked = {name: version.partition("+")[0] for name, version in packages.items()}
    pyvene = locked.pop("pyvene")
    assert f'"pyvene=={pyvene}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # which circuitspec requires
    assert locked == required
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert required.items() <= {**pinned, "circuitspec": __version__}.items()


@pytest.mark.slow
def test_it_passes_in_an_environment_of_its_own(repo: Path, tmp_path: Path) -> None:
    """As its readers install it: a wheel, a new environment, the requirements; then each corruption in a copy."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: object) -> None:
        ran = subprocess.run(
            [*map(str, command)], cwd=repo, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    python = tmp_path / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", python.parents[1])
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", ROOT)
    assert [path.name for path in (repo / "wheels").iterdir()] == [f"circuitspec-{__version__}-py3-none-any.whl"]
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "-r", "requirements.txt")
    passes(run_pytest(repo, python))
    for number, corrupt in enumerate(CORRUPTIONS):
        copy = tmp_path / str(number) / repo.name
        shutil.copytree(repo, copy, ignore=shutil.ignore_patterns("wheels"))
        said = corrupt(copy)
        ran = run_pytest(copy, python)
        assert ran.returncode == 1
        assert named(said, ran) == 1, ran.stdout


def test_the_readme_shows_the_figures_and_files_that_there_are(repo: Path) -> None:
    readme = (repo / "README.md").read_text(encoding="utf-8")
    for claim in read_lock(repo / "hypotheses" / "ioi.circuit.lock").lock.claims:
        assert claim.value is not None
        assert claim.ci is not None
        assert f"{claim.value:.2f} [{claim.ci[0]:.2f}, {claim.ci[1]:.2f}]" in readme
    for name in re.findall(r"`([\w./-]+\.\w+)`", readme):
        assert (repo / name).is_file(), name
