"""A model that is in memory already, taken as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.models.architecture import architecture_of
from circuitspec.models.load import LoadedModel, Provenance
from circuitspec.models.modules import verify_modules
from circuitspec.models.shapes import shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def adopt_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """A Hugging Face model of the caller's, with what is needed to name and reach its parts.

    Nothing of it is changed: its dtype and device stay, whatever a hypothesis says. Raises CS304 for an
    unknown family, CS313 where its modules are not those of its family, CS370 where its parameters have
    several dtypes or lie on several devices.
    """
    config = model.config.to_dict()
    architecture, shape = architecture_of(config), shape_of(config)
    verify_modules(model, architecture, shape)
    parameters = list(model.parameters())
    kinds = {str(p.dtype).removeprefix("torch.") for p in parameters}
    devices = {str(p.device) for p in parameters}
    if len(kinds) > 1 or len(devices) > 1:
        raise CircuitspecError(
            Diagnostic(
                "CS370",
                f"the model's parameters are {' and '.join(sorted(kinds))} on {' and '.join(sorted(devices))}",
                hint="give a model of one dtype on one device, e.g. model.float().to('cpu')",
            )
        )
    name = getattr(model.config, "name_or_path", "") or type(model).__name__
    provenance = Provenance(
        id=name,
        revision=None,
        dtype=kinds.pop(),
        family=architecture.family,
        description="in memory",
        n_parameters=sum(p.numel() for p in parameters),
        path=None,
    )
    return LoadedModel(model, tokenizer, architecture, shape, provenance)
