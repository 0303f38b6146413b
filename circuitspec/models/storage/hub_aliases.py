"""Names that TransformerLens gives to models of supported families, and the hub ids that they stand for."""

from __future__ import annotations

_OLD_PYTHIA = {
    "19m": "70m",
    "125m": "160m",
    "350m": "410m",
    "800m": "1b",
    "1.3b": "1.4b",
    "2.7b": "2.8b",
    "6.7b": "6.9b",
    "13b": "12b",
}
_NEW_PYTHIA = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
_PYTHIA = {size: size for size in _NEW_PYTHIA} | _OLD_PYTHIA
_QWEN = (
    *(f"Qwen2-{size}{tuned}" for size in ("0.5B", "1.5B", "7B") for tuned in ("", "-Instruct")),
    *(
        f"Qwen2.5-{size}{tuned}"
        for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")
        for tuned in ("", "-Instruct")
    ),
    *(f"Qwen1.5-{size}{tuned}" for size in ("0.5B", "1.8B", "4B", "7B", "14B") for tuned in ("", "-Chat")),
    *("Qwen3-0.6B", "Qwen3-0.6B-Base", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B", "Qwen3-14B"),
)
_GEMMA = (
    *(f"gemma-2-{size}{tuned}" for size in ("2b", "9b", "27b") for tuned in ("", "-it")),
    *("gemma-3-270m", "gemma-3-270m-it", "gemma-3-1b-pt", "gemma-3-1b-it"),
)
_LLAMA = (
    *("Meta-Llama-3-8B", "Meta-Llama-3-8B-Instruct", "Meta-Llama-3-70B", "Meta-Llama-3-70B-Instruct"),
    *("Llama-3.1-8B", "Llama-3.1-8B-Instruct", "Llama-3.1-70B", "Llama-3.1-70B-Instruct"),
    *("Llama-3.2-1B", "Llama-3.2-1B-Instruct", "Llama-3.2-3B", "Llama-3.2-3B-Instruct"),
)
_LLAMA2 = ("7b", "7b-chat", "13b", "13b-chat", "70b-chat")

_IDS: dict[str, str] = {
    "gpt2-small": "openai-community/gpt2",
    **dict.fromkeys(("distillgpt2", "distill-gpt2", "distil-gpt2", "gpt2-xs"), "distilbert/distilgpt2"),
    "pythia": "EleutherAI/pythia-70m",
    **{
        f"pythia-{size}{kind}": f"EleutherAI/pythia-{now}{kind}"
        for size, now in _PYTHIA.items()
        for kind in ("", "-deduped", "-v0", "-deduped-v0")
    },
    **dict.fromkeys(("gpt-neox-20b", "gpt-neox", "neox"), "EleutherAI/gpt-neox-20b"),
    **{name.lower(): f"Qwen/{name}" for name in _QWEN},
    **{name: f"google/{name}" for name in _GEMMA},
    **{name.lower(): f"meta-llama/{name}" for name in _LLAMA},
    **{f"llama-2-{kind}": f"meta-llama/Llama-2-{kind}-hf" for kind in _LLAMA2},
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.1",
    "phi-3": "microsoft/Phi-3-mini-4k-instruct",
    "olmo-2-1b": "allenai/OLMo-2-0425-1B",
    "olmo-2-7b": "allenai/OLMo-2-1124-7B",
}


def hub_id_of(name: str) -> str | None:
    """The hub id of a model that TransformerLens calls `name`; None for names that are none of its alone."""
    return _IDS.get(name.lower())
