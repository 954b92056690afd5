"""Tokens: from text to token ids and back, and rows of them as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.checks import require_whole
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, device_of, identify, shape_of, tokenizer_of


def tokenize(
    model: Model, text: str, *, special: bool = True
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Token ids and character offsets of a text; the one place where text becomes tokens.

    A beginning-of-sequence token is added where the tokenizer does so, and never a second one; an
    end-of-sequence token is not.

    Raises:
        WorkbenchError: the text is empty, longer than the model's context, none that can be
            written in UTF-8, or has tokens that the model does not know.
    """
    tokenizer = tokenizer_of(model)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise WorkbenchError(
            f"the text {text!r:.60} with half of a surrogate pair",
            "text that can be written in UTF-8",
            "It was cut, or decoded wrongly: text.encode('utf-8', 'replace') shows where.",
        )
    begins = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    found = tokenizer(
        text,
        add_special_tokens=special and not begins,
        return_offsets_mapping=True,
        truncation=False,
        verbose=False,
    )
    tokens, offsets = list(found["input_ids"]), [tuple(pair) for pair in found["offset_mapping"]]
    while tokens and tokens[-1] in tokenizer.all_special_ids and offsets[-1][0] == offsets[-1][1]:
        if len(tokens) == 1:
            break
        tokens.pop()
        offsets.pop()
    if not tokens:
        raise WorkbenchError(f"the text {text!r} tokenises to nothing", "a text with tokens")
    vocabulary, context = shape_of(model).vocabulary, shape_of(model).context
    if max(tokens) >= vocabulary:
        worst = max(tokens)
        raise WorkbenchError(
            f"the token {tokenizer.convert_ids_to_tokens(worst)!r} (id {worst}) of the tokenizer",
            f"ids below {vocabulary}, the vocabulary of {identify(model).name}",
            "The tokenizer is another model's, or the embeddings were not resized with it.",
        )
    if len(tokens) > context:
        raise WorkbenchError(
            f"a text of {len(tokens)} tokens that begins {text[:60]!r}",
            f"at most the context of {identify(model).name}, {context} tokens",
            "Shorten it; nothing is truncated silently.",
        )
    return tuple(tokens), tuple(offsets)


def texts_at(
    model: Model, text: str, tokens: Sequence[int], offsets: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    """The characters from the end of the token before to the token's own end."""
    tokenizer = tokenizer_of(model)
    names = tokenizer.convert_ids_to_tokens(list(tokens))
    texts, end = [], 0
    for name, (first, last) in zip(names, offsets, strict=True):
        texts.append(text[min(end, first) : last] if last > max(first, end) else name)
        end = max(end, last)
    return tuple(texts)


def require_batch_size(batch_size: int) -> None:
    """Refuse batches of less than one row."""
    require_whole("batch_size", batch_size, 1)


CONTEXT = 8
"""How many tokens are decoded before those whose text is wanted."""


def text_behind(tokenizer: Any, before: Sequence[int], tokens: Sequence[int]) -> str:
    """What tokens say behind others.

    By themselves they may say less: tokenizers such as Llama's take the first word's space away.

    Args:
        tokenizer: of a model.
        before: the tokens before them, or the last few of these.
        tokens: whose text is wanted.
    """
    told, whole = tokenizer.decode(list(before)), tokenizer.decode([*before, *tokens])
    added: str = whole[len(told) :] if whole.startswith(told) else tokenizer.decode(list(tokens))
    return added


def token_texts(
    tokenizer: Any, tokens: Sequence[int], before: Sequence[int] = ()
) -> tuple[str, ...]:
    """The text that each token adds to those before it; joined they are what all of them say.

    A character whose bytes are spread over several tokens comes with the last of them.

    Args:
        tokenizer: of a model.
        tokens: whose texts are wanted.
        before: tokens before them, see `text_behind`.
    """
    whole = [*before, *tokens]
    texts = _added_texts(tokenizer, whole, window=8)
    if "".join(texts) != tokenizer.decode(whole).rstrip("\ufffd"):
        texts = _added_texts(tokenizer, whole, len(whole))
    return texts[len(before) :]


def _added_texts(tokenizer: Any, tokens: Sequence[int], window: int) -> tuple[str, ...]:
    """The same, decoding at most so many tokens before each, back to one that began a text."""
    texts, begin, so_far = [], 0, ""
    for count in range(1, len(tokens) + 1):
        whole = tokenizer.decode(list(tokens[begin:count])).rstrip("\ufffd")
        grown = whole if whole.startswith(so_far) and len(whole) > len(so_far) else so_far
        texts.append(grown[len(so_far) :])
        so_far = grown
        if count - begin >= 2 * window and texts[-1]:
            begin = count - window
            so_far = tokenizer.decode(list(tokens[begin:count]))
    return tuple(texts)


def pad(
    model: Model, rows: Sequence[Sequence[int]], side: Literal["left", "right"] = "right"
) -> tuple[Int[Tensor, "batch position"], Int[Tensor, "batch position"]]:
    """Rows of token ids as one tensor and its attention mask, on the model's device."""
    tokenizer = tokenizer_of(model)
    filler = tokenizer.pad_token_id
    filler = filler if filler is not None else (tokenizer.eos_token_id or 0)
    if filler >= shape_of(model).vocabulary:  # one that was added to the tokenizer alone
        filler = 0
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), int(filler))
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        tokens[index, place] = torch.tensor(row)
        mask[index, place] = 1
    device = device_of(model)
    return tokens.to(device), mask.to(device)
