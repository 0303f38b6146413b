"""Experts whose results hang on one token alone, whatever other tokens a forward has.

transformers computes all tokens that an expert serves in one product of matrices. How many these are depends on every
row of a batch, and products of other sizes round otherwise: a row that is patched would move the others, by as much as
rounding does. Here each expert computes its tokens in blocks of a fixed number, the last one filled up.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuitspec.models.families.modules import computing

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 16  # tokens; fewer make products slow, more fill up more


@dataclass(frozen=True)
class Served:
    """What experts give to tokens: `added` `[token, choice, d_model]`, weighted, by `expert` `[token, choice]`."""

    expert: Tensor
    added: Tensor

    def summed(self) -> Tensor:
        """`[token, d_model]`"""
        return self.added.sum(1)


@contextlib.contextmanager
def token_by_token(model: nn.Module) -> Iterator[None]:
    """Within it, what experts compute of a token does not depend on others; given back as it came."""
    forwards: dict[nn.Module, Callable[..., Any]] = {
        module: functools.partial(_summed, module) for module in model.modules() if _computes_some(module)
    }
    forwards |= {module: functools.partial(_in_rows, module.forward) for module in model.modules() if _flattens(module)}
    with computing(forwards):
        yield


def serve(module: nn.Module, entering: Tensor, chosen: Tensor, weights: Tensor) -> Served:
    """What each chosen expert gives to each token, by the model's own arithmetic.

    `entering` is `[token, d_model]`, `chosen` and `weights` are `[token, choice]`.
    """
    import torch

    own = _plain_forward(module)
    added = entering.new_zeros(*chosen.shape, entering.shape[-1])
    for expert in torch.unique(chosen).tolist():
        tokens, choices = torch.where(chosen == expert)
        given = [
            _block(module, own, expert, entering[some], weights[some, which])
            for some, which in zip(torch.split(tokens, BLOCK), torch.split(choices, BLOCK), strict=True)
        ]
        added = added.index_put((tokens, choices), torch.cat(given).to(added.dtype))
    return Served(chosen, added)


def _block(module: nn.Module, own: Callable[..., Tensor], expert: int, entering: Tensor, weights: Tensor) -> Tensor:
    """`[token, d_model]` of at most a block of tokens."""
    import torch

    missing = BLOCK - len(entering)
    rows = torch.cat([entering, entering.new_zeros(missing, entering.shape[1])])
    filled = torch.cat([weights, weights.new_zeros(missing)]).unsqueeze(1)
    chosen = torch.full((BLOCK, 1), expert, dtype=torch.long, device=entering.device)
    return own(module, rows, chosen, filled)[: len(entering)]


@dataclass(frozen=True)
class ExpertOutputs:
    """What experts did in one forward: `added` `[token, expert, d_model]`, and, where it was asked for, `neurons`
    `[token, expert, d_expert]`, what each output projection read, times the expert's weight. `down` are these
    projections, `[expert, d_expert, d_model]`."""

    added: Tensor
    neurons: Tensor | None
    down: Tensor


def watched(
    module: nn.Module, n_experts: int, see: Callable[[ExpertOutputs], None], *, neurons: bool = False
) -> Callable[..., Tensor]:
    """The forward of a module of experts that shows what each of them adds, and what its `neurons` are."""
    down = _down(module)

    def chosen(entering: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        def by_expert(served: Served) -> Tensor:
            each = served.added.new_zeros(len(entering), n_experts, entering.shape[-1])
            return each.scatter_add(1, index.unsqueeze(-1).expand_as(served.added), served.added)

        served = serve(module, entering, index, weights)
        hidden = _neurons(module, lambda own: by_expert(serve(own, entering, index, weights))) if neurons else None
        see(ExpertOutputs(by_expert(served), hidden, down))
        return served.summed().to(entering.dtype)

    def all_of_them(entering: Tensor) -> Tensor:
        def by_expert(given: Tensor) -> Tensor:
            return given.view(n_experts, -1, given.shape[-1]).transpose(0, 1)

        given: Tensor = type(module).forward(module, entering)
        hidden = _neurons(module, lambda own: by_expert(type(module).forward(own, entering))) if neurons else None
        see(ExpertOutputs(by_expert(given), hidden, down))
        return given

    return chosen if _computes_some(module) else all_of_them


def _down(module: nn.Module) -> Tensor:
    """The output projections of experts, `[expert, d_expert, d_model]`."""
    weight: Tensor = module.down_proj  # type: ignore[assignment]
    return weight if _transposed(module) else weight.transpose(1, 2)


def _transposed(module: nn.Module) -> bool:
    """Whether a token is multiplied with a weight as it lies, and not with its transpose."""
    return bool(getattr(module, "is_transposed", not _computes_some(module)))


def _neurons(module: nn.Module, by_expert: Callable[[nn.Module], Tensor]) -> Tensor:
    """`[token, expert, d_expert]`: what the output projections read, as `by_expert` gives what they give."""
    import torch

    n_experts, d_expert, d_model = _down(module).shape
    found = []
    for first in range(0, d_expert, d_model):
        last = min(first + d_model, d_expert)
        on = _down(module).new_zeros(d_expert, d_model)
        on[range(first, last), range(last - first)] = 1
        own = on if _transposed(module) else on.T
        handing_on = copy.copy(module)
        parameters = {name: one for name, one in module._parameters.items() if not name.startswith("down_proj")}
        vars(handing_on)["_parameters"] = parameters
        vars(handing_on)["down_proj"] = own.expand(n_experts, *own.shape)
        if hasattr(module, "down_proj_bias"):
            vars(handing_on)["down_proj_bias"] = on.new_zeros(n_experts, d_model)
        found.append(by_expert(handing_on)[..., : last - first])
    return torch.cat(found, -1)


def routing(output: tuple[Tensor, ...], n_experts: int) -> Tensor:
    """The weights of all experts in what a router gives, `[token, expert]`: zero for those that are not chosen."""
    if len(output) == 2:  # weights of all, and the logits that they come of
        return output[0]
    _, weights, chosen = output
    return weights.new_zeros(len(weights), n_experts).scatter(1, chosen, weights)


def rerouted(output: tuple[Tensor, ...], at: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """What a router gives, with these weights `[token, expert]` of its experts where `at` `[token, 1]` says so.

    As many experts are chosen as any token has weights for: of the others, with weight zero.
    """
    import torch

    if len(output) == 2:
        return torch.where(at, weights, output[0]), output[1]
    logits, own, chosen = output
    most = max(own.shape[1], int((weights != 0).sum(1).max()))
    largest, index = weights.topk(most, dim=1)
    missing = most - own.shape[1]
    padded, which = (torch.nn.functional.pad(one, (0, missing)) for one in (own, chosen))
    return logits, torch.where(at, largest, padded), torch.where(at, index, which)


def _summed(module: nn.Module, entering: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    return serve(module, entering, chosen, weights).summed().to(entering.dtype)


def _in_rows(own: Callable[..., Any], entering: Tensor) -> Any:
    """A module's `[row, pos, d_model]`, which it gives with the tokens of all rows in one line."""
    output, *beside = own(entering)
    return (output.view(entering.shape), *beside)


def _computes_some(module: nn.Module) -> bool:
    """Whether it computes the chosen experts of each token, by one of the implementations that transformers has.

    Otherwise it computes all experts of all tokens, given what each of them is to read: `[expert * token, d_model]`.
    """
    return (
        hasattr(module, "num_experts") and hasattr(type(module).forward, "__wrapped__") and hasattr(module, "has_gate")
    )


def _plain_forward(module: nn.Module) -> Callable[..., Tensor]:
    """The family's own arithmetic, without another implementation in its place."""
    forward: Callable[..., Tensor] = type(module).forward.__wrapped__  # type: ignore[attr-defined]
    return forward


def _flattens(module: nn.Module) -> bool:
    return type(module).__name__ == "Llama4TextMoe"
