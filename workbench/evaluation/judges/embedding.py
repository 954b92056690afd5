"""Nearness of sentences: the cosine of their embeddings under a small encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.evaluation.judges.base import load_pretrained, pad_rows, run_batched
from workbench.evaluation.judges.identity import fingerprints_of
from workbench.evaluation.judges.registry import MEASURES
from workbench.models.fetching import FETCHABLE, fetched
from workbench.models.tokens import require_batch_size

LONGEST = 256
"""Tokens beyond which all-MiniLM-L6-v2 cuts a text."""


@MEASURES.register("similarity")
class Similarity:
    """The cosine of an answer's embedding and a reference's.

    An embedding is the mean of the last states of a text's tokens, as all-MiniLM-L6-v2 is published
    (Reimers & Gurevych 2019), of length 1.

    How far its sign can be trusted was measured with all-MiniLM-L6-v2 (docs/judges.md). Of answers
    of TruthfulQA, held out of the references, it tells 66.8 % [64.1, 69.5] rightly as true or false
    (ROUGE-1 64.3 %, BLEU 61.0 %). That is poor, and no better than a regression on the answer
    alone, 65.4 %, so it may not be a headline. Of hearsay's answers it tells 92.4 % [89.3, 95.1] by
    their other wordings.

    Args:
        model: `"minilm"`, which `workbench fetch minilm` fetches; a folder, a hub name or a loaded
            encoder.
        tokenizer: of a loaded model; for a name or folder, one to use instead of its own.
        batch_size: texts run together; the numbers do not depend on it.
        device: for names and folders; the default is a GPU if there is one.

    Raises:
        WorkbenchError: the model cannot be loaded.
    """

    name = "similarity"
    kinds: tuple[str, ...] = ("similarity",)
    limits = (
        "Nearness to the question's reference answers, not truth: a sentence and its denial are "
        "near each other. Its sign is right for 67 % of TruthfulQA's answers, held out, where "
        "chance is 50 %, and the answer's manner alone tells 65 %. No headline."
    )

    def __init__(
        self,
        model: Any = "minilm",
        tokenizer: Any = None,
        *,
        batch_size: int = 64,
        device: str | torch.device | None = None,
    ) -> None:
        require_batch_size(batch_size)
        known = isinstance(model, str) and model in FETCHABLE
        self.model, self.tokenizer = load_pretrained(
            "AutoModel", self.name, fetched(model) if known else model, tokenizer, device=device
        )
        self.batch_size = batch_size
        known_by = fingerprints_of(self.model, self.tokenizer)
        self.identity = f"mean-pooled {type(self.model).__name__}, {known_by}"

    def likeness(self, pairs: Sequence[tuple[str, str]]) -> Float[np.ndarray, "pair kind"]:
        """The cosine of each answer and its reference."""
        texts = {text: n for n, text in enumerate(dict.fromkeys(t for p in pairs for t in p))}
        found = self.embed(list(texts))
        left = found[[texts[answer] for answer, _ in pairs]]
        right = found[[texts[told] for _, told in pairs]]
        cosines: np.ndarray = np.einsum("pc,pc->p", left, right)
        return cosines[:, None]

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text channel"]:
        """Embeddings of length 1; texts of more than 256 tokens are cut."""
        if not texts:
            return np.zeros((0, self.model.config.hidden_size))
        rows = self.tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        found = run_batched(
            rows,
            self.batch_size,
            lambda batch: self._run([rows[number] for number in batch]).numpy(),
            self.name,
            progress=False,
        )
        return np.stack(found)

    def _run(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "text channel"]:
        tokens, mask = pad_rows(rows, self.tokenizer.pad_token_id or 0, left=False)
        device = self.model.get_input_embeddings().weight.device
        with torch.inference_mode():
            states = self.model(
                input_ids=tokens.to(device), attention_mask=mask.to(device)
            ).last_hidden_state
        states, weights = states.cpu().double(), mask[..., None].double()
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1)
