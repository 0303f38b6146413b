"""Dictionaries that the tools themselves write, read here: are features and reconstructions the tools' own?

Each tool lives in an environment of its own (they cannot share one), named by its interpreter:

    python -m venv /tmp/tools && /tmp/tools/bin/pip install torch==2.13.0 sae-lens==6.54.12
    /tmp/tools/bin/pip install --no-deps dictionary-learning==0.1.0 eai-sparsify==1.3.3
    /tmp/tools/bin/pip install natsort nnsight einops schedulefree simple-parsing
    python benchmarks/dictionary_tools.py --python /tmp/tools/bin/python sae_lens sparsify dictionary_learning

circuit-tracer==0.5.0 takes another one. Prints the largest differences for each architecture, relative to the largest
value; above 1e-6 is a failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

D_IN, N, K = 32, 96, 6
BOUND = 1e-6


def _write(tool: str, folder: Path) -> None:
    """In the tool's own interpreter: a folder for each architecture, with `expected.npz` in it."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    x = torch.randn(40, D_IN) * 2 + 0.3
    for name, save, encode, reconstruct in TOOLS[tool](torch):
        own = folder / name
        own.mkdir(parents=True)
        with torch.no_grad():
            np.savez(own / "expected.npz", x=x, features=encode(x), decoded=reconstruct(x))
        save(own)


Case = tuple[str, Callable[[Path], Any], Callable[[Any], Any], Callable[[Any], Any]]


def _fill(torch: Any, module: Any) -> None:
    """Numbers of a natural size in all parameters, and thresholds above 0."""
    with torch.no_grad():
        for name, one in module.named_parameters():
            one.copy_(torch.randn_like(one) * (0.3 if one.ndim == 1 else 1 / D_IN**0.5))
            if name.endswith("threshold"):
                one.abs_()


def _sae_lens(torch: Any) -> Iterator[Case]:
    import sae_lens
    from sae_lens.saes.sae import SAEMetadata

    def made(name: str, kind: str, **settings: Any) -> Case:
        config = getattr(sae_lens, f"{kind}Config")
        told = {"d_in": D_IN, "d_sae": N, "dtype": "float32", "device": "cpu", **settings}
        sae = getattr(sae_lens, kind)(config(**told, metadata=SAEMetadata(hook_name="blocks.1.hook_resid_pre")))
        _fill(torch, sae)
        return name, lambda own: sae.save_model(str(own)), sae.encode, sae

    yield made("standard", "StandardSAE")
    yield made("not centred", "StandardSAE", apply_b_dec_to_input=False)
    yield made("layer norm", "StandardSAE", normalize_activations="layer_norm")
    yield made("constant norm", "StandardSAE", normalize_activations="constant_norm_rescale")
    yield made("jumprelu", "JumpReLUSAE")
    yield made("topk", "TopKSAE", k=K)
    yield made("topk by norm", "TopKSAE", k=K, rescale_acts_by_decoder_norm=True)
    yield made("topk, layer norm", "TopKSAE", k=K, normalize_activations="layer_norm")
    yield made("gated", "GatedSAE")
    yield made("transcoder", "Transcoder", d_out=D_IN, apply_b_dec_to_input=False)
    yield made("skip transcoder", "SkipTranscoder", d_out=D_IN, apply_b_dec_to_input=False)
    yield made("jumprelu transcoder", "JumpReLUTranscoder", d_out=D_IN, apply_b_dec_to_input=False)
    yield made("jumprelu skip transcoder", "JumpReLUSkipTranscoder", d_out=D_IN, apply_b_dec_to_input=False)


def _sparsify(torch: Any) -> Iterator[Case]:
    from sparsify import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    def made(name: str, **settings: Any) -> Case:
        coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=N, k=K, **settings))
        _fill(torch, coder)

        def encode(x: Any) -> Any:
            found = coder.encode(x)
            return torch.zeros(len(x), N).scatter(-1, found.top_indices, found.top_acts)

        return name, coder.save_to_disk, encode, lambda x: coder(x).sae_out

    yield made("topk")
    yield made("groupmax", activation="groupmax")
    yield made("transcoder", transcode=True)
    yield made("skip transcoder", transcode=True, skip_connection=True)


def _dictionary_learning(torch: Any) -> Iterator[Case]:
    from dictionary_learning import dictionary as kinds
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK
    from dictionary_learning.utils import load_dictionary

    def made(model: Any) -> Case:
        _fill(torch, model)
        if "threshold" in dict(model.named_buffers()):
            model.threshold.fill_(0.4)
        name = type(model).__name__

        def save(own: Path) -> None:
            torch.save(model.state_dict(), own / "ae.pt")
            (own / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": K}}))

        with tempfile.TemporaryDirectory() as kept:  # what its users have is what its loader makes of the files
            save(Path(kept))
            loaded, _ = load_dictionary(kept, None)
        return name, save, loaded.encode, loaded

    yield made(kinds.AutoEncoder(D_IN, N))
    yield made(kinds.AutoEncoderNew(D_IN, N))
    yield made(kinds.GatedAutoEncoder(D_IN, N))
    yield made(kinds.JumpReluAutoEncoder(D_IN, N))
    yield made(AutoEncoderTopK(D_IN, N, K))
    yield made(BatchTopKSAE(D_IN, N, K))
    yield made(MatryoshkaBatchTopKSAE(D_IN, N, K, [N // 3, N - N // 3]))


def _circuit_tracer(torch: Any) -> Iterator[Case]:
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder
    from safetensors.torch import save_file

    def made(name: str, activation: Any, *, skip: bool) -> Case:
        coder = SingleLayerTranscoder(D_IN, N, activation, 1, skip_connection=skip, dtype=torch.float32)
        _fill(torch, coder)

        def save(own: Path) -> None:
            save_file(
                {key: value.contiguous() for key, value in coder.state_dict().items()}, own / "layer_1.safetensors"
            )
            (own / "config.yaml").write_text("model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n")

        return name, save, coder.encode, coder

    yield made("relu", torch.nn.functional.relu, skip=False)
    yield made("relu, skip", torch.nn.functional.relu, skip=True)
    yield made("jumprelu", JumpReLU(torch.zeros(N), 0.1), skip=False)


TOOLS: dict[str, Callable[[Any], Iterator[Case]]] = {
    "sae_lens": _sae_lens,
    "sparsify": _sparsify,
    "dictionary_learning": _dictionary_learning,
    "circuit_tracer": _circuit_tracer,
}


def _compare(tool: str, folder: Path) -> bool:
    import numpy as np
    import torch

    from circuitspec.dictionaries.readers.all_formats import read_dictionary

    held = True
    for own in sorted(folder.iterdir()):
        expected = np.load(own / "expected.npz")
        dictionary = read_dictionary(own, layer=1, format_name="auto").dictionary
        x = torch.from_numpy(expected["x"])
        worst = []
        for found, wanted in (
            (dictionary.encode(x), expected["features"]),
            (dictionary.reconstruct(x), expected["decoded"]),
        ):
            worst.append(float(np.abs(found.numpy() - wanted).max() / np.abs(wanted).max()))
        active = float((expected["features"] != 0).sum(-1).mean())
        good = max(worst) <= BOUND
        held = held and good
        print(
            f"{'ok  ' if good else 'FAIL'} {tool:20} {own.name:26} encode {worst[0]:.1e}  decode {worst[1]:.1e}  "
            f"{active:.1f} of {N} active"
        )
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="+", choices=TOOLS)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the tools")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        for tool in arguments.tools:
            _write(tool, arguments.write / tool)
        return
    with tempfile.TemporaryDirectory() as kept:
        subprocess.run([arguments.python, __file__, *arguments.tools, "--write", kept], check=True, cwd=kept)
        held = [_compare(tool, Path(kept) / tool) for tool in arguments.tools]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
