"""A batch on its way: tokens chosen one after another behind prompts, with left padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.editing.sampling import choose
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, tokenizer_of
from workbench.models.passes import forward, new_cache
from workbench.models.positions import Pass, clock
from workbench.models.tokens import CONTEXT, pad, text_behind, token_texts
from workbench.models.unwrapping import runner


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
        text = self.text if len(self.text) <= 80 else f"{self.text[:79]}…"
        return f"Continuation({text!r}, {self.kept} of {len(self.tokens)} tokens)"


class Writing:
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
        ends = getattr(settings, "eos_token_id", None)
        ends = self.tokenizer.eos_token_id if ends is None else ends
        self.ends = {ends} if ends is None or isinstance(ends, int) else set(ends)
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
        prompt = self.rows[row][-CONTEXT:]
        whole = [*prompt, *self.written[row]]
        begin = max(len(prompt), len(whole) - self.longest_stop - 4)
        before, tail = whole[max(0, begin - CONTEXT) : begin], whole[begin:]
        text = text_behind(self.tokenizer, before, tail)
        return any(s in text for s in self.stop)

    def results(self, prompts: list[str]) -> list[Continuation]:
        """The batch's continuations."""
        found = []
        for prompt, row, written, nats in zip(
            prompts, self.rows, self.written, self.nats, strict=True
        ):
            kept = [token for token in written if token not in self.ends]
            before = row[-CONTEXT:]
            text = text_behind(self.tokenizer, before, kept)
            cut = min((text.find(s) for s in self.stop if s in text), default=len(text))
            covered = len(kept)
            while (
                covered
                and text_behind(self.tokenizer, before, kept[: covered - 1])[:cut] == text[:cut]
            ):
                covered -= 1
            found.append(
                Continuation(
                    prompt=prompt,
                    text=text[:cut],
                    prompt_tokens=row,
                    tokens=tuple(written),
                    kept=covered,
                    log_probabilities=torch.tensor(nats),
                    strings=token_texts(self.tokenizer, written, before),
                )
            )
        return found


def _different(rows: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """The numbers of rows that differ, and for every row which of these it is."""
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    which = [places[row] for row in rows]
    first = [which.index(place) for place in range(len(places))]
    return torch.tensor(first), torch.tensor(which)
