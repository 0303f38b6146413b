"""Claims whose patched run lies out of all range of its anchors: no verdict, and no component is called negative.

The model is one layer of two heads, by hand: the embeddings are 292 long in a direction that nothing reads, a0.h0
writes 1 to the answer, and a0.h1 writes 5 to a direction that nothing reads either. The final norm divides by the
length of the stream, so the answer is worth 1/292 of what it is with the embeddings gone.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import circuitspec
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.warnings.score_warnings import SCORE_WARNINGS
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, KNOCKED_OUT, around, make_plan, make_records, warned

LONG, OTHER = 292.0, 5.0
LEFT, RIGHT = [f"l{i}" for i in range(6)], [f"r{i}" for i in range(6)]
WORDS = ["<unk>", *LEFT, *RIGHT, "so", "yes", "no"]
VALUE, LENGTH, ANSWER, ASIDE = range(4)

FILE = """
circuitspec: 1
name: long-embeddings
model: {id: zoo:ioi-tiny}
task:
  templates: ["{X.word} so"]
  slots: {X: $words}
  lists:
    words: [WORDS]
  answer: " {X.answer}"
  wrong: " {X.wrong}"
  prompts: 12
circuit:
  groups: {mover: {nodes: [a0.h0]}}
  paths: [input -> mover<v>, PATHS]
ablation: {value: zero, level: edge}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.8}
"""


def long_embeddings() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=2,
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        embed = model.model.embed_tokens.weight
        embed[:, LENGTH] = LONG
        for words, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
            for word in words:
                embed[WORDS.index(word), VALUE] = sign
        size = math.sqrt((LONG**2 + 1) / 4)  # root mean square of the first token; of the second it is LONG / 2
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, VALUE] = 2 * size  # attention is even over both tokens
        attention.v_proj.weight[2, LENGTH] = 1.0
        attention.o_proj.weight[ANSWER, 0] = 1.0
        attention.o_proj.weight[ASIDE, 2] = OTHER / 2
        model.lm_head.weight[WORDS.index("yes"), ANSWER] = 1.0
        model.lm_head.weight[WORDS.index("no"), ANSWER] = -1.0
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def verified(folder: Path, paths: str) -> circuitspec.Result:
    rows = [f"{{word: {w}, answer: 'yes', wrong: 'no'}}" for w in LEFT]
    rows += [f"{{word: {w}, answer: 'no', wrong: 'yes'}}" for w in RIGHT]
    file = folder / "long.circuit.yaml"
    file.write_text(FILE.replace("WORDS", ", ".join(rows)).replace("PATHS", paths), "utf-8")
    return circuitspec.verify(file, *long_embeddings())


def test_a_right_circuit_without_the_embeddings_gets_no_verdict(tmp_path: Path) -> None:
    """Clean: 2 * 1 over the root mean square of (0, 292, 1, 5); of (0, 0, 1, 0) in the circuit."""
    result = verified(tmp_path, "mover -> logits")
    (claim,) = result.claims
    clean = 2 / math.sqrt((LONG**2 + 1 + OTHER**2) / 4)
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(4 / clean, rel=1e-3)
    assert claim.status == "INCONCLUSIVE"
    assert claim.reason.startswith("out of range: logit_diff is 4.00, against 0.01")
    assert "zeros also in place of the embeddings" in claim.reason
    (warning,) = result.warnings  # neither CS401, 402 nor 419: nothing is found on such a run
    assert warning.code == "CS436"
    assert "`input -> logits`" in warning.help


def test_with_the_embeddings_kept_there_is_one(tmp_path: Path) -> None:
    """Only what a0.h1 adds to the length of the stream is missing: 5 of 292."""
    result = verified(tmp_path, "'mover, input -> logits'")
    (claim,) = result.claims
    expected = math.sqrt((LONG**2 + 1 + OTHER**2) / (LONG**2 + 1))
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(expected, rel=1e-4)
    assert claim.status == "SUPPORTED"
    assert "CS436" not in {warning.code for warning in result.warnings}


@pytest.mark.parametrize(("share", "status"), [(10.5, "INCONCLUSIVE"), (-10.5, "INCONCLUSIVE"), (9.5, "SUPPORTED")])
def test_ten_times_the_distance_of_the_anchors(share: float, status: str) -> None:
    """Clean 4, corrupt 0; `necessary` asks for the same range, whatever its bound."""
    plan = make_plan(
        Sufficient.model_validate({"kind": "sufficient", "metric": "logit_diff", "at_least": 0.8}),
        Necessary.model_validate({"kind": "necessary", "metric": "logit_diff", "at_most": 20}),
    )
    values = {CLEAN: 4.0, CORRUPT: 0.0, CIRCUIT: 4 * share, KNOCKED_OUT: 4 * share}
    records = make_records({run: {"logit_diff": around(mean)} for run, mean in values.items()})
    claims = judge(plan, records)
    assert [claim.status for claim in claims] == [status, status]
    assert [claim.estimate.value for claim in claims if claim.estimate] == pytest.approx([share, share])
    found = warned(SCORE_WARNINGS, plan, records, claims=claims)
    expected = ["CS402"] if share == 9.5 else ["CS436", "CS436"]
    assert [warning.code for warning in found] == expected
    assert all("input -> logits" not in warning.help for warning in found)  # means, at node level
