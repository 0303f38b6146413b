"""`doctor --new` on families that are not in the table, and families that another package registers."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.self_test import self_test
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.families.family_table import SUPPORTED, architecture_named
from circuitspec.models.families.registered_families import GROUP
from circuitspec.models.load import load_model
from circuitspec.models.model_config import read_config, shape_of
from circuitspec.pipelines.whole_model import unknown_family
from tests.documents import blocks
from tests.engine.support import Silent, random_prompts, task_of
from tests.models.conftest import save_tokenizer
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


def package(directory: Path, name: str, value: str, source: str, family: str = FAMILY) -> None:
    """A package that is installed, as far as Python can tell."""
    (directory / "family_of_a_user.py").write_text(source, encoding="utf-8")
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[circuitspec.families]\n{family} = {value}\n", encoding="utf-8")


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


COMMON = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 20,
    "vocab_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}
EXPERTS = {"num_experts_per_tok": 2, "head_dim": 6}
UNKNOWN: dict[str, dict[str, Any]] = {
    "cwm": {**SLIDING, "head_dim": 6},
    "hunyuan_v1_dense": {"head_dim": 6},
    "apertus": {},
    "stablelm": {},
    "hyperclovax": {},
    "minimax_m2": {**EXPERTS, "num_local_experts": 4},
    "solar_open": {**EXPERTS, "n_routed_experts": 4, "moe_intermediate_size": 6},
    "nanochat": {},
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2},
    "doge": {},
    "codegen": {"n_layer": 2, "n_head": 4, "n_embd": 16, "rotary_dim": 2, "n_positions": 32},
    "mamba": {},
}
"""Families that are not in the table, with what their configurations name otherwise."""


def written(family: str, directory: Path) -> Path:
    """A small model of it, whose every weight is far from trivial."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**COMMON, **UNKNOWN[family]}))
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, mean=float(weight.ndim == 1 and name.endswith("weight")), std=0.3)
    model.save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("family", "like", "changes"),
    [
        ("cwm", "llama", {}),
        ("hunyuan_v1_dense", "llama", {}),
        ("apertus", "llama", {"attn_norm": "attention_layernorm", "mlp_norm": "feedforward_layernorm"}),
        ("stablelm", "llama", {}),
        ("hyperclovax", "glm4", {"attn_post_norm": "post_norm1", "mlp_post_norm": "post_norm2"}),
        ("minimax_m2", "olmoe", {}),
        ("solar_open", "glm4_moe", {}),
    ],
)
def test_the_entry_that_is_printed_works(
    family: str, like: str, changes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pasted as it is: `doctor` finds nothing, and `verify` finds edges and paths exact."""
    model = written(family, tmp_path / "model")
    result = CliRunner().invoke(main, ["doctor", "--new", str(model)])
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.output.splitlines()]
    assert not [line for line in lines if line.startswith("cohere") and "sound" in line]  # its MLPs read another stream
    begin = lines.index("# mypackage/families.py") + 1
    source = "\n".join(lines[begin : lines.index("# pyproject.toml")])
    assert f'architecture_named("{like}")' in source
    assert all(f'{field}="{path}"' in source for field, path in changes.items())
    (declared,) = [line for line in lines if line.startswith(f"{family} = ")]
    module = f"family_of_{family}"
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    package(
        tmp_path, "theirs", declared.partition('"')[2].rstrip('"').replace("mypackage.families", module), "", family
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    doctor = CliRunner().invoke(main, ["doctor", str(model)])
    assert doctor.exit_code == 0, doctor.output
    known = load_model(ModelSpec(id=str(model)), tmp_path)
    task = task_of(random_prompts(0, [5, 8], vocab=40))
    with borrowed(known.model):
        tested = self_test(Runner(known, task, rows=2, progress=Silent()), edges=True)
    assert max(tested.own_values, tested.all_patched) < 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("family", "near", "said"),
    [
        ("nanochat", "llama", "model.norm.input ran more than once in one forward"),  # it norms embeddings with it
        ("flex_olmo", "mixtral", "norms the queries of all heads of a layer together"),
        ("doge", "llama", "the residual stream, as the sum of what heads and MLPs add to it: deviates"),
        ("codegen", "gptj", "the model has no module transformer.h[0].attn.q_proj"),
        ("mamba", "", "there are no heads to name"),
    ],
)
def test_what_breaks_and_where_is_said_of_families_that_do_not_fit(
    family: str, near: str, said: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, ["doctor", "--new", str(written(family, tmp_path))])
    assert result.exit_code == 5, result.output
    assert said in result.output
    assert f"\n  {near}" in result.output
