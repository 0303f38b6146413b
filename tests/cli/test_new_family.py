"""`doctor --new` on families that are not in the table, and families that another package registers."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.models.families.family_table import SUPPORTED, architecture_named
from circuitspec.models.families.registered_families import GROUP
from circuitspec.models.model_config import read_config, shape_of
from circuitspec.pipelines.whole_model import unknown_family
from tests.documents import blocks
from tests.test_docs import DOCS

FAMILY = "ernie4_5"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of a family that is laid out like Llama."""
    torch.manual_seed(0)
    numbers = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 20, "vocab_size": 40, "head_dim": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    config = CONFIG_MAPPING[FAMILY](**numbers, **heads, initializer_range=0.3, pad_token_id=0)
    directory = tmp_path_factory.mktemp("new")
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def package(directory: Path, name: str, value: str, source: str) -> None:
    """A package that is installed, as far as Python can tell."""
    (directory / "family_of_a_user.py").write_text(source, encoding="utf-8")
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[circuitspec.families]\n{FAMILY} = {value}\n", encoding="utf-8")


def test_what_it_prints_is_what_makes_the_family_known(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CircuitspecError) as raised:
        shape_of(read_config(saved / "config.json"))
    assert "doctor --new" in raised.value.diagnostics[0].hint
    monkeypatch.setattr(unknown_family, "SUPPORTED", ("gpt2", "llama"))
    result = CliRunner().invoke(main, ["doctor", "--new", str(saved)])
    assert result.exit_code == 0, result.output
    assert "llama: sound" in result.output
    assert "gpt2: sound" not in result.output
    lines = [line.strip() for line in result.output.splitlines()]
    source = "\n".join(line for line in lines if line.startswith(("from ", "ERNIE4_5")))
    (declared,) = [line for line in lines if line.startswith(f"{FAMILY} = ")]
    value = declared.partition('"')[2].rstrip('"').replace("mypackage.families", "family_of_a_user")
    package(tmp_path, "theirs", value, source)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    shape = shape_of(read_config(saved / "config.json"))
    assert (shape.family, shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.d_head) == (FAMILY, 2, 4, 2, 6)
    assert architecture_named(FAMILY).title == f"{FAMILY} (an entry of theirs 1.0)"
    assert FAMILY not in SUPPORTED


def test_where_no_entry_fits_it_says_what_is_not_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_family, "SUPPORTED", ("gpt2",))
    result = CliRunner().invoke(main, ["doctor", "--new", str(saved)])
    assert result.exit_code == 5
    assert "gpt2: its modules are not those:" in result.output
    assert "transformer" in result.output
    assert "CS304" in result.output


@pytest.mark.parametrize(
    ("value", "source", "said"),
    [
        ("family_of_a_user:MINE", "", "cannot be loaded: AttributeError"),
        ("family_of_a_user:MINE", "MINE = 3", "no Architecture"),
        (
            "family_of_a_user:MINE",
            "from circuitspec.models.families import family_table\nMINE = family_table.architecture_named('llama')",
            "whose `family` is 'llama'",
        ),
    ],
)
def test_what_is_registered_wrongly(
    value: str, source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "theirs", value, source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "family_of_a_user", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(CircuitspecError) as raised:
        architecture_named(FAMILY)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "CS397"
    assert said in diagnostic.message


def test_two_packages_that_register_one_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "theirs", "family_of_a_user:ONE", "")
    package(tmp_path, "others", "family_of_a_user:TWO", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(CircuitspecError, match="2 packages register it: others"):
        architecture_named(FAMILY)


def test_the_entry_point_in_the_documents_is_the_one_that_is_read() -> None:
    (text,) = (block.text for block in blocks(DOCS / "families.md") if block.language == "toml")
    ((group, points),) = tomllib.loads(text)["project"]["entry-points"].items()
    assert group == GROUP
    assert points == {"newmodel": "mypackage.families:NEWMODEL"}
