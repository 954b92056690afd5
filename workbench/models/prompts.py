"""Prompts: formats, tokenising in one place, and the exact span of an answer's tokens.

Text goes in, token ids and spans come out; nothing else in the workbench tokenises. Spans are read
off the tokenizer's character offsets and never off token counts, so they are right where a
tokenizer merges a newline or a space into its neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, device_of, identify, shape_of, tokenizer_of

AnswerStart = Literal["offsets", "plus_three"]


@dataclass(frozen=True)
class PromptFormat:
    """How a question becomes a prompt.

    Attributes:
        name: `bare`, `inline`, `qa`, `plain`, `chat` or a name of one's own.
        asking: the prompt, with `{question}`; ignored where `chat` is set.
        answering: what follows the prompt, with `{answer}`.
        between: what separates an answer from the next question.
        primer: text before the first question.
        chat: use the tokenizer's chat template instead of `asking`.

    Example:
        >>> short = wb.models.PromptFormat("short", asking="{question} -")
        >>> wb.models.encode(model, "Who?", "Me.", short).text
        'Who? - Me.'
    """

    name: str
    asking: str = "Q: {question}\nA:"
    answering: str = " {answer}"
    between: str = "\n"
    primer: str = ""
    chat: bool = False

    def __post_init__(self) -> None:
        for part, blank in ((self.asking, "{question}"), (self.answering, "{answer}")):
            if part.count(blank) != 1:
                raise WorkbenchError(f"the prompt part {part!r}", f"exactly one {blank} in it")


FORMATS = {
    "bare": PromptFormat("bare"),
    "inline": PromptFormat("inline", asking="Q: {question} A:", between=" "),
    "qa": PromptFormat("qa", between="\n\n"),
    "plain": PromptFormat("plain", asking="{question}"),
    "chat": PromptFormat("chat", answering="{answer}", chat=True),
}


def prompt_format(
    which: str | PromptFormat = "bare", primer: storage.PathLike | None = None
) -> PromptFormat:
    """A prompt format by name.

    Args:
        which: `bare` (`Q: ...` and `A:` on two lines), `inline` (on one line, as TAE was fitted),
            `qa` (TruthfulQA's few-shot shape: a primer, then `bare`), `plain` (the question is the
            beginning of the answer's sentence), `chat` (the tokenizer's template), or a format of
            one's own, which is returned.
        primer: for `qa`, a file with the primer's text; the default is the project's own.

    Raises:
        WorkbenchError: no such format, or a primer for a format that has none.

    Example:
        >>> wb.models.prompt_format("inline").asking
        'Q: {question} A:'
        >>> wb.models.prompt_format("bear")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the prompt format 'bear'. Expected one of bare, inline, qa,
        plain, chat. Did you mean bare?
    """
    if isinstance(which, PromptFormat):
        return which
    if which not in FORMATS:
        raise WorkbenchError.unknown(f"the prompt format {which!r}", which, FORMATS)
    found = FORMATS[which]
    if which == "qa":
        text = storage.read_text(primer or storage.package_path("data", "primer.txt"))
        return replace(found, primer=text.rstrip() + found.between)
    if primer is not None:
        raise WorkbenchError(f"a primer for the format {which!r}", "the format 'qa'")
    return found


@dataclass(frozen=True)
class Encoded:
    """A tokenised prompt, with or without its answer.

    Attributes:
        tokens: token ids, special tokens at the start included.
        strings: the text that each token covers, leading spaces included.
        offsets: first and last-plus-one character of each token in `text`.
        start: index of the first answer token; `len(tokens)` where there is no answer.
        text: what was tokenised.
        answer_char: character of `text` at which the answer's own text begins.

    Example:
        >>> encoded = wb.models.encode(model, "What is the capital of Australia?", "Canberra.")
        >>> encoded.strings[encoded.start :]
        (' Can', 'ber', 'ra', '.')
    """

    tokens: tuple[int, ...]
    strings: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    start: int
    text: str
    answer_char: int

    @property
    def answer_tokens(self) -> tuple[int, ...]:
        """The ids of the answer's tokens."""
        return self.tokens[self.start :]


def encode(
    model: Model,
    question: str,
    answer: str | None = None,
    style: PromptFormat = FORMATS["bare"],
    answer_start: AnswerStart = "offsets",
    after: str = "",
) -> Encoded:
    r"""Tokenise a question and an answer to it.

    Args:
        model: the bridge, whose tokenizer is used.
        question: the question's text.
        answer: the answer's text, or None for the prompt alone.
        style: the prompt format.
        answer_start: `offsets`, the first token that holds text of the answer; `plus_three`, the
            published code's length of the tokenised question plus three.
        after: text behind the answer (for unlabelled prompts); it belongs to no span.

    Returns:
        Tokens and the place of the answer's first token. A token that only holds the space
        between prompt and answer belongs to the answer; one that also holds the prompt's last
        character belongs to the prompt, unless text of the answer is in it too.

    Raises:
        WorkbenchError: the answer has no token of its own, the tokenizer drops characters, the
            text is longer than the model's context, or the tokenizer has no chat template.

    Example:
        >>> encoded = wb.models.encode(model, "What is the capital of Australia?", "Canberra.")
        >>> encoded.text
        'Q: What is the capital of Australia?\nA: Canberra.'
        >>> encoded.strings[encoded.start :]
        (' Can', 'ber', 'ra', '.')
    """
    if answer_start not in get_args(AnswerStart):
        raise WorkbenchError(
            f"answer_start={answer_start!r}", f"one of {', '.join(get_args(AnswerStart))}"
        )
    prompt, asked = _prompt_text(model, question, style)
    text, content = prompt, len(prompt)
    if answer is not None:
        answered = style.answering.format(answer=answer)
        content += len(answered) - len(answered.lstrip())
        text += answered + after
    tokens, offsets = tokenize(model, text, special=not style.chat)
    start = len(tokens)
    if answer is not None:
        start = next(
            (
                index
                for index, (first, last) in enumerate(offsets)
                if last > first and (first >= len(prompt) or last > content)
            ),
            len(tokens),
        )
        if answer_start == "plus_three":
            start = len(tokenize(model, asked, special=True)[0]) + 3
        if start == 0:
            raise WorkbenchError(
                f"no prompt token before the answer {answer!r} to {question!r}",
                "a prompt of at least one token of its own, from which the answer is predicted",
            )
        told = any(last > max(first, content) for first, last in offsets)
        if start >= len(tokens) or not answer.strip() or not told:
            raise WorkbenchError(
                f"the answer {answer!r} to {question!r} tokenises to nothing after the prompt"
                + (" (answer_start='plus_three')" if answer_start == "plus_three" else ""),
                "an answer with at least one token",
            )
        _require_covered(model, text, offsets)
    return Encoded(
        tokens=tokens,
        strings=_token_texts(model, text, tokens, offsets),
        offsets=offsets,
        start=start,
        text=text,
        answer_char=content,
    )


def _require_covered(model: Model, text: str, offsets: Sequence[tuple[int, int]]) -> None:
    """Refuse texts with characters that no token holds: the tokenizer dropped them.

    Offsets behind a dropped character are wrong, and so would be the answer's span.
    """
    covered = bytearray(len(text))
    for first, last in offsets:
        covered[first:last] = b"\1" * (last - first)
    lost = [c for c, held in zip(text, covered, strict=True) if not held and not c.isspace()]
    if lost:
        raise WorkbenchError(
            f"the tokenizer of {identify(model).name} loses characters of {text[-80:]!r}",
            "a text that the tokenizer can represent",
        )


def _prompt_text(model: Model, question: str, style: PromptFormat) -> tuple[str, str]:
    """The whole prompt, and its part up to the end of the question."""
    if not style.chat:
        before, behind = style.asking.split("{question}")
        asked = style.primer + before + question
        return asked + behind, asked
    tokenizer = tokenizer_of(model)
    if not tokenizer.chat_template:
        raise WorkbenchError(
            f"the tokenizer of {identify(model).name} has no chat template",
            "one of the formats bare, inline, qa and plain",
        )
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return text, text


def tokenize(
    model: Model, text: str, *, special: bool = True
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Token ids and character offsets of a text; the one place where text becomes tokens.

    A beginning-of-sequence token is added where the tokenizer does so, and never a second one; an
    end-of-sequence token is not.

    Raises:
        WorkbenchError: the text is empty or longer than the model's context.
    """
    tokenizer = tokenizer_of(model)
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
    context = shape_of(model).context
    if len(tokens) > context:
        raise WorkbenchError(
            f"a text of {len(tokens)} tokens that begins {text[:60]!r}",
            f"at most the context of {identify(model).name}, {context} tokens",
            "Shorten it; nothing is truncated silently.",
        )
    return tuple(tokens), tuple(offsets)


def _token_texts(
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
    if not isinstance(batch_size, int) or batch_size < 1:
        raise WorkbenchError(f"batch_size={batch_size!r}", "a whole number from 1 on")


def token_texts(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds to those before it; joined they are the decoded whole.

    A character whose bytes are spread over several tokens comes with the last of them.
    """
    texts = _added_texts(tokenizer, tokens, window=8)
    whole = tokenizer.decode(list(tokens)).rstrip("\ufffd")
    return texts if "".join(texts) == whole else _added_texts(tokenizer, tokens, len(tokens))


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
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), int(filler))
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        tokens[index, place] = torch.tensor(row)
        mask[index, place] = 1
    device = device_of(model)
    return tokens.to(device), mask.to(device)
