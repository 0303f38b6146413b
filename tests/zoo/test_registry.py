from __future__ import annotations

import subprocess
import sys

import pytest

from circuitspec.models.zoo import built_model, zoo_names, zoo_path


def test_ioi_tiny_is_listed_and_its_files_are_there() -> None:
    assert "ioi-tiny" in zoo_names()
    folder = zoo_path("ioi-tiny")
    assert folder is not None
    files = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= files


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="ioi-tinny"):
        zoo_path("ioi-tinny")


def test_looking_into_the_zoo_imports_no_torch() -> None:
    code = (
        "import sys; from circuitspec.models.zoo import zoo_path; zoo_path('ioi-tiny');"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_built_model_has_no_files_and_a_shipped_one_is_not_built() -> None:
    assert zoo_path("and") is None
    assert built_model("and").config["model_type"] == "gpt2"
    with pytest.raises(KeyError, match="ioi-tiny"):
        built_model("ioi-tiny")
    with pytest.raises(KeyError, match="nand"):
        built_model("nand")
