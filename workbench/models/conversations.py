"""Conversations: turns as a tokenizer's chat template writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.errors import WorkbenchError
from workbench.models.identity import Model, identify, tokenizer_of


def conversation(model: Model, turns: Sequence[Mapping[str, str]], *, asks: bool = True) -> str:
    """Turns as the tokenizer's chat template writes them.

    Args:
        model: the bridge.
        turns: each with its `role` and `content`.
        asks: an answer is to follow.

    Raises:
        WorkbenchError: the template takes no such turns.
    """
    try:
        text: str = tokenizer_of(model).apply_chat_template(
            list(map(dict, turns)), tokenize=False, add_generation_prompt=asks
        )
    except Exception as error:  # templates raise what they like
        raise WorkbenchError(
            f"the chat template of {identify(model).name}, which takes no such conversation "
            f"({error}), with turns of "
            f"{' and '.join(dict.fromkeys(turn['role'] for turn in turns))}",
            "a template that takes them",
            "Leave instructions and examples out, use another style than chat, or set "
            "tokenizer.chat_template.",
        ) from error
    return text
