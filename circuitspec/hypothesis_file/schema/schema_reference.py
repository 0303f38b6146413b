"""The reference of the hypothesis file as Markdown, made from the JSON Schema, and so from the models themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS
from circuitspec.hypothesis_file.schema.json_schema import json_schema

_HEAD = """\
# The hypothesis file

*Made from the program by `make docs`; a test compares.*

A hypothesis is a file `NAME.circuit.yaml`: YAML 1.2, read as plain data. Keys that are not listed here are errors, as
are tags, anchors that refer to themselves, and keys given twice; `circuitspec check FILE` names every mistake at once,
and `circuitspec explain CODE` says more about one. `circuitspec schema > circuitspec.schema.json` writes the schema
with which editors complete and check the file as it is written. [tutorial.md](tutorial.md) writes one step by step;
[method.md](method.md) says what is run for each claim.
"""

NAMES: Mapping[str, str] = {
    "a9.h6": "head 6 of layer 9; both count from 0. `L9H6` is accepted",
    "a9.h6.pattern": "what that head attends to, patched with its values recomputed",
    "a9": "all heads of layer 9",
    "m3": "the MLP of layer 3",
    "m1.n42": "neuron 42 of the MLP of layer 1. `L1N42` is accepted",
    "m3.e5": "expert 5 of the MLP of layer 3: what it adds, its weight included",
    "m3.shared": "the expert of that MLP that serves every token",
    "m3.e5.n7": "neuron 7 of expert 5: what the expert's output projection reads, times the expert's weight",
    "m3.shared.n7": "neuron 7 of the expert that serves every token",
    "m3.routing": "the weights of all its experts, as its router chooses them",
    "a9.kv2": "key-value head 2 of layer 9, in models with grouped queries",
    "r5": "the residual stream that enters block 5",
    "r5.mid": "the residual stream between attention and MLP of block 5",
    "input": "the embeddings",
    "m*": "every MLP",
    "a*.h*": "every head",
    "a[0-5].h*": "every head of layers 0 to 5",
    "a2.h3@END": "the same at one position",
    "a2.h3@{S1,IO}": "at several; in YAML such a name needs quotes",
}
"""Names of components by example, each as it is written in `nodes`."""

PATHS: Mapping[str, str] = {
    "A -> B": "group (or component) A acts on B, at the positions of each",
    "A, B -> C": "A and B do",
    "A -> C<q>": "through C's queries; `<k>`, `<v>`, `<k,v>` through keys, values, both",
    "A -> B -> logits": "on and on; `input` is where a path can begin, `logits` where it can end",
    "input@S1 -> A<k>": "a component of its own, with its position",
}
"""Paths by example."""

POSITIONS: Mapping[str, str] = {
    "S1": "the last token of a slot, or a position that a prompts file names",
    "S#2": "the last token of the slot's second occurrence",
    "S1 + 1": "the token after it",
    "last - 1": "the last token but one; `last` is where the answer is read",
    "start": "the first token that the model sees: BOS, where the tokenizer puts it in front of the text",
    "3": "a token index: it counts the tokens of the prompt's own text from 0, without BOS; -1 is the last one",
    "[0, 1, 2]": "several tokens, by their indices",
    "{slot: S1, tokens: all}": "all tokens of a slot, however many they are in each prompt; `S1#2`: of its second "
    "occurrence",
    "{text: gave}": "the last token of a text that stands in every clean prompt, whole words only; `nth: 2` is its "
    "second occurrence. In every kind of task: templates, a prompts file (auto-circuit's too), a generator",
    "{text: went to the, tokens: all}": "all tokens of that text",
}
"""Positions by example, each as it is written in `positions`."""

SPANS = """\
**Positions of several tokens.** A component at such a position is patched, kept and swept at all of its tokens, and
noise is added at all of them. `subject + 1` counts from its last token. A metric that is read at one token (an
attention weight, a neuron, a projection) refuses such a position (CS361). Paths and edges act at all of its tokens.
Two positions that share a token cannot both be named where they would have to be told apart (CS362): for one
component at node level, anywhere at edge and path level. `explore` searches a position of several tokens as one
place, in place of the single tokens that lie within it."""

TABLES = """\
## Tables, and minimal pairs

A list may be a table: a `.csv` file with a header line, or rows such as `[{noun: key, other: keys}, ...]`. A slot
that is drawn from it, `S: $nouns`, is a row, and templates and answers name its columns, `{S.noun}`. Drawn as `S:
$nouns.noun` it shows that column, so that `{S}` is the noun and `{S.other}` another column of the same row. A slot
may show a column of another slot's row, `V: =S.verb`. A corruption does the same: `flip: {S: =S.other}` puts the
other column in place of the first, which makes a minimal pair. With `V: =S.other_verb` beside it and `answer: "
{V}"`, `wrong: {answer_of: flip}` is the verb that the corrupted prompt asks for.
`hypotheses/agreement-smollm2.circuit.yaml` and `hypotheses/capitals-smollm2.circuit.yaml` are written so.

## What is put around the prompts

Unless told otherwise a tokenizer adds what it adds by itself (`special_tokens: auto`): a BOS token with Llama and
Gemma, nothing with GPT-2. `none` adds nothing; `bos` puts the tokenizer's BOS in front, and nothing else, whether it
would have done so or not. `chat: {system: ..., user: "Complete: {prompt}"}` puts each prompt (for `{prompt}`) into a
user's message, and that into the tokenizer's own chat template with the model's turn begun, as
`apply_chat_template(..., add_generation_prompt=True)` does; the answer is read at the last token of that. A template
writes its BOS itself, so that nothing is put in front of it under `auto`. Slots, texts and token indices from 0 on
are found inside the prompt; `last`, `start` and negative indices count the whole conversation. Every report says how
many special tokens are in front and whether a chat template was used, the JSON report also the text that it put
around the prompts. Two BOS tokens are warned of (CS441). Some templates write the date of today, so that prompts differ
from one day to the next: that is refused (CS364) until the file says the date, as in
`chat: {variables: {date_string: "26 Jul 2024"}}`. Other names that a template knows are told to it there too, as in
`variables: {enable_thinking: false}`. Where the template has a file of its own, a lock holds that too."""

PROMPTS_FILE = """\
## Prompts from a file

`task: {file: prompts.jsonl}` reads one JSON object a line, such as (here on two)

```json
{"clean": "Mary and John met. John gave a ring to", "corrupt": "Mary and John met. Paul gave a ring to",
 "answers": [" Mary"], "wrong": [" John"], "positions": {"S2": {"text": "John", "nth": 2}}, "template": "ABBA"}
```

| key | |
|---|---|
| `clean` | The prompt. The one key that is needed. |
| `corrupt` | The corrupted prompt, as many tokens long, called `corrupt`; or several by name, `{"flip": "..."}`. |
| `answers`, `wrong` | The right and the wrong answers, each one token, most often with the space before it. |
| `positions` | Where positions are, by name: a token index, a list of them, or a text. |
| `template` | A name for the kind of prompt, by which means are taken and results told apart. |

A **token index** counts the tokens of the clean text from 0 (negative: from the end, -1 is the last). What the
tokenizer puts in front of the text, a BOS token, is not counted; one that is written in the text is. So it is in every
format, and in `positions` of a hypothesis: the same index means the same word whether a tokenizer adds BOS or not. A
**text**, `{"text": "John", "nth": 2}`, is the last token of its second occurrence in the clean text (`nth` left out:
the first), whole words only; it means the same under every tokenizer. With `"tokens": "all"` it is all tokens of that
text, as a list of indices, `"subject": [0, 1, 2]`, is all of these.

Prompts and answers may be **token ids** of the model's vocabulary: `"clean": [464, 8251], "answers": [318]`. Such a
prompt is used as it is: no special token is put in front, and indices count all of it. Clean prompt and corruptions are
then lists of equal length. Answers may be ids behind texts too. Reports show what ids decode to.

A `.csv` file has the columns `clean`, `corrupt` (or `corrupt:NAME`), `answers` and `wrong` (several separated by `|`),
`template` and `position:NAME` (an index; several or a text as JSON). A `.json` file may be as auto-circuit writes it:
`{"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}], "word_idxs": {"S2": 10}}`, where `word_idxs` are token
indices as above. With `prompts: N` the first N are read and checked, and nothing is said of those after them.
[prompts.md](prompts.md) has the other kinds of files, columns with other names, the layouts of other tools, and rows
that are left out."""


def reference() -> str:
    """The whole document, ending in a newline."""
    schema = json_schema()
    sections = _Sections(schema["$defs"])
    parts = [_HEAD, "## The file", sections.table(schema)]
    parts += [text for key in schema["properties"] for text in sections.of(schema["properties"][key], key, 2)]
    parts += ["## Claims", "One key, the claim's name, with its settings below it:", _example(schema)]
    for written in schema["properties"]["claims"]["items"]["oneOf"]:
        (name, body) = next(iter(written["properties"].items()))
        parts += sections.of(body, name, 3)
    parts += ["## Positions", _two_columns("position", "what it is", POSITIONS), SPANS, TABLES]
    parts += [PROMPTS_FILE]
    parts += ["## Metrics", *_metrics(schema["$defs"][next(iter(CLAIMS.values())).__name__]["properties"]["metric"])]
    parts += ["## Names of components", _two_columns("name", "what it is", NAMES)]
    parts += ["A bare number is an error: YAML reads `9.10` as 9.1, which would be head 1."]
    parts += ["## Paths", _two_columns("path", "what it says", PATHS)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


class _Sections:
    """Blocks of the schema as sections, each where it is met first."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._places: dict[str, str] = {}

    def of(self, schema: Mapping[str, Any], place: str, depth: int) -> Iterator[str]:
        """The sections of the blocks that may stand at `place`, and of those within them."""
        for name in _references(schema):
            if name in self._places:
                continue
            self._places[name] = place
            block = self._definitions[name]
            yield f"{'#' * depth} `{place}`"
            yield _plain(block["description"])
            yield self.table(block)
            for key, value in block["properties"].items():
                several = "additionalProperties" in value and _references(value)
                inner = f"{place}.{key}.NAME" if several else f"{place}.{key}"
                yield from self.of(value, inner, min(depth + 1, 4))

    def table(self, block: Mapping[str, Any]) -> str:
        rows = ["| key | value | default | |", "|---|---|---|---|"]
        for key, value in block["properties"].items():
            said = value.get("description") or self._said(value)
            rows.append(f"| `{key}` | {_kind(value)} | {_default(key, value, block)} | {_plain(said)} |")
        return "\n".join(rows)

    def _said(self, value: Mapping[str, Any]) -> str:
        return " ".join(self._definitions[name]["description"].partition("\n\n")[0] for name in _references(value))


def _kind(value: Mapping[str, Any]) -> str:
    """What may be written, in words."""
    if "$ref" in value:
        return "block below"
    if _is_metric(value):
        return "[metric](#metrics)"
    forms = [form for form in value.get("anyOf", value.get("oneOf", [])) if form.get("type") != "null"]
    if forms:
        return ", or ".join(dict.fromkeys(_kind(form) for form in forms))
    if "enum" in value or "const" in value:
        return ", ".join(f"`{_yaml(choice)}`" for choice in value.get("enum", [value.get("const")]))
    match value["type"]:
        case "array" if any("required" in form for form in value["items"].get("oneOf", ())):
            return "list of claims"
        case "array":
            count = f" ({value['minItems']})" if value.get("minItems") == value.get("maxItems", 0) else ""
            return f"list of {_kind(value['items'])}{count}".replace("of text", "of texts")
        case "object" if "additionalProperties" in value:
            return f"by name: {_kind(value['additionalProperties'])}"
        case "integer":
            return "whole number" + _range(value)
        case "number":
            return "number" + _range(value)
        case "boolean":
            return "`true`, `false`"
        case _:
            return "text"


def _is_metric(value: Mapping[str, Any]) -> bool:
    """A score of the output by its name, or one of what the model does inside: inline mappings of known keys."""
    return any("enum" in form and "logit_diff" in form["enum"] for form in value.get("anyOf", ()))


def _metrics(metric: Mapping[str, Any]) -> Iterator[str]:
    """Names of scores of the output, then a table for each score of what the model does inside."""
    names = ", ".join(f"`{name}`" for form in metric["anyOf"] for name in form.get("enum", ()))
    yield f"By name, of the output: {names}. [method.md](method.md) says what each of them is."
    for form in metric["anyOf"]:
        if "properties" in form:
            yield _plain(form["description"])
            yield _two_columns("key", "", {key: _plain(own["description"]) for key, own in form["properties"].items()})


def _references(schema: Any) -> list[str]:
    """The blocks that a value may be, in order; claims are told apart."""
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    found = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    if "properties" in schema:
        return found
    return found + [
        n for key in ("anyOf", "oneOf", "items", "additionalProperties") for n in _references(schema.get(key))
    ]


def _range(value: Mapping[str, Any]) -> str:
    """`, 0 to 1`; `, above 0`; whole numbers above 0 are those from 1 on."""
    whole = value["type"] == "integer"
    ends = []
    for name, strict, side, step in (
        ("minimum", "exclusiveMinimum", "above", 1),
        ("maximum", "exclusiveMaximum", "below", -1),
    ):
        if name in value or (whole and strict in value):
            ends.append(f"{value[name] if name in value else value[strict] + step:,}")
        else:
            ends.append(f"{side} {value[strict]:,}" if strict in value else "")
    least, most = ends
    if least and most:
        return f", {least} to {most}"
    return f", {least if least.startswith('above') else f'{least} or more'}" if least else ""


def _default(key: str, value: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    if key in block.get("required", ()):
        return "*needed*"
    default = value.get("default")
    return f"`{_yaml(default)}`" if isinstance(default, str | int | float) else ""


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _example(schema: Mapping[str, Any]) -> str:
    (claims,) = schema["properties"]["claims"]["examples"]
    lines = [f"  - {name}: {_flow(body)}" for claim in claims for name, body in claim.items()]
    return "\n".join(["```yaml", "claims:", *lines, "```"])


def _flow(body: Mapping[str, Any]) -> str:
    order = sorted(body, key=lambda key: key != "metric")
    return "{" + ", ".join(f"{key}: {_yaml(body[key])}" for key in order) + "}"


def _two_columns(first: str, second: str, rows: Mapping[str, str]) -> str:
    return "\n".join([f"| {first} | {second} |", "|---|---|", *(f"| `{key}` | {text} |" for key, text in rows.items())])


def _plain(text: str) -> str:
    """Prose as Markdown: nothing in it is taken for markup but what stands between backticks."""
    pieces = re.split("(`[^`]*`)", " ".join(text.split()))
    return "".join(p if p.startswith("`") else re.sub(r"([\\*<>|])", r"\\\1", p) for p in pieces)
