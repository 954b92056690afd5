"""lm-evaluation-harness' Hugging Face model under an edit.

Tokenising, chat templates, windows, limits and stop texts are the harness' own. Log-probabilities
come from the workbench's scoring, which knows where each row's context ends; the harness' own
passes do not say it. Edits begin at the last token of a row's context: of the question before an
answer, of the prompt in generation, in rolling windows of the one token before what is scored (of
the last window of a long text that is a later token, since it overlaps with the one before).
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from torch import Tensor

from workbench.editing.attaching import edited
from workbench.editing.interventions import Intervention
from workbench.editing.token_scores import scored_tokens
from workbench.errors import WorkbenchError
from workbench.models.identity import Model, require_same_shape, tokenizer_of
from workbench.models.prompts import Encoded

ROWS = 64
"""Rows run together where the harness is to find the number itself."""
SETTINGS = (
    "batch_size", "max_batch_size", "max_length", "truncation", "add_bos_token", "prefix_token_id",
    "think_end_token", "enable_thinking", "chat_template_args",
)  # fmt: skip
"""Of the harness' class, those that it heeds for a model that is loaded already."""
Request = tuple[Any, list[int], list[int]]
"""The harness' own: a key of its cache, the context's tokens and the continuation's."""


class EditedLM(HFLM):  # type: ignore[misc]
    """See `lm_eval`."""

    def __init__(self, model: Model, edit: Intervention | None = None, **settings: Any) -> None:
        if edit is not None:
            require_same_shape(model, edit.model.shape, "an edit")
        for name in settings:
            if name not in SETTINGS:
                raise WorkbenchError.unknown(f"the setting {name!r} of lm_eval", name, SETTINGS)
        logger = logging.getLogger("lm_eval.models.huggingface")
        before = logger.level
        logger.setLevel(logging.ERROR)  # it warns of models that are loaded already
        try:
            # The tokenizer is copied: the harness sets its padding.
            tokenizer = copy.deepcopy(tokenizer_of(model))
            super().__init__(pretrained=model.original_model, tokenizer=tokenizer, **settings)
        finally:
            logger.setLevel(before)
        self.bridge, self.edit = model, edit

    def set_cache_hook(self, cache_hook: Any) -> None:
        """The harness' cache, which knows no edits, so that none may be on."""
        if self.edit is not None:
            raise WorkbenchError(
                "the harness' own cache (`use_cache`) under an edit",
                "no cache: it would give an edit the answers of another",
                "wb.runs.harness keeps what is measured, by edit.",
            )
        super().set_cache_hook(cache_hook)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Log-probability of every continuation, and whether greedy decoding would write it."""
        size = override_bs or self.batch_size
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        scored = scored_tokens(
            self.bridge, rows, [self.edit], greedy=True,
            batch_size=size if isinstance(size, int) else ROWS,
            progress=None if disable_tqdm else "loglikelihood",
        )[0]  # fmt: skip
        found = []
        for (key, *_), (nats, greedy) in zip(requests, scored, strict=True):
            total = float(nats.sum())
            if math.isnan(total) or greedy is None:
                raise WorkbenchError(
                    f"log-probabilities that are no numbers, under {self.edit!r}",
                    "an edit that leaves the model's states finite",
                    "Its α is perhaps too large.",
                )
            found.append((total, bool(greedy.all())))
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, found[-1])
        return found

    def _row(self, context: list[int], continuation: list[int]) -> Encoded:
        """A row of at most as many tokens as the model takes; contexts lose their beginnings."""
        if not 0 < len(continuation) <= self.max_length:
            raise WorkbenchError(
                f"an answer of {len(continuation)} tokens", f"1 to {self.max_length}"
            )
        tokens = tuple((context + continuation)[-(self.max_length + 1) :])
        lost = len(context) + len(continuation) - len(tokens)
        if lost:
            logging.getLogger(__name__).warning("%d tokens of a context are cut off", lost)
        start = len(tokens) - len(continuation)
        return Encoded.of_tokens(tokens, start)

    def _model_generate(self, context: Tensor, *args: Any, **settings: Any) -> Any:
        """Generation, edited from the last token of the prompt on."""
        with edited(self.bridge, self.edit, site="module", record=False):
            return super()._model_generate(context, *args, **settings)

    def get_model_info(self) -> dict[str, Any]:
        """The harness' own, and the edit."""
        edit = "" if self.edit is None else repr(self.edit)
        return {**super().get_model_info(), "edit": edit}
