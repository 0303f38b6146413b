"""Blocks of a model that are not computed: they hand the residual stream on as it came, in whatever form blocks do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from circuitspec.models.families.modules import computing


class SkippedBlocks:
    """The blocks of one model; what they return is seen in its first whole forward: a tensor, or a tuple around it."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        self._blocks = blocks
        self._returned: object = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, a whole forward shows what blocks return, if that is not known yet."""
        if self._returned is not None or not self._blocks:
            yield
            return
        block = self._blocks[0]
        own = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = own(*args, **kwargs)
            self._returned = (None,) * len(output) if isinstance(output, tuple) else "tensor"
            return output

        with computing({block: forward}):
            yield

    def before(self, first: int) -> dict[nn.Module, Callable[..., Any]]:
        """Forwards of the blocks before one of them, which do nothing."""
        return dict.fromkeys(self._blocks[:first], self._hand_on)

    def after(self, last: int | None) -> dict[nn.Module, Callable[..., Any]]:
        """The same of one block and all after it; of none, where none is named."""
        return {} if last is None else dict.fromkeys(self._blocks[last:], self._hand_on)

    def _hand_on(self, *args: Any, **kwargs: Any) -> Any:
        """A block's forward that does nothing."""
        stream: Tensor = args[0] if args else kwargs["hidden_states"]
        match self._returned:
            case "tensor":
                return stream
            case (_, *rest):
                return (stream, *rest)
        raise ValueError("no whole forward has been watched")
