"""What is put around prompts before a model takes them: special tokens, and a chat template. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from circuitspec.hypothesis_file.schema.chat_block import PROMPT, Chat
from circuitspec.prompts.prompt_set import AroundPrompts, ChatFrame, Framing, Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.tokens.encoding import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STAND_IN = "circuitspec-prompt"  # rendered in the prompt's place to see what a template puts around it


class _WithSpecialTokens:
    """A tokenizer that puts nothing, or a BOS token alone, in front of texts, whatever it does by itself."""

    is_fast = True

    def __init__(self, tokenizer: Any, bos: int | None) -> None:
        self._tokenizer, self._bos = tokenizer, bos
        self.unk_token, self.unk_token_id = tokenizer.unk_token, tokenizer.unk_token_id
        self.bos_token_id = getattr(tokenizer, "bos_token_id", None)
        self.decode = tokenizer.decode

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool = True, **how: Any) -> dict[str, list[Any]]:
        found = self._tokenizer(list(texts), add_special_tokens=False, **how)
        named = [name for name in ("input_ids", "offset_mapping", "special_tokens_mask") if name in found]
        if self._bos is None or not add_special_tokens:
            return {name: [list(row) for row in found[name]] for name in named}
        first = {"input_ids": self._bos, "offset_mapping": (0, 0), "special_tokens_mask": 1}
        return {name: [[first[name], *row] for row in found[name]] for name in named}


def reader_of(tokenizer: PreTrainedTokenizerBase, framing: Framing, findings: TaskFindings) -> PreTrainedTokenizerBase:
    """The tokenizer as `special_tokens` asks for; itself for `auto` without a chat template.

    A chat template writes its special tokens itself, so that with one `auto` puts none in front. Raises CS364 where a
    BOS token is asked for and there is none.
    """
    if framing.special_tokens == "auto" and framing.chat is None:
        return tokenizer
    bos = None
    if framing.special_tokens == "bos":
        bos = getattr(tokenizer, "bos_token_id", None)
        if bos is None:
            findings.add(
                "CS364",
                "the tokenizer has no BOS token that could be put in front of the prompts",
                ("task", "special_tokens"),
                hint="write special_tokens: auto, or none",
            )
            findings.check()
    return cast("PreTrainedTokenizerBase", _WithSpecialTokens(tokenizer, None if bos is None else int(bos)))


@dataclass(frozen=True)
class Frame:
    """The text that a chat template puts in front of a prompt and behind it; nothing without one."""

    before: str = ""
    behind: str = ""

    def whole(self, text: str) -> str:
        """The text with what stands around it."""
        return f"{self.before}{text}{self.behind}"

    def around(self, prompts: PromptSet) -> PromptSet:
        """The prompts with their texts so framed, and slots where they then stand."""
        if self == Frame():
            return prompts
        return replace(prompts, prompts=tuple(map(self._around, prompts.prompts)))

    def _around(self, prompt: Prompt) -> Prompt:
        shift = len(self.before)
        slots = {
            variant: {name: (start + shift, end + shift) for name, (start, end) in spans.items()}
            for variant, spans in prompt.slots.items()
        }
        texts = {variant: self.whole(text) for variant, text in prompt.texts.items()}
        return replace(prompt, texts=texts, slots=slots)

    def within(self, encoded: Encoded) -> Encoded:
        """The tokens of a framed text, told which of them and which characters are the prompt's own."""
        if self == Frame():
            return encoded
        start, end = len(self.before), len(encoded.text) - len(self.behind)
        in_front = next((k for k, (_, last) in enumerate(encoded.spans) if last > start), len(encoded))
        return replace(encoded, before=in_front, own=(start, end))


def frame_of(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, findings: TaskFindings) -> Frame:
    """What the tokenizer's chat template puts around every prompt.

    Raises CS364 where there is no template, it refuses these messages, or changes the prompts themselves.
    """
    chat = prompts.framing.chat
    if chat is None:
        return Frame()
    from jinja2 import TemplateError

    at = ("task", "chat")
    try:
        rendered = _rendered(tokenizer, chat, _STAND_IN)
        before, found, behind = rendered.partition(_STAND_IN)
        if not found or _STAND_IN in behind:
            times = rendered.count(_STAND_IN)
            findings.add("CS364", f"the chat template writes the user's message {times} times, not once", at)
            findings.check()
        today = _todays_date(_template(tokenizer), rendered)
        if today:
            findings.add(
                "CS364",
                f"the chat template writes today's date into every prompt ({today}): tomorrow's numbers are others",
                at,
                hint='say which date it writes: chat: {variables: {date_string: "26 Jul 2024"}}; if the template does '
                "not let itself be told, write the conversation into the prompts, with special_tokens: none",
            )
        frame = Frame(before, behind)
        for prompt in prompts.prompts:
            for variant, text in prompt.texts.items():
                if _rendered(tokenizer, chat, text) != frame.whole(text):
                    findings.add(
                        "CS364",
                        f"the chat template changes the text of {prompt.described()} ({variant})",
                        prompt.span or at,
                        hint="write prompts without spaces at their ends, and without the template's own words",
                    )
                    break
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError, IndexError, ImportError) as error:
        said = "the tokenizer has no chat template" if _template(tokenizer) is None else f"it refuses: {error}"
        findings.add("CS364", f"the prompts cannot be put into the chat template: {said}", at, hint=_hint(chat))
    findings.check()
    return frame


def _template(tokenizer: object) -> object:
    return getattr(tokenizer, "chat_template", None)


def _hint(chat: Chat) -> str:
    if chat.system is not None:
        return "use a model with a chat template, or leave `system` out: some templates take none"
    return "use a model with a chat template, or leave `chat` out"


def _rendered(tokenizer: Any, chat: Chat, prompt: str) -> str:
    """The conversation as text, up to where the reply begins."""
    messages = [] if chat.system is None else [{"role": "system", "content": chat.system}]
    messages.append({"role": "user", "content": chat.user.replace(PROMPT, prompt)})
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **dict(chat.variables))
    )


def _todays_date(template: object, rendered: str) -> str:
    """The date of today as a template wrote it; empty where it wrote none."""
    formats = re.findall(r"strftime_now\(\s*[\"']([^\"']+)[\"']", str(template))
    written = (datetime.now().strftime(form) for form in formats)
    return next((date for date in written if date in rendered), "")


def check_given_ids(prompts: PromptSet, findings: TaskFindings) -> None:
    """Raises CS364 where something is to be put around prompts that are given as token ids."""
    framing = prompts.framing
    if not any(prompt.ids for prompt in prompts.prompts):
        return
    for key, wanted in (("special_tokens", framing.special_tokens != "auto"), ("chat", framing.chat is not None)):
        if wanted:
            findings.add(
                "CS364",
                f"the prompts are token ids, which are used as they are: {key} cannot change them",
                ("task", key),
                hint=f"leave {key} out, or give the prompts as texts",
            )
    findings.check()


def surroundings_of(
    prompts: PromptSet, clean: Sequence[Encoded], frame: Frame, tokenizer: PreTrainedTokenizerBase
) -> AroundPrompts:
    """What stands around the clean prompts, for reports."""
    added = [tokens.added for tokens in clean]
    in_front = [tokens.before for tokens in clean]
    bos = getattr(tokenizer, "bos_token_id", None)
    twice = sum(
        1
        for tokens in clean
        if len(tokens) > 1 and tokens.ids[0] == tokens.ids[1] and (tokens.ids[0] == bos or tokens.added > 0)
    )
    chat = None
    if prompts.framing.chat is not None:
        behind = max(len(tokens) - tokens.tokens_of(0, tokens.own_text[1]).stop for tokens in clean)
        chat = ChatFrame(frame.before, frame.behind, min(in_front) - min(added), behind)
    return AroundPrompts(
        prompts.framing.special_tokens,
        (min(added), max(added)),
        given_ids=any(prompt.ids for prompt in prompts.prompts),
        bos_twice=twice,
        chat=chat,
    )
