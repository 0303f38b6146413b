"""What measured values depend on, as keys: where two keys are equal, so are the values (up to rounding).

A key holds the model as it is in memory, the code that computes, and of the task what the experiment reads: a
corruption or a position that is added to a file leaves the values of all other experiments as they were. Texts and
tokenizer do not count, since only tokens reach the model; nor does what a run may choose freely, such as
the size of batches or the order of experiments.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, Literal

from circuitspec.experiments.experiment import Experiment, Noised, texts_of
from circuitspec.models.families.family_table import SUPPORTED
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask, TokenizedVariant

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from circuitspec.models.load import LoadedModel

_PACKAGES = ("circuitspec", "torch", "transformers", "pyvene", "numpy")
_COMPUTING = (
    "engine",
    "experiments",
    "prompts",
    "models",
    "graph",
    "hypothesis_file",
    "dictionaries",
)  # where values come from
_NAMES = ("_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype")  # say nothing of the values


@dataclass(frozen=True)
class RunSetting:
    """What all values of a run depend on besides the prompts."""

    model: str  # digest of weights and configuration
    dtype: str
    attention: str  # implementation
    device: str  # its kind
    processor: str
    float32_matmul: str  # precision
    padding: Literal["left", "right"]
    packages: tuple[tuple[str, str], ...]  # names and versions
    code: str  # digest: within one version the code changes while it is worked on
    threads: int | None = None  # of workers, whose values are the same to the last digit; None: whatever torch takes

    @property
    def digest(self) -> str:
        return _digest(asdict(self))


def setting_of(
    loaded: LoadedModel, padding: Literal["left", "right"] = "right", threads: int | None = None
) -> RunSetting:
    """The setting in which this model runs now, by workers with so many `threads` if there are any.

    Reads all weights once.
    """
    import torch

    weight = next(loaded.model.parameters())
    return RunSetting(
        model=_with_dictionaries(model_digest(loaded.model), loaded),
        dtype=str(weight.dtype).removeprefix("torch."),
        attention=str(loaded.model.config._attn_implementation),
        device=weight.device.type,
        processor=torch.cuda.get_device_name(weight.device) if weight.is_cuda else platform.machine(),
        float32_matmul=torch.get_float32_matmul_precision(),
        padding=padding,
        packages=tuple((name, version(name)) for name in _PACKAGES),
        code=_code_digest() if loaded.architecture.family in SUPPORTED else _with_entry(loaded),
        threads=threads,
    )


def model_digest(model: torch.nn.Module) -> str:
    """SHA-256 of a Hugging Face model in memory: its class, its configuration, every parameter and buffer."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    with ThreadPoolExecutor() as threads:  # hashing needs no interpreter lock
        digests = list(threads.map(_tensor_digest, (tensor for _, tensor in tensors)))
    config: dict[str, Any] = model.config.to_dict()  # type: ignore[union-attr, operator]
    return _digest(
        {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "config": {key: value for key, value in config.items() if key not in _NAMES},
            "tensors": sorted((name, digest) for (name, _), digest in zip(tensors, digests, strict=True)),
        }
    )


def _with_dictionaries(digest: str, loaded: LoadedModel) -> str:
    """The model's digest, how its routers are held, and the dictionaries by which its values are taken apart."""
    if loaded.frozen_routing:
        digest = _digest([digest, "frozen routing"])
    if not loaded.dictionaries:
        return digest
    own = {name: [repr(loaded.shape.dictionary(name)), one.digest] for name, one in loaded.dictionaries.items()}
    return _digest([digest, sorted(own.items())])


class Keys:
    """The keys of experiments on one task in one setting; `beside` is what is measured beside the usual metrics."""

    def __init__(self, setting: RunSetting, task: TokenizedTask, beside: tuple[str, ...] = ()) -> None:
        self._task = task
        prompts = task.prompts.prompts
        self.context = _digest(
            [
                setting.digest,
                [[p.index, p.template] for p in prompts],  # noise is drawn by index, means are taken by template
                task.ids[CLEAN],
                task.answers,
                task.wrong,
                *([sorted(beside)] if beside else []),
                *answers_scored_whole(task),
            ]
        )
        self._ids = {variant: variant_digest(task, variant) for variant in task.ids}
        self._reference = {} if task.reference is None else averaged_over(task.reference)
        self._roles = {
            role: _digest([places, task.slot_tokens.get(role), *([task.spans[role]] if role in task.spans else [])])
            for role, places in task.roles.items()
        }

    def of(self, experiment: Experiment) -> bytes:
        """The key of an experiment's values: 32 bytes."""
        return hashlib.sha256(
            _json(
                [
                    self.context,
                    experiment.digest,
                    [[v, self._ids[v]] for v in sorted(self._read_variants(experiment))],
                    [[role, self._roles[role]] for role in sorted(self._read_roles(experiment))],
                    *self._read_reference(experiment),
                ]
            )
        ).digest()

    def _read_variants(self, experiment: Experiment) -> set[str]:
        return {*map(texts_of, experiment.variants), *({experiment.expected} - {CLEAN})}

    def _read_reference(self, experiment: Experiment) -> Iterable[object]:
        """The other prompts that patched means go over, with what decides which of them go into which mean."""
        if self._reference and experiment.source is not None and experiment.source.is_mean:
            assert experiment.source.prompts is not None
            yield [self._reference[texts_of(experiment.source.prompts)], self._reference[""]]

    def _read_roles(self, experiment: Experiment) -> Iterable[str]:
        if experiment.source is not None and experiment.source.row.by_template:
            return self._roles  # prompts are grouped by where all their positions are
        noised = (v.where.roles for v in experiment.variants if isinstance(v, Noised))
        return experiment.roles.union(*noised)


def answers_scored_whole(task: TokenizedTask) -> tuple[object, ...]:
    """The token sequences of answers that are scored whole; nothing where answers are single tokens."""
    if task.sequences is None:
        return ()
    return ({"sum_logprob": [task.sequences.answers, task.sequences.wrong]},)


def variant_digest(task: TokenizedTask, variant: str) -> str:
    """A digest of what one variant of the prompts is, beside what it shares with the clean ones."""
    own = task.own.get(variant)
    if own is None:
        return _digest(task.ids[variant])
    places = [sorted(own.roles.items()), sorted(own.slot_tokens.items()), *_spans(own)]
    paired = [] if own.pairs is None else [own.pairs]
    return _digest([own.ids, own.answers, own.wrong, *places, *paired])


def _spans(own: TokenizedVariant | TokenizedTask) -> Iterable[object]:
    """The positions that are several tokens; nothing where none is, so that such keys are as they were before these."""
    if own.spans:
        yield {"spans": sorted(own.spans.items())}


def all_of_task(task: TokenizedTask) -> list[object]:
    """All that values of a task may depend on: what depends on more than an experiment reads has it in its key."""
    prompts = [[prompt.index, prompt.template] for prompt in task.prompts.prompts]
    answers = [task.answers, task.wrong, *answers_scored_whole(task)]
    places = [sorted(task.roles.items()), sorted(task.slot_tokens.items())]
    places += [sorted(task.spans.items())] if task.spans else []
    averaged = [] if task.reference is None else [averaged_over(task.reference)]
    own = [sorted((name, variant_digest(task, name)) for name in task.own)] if task.own else []
    return [prompts, sorted(task.ids.items()), answers, places, *averaged, *own]


def averaged_over(reference: TokenizedTask) -> dict[str, str]:
    """Digests of the tokens of each variant and, without a name, of the templates and positions."""
    templates = [[p.index, p.template] for p in reference.prompts.prompts]
    where = sorted(reference.roles.items())
    after = [] if reference.continuations is None else [reference.continuations]
    return {
        **{variant: variant_digest(reference, variant) for variant in reference.ids},
        "": _digest([templates, where, *_spans(reference), *after]),
    }


def _tensor_digest(tensor: Tensor) -> str:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    hashed = hashlib.sha256(_json([str(tensor.dtype), tuple(tensor.shape)]))
    hashed.update(flat.view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _with_entry(loaded: LoadedModel) -> str:
    """The digest of the code, and of a family's entry that is in another package."""
    return _digest([_code_digest(), repr(loaded.architecture)])


@cache  # of the code that runs, even where it is edited meanwhile
def _code_digest() -> str:
    """SHA-256 of the source that computes values; of nothing where only compiled code is installed."""
    package = files("circuitspec")
    sources = sorted(
        (name, content) for part in _COMPUTING for name, content in _sources(package / part, f"circuitspec.{part}")
    )
    return _digest([(name, hashlib.sha256(content).hexdigest()) for name, content in sources])


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{name}.{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}.{entry.name}", entry.read_bytes()


def _digest(content: Any) -> str:
    return hashlib.sha256(_json(content)).hexdigest()


def _json(content: Any) -> bytes:
    """One spelling per value; what JSON has no word for, as Python writes it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=repr).encode()
