"""What may stand in `ablation: value:`: one row a value, with all that other modules need to know of it.

A new value is a row here. Where its values are computed as no other's are, it is also one function in
`engine/ablation/patched_values.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NOISE_SETTINGS = ("std", "at", "draws", "seed")
"""Keys of the block `ablation` that are about noise alone."""


@dataclass(frozen=True)
class AblationKind:
    """One value of `ablation: value:`.

    name: as the file has it.
    phrase: what replaces an ablated activation, for the schema; values with one phrase share it.
    made_of: what patched values are computed from: what the run on the corrupt prompts has, prompt by prompt; means of
        that over prompts; or no run at all. It decides which passes over the prompts are planned.
    is_run: patched values are those of the corrupt run, unchanged, so that everything ablated is that run.
    is_zero: an ablated component adds nothing.
    by_template: means are taken over prompts of one template.
    noise: the corrupt prompts are the clean ones with noise on their embeddings, which is drawn.
    same_as: the value whose patched values these are, where only the corrupt prompts differ; "" for its own.
    varied: whether it is one of the other methods that `--sweep` and `robust_to` compare with.
    """

    name: str
    phrase: str
    made_of: Literal["run", "means", "nothing"]
    is_run: bool = False
    is_zero: bool = False
    by_template: bool = False
    noise: bool = False
    same_as: str = ""
    varied: bool = True

    def __post_init__(self) -> None:
        if (self.is_run and self.made_of != "run") or (self.is_zero and self.made_of != "nothing"):
            raise ValueError(f"{self.name}: a run's own values are made of a run, and zeros of nothing")
        if (self.by_template and self.made_of != "means") or (self.noise and self.made_of == "nothing"):
            raise ValueError(f"{self.name}: means are taken by template, and noise goes into a run")

    @property
    def source(self) -> str:
        """What patched values are called where it does not matter which prompts are corrupt."""
        return self.same_as or self.name

    @property
    def averages(self) -> bool:
        """Whether patched values are means over prompts."""
        return self.made_of == "means"

    @property
    def takes_prompts(self) -> bool:
        """Whether values come from other prompts, so that `from:` says from which."""
        return self.made_of != "nothing" and not self.noise

    @property
    def has_corrupt_run(self) -> bool:
        """Whether there are prompts on which the behaviour is broken, which clean values can be restored in."""
        return self.made_of != "nothing"

    @property
    def bundle_form(self) -> Literal["means", "zeros", "run"] | None:
        """How a bundle for pyvene says it; None where it cannot."""
        if self.noise:
            return None
        return "means" if self.averages else "zeros" if self.is_zero else "run" if self.is_run else None


_MEAN = "its mean over prompts (of one template)"

RESAMPLE = AblationKind("resample", "that of the corrupted prompt (resample)", "run", is_run=True)
MEAN = AblationKind("mean", _MEAN, "means")
MEAN_PER_TEMPLATE = AblationKind("mean_per_template", _MEAN, "means", by_template=True)
ZERO = AblationKind("zero", "zero", "nothing", is_zero=True)
GAUSSIAN = AblationKind("gaussian", "noise", "run", is_run=True, noise=True, same_as=RESAMPLE.name, varied=False)

ABLATIONS: Mapping[str, AblationKind] = {
    kind.name: kind for kind in (RESAMPLE, MEAN, MEAN_PER_TEMPLATE, ZERO, GAUSSIAN)
}
"""All values by name, in the order in which they are listed."""


def varied_values() -> tuple[str, ...]:
    """The values that methods are compared under."""
    return tuple(name for name, kind in ABLATIONS.items() if kind.varied)


def phrases() -> str:
    """What replaces an ablated activation, in one list: `that of the corrupted prompt (resample), ..., or noise`."""
    *others, last = dict.fromkeys(kind.phrase for kind in ABLATIONS.values())
    return f"{', '.join(others)}, or {last}"
