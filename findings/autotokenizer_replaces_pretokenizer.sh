#!/usr/bin/env bash
# transformers 5.23.0: AutoTokenizer does not follow the tokenizer.json of a model whose family has a tokenizer class.
# A tokenizer.json says how text is cut before BPE merges (`pre_tokenizer`) and which tokens are put around it
# (`post_processor`). Where config.json says `qwen2`, or tokenizer_config.json names Qwen2TokenizerFast, AutoTokenizer
# builds Qwen2Tokenizer, which brings a pre-tokenizer of its own: digits are cut one by one where the file says nothing
# of the kind. Where config.json says `gpt_neox` and no class is named, the file's post-processor is lost, so that the
# BOS token that the file puts in front is missing. `tokenizers` itself, and PreTrainedTokenizerFast, follow the file.
# Seen, for "In 1732 and 1745" and a tokenizer.json that keeps numbers whole and begins with <s>:
#   qwen2: Qwen2Tokenizer gives <s> In Ġ 1 7 3 2 Ġand Ġ 1 7 4 5, the file <s> In Ġ1732 Ġand Ġ1745
#   gpt_neox: GPTNeoXTokenizer gives In Ġ1732 Ġand Ġ1745, the file <s> In Ġ1732 Ġand Ġ1745
# Exits 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
HF_HUB_OFFLINE=1 "$folder/env/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

TEXT = "In 1732 and 1745"
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), vocab_size=400, show_progress=False
)
made.train_from_iterator([TEXT, "1732 1745 and In"] * 20, trainer)
made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))])

found = {}
for family in ("qwen2", "gpt_neox"):
    folder = Path(sys.argv[1]) / family
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    (folder / "tokenizer_config.json").write_text("{}")
    file = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).tokens
    loaded = AutoTokenizer.from_pretrained(folder)
    found[family] = (type(loaded).__name__, file, loaded.convert_ids_to_tokens(loaded(TEXT)["input_ids"]))
    print(f"{family}: {found[family][0]}")
    print(f"   tokenizer.json: {found[family][1]}")
    print(f"   AutoTokenizer:  {found[family][2]}")
_, file, loaded = found["qwen2"]
assert len([t for t in loaded if t.strip("Ġ").isdigit() and len(t.strip("Ġ")) > 1]) == 0 < len(
    [t for t in file if t.strip("Ġ").isdigit() and len(t.strip("Ġ")) > 1]
), "qwen2: the file's pre-tokenizer is followed now"
_, file, loaded = found["gpt_neox"]
assert file[0] == "<s>" != loaded[0], "gpt_neox: the file's post-processor is followed now"
PYTHON
