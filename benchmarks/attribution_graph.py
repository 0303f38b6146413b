"""An attribution graph that circuit-tracer itself writes, imported and verified here: are the numbers its own?

circuit-tracer lives in an environment of its own, named by its interpreter:

    python -m venv /tmp/tracer && /tmp/tracer/bin/pip install torch==2.13.0 circuit-tracer==0.5.0
    python benchmarks/attribution_graph.py --python /tmp/tracer/bin/python

There a tiny GPT-2 with random weights gets random transcoders, and a prompt is traced. Compared are the activation of
each feature of the graph with what is read of the transcoder's files, and the logit difference with all features of the
graph switched off with that of `necessary`. Prints the largest difference; above 1e-5 is a failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORDS = ("when", "mary", "and", "john", "went", "to", "the", "store", ",", "gave", "a", "ring", "<|endoftext|>")
BOS = WORDS[-1]  # circuit-tracer 0.5.0 takes a token of id 0 for none
PROMPT = "when mary and john went to the store , john gave a ring to"
LAYERS, HEADS, D_MODEL, FEATURES = 3, 2, 16, 24
BOUND = 1e-5


def _write(folder: Path) -> None:
    """In circuit-tracer's interpreter: the model, its transcoders, the graph, and what is expected of it."""
    import torch
    from circuit_tracer import attribute
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
    from circuit_tracer.utils.create_graph_files import create_graph_files
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=BOS))
    own.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, bos_token=BOS, eos_token=BOS, pad_token=BOS)
    settings = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": D_MODEL, "vocab_size": len(WORDS), "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(**settings, bos_token_id=12, eos_token_id=12)).eval()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(torch.randn_like(one) * 0.2)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")

    coders = {}
    (folder / "transcoders").mkdir()
    for layer in range(LAYERS):
        coder = SingleLayerTranscoder(
            D_MODEL, FEATURES, JumpReLU(torch.zeros(FEATURES), 0.1), layer, dtype=torch.float32
        )
        with torch.no_grad():
            for name, one in coder.named_parameters():
                one.copy_(torch.randn_like(one) * 0.3)
                if name.endswith("threshold"):
                    one.abs_()
        coders[layer] = coder
        tensors = {key: value.contiguous() for key, value in coder.state_dict().items()}
        save_file(tensors, folder / "transcoders" / f"layer_{layer}.safetensors")
    said = "model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    (folder / "transcoders" / "config.yaml").write_text(said)

    config = HookedTransformerConfig(
        n_layers=LAYERS,
        n_heads=HEADS,
        d_model=D_MODEL,
        d_head=D_MODEL // HEADS,
        d_mlp=4 * D_MODEL,
        n_ctx=32,
        d_vocab=len(WORDS),
        act_fn="gelu_new",
        normalization_type="LN",
        original_architecture="GPT2LMHeadModel",
        model_name="tiny",
        tokenizer_name=str(folder / "model"),
        device="cpu",
    )
    traced = TransformerLensReplacementModel.from_config(
        config, TranscoderSet(coders, "mlp.hook_in", "hook_mlp_out", scan=["tiny"]), tokenizer=tokenizer
    )
    weights = convert_gpt2_weights(model, config)
    weights["unembed.b_U"] = torch.zeros(len(WORDS))
    renamed = {_inside(name, {*traced.state_dict()}): value for name, value in weights.items()}
    missing, unknown = traced.load_state_dict(renamed, strict=False)
    assert not unknown, unknown
    assert not [name for name in missing if "transcoder" not in name and not name.endswith((".mask", ".IGNORE"))], (
        missing
    )
    tokens = traced.ensure_tokenized(PROMPT)
    with torch.no_grad():
        apart = float((traced(tokens[None]) - model(tokens[None]).logits).abs().max())
    assert apart < 1e-4, apart

    graph = attribute(PROMPT, traced, max_n_logits=3, desired_logit_prob=0.99)
    create_graph_files(graph, "tiny", str(folder / "graph"), node_threshold=0.6, edge_threshold=0.9)
    written = json.loads((folder / "graph" / "tiny.json").read_text())
    features = [one for one in written["nodes"] if one["feature_type"] == "cross layer transcoder"]
    places = [tuple(map(int, one["node_id"].split("_"))) for one in features]
    off = [(layer, token, number, 0.0) for layer, number, token in places]
    with torch.no_grad():
        logits, _ = traced.feature_intervention(tokens, off, freeze_attention=False)
    (folder / "expected.json").write_text(json.dumps({"logits": logits[0, -1].tolist()}))


def _inside(name: str, known: set[str]) -> str:
    """A weight's name in the replacement model, which wraps MLPs and the unembedding."""
    for plain, wrapped in ((".mlp.", ".mlp.old_mlp."), ("unembed.", "unembed.old_unembed.")):
        if plain in name and name not in known:
            return name.replace(plain, wrapped)
    return name


def _compare(folder: Path) -> bool:
    import torch
    from transformers import AutoModelForCausalLM

    from circuitspec.dictionaries.readers.all_formats import read_dictionary

    out = folder / "tiny.circuit.yaml"
    _run(
        "import",
        folder / "graph" / "tiny.json",
        "--as",
        "attribution-graph",
        "--model",
        folder / "model",
        "--dictionaries",
        folder / "transcoders",
        "-o",
        out,
    )
    written = json.loads((folder / "graph" / "tiny.json").read_text())
    entry = json.loads((folder / "tiny.prompts.jsonl").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    entering: dict[int, Any] = {}
    for layer, block in enumerate(model.transformer.h):
        block.mlp.register_forward_pre_hook(lambda _, inputs, layer=layer: entering.update({layer: inputs[0][0]}))
    with torch.no_grad():
        model(torch.tensor([entry["clean"]]))
        features = {
            layer: read_dictionary(folder / "transcoders", layer, "circuit_tracer").dictionary.encode(entering[layer])
            for layer in range(LAYERS)
        }
    worst, n = 0.0, 0
    for one in written["nodes"]:
        if one["feature_type"] == "cross layer transcoder":
            layer, number, token = map(int, one["node_id"].split("_"))
            worst, n = max(worst, abs(float(features[layer][token, number]) - one["activation"])), n + 1
    print(f"{'ok  ' if worst <= BOUND else 'FAIL'} activations of {n} features: {worst:.1e}")

    # circuit-tracer's interventions leave errors as they are: so no error is named, and all of them are kept
    lines = out.read_text().splitlines()
    kept = [line for line in lines if ".error@" not in line]
    text = "\n".join(kept).replace("error: ablate, ", "").replace("    errors:\n      nodes:\n", "") + "\n"
    out.write_text(text)
    report = json.loads(_run("verify", out, "--format", "json", "--no-store"))
    claim = next(one for one in report["claims"] if one["claim"] == "necessary")
    logits = json.loads((folder / "expected.json").read_text())["logits"]
    others = [logits[number] for number in entry["wrong"]]
    expected = logits[entry["answers"][0]] - sum(others) / len(others)
    apart, moved = abs(claim["means"]["patched"] - expected), abs(claim["means"]["clean"] - expected)
    held = apart <= BOUND and moved > 100 * BOUND
    print(f"{'ok  ' if held else 'FAIL'} logit difference without them: {apart:.1e} (they move it by {moved:.2f})")
    return held and worst <= BOUND


def _run(*arguments: object) -> str:
    command = [sys.executable, "-m", "circuitspec", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode not in (0, 1, 4):
        raise SystemExit(found.stderr)
    return found.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has circuit-tracer")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        _write(arguments.write)
        return
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        subprocess.run([arguments.python, __file__, "--write", str(folder)], check=True, stdout=subprocess.DEVNULL)
        held = _compare(folder)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
