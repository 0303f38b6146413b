"""Attention patterns in a hypothesis file: from the text to the figure, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import circuitspec
from circuitspec.cli import main
from circuitspec.models.load import load_model

FILE = (Path(__file__).parents[1] / "hypotheses" / "ioi-tiny.circuit.yaml").read_text("utf-8")
TASK = FILE[: FILE.index("circuit:\n  groups")].replace("prompts: 100", "prompts: 12")
CIRCUIT = """
circuit:
  groups:
    looking: {nodes: [a3.h1.pattern, a3.h2.pattern], at: END}

ablation: {value: resample, from: abc, level: node, positions: declared}

claims:
  - cross_section: {nodes: [looking], metric: logit_diff, at_least: -1.0}
  - cross_section: {nodes: ["a3.h1.pattern@END"], metric: logit_diff, at_least: -1.0}
  - necessary: {metric: logit_diff, at_most: 2.0}
"""


def written(folder: Path, circuit: str) -> Path:
    path = folder / "patterns.circuit.yaml"
    path.write_text(TASK + circuit, "utf-8")
    return path


def test_from_the_file_to_the_figure(tmp_path: Path) -> None:
    """Against eager attention's own weights and GPT-2's own projections, in plain torch."""
    file = written(tmp_path, CIRCUIT)
    checked = CliRunner().invoke(main, ["plan", str(file)])
    assert checked.exit_code == 0, checked.output
    assert "2 attention patterns at declared positions" in checked.output
    result = circuitspec.verify(file)
    task, loaded = result.task, load_model(result.document.hypothesis.model, Path())
    model: Any = loaded.model.eval()
    model.set_attn_implementation("eager")
    block, d_head = model.transformer.h[3].attn, loaded.shape.d_head
    for number, heads in enumerate(((1, 2), (1,))):
        found: dict[str, list[float]] = {"clean": [], "corrupt": [], "patched": []}
        rows = zip(task.ids["clean"], task.ids["abc"], task.answers, task.wrong, strict=True)
        for clean, corrupt, answers, wrong in rows:

            def difference(logits: torch.Tensor, a: int = answers[0], w: int = wrong[0]) -> float:
                return float(logits[0, -1, a] - logits[0, -1, w])

            with torch.no_grad():
                weights = model(torch.tensor([clean]), output_attentions=True)
                found["clean"].append(difference(weights.logits))
                found["corrupt"].append(difference(model(torch.tensor([corrupt])).logits))
                kept: list[torch.Tensor] = []
                seen = block.c_attn.register_forward_hook(lambda module, given, out, kept=kept: kept.append(out))

                def mixed(module: Any, given: tuple[torch.Tensor], kept: list[torch.Tensor] = kept) -> Any:
                    z = given[0].clone()
                    for head in heads:  # noqa: B023
                        here = slice(head * d_head, (head + 1) * d_head)
                        values = kept[-1][0, :, 2 * z.shape[-1] :][:, here]
                        z[0, -1, here] = weights.attentions[3][0, head, -1] @ values  # noqa: B023
                    return (z,)

                put = block.c_proj.register_forward_pre_hook(mixed)
                found["patched"].append(difference(model(torch.tensor([corrupt])).logits))
                seen.remove()
                put.remove()
        means = {run: sum(values) / len(values) for run, values in found.items()}
        share = (means["patched"] - means["corrupt"]) / (means["clean"] - means["corrupt"])
        assert result.claims[number].estimate.value == pytest.approx(share, abs=1e-4)
        assert abs(means["patched"] - means["corrupt"]) > 1e-3
    assert "a3.h1.pattern@END" in str(result)
    assert "a3.h1.pattern" in result.to_html()


@pytest.mark.parametrize(
    ("circuit", "code", "said"),
    [
        (
            CIRCUIT.replace("level: node", "level: edge").replace("END}\n", 'END}\n  paths: ["a2.h2 -> logits"]\n', 1),
            "CS226",
            "the inputs <q> and <k>",
        ),
        (CIRCUIT.replace("resample", "mean_per_template"), "CS519", "the pattern of another run"),
        (CIRCUIT.replace("  - necessary", "  - sufficient"), "CS224", "a3.h1.pattern"),
        (CIRCUIT.replace("a3.h2.pattern]", "a3.h1]"), "CS223", "a3.h1 comes of a3.h1.pattern"),
        (CIRCUIT.replace("a3.h2.pattern", "a3.h9.pattern"), "CS220", "the model has no a3.h9.pattern"),
    ],
)
def test_what_is_refused(tmp_path: Path, circuit: str, code: str, said: str) -> None:
    result = CliRunner().invoke(main, ["check", str(written(tmp_path, circuit))])
    if code == "CS519":
        result = CliRunner().invoke(main, ["verify", str(written(tmp_path, circuit))])
    assert result.exit_code != 0, result.output
    assert code in result.output
    assert said in result.output
