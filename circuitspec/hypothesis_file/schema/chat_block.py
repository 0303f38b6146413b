"""How prompts are put to a chat model: `task.chat`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import Block, Text

PROMPT = "{prompt}"


def _user(text: str) -> str:
    if text.count(PROMPT) != 1:
        raise texts.problem(
            "CS178",
            f"the user's message names the prompt {text.count(PROMPT)} times, not once",
            hint=f'write user: "Complete the sentence: {PROMPT}"; other braces stand for themselves',
        )
    return text


class Chat(Block):
    """A conversation by the tokenizer's own chat template; the answer is read where the model's reply begins."""

    system: Text | None = Field(
        default=None, description="The system message; unless given, what the template says without one."
    )
    user: Annotated[Text, AfterValidator(_user)] = Field(
        default=PROMPT,
        examples=["Complete the sentence: {prompt}"],
        description="The user's message, in which {prompt} stands for the prompt.",
    )
    variables: dict[Text, bool | Text] = Field(
        default={},
        examples=[{"date_string": "26 Jul 2024"}],
        description="Values for names that the template knows, such as the date that some write, or enable_thinking.",
    )
