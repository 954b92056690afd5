"""Edited generation: greedy or sampled, batched with left padding, with or without a cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checks import is_share, require_number, require_whole
from workbench.doors import door
from workbench.editing.attaching import edited
from workbench.editing.interventions import Intervention, warn_of_another_style
from workbench.editing.sampling import choose
from workbench.errors import WorkbenchError, kind_of
from workbench.models.identity import Model, identify, shape_of, tokenizer_of
from workbench.models.passes import Site, forward, new_cache
from workbench.models.positions import Pass, clock
from workbench.models.prefixes import can_share
from workbench.models.prompts import Encoded, PromptFormat, encode, prompt_format
from workbench.models.tokens import pad, require_batch_size, token_texts, tokenize
from workbench.models.unwrapping import has_hooks, runner


@dataclass(frozen=True, repr=False)
class Continuation:
    """What a model wrote after a prompt.

    Attributes:
        prompt: the prompt's text.
        text: the continuation, cut before the first stop string.
        prompt_tokens: ids of the prompt.
        tokens: ids of all generated tokens, what was cut included.
        kept: how many of them `text` covers.
        log_probabilities: of each generated token, in nats, at temperature 1.
        strings: texts of the generated tokens.
    """

    prompt: str
    text: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    kept: int
    log_probabilities: Float[Tensor, " token"]
    strings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Continuation({self.text!r:.80}, {self.kept} of {len(self.tokens)} tokens)"


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
    texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in given]
    rows = [
        tokenize(model, prompt)[0] if isinstance(prompt, str) else prompt.tokens for prompt in given
    ]
    _require_room(model, texts, rows, max_new_tokens)
    results: list[Continuation] = []
    share = use_cache and can_share(model) and not has_hooks(model)
    bar = tqdm(
        total=len(rows) * max_new_tokens, desc="generate", unit="token", unit_scale=True,
        disable=not progress, leave=False,
    )  # fmt: skip
    with bar, edited(model, edit, site=site, record=False):
        for begin in range(0, len(rows), batch_size):
            draws = [
                torch.Generator().manual_seed(seed * 1_000_003 + begin + number)
                for number in range(len(rows[begin : begin + batch_size]))
            ]
            run = _Run(model, rows[begin : begin + batch_size], stop, temperature, top_p, draws)
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


class _Run:
    """One batch of prompts on its way."""

    def __init__(
        self,
        model: Model,
        rows: list[tuple[int, ...]],
        stop: Sequence[str],
        temperature: float,
        top_p: float,
        draws: list[torch.Generator],
    ) -> None:
        self.model, self.rows, self.stop = model, rows, tuple(stop)
        self.temperature, self.top_p, self.draws = temperature, top_p, draws
        self.written: list[list[int]] = [[] for _ in rows]
        self.nats: list[list[float]] = [[] for _ in rows]
        self.done = [False] * len(rows)
        self.tokenizer: Any = tokenizer_of(model)
        settings = getattr(model.original_model, "generation_config", None)
        ends = getattr(settings, "eos_token_id", None) or self.tokenizer.eos_token_id
        self.ends = set(ends) if isinstance(ends, list) else {ends}
        self.longest_stop = max((len(s.encode()) for s in self.stop), default=0)

    def go(self, steps: int, bar: Any, *, use_cache: bool, share: bool) -> None:
        """Write up to `steps` tokens a row; what an ended row is fed counts as padding.

        Args:
            steps: most tokens.
            bar: is told of all of them, also of those that need not be written.
            use_cache: keep keys and values.
            share: run a prompt that several rows begin with once, as samples of it do; nothing
                else may be attached to the model, which would count the rows.
        """
        tokens, mask = pad(self.model, self.rows, side="left")
        length = tokens.shape[1]
        tokens = torch.nn.functional.pad(tokens, (0, steps))
        mask = torch.nn.functional.pad(mask, (0, steps), value=1)
        starts = torch.tensor([len(row) - 1 for row in self.rows])
        cache: Any = new_cache(self.model) if use_cache else None
        inner = runner(self.model)
        positions = (mask.cumsum(dim=1) - 1).clamp_(min=0)
        begin = 0
        timer = clock(self.model)

        def run(rows: Any, begin: int, end: int) -> Float[Tensor, "row vocabulary"]:
            nonlocal cache
            here = rows, slice(begin, end)
            now = Pass(positions[here], mask[here].bool(), tokens[here])
            timer.announce(now)
            logits, cache = forward(
                self.model, tokens[here], mask[rows, :end], cache,
                positions=now.positions, keep=1, inner=inner,
            )  # fmt: skip
            return logits[:, -1]

        first, which = _different(self.rows)
        with timer.starting_at(starts):
            for end in range(length, length + steps):
                if begin or not share or len(first) == len(which):
                    logits = run(slice(None), begin, end)
                else:
                    with timer.starting_at(starts[first]):
                        logits = run(first, begin, end)[which]
                    cache.batch_select_indices(which.to(logits.device))
                new = self.step(logits)
                bar.update(len(self.rows))
                if all(self.done):
                    bar.update(len(self.rows) * (length + steps - end - 1))
                    break
                begin = end if use_cache else 0
                tokens[:, end] = new.to(tokens.device)
                if any(self.done):
                    mask[self.done, end] = 0

    def step(self, logits: Float[Tensor, "batch vocabulary"]) -> Int[Tensor, " batch"]:
        """Choose every row's next token and note whether the row ends with it."""
        log_probability = logits.float().log_softmax(dim=-1)
        chosen = choose(log_probability, self.temperature, self.top_p, self.draws)
        nats = log_probability.gather(1, chosen[:, None]).flatten().tolist()
        for row, token in enumerate(chosen.tolist()):
            if self.done[row]:
                continue
            if math.isnan(nats[row]):
                raise WorkbenchError(
                    f"logits that are no numbers, after {len(self.written[row])} new tokens of a "
                    f"row of {len(self.rows[row])}",
                    "numbers",
                    "An edit may be too strong for the model's dtype, or the model's own passes "
                    "fail at padding: try batch_size=1, or a smaller alpha.",
                )
            self.written[row].append(token)
            self.nats[row].append(nats[row])
            self.done[row] = token in self.ends or self._stopped(row)
        return chosen

    def _stopped(self, row: int) -> bool:
        if not self.stop:
            return False
        tail = self.written[row][-self.longest_stop - 4 :]
        text = self.tokenizer.decode(tail)
        return any(s in text for s in self.stop)

    def results(self, prompts: list[str]) -> list[Continuation]:
        """The batch's continuations."""
        decode = self.tokenizer.decode
        found = []
        for prompt, row, written, nats in zip(
            prompts, self.rows, self.written, self.nats, strict=True
        ):
            kept = [token for token in written if token not in self.ends]
            text = decode(kept)
            cut = min((text.find(s) for s in self.stop if s in text), default=len(text))
            covered = len(kept)
            while covered and decode(kept[: covered - 1])[:cut] == text[:cut]:
                covered -= 1
            found.append(
                Continuation(
                    prompt=prompt,
                    text=text[:cut],
                    prompt_tokens=row,
                    tokens=tuple(written),
                    kept=covered,
                    log_probabilities=torch.tensor(nats),
                    strings=token_texts(self.tokenizer, written),
                )
            )
        return found


def _different(rows: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """The numbers of rows that differ, and for every row which of these it is."""
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    which = [places[row] for row in rows]
    first = [which.index(place) for place in range(len(places))]
    return torch.tensor(first), torch.tensor(which)
