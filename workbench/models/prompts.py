"""Prompts: formats, tokenising in one place, and the exact span of an answer's tokens.

Text goes in, token ids and spans come out; nothing else in the workbench tokenises. Spans are read
off the tokenizer's character offsets and never off token counts, so they are right where a
tokenizer merges a newline or a space into its neighbour.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from workbench import storage
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.models.conversations import conversation
from workbench.models.identity import Model, identify, tokenizer_of
from workbench.models.tokens import texts_at, tokenize

AnswerStart = Literal["offsets", "plus_three"]


@door_of_class
@dataclass(frozen=True)
class PromptFormat:
    """How a question becomes a prompt.

    Attributes:
        name: `bare`, `inline`, `qa`, `plain`, `chat` or a name of one's own.
        asking: the prompt, with `{question}`; ignored where `chat` is set.
        answering: what follows the prompt, with `{answer}`.
        between: what separates an answer from the next question.
        primer: text before the first question; none where `chat` is set.
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
        if self.chat and self.primer:
            raise WorkbenchError(
                f"the format {self.name!r} with a primer and the chat template",
                "one of the two",
                "Examples before a chat's question: wb.methods.Prompting.",
            )


FORMATS = {
    "bare": PromptFormat("bare"),
    "inline": PromptFormat("inline", asking="Q: {question} A:", between=" "),
    "qa": PromptFormat("qa", between="\n\n"),
    "plain": PromptFormat("plain", asking="{question}"),
    "chat": PromptFormat("chat", answering="{answer}", chat=True),
}


@door
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


@door_of_class
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

    @classmethod
    def of_tokens(cls, tokens: Sequence[int], start: int, text: str = "") -> Encoded:
        """Tokens that somebody else has made, without their places in the text.

        Args:
            tokens: token ids.
            start: index of the first answer token.
            text: what they say, for messages.
        """
        count = len(tokens)
        return cls(tuple(tokens), ("",) * count, ((0, 0),) * count, start, text, len(text))

    @property
    def answer_tokens(self) -> tuple[int, ...]:
        """The ids of the answer's tokens."""
        return self.tokens[self.start :]


@door
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
        answered = style.answering.replace("{answer}", answer)
        content += len(answered) - len(answered.lstrip())
        text += answered + after
    tokens, offsets = tokenize(model, text, special=not style.chat)
    start = len(tokens)
    if answer is not None:
        start = next(
            (
                index
                for index, (first, last) in enumerate(_with_spaces(text, offsets))
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
        _require_covered(model, text, tokens, offsets, special=not style.chat)
    return Encoded(
        tokens=tokens,
        strings=texts_at(model, text, tokens, offsets),
        offsets=offsets,
        start=start,
        text=text,
        answer_char=content,
    )


def _with_spaces(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets with the space before each token, where a tokenizer leaves it out of them.

    Byte-level tokenizers may trim offsets; of a token that is a space nothing is left then.
    """
    found, end = [], 0
    for first, last in offsets:
        found.append((end if text[end:first].isspace() else first, last))
        end = max(end, last)
    return found


def _require_covered(
    model: Model, text: str, tokens: Sequence[int], offsets: Sequence[tuple[int, int]], *,
    special: bool,
) -> None:  # fmt: skip
    """Refuse texts with characters that no token holds: the tokenizer dropped them.

    Offsets behind a dropped character are wrong, and so would be the answer's span. An accent that
    the tokenizer puts together with its letter is not dropped.
    """
    covered = bytearray(len(text))
    for first, last in offsets:
        covered[first:last] = b"\1" * (last - first)
    lost = [c for c, held in zip(text, covered, strict=True) if not held and not c.isspace()]
    if lost and not any(
        tokenize(model, composed, special=special)[0] == tokens
        for form in ("NFC", "NFKC")
        if (composed := unicodedata.normalize(form, text)) != text
    ):
        raise WorkbenchError(
            f"the tokenizer of {identify(model).name} loses characters of {text[-80:]!r}, such as "
            f"{lost[0]!r}",
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
    text = conversation(model, [{"role": "user", "content": question}])
    return text, text
