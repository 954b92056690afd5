"""Edited generation: greedy or sampled, batched with left padding, with or without a cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from workbench.checks import is_share, require_number, require_whole
from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.conditions import Conditional
from workbench.editing.interventions import Intervention, warn_of_another_style
from workbench.editing.whole_edits import Foreword
from workbench.editing.writing import Continuation, Writing
from workbench.errors import WorkbenchError, kind_of
from workbench.models.identity import Model, identify, shape_of
from workbench.models.passes import Site
from workbench.models.prefixes import can_share, must_run_apart
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format
from workbench.models.tokens import require_batch_size, tokenize
from workbench.models.unwrapping import has_hooks


@door
def generate(
    model: Model,
    prompts: str | Encoded | Sequence[str | Encoded],
    *,
    edit: Intervention | None = None,
    style: str | PromptFormat | None = None,
    max_new_tokens: int = 50,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[str] = ("\nQ:",),
    batch_size: int = 64,
    use_cache: bool = True,
    site: Site = "module",
    progress: bool = False,
) -> list[Continuation]:
    r"""Continue prompts, edited from each prompt's last token on.

    An edit that is attached already (`with edited(...) as trace`) applies as well; its trace then
    holds a sequence per prompt, in the order given.

    Args:
        model: the bridge.
        prompts: one text or several, or prompts that `encode` made of questions in some format.
        edit: what to apply.
        style: texts are questions, to be asked in this prompt format; by default they are prompts.
        max_new_tokens: most tokens written.
        temperature: 0 is greedy.
        top_p: sample from the smallest set of tokens with at least this probability.
        seed: of sampling; a prompt's sample depends on it and on the prompt's number alone.
        stop: texts before which a continuation is cut, and after which it ends.
        batch_size: prompts run together.
        use_cache: keep keys and values; the result is the same without, only slower.
        site: where to edit; the passes run unwrapped at `module`, which is faster.
        progress: show a bar.

    Raises:
        WorkbenchError: no prompts, a prompt that leaves no room for the new tokens, or settings
            out of range.

    Example:
        >>> prompt = "Q: What is the capital of Australia?\nA:"
        >>> wb.generate(model, prompt)[0].text
        ' Sydney.'
        >>> wb.generate(model, prompt, edit=edit)[0].text
        ' Canberra is the capital of Australia.'
    """
    given = _asked(model, _listed(prompts), style)
    if style is not None:
        warn_of_another_style(edit, style)
    _require(stop, max_new_tokens, temperature, top_p)
    require_batch_size(batch_size)
    require_whole("seed", seed, 0)
    texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in given]
    rows = [
        tokenize(model, prompt)[0] if isinstance(prompt, str) else prompt.tokens for prompt in given
    ]
    within = edit
    if isinstance(edit, Foreword):
        rows, within = [edit.read(row) for row in rows], None
    _require_room(model, texts, rows, max_new_tokens)
    if must_run_apart(model, (len(row) + new for row in rows for new in (0, max_new_tokens))):
        batch_size = 1
    results: list[Continuation] = []
    # Conditions are decided row by row, and a shared prompt has fewer rows.
    share = use_cache and can_share(model) and not has_hooks(model)
    share = share and not isinstance(edit, Conditional)
    bar = tqdm(
        total=len(rows) * max_new_tokens, desc="generate", unit="token", unit_scale=True,
        disable=not progress, leave=False,
    )  # fmt: skip
    with bar, edited(model, within, site=site, record=False):
        for begin in range(0, len(rows), batch_size):
            draws = [
                torch.Generator().manual_seed((seed * 1_000_003 + begin + number) % (1 << 63))
                for number in range(len(rows[begin : begin + batch_size]))
            ]
            run = Writing(model, rows[begin : begin + batch_size], stop, temperature, top_p, draws)
            run.go(max_new_tokens, bar, use_cache=use_cache, share=share)
            results += run.results(texts[begin : begin + batch_size])
    return results


def _listed(prompts: Any) -> list[str | Encoded]:
    """Prompts as a list, refused where they are none."""
    single = isinstance(prompts, str | Encoded)
    given = [prompts] if single else list(prompts) if isinstance(prompts, Iterable) else [prompts]
    for prompt in given:
        if not isinstance(prompt, str | Encoded):
            raise WorkbenchError(
                f"{kind_of(prompt)} as a prompt ({prompt!r:.60})",
                "texts, or prompts made by `encode`",
                "Questions become prompts with prompts.encode.",
            )
    if not given:
        raise WorkbenchError("no prompts", "at least one")
    return given


def _asked(
    model: Model, given: list[str | Encoded], style: str | PromptFormat | None
) -> list[str | Encoded]:
    """Prompts of questions, where a style is given."""
    if style is None:
        return given
    chosen = prompt_format(style)
    return [encode(model, one, None, chosen) if isinstance(one, str) else one for one in given]


def _require(stop: Any, new: Any, temperature: Any, top_p: Any) -> None:
    texts = isinstance(stop, list | tuple | set | frozenset)
    if not texts or not all(isinstance(s, str) and s for s in stop):
        raise WorkbenchError(f"stop={stop!r}", "a sequence of texts, none of them empty")
    require_whole("max_new_tokens", new, 1)
    require_number("temperature", temperature, least=0)
    if not is_share(top_p) or not top_p:
        raise WorkbenchError(f"top_p={top_p!r}", "a number above 0, at most 1")


def _require_room(
    model: Model, texts: Sequence[str], rows: Sequence[tuple[int, ...]], new: int
) -> None:
    context = shape_of(model).context
    for text, row in zip(texts, rows, strict=True):
        if len(row) + new > context:
            raise WorkbenchError(
                f"a prompt of {len(row)} tokens ({text[:60]!r}) with {new} new ones",
                f"together at most the context of {identify(model).name}, {context} tokens",
                "Shorten the prompt or max_new_tokens.",
            )


def written(model: Model, prompts: Sequence[Encoded], **how: Any) -> list[Encoded]:
    """What the unedited model answers greedily, its end included, behind its prompts.

    Args:
        model: the bridge.
        prompts: the prompts alone.
        how: see `generate`.
    """
    return [
        Encoded.of_tokens((*one.prompt_tokens, *one.tokens), len(one.prompt_tokens))
        for one in generate(model, prompts, **how)
    ]
