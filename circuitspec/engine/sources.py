"""Where patched values come from: another run as it is, or means over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.batches import Batch
from circuitspec.engine.taps import Tap
from circuitspec.plan.experiment import Source, SourceKind
from circuitspec.tasks.prompts import TokenizedTask

Layout = tuple[int, int, tuple[int, ...]]  # template, length, role positions


def mean_groups(task: TokenizedTask, kind: SourceKind) -> tuple[int, ...]:
    """The number of the group over which each prompt's mean is taken.

    A mean is taken position by position, so positions must mean the same in all prompts of a group:
    `mean_per_template` groups prompts by template and, where a template's prompts tokenise differently,
    by length and positions of the roles; `mean` takes all prompts as one group and demands one length.
    Raises CS521 where lengths differ, CS522 where a group has a single prompt (its mean would be that
    prompt's own value, a resample ablation under another name).
    """
    keys: list[Layout] = []
    for i, length in enumerate(task.lengths):
        if kind == "mean_per_template":
            roles = tuple(task.roles[name][i] for name in sorted(task.roles))
            keys.append((task.prompts.prompts[i].template, length, roles))
        else:
            keys.append((0, length, ()))
    groups = {key: number for number, key in enumerate(sorted(set(keys)))}
    if kind == "mean" and len(groups) > 1:
        lengths = sorted({length for _, length, _ in groups})
        raise CircuitspecError(
            Diagnostic(
                "CS521",
                f"ablation value `mean` averages position by position, but the prompts are {lengths} tokens long",
                hint="write `value: mean_per_template`, or use prompts of one length",
            )
        )
    assigned = tuple(groups[key] for key in keys)
    lonely = [i for i, group in enumerate(assigned) if assigned.count(group) == 1]
    if lonely:
        raise CircuitspecError(
            Diagnostic(
                "CS522",
                f"the mean would be over a single prompt for {_lonely(task, lonely)}",
                hint="raise `prompts`, use fewer templates, or list entries that tokenise to the same length; "
                "or write `value: resample`",
            )
        )
    return assigned


def _lonely(task: TokenizedTask, alone: Sequence[int]) -> str:
    """The templates that have one prompt, and those of which one prompt has a token layout of its own."""
    of = [prompt.template for prompt in task.prompts.prompts]
    single = sorted({of[i] for i in alone if of.count(of[i]) == 1})
    layouts = [of[i] for i in alone if of.count(of[i]) > 1]

    def among(templates: Sequence[int]) -> str:
        return ", ".join(repr(task.prompts.templates[t]) for t in sorted(set(templates))[:3])

    parts = [f"{len(single)} template(s), among them {among(single)}"] if single else []
    if layouts:
        parts.append(
            f"{len(layouts)} token layout(s) (a length, with the tokens of its positions), among them of "
            f"{among(layouts)}"
        )
    return ", and for ".join(parts)


@dataclass
class MeanTable:
    """Running means of every tap, by group and token position (offset from the prompt's first token)."""

    groups: tuple[int, ...]  # of each prompt
    longest: int
    _sums: dict[Tap, Tensor] = field(default_factory=dict)
    _counts: Tensor | None = None

    def add(self, batch: Batch, values: Mapping[Tap, Tensor]) -> None:
        """Take in one batch's values `[row, pos, channel]`; sums are kept in float64."""
        if self._counts is None:
            self._counts = torch.zeros(max(self.groups) + 1, dtype=torch.float64)
        index = torch.tensor([self.groups[p] for p in batch.prompts])
        self._counts.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
        for tap, tensor in values.items():
            # Metal has no float64
            aligned = self._aligned(batch, tensor.cpu() if tensor.device.type == "mps" else tensor)
            if tap not in self._sums:
                shape = (max(self.groups) + 1, self.longest, tensor.shape[-1])
                self._sums[tap] = torch.zeros(shape, dtype=torch.float64, device=aligned.device)
            self._sums[tap][:, : batch.width].index_add_(0, index.to(aligned.device), aligned.double())

    @property
    def taps(self) -> frozenset[Tap]:
        return frozenset(self._sums)

    @property
    def derived(self) -> frozenset[Tap]:
        """Those that were worked out of others (`Stream.with_scaled`)."""
        return frozenset(tap for tap in self._sums if tap.kind == "z_scaled")

    def _aligned(self, batch: Batch, tensor: Tensor) -> Tensor:
        """Rows shifted so that column 0 is the prompt's first token; what lies beyond a prompt is not read."""
        if not any(batch.offsets):
            return tensor
        rows = [row.roll(-offset, 0) for row, offset in zip(tensor, batch.offsets, strict=True)]
        return torch.stack(rows)

    def values(self, batch: Batch, taps: frozenset[Tap], like: Tensor) -> dict[Tap, Tensor]:
        """The mean for each row of the batch, `[row, pos, channel]`, in the model's dtype."""
        if self._counts is None:
            raise ValueError("no batch has been added")
        index = torch.tensor([self.groups[p] for p in batch.prompts])
        result = {}
        for tap in taps:
            sums = self._sums[tap]
            means = sums[index.to(sums.device), : batch.width] / self._counts[index].to(sums.device)[:, None, None]
            if any(batch.offsets):
                means = torch.stack([m.roll(o, 0) for m, o in zip(means, batch.offsets, strict=True)])
            result[tap] = means.to(like.dtype).to(like.device)
        return result


def mean_sources(sources: frozenset[Source]) -> frozenset[Source]:
    """Those among `sources` that need a pass over all prompts before anything is patched."""
    return frozenset(s for s in sources if s.kind in ("mean", "mean_per_template"))
