"""MIB's causal-variable submissions: round trips, and what is interchanged against the benchmark's way of doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.exchange.variables.featurizer_files import read_unit, written_unit
from circuitspec.exchange.variables.unit_names import NoSuchUnit, parse_unit, unit_name
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.experiments.subspaces.subspace import Subspace, random_basis
from circuitspec.experiments.subspaces.subspace_files import parsed, written
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mlp, Resid
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.abstraction.variable_submissions import export_variables, import_variable
from tests.engine.support import model as random_model
from tests.engine.support import runner
from tests.engine.test_interchange_against_oracle import FIRST, A, given
from tests.oracle import families, metrics, node

WIDTH = 12
FOLDER = "ioi_task_GPT2LMHeadModel_output_position"


class Rotation(torch.nn.Module):
    """A layer with one weight, as the benchmark parametrises it."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())


class Features(torch.nn.Module):
    """What the benchmark calls a featurizer of a subspace, by its description: f = x R, error = x - f R^T."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.rotate: Any = torch.nn.utils.parametrizations.orthogonal(Rotation(weight))


def saved(folder: Path, name: str, weight: torch.Tensor, indices: Any = None) -> Features:
    """The files of a unit as the benchmark's code saves them."""
    module = Features(weight)
    info = {
        "featurizer_class": "SubspaceFeaturizerModule",
        "inverse_featurizer_class": "SubspaceInverseFeaturizerModule",
        "n_features": weight.shape[1],
        "additional_config": {"rotation_matrix": module.rotate.weight.clone().detach(), "requires_grad": True},
    }
    for end in ("_featurizer", "_inverse_featurizer"):
        torch.save({"model_info": info, "state_dict": module.state_dict()}, folder / f"{name}{end}")
    (folder / f"{name}_indices").write_text(json.dumps(indices))
    return module


def as_the_benchmark_does(folder: Path, name: str, base: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Load, featurise both, swap the features of the indices, go back: `[row, width]` in float32."""
    content = torch.load(folder / f"{name}_featurizer", weights_only=True)
    back = torch.load(folder / f"{name}_inverse_featurizer", weights_only=True)
    if content["model_info"]["featurizer_class"] == "IdentityFeaturizerModule":
        assert not content["state_dict"]
        forth, there, error = base, source, torch.zeros_like(base)
        rotation = torch.eye(base.shape[1])
    else:
        module = Features(content["model_info"]["additional_config"]["rotation_matrix"])
        module.load_state_dict(content["state_dict"], strict=True)
        inverse = Features(back["model_info"]["additional_config"]["rotation_matrix"])
        inverse.load_state_dict(back["state_dict"], strict=True)
        rotation = module.rotate.weight.detach()
        forth, there = base @ rotation, source @ rotation
        error = base - forth @ rotation.T
        rotation = inverse.rotate.weight.detach()
    indices = json.loads((folder / f"{name}_indices").read_text())
    mixed = forth.clone()
    chosen = list(range(forth.shape[1])) if indices is None else indices
    mixed[:, chosen] = there[:, chosen]
    return mixed @ rotation.T + error


def interchanged(basis: np.ndarray | None, base: torch.Tensor, source: torch.Tensor) -> np.ndarray:
    """Ours: the part of the value along the subspace from the source, or all of it."""
    if basis is None:
        return np.asarray(source)
    found: np.ndarray = base.numpy() + (source - base).double().numpy() @ basis @ basis.T
    return found


def assert_same(ours: np.ndarray, theirs: torch.Tensor) -> None:
    """Within a millionth of the largest number: theirs is computed in float32."""
    wanted = theirs.detach().numpy()
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def states(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(7, WIDTH, generator=made), torch.randn(7, WIDTH, generator=made)


@pytest.mark.parametrize(("rank", "indices"), [(1, None), (4, None), (4, [2, 0]), (WIDTH, None), (WIDTH, [0, 5, 11])])
def test_what_is_read_does_what_the_benchmark_does(tmp_path: Path, rank: int, indices: list[int] | None) -> None:
    start = torch.linalg.qr(torch.randn(WIDTH, rank, generator=torch.Generator().manual_seed(rank)))[0]
    module = saved(tmp_path, "U(Token-a)", start, indices)
    with torch.no_grad():  # as training leaves it: the state says the rotation, not what it began with
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)).tril(-1))
    weight = module.rotate.weight.detach()
    info = torch.load(tmp_path / "U(Token-a)_featurizer", weights_only=True)["model_info"]
    info["additional_config"]["rotation_matrix"] = weight
    for end in ("_featurizer", "_inverse_featurizer"):
        torch.save({"model_info": info, "state_dict": module.state_dict()}, tmp_path / f"U(Token-a){end}")
    found = read_unit(tmp_path, "U(Token-a)", WIDTH)
    assert found.basis is not None
    assert found.basis.shape == (WIDTH, rank if indices is None else len(indices))
    assert not found.losses
    Subspace.of(found.basis)  # orthonormal enough for a file of subspaces
    base, source = states(1)
    theirs = as_the_benchmark_does(tmp_path, "U(Token-a)", base, source)
    assert_same(interchanged(found.basis, base, source), theirs)


@pytest.mark.parametrize("rank", [None, 1, 3, WIDTH])
def test_what_is_written_does_what_the_hypothesis_says(tmp_path: Path, rank: int | None) -> None:
    """Loaded strictly by the benchmark's way, with nothing but data in the files; and read again as it was."""
    basis = None if rank is None else random_basis(WIDTH, rank, 3)
    for name, content in written_unit("AttentionHead(Layer-1,Head-0,Token-a)", basis, WIDTH).items():
        (tmp_path / name).write_bytes(content)
    name = "AttentionHead(Layer-1,Head-0,Token-a)"
    base, source = states(2)
    theirs = as_the_benchmark_does(tmp_path, name, base, source).detach()
    assert_same(interchanged(basis, base, source), theirs)
    again = read_unit(tmp_path, name, WIDTH).basis
    if basis is None:
        assert again is None
    else:
        assert again is not None
        np.testing.assert_allclose(again @ again.T, basis @ basis.T, atol=1e-6)


def test_axes_of_an_identity_featurizer(tmp_path: Path) -> None:
    """Features of the identity are the component's own numbers: some of them are the span of axes."""
    name = "ResidualStream(Layer-0,Token-a)"
    for file, content in written_unit(name, None, WIDTH).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / f"{name}_indices").write_text("[3, 7]")
    found = read_unit(tmp_path, name, WIDTH).basis
    assert found is not None
    base, source = states(4)
    theirs = as_the_benchmark_does(tmp_path, name, base, source)
    assert_same(interchanged(found, base, source), theirs)
    with pytest.raises(CircuitspecError, match="CS383"):
        read_unit(tmp_path, name)


def test_names_of_units() -> None:
    """What block L puts out enters block L + 1; all spellings of the benchmark's versions."""
    for text, component in [
        ("ResidualStream(Layer-5,Token-last_token)", Resid(6)),
        ("ResidualStream(Layer:5,Token:last_token)", Resid(6)),
        ("ResidualStream(Layer_0,Token_correct_symbol)", Resid(1)),
        ("ResidualStream(Layer-5,block_output,Token-a)", Resid(6)),
        ("ResidualStream(Layer-5,block_input,Token-a)", Resid(5)),
        ("ResidualStream(Layer--1,Token-a)", Resid(0)),
        ("AttentionHead(Layer-9,Head-6,Token-all)", Head(9, 6)),
    ]:
        assert parse_unit(text).component == component
    assert parse_unit("ResidualStream(Layer-5,Token-correct_symbol_period)").token == "correct_symbol_period"
    for wrong in ("MLP(Layer-1,mlp_output,Token-a)", "ResidualStream(Token-a)", "x", "AttentionHead(Layer-1,Token-a)"):
        with pytest.raises(NoSuchUnit):
            parse_unit(wrong)
    assert unit_name(Resid(6), "last_token") == "ResidualStream(Layer-5,Token-last_token)"
    assert unit_name(Head(9, 6), "a") == "AttentionHead(Layer-9,Head-6,Token-a)"
    for component in (Resid(0), Resid(2, mid=True), Mlp(1), Input()):
        with pytest.raises(NoSuchUnit):
            unit_name(component, "a")


# -- files that say something else ------------------------------------------------------------------------------------


def edited(folder: Path, name: str, *, inverse: bool = False, **changes: Any) -> None:
    path = folder / f"{name}{'_inverse' if inverse else ''}_featurizer"
    content = torch.load(path, weights_only=True)
    for key, value in changes.items():
        content["model_info"][key] = value
    torch.save(content, path)


def refusal(folder: Path, name: str = "U", width: int | None = WIDTH) -> str:
    with pytest.raises(CircuitspecError) as caught:
        read_unit(folder, name, width)
    assert caught.value.diagnostics[0].code == "CS383"
    return caught.value.diagnostics[0].message


def test_files_that_are_no_subspace(tmp_path: Path) -> None:
    turned = torch.linalg.qr(torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(0)))[0]

    def fresh(indices: Any = None) -> None:
        saved(tmp_path, "U", turned, indices)

    fresh([3])
    assert "there is no feature 3" in refusal(tmp_path)
    fresh([1, 1])
    assert "a feature stands twice" in refusal(tmp_path)
    fresh([])
    assert "it is empty" in refusal(tmp_path)
    fresh("all")
    assert "neither null nor a list" in refusal(tmp_path)
    fresh()
    assert "12 rows, and the component 13 numbers" in refusal(tmp_path, width=13)
    edited(tmp_path, "U", featurizer_class="BijectiveFeaturizerModule")
    assert "of the class 'BijectiveFeaturizerModule'" in refusal(tmp_path)
    fresh()
    edited(tmp_path, "U", inverse=True, inverse_featurizer_class="Other")
    assert "does not go with" in refusal(tmp_path)
    fresh()
    edited(tmp_path, "U", additional_config={"rotation_matrix": turned.flip(0)})
    assert "is not what its `state_dict` gives" in refusal(tmp_path)
    fresh()
    edited(tmp_path, "U", additional_config={})
    assert "no `rotation_matrix`" in refusal(tmp_path)
    saved(tmp_path, "V", turned.flip(1))
    fresh()
    (tmp_path / "U_inverse_featurizer").write_bytes((tmp_path / "V_inverse_featurizer").read_bytes())
    assert "another one than that of the featurizer" in refusal(tmp_path)
    torch.save([1], tmp_path / "U_featurizer")
    assert "no `model_info`" in refusal(tmp_path)


def test_a_rotation_that_half_precision_rounded(tmp_path: Path) -> None:
    """Without a parametrised state: the nearest rotation is taken, and said; one that is far from any is refused."""
    turned = torch.linalg.qr(torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(0)))[0]
    for scale, refused in ((1.0, False), (1.5, True), (0.0, True)):
        info = {
            "featurizer_class": "SubspaceFeaturizerModule",
            "inverse_featurizer_class": "SubspaceInverseFeaturizerModule",
            "additional_config": {"rotation_matrix": (turned * scale).to(torch.bfloat16)},
        }
        for end in ("_featurizer", "_inverse_featurizer"):
            torch.save({"model_info": info, "state_dict": {}}, tmp_path / f"U{end}")
        if refused:
            assert "are not orthonormal" in refusal(tmp_path)
            continue
        found = read_unit(tmp_path, "U", WIDTH)
        assert found.basis is not None
        np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(found.basis, turned.numpy(), atol=5e-3)
        assert "orthonormal to" in found.losses[0].message


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    saved(tmp_path, "U", torch.eye(WIDTH)[:, :2])
    content = torch.load(tmp_path / "U_featurizer", weights_only=True)
    torch.save({**content, "module": torch.nn.Linear(2, 2)}, tmp_path / "U_featurizer")
    with pytest.raises(CircuitspecError, match="CS384"):
        read_unit(tmp_path, "U", WIDTH)


# -- what a unit is in a model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["ResidualStream(Layer-1,Token-A)", "AttentionHead(Layer-1,Head-2,Token-A)"])
def test_a_units_place_in_the_model(tmp_path: Path, family: str, name: str) -> None:
    """What block 1 puts out, or a head's slice before the output projection: hooked here, and run by the engine."""
    model = random_model(family)
    base, sources, _, task = given()
    unit = parse_unit(name)
    config = model.config
    heads = isinstance(unit.component, Head)
    wide = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = wide if heads else config.hidden_size
    basis = random_basis(width, 2, 8)
    for file, content in written_unit(name, basis, width).items():
        (tmp_path / file).write_bytes(content)
    found = read_unit(tmp_path, name, width).basis
    assert found is not None
    run = Experiment("clean", FIRST, frozenset({Site(unit.component, A, Subspace.of(found))}))
    with borrowed(model):
        records = runner(model, task).run([run])[run]
    block = model.transformer.h[1] if family == "gpt2" else model.model.layers[1]
    projection = block.attn.c_proj if family == "gpt2" else block.self_attn.o_proj
    for i, (prompt, source) in enumerate(zip(base, sources["pairs:a"], strict=True)):
        at = prompt.roles["A"]
        seen: list[torch.Tensor] = []

        def swapped(value: torch.Tensor, at: int = at, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            """The first run's value is kept, and is put into the second, as the files say."""
            part = slice(2 * wide, 3 * wide) if heads else slice(None)
            if not seen:
                seen.append(value[:, at, part].clone())
                return value
            mixed = as_the_benchmark_does(tmp_path, name, value[:, at, part].float(), seen[0].float())
            new = value.clone()
            new[:, at, part] = mixed.detach().double()
            return new

        def output(module: Any, given: Any, out: Any, swapped: Any = swapped) -> Any:
            return (swapped(out[0]), *out[1:]) if isinstance(out, tuple) else swapped(out)

        def before(module: Any, given: Any, swapped: Any = swapped) -> Any:
            return (swapped(given[0]), *given[1:])

        hook = projection.register_forward_pre_hook(before) if heads else block.register_forward_hook(output)
        with torch.no_grad():
            model(torch.tensor([source.clean]))
            logits = model(torch.tensor([prompt.clean])).logits[0, -1].numpy()
        hook.remove()
        clean = node.forward(families.read(model), prompt.clean).logits[-1].numpy()
        wanted = metrics.metrics(logits, prompt.answers, prompt.wrong, clean)
        assert records["logit_diff"][i] == pytest.approx(wanted["logit_diff"], abs=1e-5)
        plain = metrics.metrics(clean, prompt.answers, prompt.wrong, clean)
        assert abs(wanted["logit_diff"] - plain["logit_diff"]) > 1e-3


# -- from folder to hypothesis, and back ------------------------------------------------------------------------------


def submission(tmp_path: Path) -> Path:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for layer, token in ((0, "last_token"), (1, "last_token"), (1, "subject")):
        start = torch.tensor(random_basis(64, 3, layer), dtype=torch.float32)
        saved(folder, f"ResidualStream(Layer-{layer},Token-{token})", start)
    return folder


def test_a_unit_becomes_a_hypothesis(tmp_path: Path) -> None:
    """The draft is valid, its subspace is the submission's, and what is unknown is said."""
    folder, out = submission(tmp_path), tmp_path / "x.circuit.yaml"
    with pytest.raises(CircuitspecError) as caught:
        import_variable(folder, out, model="zoo:ioi-tiny")
    assert caught.value.diagnostics[0].code == "CS568"
    assert "ResidualStream(Layer-1,Token-subject) (r2@subject)" in caught.value.diagnostics[0].message
    found = import_variable(folder, out, model="zoo:ioi-tiny", entry="r1@last_token")
    assert found.subspaces is not None
    out.write_text(found.text)
    (tmp_path / "x.subspaces.safetensors").write_bytes(found.subspaces)
    spec = load_hypothesis(out).hypothesis.abstraction
    assert spec is not None
    aligned = spec.align["output_position"]
    assert (aligned.nodes, aligned.at, aligned.subspace and aligned.subspace.rank) == (("r1",), "last_token", 3)
    tensors, told = parsed(found.subspaces)
    expected = random_basis(64, 3, 0)
    np.testing.assert_allclose(
        tensors["output_position"] @ tensors["output_position"].T, expected @ expected.T, atol=1e-6
    )
    assert (told["output_position"]["component"], told["output_position"]["where"]) == ("r1", "last_token")
    said = " ".join(loss.message for loss in found.losses)
    assert "2 other units" in said
    assert "scored by MIB with the identity featurizer, the whole residual stream (here r1@subject)" in said
    other = import_variable(folder, out, model="zoo:ioi-tiny", entry="ResidualStream(Layer-1,Token-subject)")
    assert "which token subject is" in " ".join(loss.message for loss in other.losses)
    last = "ResidualStream(Layer-3,Token-last_token)"
    saved(folder, last, torch.tensor(random_basis(64, 3, 5), dtype=torch.float32))
    with pytest.raises(CircuitspecError) as caught:
        import_variable(folder, out, model="zoo:ioi-tiny", entry=last)
    assert caught.value.diagnostics[0].code == "CS568"
    assert "is r4 here" in caught.value.diagnostics[0].message


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError, match="CS567"):
        import_variable(tmp_path, tmp_path / "x.circuit.yaml")
    empty = tmp_path / FOLDER
    empty.mkdir()
    with pytest.raises(CircuitspecError, match="CS567"):
        import_variable(empty, tmp_path / "x.circuit.yaml")


HYPOTHESIS = """\
circuitspec: 1
name: ioi_task
model: {id: zoo:ioi-tiny}
task:
  templates: ["Then, {first} and {second} went to the store. {again} gave a ring to"]
  slots: {first: $names, second: $names, again: =second}
  lists: {names: [Mary, John, Paul, Anna, Peter, Laura]}
  answer: " {first}"
  wrong: " {second}"
  positions: {END: last}
  prompts: 4
circuit: {groups: {inhibition: {nodes: [a2.h2], at: END}}}
ablation: {value: zero}
abstraction:
  variables: {position: 0 if again == second else 1, answer: first if position == 0 else second}
  output: answer
  align:
    position: {nodes: [inhibition]}
    answer: {nodes: [r2], at: again, subspace: {rank: 2, file: x.subspaces.safetensors}}
  pairs: {flipped: {slots: {again: =first}}}
claims:
  - interchange: {variable: position, at_least: 0.8}
"""


def test_a_hypothesis_goes_out_and_comes_back(tmp_path: Path) -> None:
    """By the commands: two folders, of a whole head and of a subspace; the second read again is the same subspace."""
    file = tmp_path / "a.circuit.yaml"
    file.write_text(HYPOTHESIS)
    basis = random_basis(64, 2, 1)
    told = {"answer": {"component": "r2", "where": "again"}}
    (tmp_path / "x.subspaces.safetensors").write_bytes(written({"answer": basis}, told))
    run = CliRunner().invoke
    done = run(main, ["export", str(file), "--as", "mib-variables", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {str(one.relative_to(tmp_path / "out")) for one in (tmp_path / "out").rglob("*") if one.is_file()}
    ends = ("_featurizer", "_inverse_featurizer", "_indices")
    head = "ioi_task_GPT2LMHeadModel_position/AttentionHead(Layer-2,Head-2,Token-last_token)"
    stream = "ioi_task_GPT2LMHeadModel_answer/ResidualStream(Layer-1,Token-again)"
    assert names == {f"{one}{end}" for one in (head, stream) for end in ends}
    assert "get_token_positions" in done.output
    folder = tmp_path / "out" / "ioi_task_GPT2LMHeadModel_answer"
    back = tmp_path / "back.circuit.yaml"
    arguments = ["import", str(folder), "--as", "mib-variables", "-o", str(back), "--model", "zoo:ioi-tiny"]
    done = run(main, arguments)
    assert done.exit_code == 0, done.output
    tensors, _ = parsed((tmp_path / "back.subspaces.safetensors").read_bytes())
    np.testing.assert_allclose(tensors["answer"] @ tensors["answer"].T, basis @ basis.T, atol=1e-6)
    assert run(main, arguments).exit_code == 2  # both are there
    assert run(main, [*arguments, "--force", "--top", "3"]).exit_code == 2
    whole = import_variable(tmp_path / "out" / "ioi_task_GPT2LMHeadModel_position", back, model="zoo:ioi-tiny")
    assert whole.subspaces is None
    assert "position: {nodes: [a2.h2], at: last_token}" in whole.text


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("nodes: [inhibition]}\n", "nodes: [m2], at: END}\n", "CS569"),
        ("nodes: [inhibition]}\n", "nodes: [a2.h2], at: [END, again]}\n", "CS569"),
        (", file: x.subspaces.safetensors", "", "CS569"),
        ("nodes: [r2]", "nodes: [r3]", "CS236"),
    ],
)
def test_what_cannot_go_out(tmp_path: Path, old: str, new: str, code: str) -> None:
    assert old in HYPOTHESIS
    (tmp_path / "a.circuit.yaml").write_text(HYPOTHESIS.replace(old, new))
    told = {"answer": {"component": "r2", "where": "again"}}
    (tmp_path / "x.subspaces.safetensors").write_bytes(written({"answer": random_basis(64, 2, 1)}, told))
    with pytest.raises(CircuitspecError) as caught:
        export_variables(load_hypothesis(tmp_path / "a.circuit.yaml"))
    assert {found.code for found in caught.value.diagnostics} == {code}
