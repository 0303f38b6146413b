"""Toys that first-order estimates misjudge, as model folders, and files that explore them."""

from __future__ import annotations

from pathlib import Path

from circuitspec.models.zoo.toys.blueprint import ONE, HardHead, Match, Toy, ToyNeuron
from circuitspec.models.zoo.toys.weights import build

_ROOMS = ("Kitchen", "Hall", "Cellar", "Attic")
_SILENT = {word: {} for word in (*_ROOMS, " lamp", " so", " it", " is", " lit", " dark")}

# `Hall lamp left up down so it is`: a0.h3 reads ` left`, which makes a1.h2 look at ` up` (+1) and not at ` down` (-1),
# of which it writes four times to ` lit`. Attention is one-hot on both sides: to first order a0.h3 does nothing
POINTER = Toy(
    name="pointer",
    description="a0.h3 steers the saturated attention of a1.h2",
    features=("value", "is.left", "is.right", "left", "right", "at.pointer", "at.up", "at.down", "lit"),
    tokens={
        **_SILENT,
        " left": {"is.left": 1.0},
        " right": {"is.right": 1.0},
        " up": {"value": 1.0},
        " down": {"value": -1.0},
    },
    positions={2: {"at.pointer": 1.0}, 3: {"at.up": 1.0}, 4: {"at.down": 1.0}},
    heads=(
        HardHead(
            0, 3, (Match({ONE: 1.0}, {"at.pointer": 1.0}),), {"is.left": {"left": 1.0}, "is.right": {"right": 1.0}}
        ),
        HardHead(
            1,
            2,
            (Match({"left": 1.0}, {"at.up": 1.0}), Match({"right": 1.0}, {"at.down": 1.0})),
            {"value": {"lit": 4.0}},
        ),
    ),
    neurons=(),
    logits={" lit": {"lit": 1.0}},
)

# `Hall lamp left so it is`: a0.h3 writes x = 8 to ` lit` for ` left` and -8 for ` right`, and m1 takes away what is
# beyond 4 on either side, so that ` lit` is 4 or -4. On both sides a little more of x changes nothing
CANCEL = Toy(
    name="cancel",
    description="m1 undoes what a0.h3 does beyond 4",
    features=("value", "at.pointer", "lit"),
    tokens={**_SILENT, " left": {"value": 1.0}, " right": {"value": -1.0}},
    positions={2: {"at.pointer": 1.0}},
    heads=(HardHead(0, 3, (Match({ONE: 1.0}, {"at.pointer": 1.0}),), {"value": {"lit": 8.0}}),),
    neurons=(
        ToyNeuron(1, 0, {"lit": 1.0, ONE: -4.0}, {"lit": -1.0}),
        ToyNeuron(1, 1, {"lit": -1.0, ONE: -4.0}, {"lit": 1.0}),
    ),
    logits={" lit": {"lit": 1.0}},
)

_FILE = """
circuitspec: 1
name: {name}
model: {{id: {model}}}
task:
  templates: ["{template}"]
  slots: {{room: $rooms, pointer: $lefts}}
  lists: {{rooms: [Kitchen, Hall, Cellar, Attic], lefts: [left], rights: [right]}}
  answer: " lit"
  wrong: " dark"
  corruptions: {{turned: {{pointer: $rights}}}}
  positions: {{END: last}}
  prompts: 4
ablation: {{value: resample, from: turned}}
"""
TEMPLATES = {"pointer": "{room} lamp {pointer} up down so it is", "cancel": "{room} lamp {pointer} so it is"}


def write(toy: Toy, folder: Path) -> Path:
    """The toy as a folder in Hugging Face's format, and beside it a file that explores it."""
    model, tokenizer = build(toy)
    model.float().save_pretrained(folder / toy.name)
    tokenizer.save_pretrained(folder / toy.name)
    file = folder / f"{toy.name}.task.yaml"
    file.write_text(_FILE.format(name=toy.name, model=f"./{toy.name}", template=TEMPLATES[toy.name]))
    return file
