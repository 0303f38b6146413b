"""What runs a model, whether in this process or elsewhere: the one thing that all patching goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.taps import Tap


class Executor(Protocol):
    """Runs one batch through the model; `engine.execution.compiler.Compiler` is the one of this process."""

    def forward(self, inputs: Mapping[str, Any], actions: Actions) -> tuple[Tensor, dict[Tap, Tensor]]:
        """One forward with these actions.

        `inputs` are what `batches.model_inputs` gives: token ids `[row, pos]`, the columns of which logits are kept,
        and with padding on the left a mask and position ids; beside them a cache of keys and values, where the forward
        fills one or begins behind one. Tensors are on the device on which they are to be used afterwards.

        Returns the logits `[row, kept position, vocabulary]`, and for each recorded tap the values computed there
        before any patch, `[row, pos, channel]`. Where the caller's torch records gradients, both carry theirs, which
        takes a forward in the caller's own thread. Raises what running out of memory raises (`memory.out_of_memory`
        tells), and CS501 and CS510 for taps that do not fit.
        """
