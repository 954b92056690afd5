"""Classifier judges: the probability of one label of a sequence classifier, e.g. of toxicity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from workbench.doors import door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.judges.base import (
    load_pretrained,
    pad_rows,
    require_pairs,
    require_room,
    require_scores,
    run_batched,
)
from workbench.evaluation.judges.identity import identity_of
from workbench.evaluation.judges.registry import JUDGES
from workbench.models.tokens import require_batch_size

Judged = Literal["answer", "both"]


@JUDGES.register("classifier")
@door_of_class
class ClassifierJudge:
    """The probability of a label: a sigmoid where labels are independent, else a softmax.

    Labels are independent where the model's config says `multi_label_classification`, or where
    there is one output. A text without tokens is judged as the tokenizer's first special token.

    Args:
        name: the metric.
        model: a folder, a hub name or a loaded sequence classifier.
        tokenizer: of a loaded model; for a name or folder, one to use instead of its own.
        label: the label's name in the model's config, or its number.
        text: `answer`, or `both`: the prompt and its answer as one text, joined as they stand.
        truncate: cut texts that are longer than the model takes, on the tokenizer's truncation
            side, instead of refusing them.
        batch_size: texts run together, where the model has a padding token; the scores do not
            depend on it.
        dtype: floating-point, for names and folders; float32 by default.
        device: for names and folders; the default is a GPU if there is one.
        progress: show a bar.

    Raises:
        WorkbenchError: the model cannot be loaded or is no trained classifier, or it has no such
            label; its labels are named.

    Example:
        >>> from transformers import LlamaConfig, LlamaForSequenceClassification
        >>> tiny = LlamaConfig(
        ...     vocab_size=2048, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...     num_attention_heads=1, id2label={0: "kind", 1: "toxic"},
        ... )
        >>> untrained = LlamaForSequenceClassification(tiny)
        >>> judge = wb.evaluation.ClassifierJudge("toxicity", untrained, model.tokenizer)
        >>> [0 <= score <= 1 for score in judge.scores([""], ["Good morning."])]
        [True]
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any = None,
        *,
        label: str | int = "toxic",
        text: Judged = "answer",
        truncate: bool = False,
        batch_size: int = 32,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> None:
        require_batch_size(batch_size)
        if text not in get_args(Judged):
            raise WorkbenchError(f"text={text!r}", f"one of {', '.join(get_args(Judged))}")
        self.name, self.text, self.truncate = name, text, truncate
        self.model, self.tokenizer = load_pretrained(
            "AutoModelForSequenceClassification", name, model, tokenizer, dtype=dtype, device=device
        )
        self.label = label_number(self.model.config, label)
        self.identity = f"{identity_of(self.model, self.tokenizer)}, label {label!r} ({self.label})"
        self.progress = progress
        self.limit = longest_input(self.model, self.tokenizer)
        self.filler = self.model.config.get_text_config().pad_token_id
        self.batch_size = 1 if self.filler is None else batch_size

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """The label's probability per pair.

        Raises:
            WorkbenchError: unequal counts, or, unless `truncate`, a text longer than the model
                takes; its row is named, counted from 0.
        """
        pairs = require_pairs(prompts, answers)
        rows = self._encode([p + a if self.text == "both" else a for p, a in pairs])
        found = run_batched(
            rows,
            self.batch_size,
            lambda batch: self._run([rows[number] for number in batch]).tolist(),
            self.name,
            progress=self.progress,
        )
        return require_scores(found, self, len(pairs))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        cut: dict[str, Any] = {}
        if self.truncate and self.limit is not None:
            cut = {"truncation": True, "max_length": self.limit}
        rows: list[list[int]] = self.tokenizer(texts, verbose=False, **cut)["input_ids"]
        for number, row in enumerate(rows):
            mend = "Shorten it, or cut long texts with truncate=True."
            require_room(len(row), number, self.limit, self, mend)
            if not row:
                special = [t for t in self.tokenizer.all_special_ids if t is not None]
                if not special:
                    raise WorkbenchError(
                        f"row {number} ({texts[number]!r:.40}) has no tokens for {self.name}",
                        "a text with tokens, or a tokenizer with special ones",
                    )
                rows[number] = special[:1]
        return rows

    def _run(self, rows: Sequence[Sequence[int]]) -> Float64[Tensor, " row"]:
        """The label's probabilities in one batch, padded on the right."""
        device = self.model.get_input_embeddings().weight.device
        tokens, mask = pad_rows(rows, self.filler or 0, left=False)
        with torch.inference_mode():
            logits: Tensor = self.model(
                input_ids=tokens.to(device), attention_mask=mask.to(device)
            ).logits
        values = logits.cpu().double()
        kind = self.model.config.problem_type
        if kind == "multi_label_classification" or values.shape[1] == 1:
            return values[:, self.label].sigmoid()
        return values.softmax(dim=1)[:, self.label]


def label_number(config: Any, label: str | int) -> int:
    """A label's number in a classifier's config.

    Raises:
        WorkbenchError: no such label; those of the config are named.
    """
    names: dict[int, str] = config.id2label
    for number, name in names.items():
        if label == name or (label == number and not isinstance(label, bool)):
            return int(number)
    raise WorkbenchError(
        f"the label {label!r}",
        "one of " + ", ".join(f"{name!r} ({number})" for number, name in names.items()),
    )


def longest_input(model: Any, tokenizer: Any) -> int | None:
    """Most tokens that a classifier takes, None where nothing limits them."""
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            places = module.num_embeddings - module.padding_idx - 1  # RoBERTa counts from there on
    limits = [n for n in (places, tokenizer.model_max_length) if n is not None and 0 < n < 10**9]
    return min(limits, default=None)
