"""Whatever is not as locked is named, with what it was and what it is, before the model is run."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.diagnostics.diagnostic import Diagnostic, exit_code
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.hypothesis_file.schema.chat_block import Chat
from circuitspec.models.zoo import zoo_path
from circuitspec.pipelines.verify import VerifyOptions
from circuitspec.pipelines.with_locks.locked import run_as_locked
from circuitspec.repository import locked_prompts as prompts
from circuitspec.repository.drift import Examined, claim_drift, examine
from circuitspec.repository.lock import Lock, LockedModel, as_json
from circuitspec.repository.lock_file import LockFile, read_lock, write_lock
from circuitspec.repository.locked_prompts import lock_prompts
from circuitspec.repository.model_files import model_files
from tests.repository.support import Quiet, Run, edited, errors_of, replaced


def on_disk(lock: Lock, folder: Path) -> LockFile:
    path = folder / "ioi.circuit.lock"
    write_lock(path, lock, "ioi.circuit.yaml")
    return read_lock(path)


def drift(document: Document, lock: Lock, folder: Path) -> tuple[Diagnostic, ...]:
    return examine(document, on_disk(lock, folder), "cpu").drift


def test_nothing_has_drifted(run: Run, copy: Path) -> None:
    assert drift(load_hypothesis(copy), run.lock, copy.parent) == ()


def test_another_spelling_is_no_drift(run: Run, copy: Path) -> None:
    text = copy.read_text(encoding="utf-8")
    document = edited(
        copy,
        ("nodes: [a2.h2], at: END", "at: END, nodes: [L2H2]"),
        ("  seed: 0\n", ""),
        ("circuit:\n", "circuit: # x\n"),
    )
    assert copy.read_text(encoding="utf-8") != text
    assert drift(document, run.lock, copy.parent) == ()


def test_one_head(run: Run, copy: Path) -> None:
    document = edited(copy, ("inhibition: {nodes: [a2.h2]", "inhibition: {nodes: [a2.h1]"))
    (found,) = drift(document, run.lock, copy.parent)
    assert found.code == "CS552"
    assert found.message == "`circuit.groups.inhibition.nodes[0]` changed since it was locked: a2.h2 -> a2.h1"
    assert found.span is not None
    line = document.source.lines[found.span.line - 1]
    assert line[found.span.column - 1 : (found.span.end_column or 0) - 1] == "a2.h1"
    assert exit_code([found]) == 6


def test_several_parts_of_the_hypothesis(run: Run, copy: Path) -> None:
    document = edited(copy, ("at_least: 0.8", "at_least: 0.7"), ("[a1.h3, a2.h0]", "[a2.h0]"))
    said = {d.message.partition(" changed since it was locked: ")[::2] for d in drift(document, run.lock, copy.parent)}
    assert said == {
        ("`claims[0].at_least`", "0.8 -> 0.7"),
        ("`circuit.groups.subject_again.nodes[0]`", "a1.h3 -> nothing"),
    }


def test_a_bound_is_shown_where_it_is_written(run: Run, copy: Path) -> None:
    document = edited(copy, ("at_least: 0.8", "at_least: 0.7"))
    (found,) = drift(document, run.lock, copy.parent)
    assert found.span is not None
    assert document.source.lines[found.span.line - 1][found.span.column - 1 :].startswith("0.7,")


def test_many_changes_are_counted(run: Run, copy: Path) -> None:
    lists = "".join(f"    list{i}: [x]\n" for i in range(20))
    found = drift(edited(copy, ("  lists:\n", f"  lists:\n{lists}")), run.lock, copy.parent)
    assert [d.severity for d in found] == ["error"] * 8 + ["note"]
    assert found[-1].message == "20 parts of the hypothesis changed in all"


def test_a_hypothesis_of_another_version(run: Run, copy: Path) -> None:
    """What this version cannot read is no drift of the file; the lock has to be written anew."""
    locked = {**run.document.source.data, "later": True}  # type: ignore[dict-item]
    for content in (as_json(locked), "{", "[]", '{"a":1'):
        lock = run.lock.model_copy(update={"hypothesis": run.lock.hypothesis.model_copy(update={"content": content})})
        (found,) = drift(load_hypothesis(copy), lock, copy.parent)
        assert found.code == "CS552"
        assert "none that this version can read" in found.message


def test_a_word_list_is_edited(run: Run, copy: Path) -> None:
    """The hypothesis names the list only, so its digest is the same: the prompts have changed."""
    names = copy.parent / "names.txt"
    names.write_text(names.read_text(encoding="utf-8").replace("Mary", "Nora"), encoding="utf-8")
    prompts_ = run.outcome.task.prompts.prompts
    touched = [i for i, prompt in enumerate(prompts_) if "Mary" in str(dict(prompt.texts))]
    *errors, note = drift(load_hypothesis(copy), run.lock, copy.parent)
    assert [d.data["prompt"] for d in errors] == touched[:3]
    assert {d.code for d in (*errors, note)} == {"CS553"}
    assert (note.severity, note.message) == ("note", f"{len(touched)} of 24 prompts changed in all")
    for found in errors:
        for name, text in prompts_[found.data["prompt"]].texts.items():  # type: ignore[call-overload]
            said = f'{name}: "{text}" -> "{text.replace("Mary", "Nora")}"'
            assert (said in found.message) == ("Mary" in text)
    assert exit_code(errors) == 6


def test_prompts_too_many_to_keep_are_told_by_their_digests(
    run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "ROOM", 100)
    lock = run.lock.model_copy(update={"prompts": lock_prompts(run.outcome.task.prompts)})
    assert "Mary" not in lock.prompts.lines
    assert drift(load_hypothesis(copy), lock, copy.parent) == ()
    names = copy.parent / "names.txt"
    names.write_text(names.read_text(encoding="utf-8").replace("Mary", "Nora"), encoding="utf-8")
    found = drift(load_hypothesis(copy), lock, copy.parent)
    assert "it is now" in found[0].message
    assert "Nora" in found[0].message


def test_the_number_of_prompts(run: Run, copy: Path) -> None:
    document = edited(copy, ("prompts: 24", "prompts: 23"))
    codes = {d.code: d.message for d in drift(document, run.lock, copy.parent)}
    assert codes["CS553"].endswith("24 -> 23")
    assert codes["CS552"] == "`task.prompts` changed since it was locked: 24 -> 23"


def test_an_edited_prompts_file_is_shown_at_its_line(run: Run, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "paper-repo" / "hypotheses"
    shutil.copytree(example, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "prompts.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[6] = replaced(lines[6], ('"S2": 9', '"S2": 8'))
    lines[7] = replaced(lines[7], ('"answers": ["', '"answers": [" Mary", "'))
    file.write_text("\n".join(lines), encoding="utf-8")
    lock_file = read_lock(tmp_path / "ioi.circuit.lock")
    found = examine(load_hypothesis(tmp_path / "ioi.circuit.yaml"), lock_file, "cpu").drift
    errors = [d for d in found if d.severity == "error"]
    assert [(d.span.file, d.span.line) for d in errors if d.span] == [(str(file), 7), (str(file), 8)]
    assert "prompt 6 (prompts.jsonl:7)" in errors[0].message
    assert '"S2": 9' in errors[0].message.partition(" -> ")[0]
    assert '"S2": 8' in errors[0].message.partition(" -> ")[2]
    assert 'answers: ["' in errors[1].message


@pytest.fixture
def local(run: Run, copy: Path) -> tuple[Document, Lock, Path]:
    """The hypothesis on a copy of the model's files, and its lock."""
    model = copy.parent / "model"
    shutil.copytree(str(zoo_path("ioi-tiny")), model)
    document = edited(copy, ("id: zoo:ioi-tiny", "id: ./model"))
    files = model_files(document.hypothesis.model, copy.parent)
    assert files is not None
    digests = files.digests()
    assert set(digests) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    hypothesis = run.lock.hypothesis.model_copy(update={"content": as_json(document.source.data)})
    locked = LockedModel(id="./model", revision=None, dtype="float32", files=digests)
    return document, run.lock.model_copy(update={"hypothesis": hypothesis, "model": locked}), model


def test_the_file_of_a_chat_template_where_it_is_used(local: tuple[Document, Lock, Path], copy: Path) -> None:
    document, lock, model = local
    (model / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert drift(document, lock, model.parent) == (), "no part of a result without chat"
    chatting = document.hypothesis.model_copy(
        update={"task": document.hypothesis.task.model_copy(update={"chat": Chat()})}
    )
    said = drift(replace(document, hypothesis=chatting), lock, model.parent)
    (found,) = [d for d in said if d.code == "CS554"]
    assert found.message.startswith("chat_template.jinja (tokenizer) changed since it was locked: none -> sha256 ")


def test_the_files_of_a_model(local: tuple[Document, Lock, Path]) -> None:
    document, lock, model = local
    assert drift(document, lock, model.parent) == ()
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (model / "vocab.json").write_text("{}", encoding="utf-8")
    (model / "tokenizer_config.json").unlink()
    said = {d.data["file"]: d for d in drift(document, lock, model.parent)}
    assert {d.code for d in said.values()} == {"CS554"}
    assert set(said) == {"model.safetensors", "vocab.json", "tokenizer_config.json"}
    assert said["model.safetensors"].message.startswith(
        "model.safetensors (weights) changed since it was locked: sha256 "
    )
    assert said["vocab.json"].message.startswith("vocab.json (tokenizer) changed since it was locked: none -> sha256 ")
    assert said["tokenizer_config.json"].message.endswith("-> none")
    assert said["model.safetensors"].span == document.source.span(("model", "id"))
    assert exit_code(said.values()) == 6


def test_a_model_built_by_code_has_no_files(run: Run) -> None:
    spec = run.document.hypothesis.model.model_copy(update={"id": "zoo:and"})
    files = model_files(spec, Path())
    assert files is not None
    assert files.digests() == {}


def test_a_gguf_file_is_the_file_itself_and_not_its_conversion(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    files = model_files(
        run.document.hypothesis.model.model_copy(update={"id": "./m.gguf"}), tmp_path, Path("converted")
    )
    assert files is not None
    assert files.digests() == {"m.gguf": hashlib.sha256(b"GGUF").hexdigest()}


@pytest.fixture
def hub(local: tuple[Document, Lock, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Document, Lock, Path]:
    """A hub model in the local cache, as of the commit `aaa`."""
    document, lock, model = local
    snapshot = model.rename(model.parent / "aaa")
    document = edited(model.parent / "ioi.circuit.yaml", ("id: ./model", "id: someone/model"))

    def find(repo: str, name: str, revision: str | None = None) -> str | None:
        file = snapshot / name
        return str(file) if repo == "someone/model" and file.is_file() else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", find)
    hypothesis = lock.hypothesis.model_copy(update={"content": as_json(document.source.data)})
    locked = lock.model.model_copy(update={"id": "someone/model", "revision": "aaa"})
    return document, lock.model_copy(update={"hypothesis": hypothesis, "model": locked}), snapshot


def test_the_commit_of_a_hub_model(hub: tuple[Document, Lock, Path]) -> None:
    document, lock, snapshot = hub
    assert drift(document, lock, snapshot.parent) == ()
    moved = lock.model_copy(update={"model": lock.model.model_copy(update={"revision": "bbb"})})
    (found,) = drift(document, moved, snapshot.parent)
    assert found.code == "CS554"
    assert "bbb -> aaa" in found.message
    assert "revision: bbb" in found.hint


def test_a_hub_model_that_is_not_in_the_cache_is_compared_once_it_is_loaded(
    hub: tuple[Document, Lock, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, lock, snapshot = hub
    lock_file = on_disk(lock, snapshot.parent)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    examined = examine(document, lock_file, "cpu")
    assert (examined.drift, examined.files) == ((), None)
    newer = snapshot.rename(snapshot.parent / "ccc")
    loaded: Any = SimpleNamespace(provenance=SimpleNamespace(path=newer, revision="ccc"))
    given = partial(run_as_locked, document, VerifyOptions(), Quiet(), lock_file, examined)
    found = errors_of(lambda: given(lambda document: lambda ready: loaded))
    assert [d.message.partition(": ")[2] for d in found] == ["aaa -> ccc"]


def test_versions_and_devices_are_notes(run: Run, copy: Path) -> None:
    locked = run.lock.environment
    packages = {**locked.packages, "torch": "2.4.0", "gone": "1"}
    other = locked.model_copy(update={"packages": packages, "device": "cuda", "processor": "NVIDIA H200"})
    lock = run.lock.model_copy(update={"environment": other})
    found = drift(load_hypothesis(copy), lock, copy.parent)
    assert {(d.code, d.severity) for d in found} == {("CS555", "note")}
    assert [d.message.partition(" changed since it was locked: ")[::2] for d in found] == [
        ("the device", "cuda -> cpu"),
        ("the processor", f"NVIDIA H200 -> {locked.processor}"),
        ("torch", f"2.4.0 -> {locked.packages['torch']}"),
        ("gone", "1 -> none"),
    ]
    assert exit_code(found) == 0
    examine(load_hypothesis(copy), on_disk(lock, copy.parent), "cpu").refuse()  # raises nothing


def results(run: Run, **changes: Any) -> list[ClaimResult]:
    first, second = run.outcome.verification.claims
    return [replace(first, **changes), second]


def shifted(estimate: Estimate | None, by: float) -> Estimate:
    assert estimate is not None
    assert estimate.interval is not None
    low, high = estimate.interval
    return replace(estimate, value=estimate.value + by, low=low + by, high=high + by)


def test_numbers_that_moved_without_a_reason(run: Run, copy: Path) -> None:
    lock_file = on_disk(run.lock, copy.parent)
    now = run.lock.environment
    claims = run.outcome.verification.claims
    assert claim_drift(lock_file, claims, now) == ((), ())
    moved = results(run, estimate=shifted(claims[0].estimate, 0.01))
    (found,), none = claim_drift(lock_file, moved, now)
    assert none == ()
    assert found.code == "CS556"
    assert found.message.startswith("claim 1 (sufficient, logit_diff) is not as it was locked: recovered ")
    assert claims[0].estimate is not None
    assert f"{claims[0].estimate.value:.4f}" in found.message
    assert f"{claims[0].estimate.value + 0.01:.4f}" in found.message
    assert found.span is not None
    assert lock_file.source.lines[found.span.line - 1].strip().startswith("value:")
    assert exit_code([found]) == 6


def test_numbers_that_moved_with_the_versions(run: Run, copy: Path) -> None:
    lock_file = on_disk(run.lock, copy.parent)
    now = run.lock.environment.model_copy(update={"packages": {"torch": "9"}})
    estimate = run.outcome.verification.claims[0].estimate
    assert estimate is not None
    assert estimate.low is not None
    assert claim_drift(lock_file, results(run, estimate=shifted(estimate, 0.01)), now) == ((), ())
    far = 1.1 * (estimate.value - estimate.low)
    (found,), _ = claim_drift(lock_file, results(run, estimate=shifted(estimate, -far)), now)
    assert "lies outside the old interval" in found.message
    assert "other versions" in found.label


def test_a_status_that_changed(run: Run, copy: Path) -> None:
    lock_file = on_disk(run.lock, copy.parent)
    (found,), _ = claim_drift(lock_file, results(run, status="REFUTED"), run.lock.environment)
    assert found.message.endswith("status SUPPORTED -> REFUTED")
    (number,), _ = claim_drift(lock_file, results(run, n=23), run.lock.environment)
    assert number.message.endswith("prompts 24 -> 23")
    both = claim_drift(lock_file, results(run, measure="drop"), run.lock.environment)[0]
    assert [d.message.rpartition(": ")[2] for d in both] == ["measure recovered -> drop"]


def test_a_claim_that_is_not_in_the_lock(run: Run, copy: Path) -> None:
    lock_file = on_disk(run.lock.model_copy(update={"claims": run.lock.claims[:1]}), copy.parent)
    _, (found,) = claim_drift(lock_file, run.outcome.verification.claims, run.lock.environment)
    assert "claim 2 (necessary, logit_diff) is not in the lock" in found.message


def test_damage_to_the_lock_is_told_with_what_it_hides(run: Run, copy: Path) -> None:
    """A digit of a version: no failure by itself, but the lock is not as it was written."""
    path = copy.parent / "ioi.circuit.lock"
    write_lock(path, run.lock, "ioi.circuit.yaml")
    numpy = run.lock.environment.packages["numpy"]
    path.write_text(replaced(path.read_text(encoding="utf-8"), (f'numpy: "{numpy}"', 'numpy: "1.0"')), encoding="utf-8")
    examined = examine(load_hypothesis(copy), read_lock(path), "cpu")
    assert [d.code for d in examined.drift] == ["CS551", "CS555"]
    assert examined.drift[1].message.endswith(f"1.0 -> {numpy}")
    assert [d.code for d in errors_of(examined.refuse)] == ["CS551", "CS555"]


def test_a_prompt_that_was_changed_in_the_lock_is_named(run: Run, copy: Path) -> None:
    path = copy.parent / "ioi.circuit.lock"
    write_lock(path, run.lock, "ioi.circuit.yaml")
    clean = run.outcome.task.prompts.prompts[5].texts["clean"]
    path.write_text(replaced(path.read_text(encoding="utf-8"), (f'"{clean}"', '"Then"')), encoding="utf-8")
    damage, found = examine(load_hypothesis(copy), read_lock(path), "cpu").drift
    assert (damage.code, found.code) == ("CS551", "CS553")
    assert f'clean: "Then" -> "{clean}"' in found.message


def test_nothing_is_run_where_something_drifted(run: Run, copy: Path) -> None:
    document = edited(copy, ("[a2.h2]", "[a2.h1]"))
    lock_file = on_disk(run.lock, copy.parent)
    examined: Examined = examine(document, lock_file, "cpu")

    def loading(document: Document) -> Any:
        raise AssertionError("the model was loaded")

    found = errors_of(lambda: run_as_locked(document, VerifyOptions(), Quiet(), lock_file, examined, loading))
    assert [d.code for d in found] == ["CS552"]


def test_a_second_run_is_as_locked(run: Run, copy: Path) -> None:
    """With another batch size, so that sums are added up in another order."""
    lock_file = on_disk(run.lock, copy.parent)
    document = load_hypothesis(copy)
    compared = run_as_locked(document, VerifyOptions("off", 7), Quiet(), lock_file, examine(document, lock_file, "cpu"))
    assert compared.findings == ()
    assert compared.outcome.verification.digest == run.lock.hypothesis.digest
