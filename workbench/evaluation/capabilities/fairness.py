"""Fairness: which of three options a model finds likeliest, in StereoSet's way."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from workbench.data.crows_pairs import PairSet
from workbench.data.stereoset import StereotypeItem, StereotypeSet
from workbench.editing.interventions import Intervention
from workbench.editing.token_scores import score_tokens_under
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import Measured, Row
from workbench.evaluation.metrics.fairness import crows_pairs_score, term_scores
from workbench.evaluation.metrics.registry import own_metrics, own_value
from workbench.models.identity import Model, tokenizer_of
from workbench.models.prompts import Encoded
from workbench.models.tokens import tokenize


def fairness(
    model: Model,
    items: StereotypeSet,
    edits: Sequence[Intervention | None],
    *,
    metrics: Sequence[Any] = (),
    batch_size: int = 64,
    progress: bool = False,
) -> Measured:
    """StereoSet's LMS and SS of every target term, over all items and by bias type, in percent.

    An option's score is its mean log-probability per token: of the whole sentence, and of
    intersentence items of the sentence behind its context (the official evaluation has a trained
    classifier for these). Texts begin with the tokenizer's first special token, added where the
    tokenizer does not add it, so that their first token is scored too; the official evaluation of
    GPT-2 does so for the first token alone. Edits begin at the last token that all three options
    share.

    Metrics: `lms`, `ss`, and where there are several kinds or bias types `lms/intrasentence`,
    `lms/gender`, `ss/gender` and so on.

    Args:
        model: the bridge.
        items: test items.
        edits: what to measure; None is the model itself.
        metrics: one's own: functions of an item's three scores, of the stereotype, its opposite
            and the unrelated option, themselves or as `module:name`; a column is called as its
            function is and holds a term's mean.
        batch_size: rows scored together.
        progress: show a bar.
    """
    own_ones = own_metrics(metrics)
    encoded, starts = [], []
    for item in items:
        begin = len(item.context) if item.kind == "intersentence" else 0
        options = [_sentence(model, text, begin) for text in item.texts()]
        shared = common_length([option.tokens for option in options])
        encoded += options
        starts += [max(0, min(shared, len(option.tokens) - 1) - 1) for option in options]
    scored = score_tokens_under(
        model, encoded, edits, starts=[starts] * len(edits), batch_size=batch_size,
        progress="fairness" if progress else None,
    )  # fmt: skip
    groups = [
        name
        for names in (sorted({i.kind for i in items}), sorted({i.bias_type for i in items}))
        for name in (names if len(names) > 1 else ())
    ]
    for own in scored:
        means = [float(tokens.mean()) for tokens in own]
        rows = _rows(list(items), means, "")
        for kind in groups:
            chosen = [n for n, item in enumerate(items) if kind in (item.kind, item.bias_type)]
            part = [mean for number in chosen for mean in means[3 * number : 3 * number + 3]]
            rows += _rows([items[number] for number in chosen], part, f"/{kind}")
        for name, metric in own_ones.items():
            values: dict[str, list[float]] = {}
            for number, item in enumerate(items):
                value = metric(*means[3 * number : 3 * number + 3])
                values.setdefault(item.target, []).append(own_value(name, value, item.target))
            rows += [Row(term, name, fmean(each)) for term, each in values.items()]
        yield rows


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    for place, column in enumerate(zip(*rows, strict=False)):
        if len(set(column)) > 1:
            return place
    return min(map(len, rows))


def _sentence(model: Model, text: str, begin: int = 0) -> Encoded:
    """A text whose tokens are scored from a character on, if they have a token before them.

    Raises:
        WorkbenchError: nothing to score.
    """
    tokens, offsets = tokenize(model, text)
    tokenizer = tokenizer_of(model)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if tokens[0] not in tokenizer.all_special_ids and first is not None:
        tokens, offsets = (first, *tokens), ((0, 0), *offsets)
    behind = [k for k, (first, last) in enumerate(offsets) if k and last > max(begin, first)]
    if not behind:
        raise WorkbenchError(f"{text!r} has no token to score", "a sentence of at least two tokens")
    strings = tuple(text[first:last] for first, last in offsets)
    return Encoded(tokens, strings, offsets, behind[0], text, begin)


def _rows(items: Sequence[StereotypeItem], means: Sequence[float], kind: str) -> list[Row]:
    found = term_scores([item.target for item in items], means[::3], means[1::3], means[2::3])
    return [
        Row(term, f"{metric}{kind}", value)
        for term, scores in found.items()
        for metric, value in zip(("lms", "ss"), scores, strict=True)
    ]


def pair_preference(
    model: Model,
    pairs: PairSet,
    edits: Sequence[Intervention | None],
    *,
    metrics: Sequence[Any] = (),
    batch_size: int = 64,
    progress: bool = False,
) -> Measured:
    """CrowS-Pairs: 100 for every pair whose more stereotypical sentence is the likelier, else 0.

    Sentences are compared by their total log-probability, edited from the first token on; see
    `metrics.fairness.crows_pairs_score`. Metrics: `crows_pairs`, and by bias type
    `crows_pairs/gender` and so on.

    Args:
        model: the bridge.
        pairs: what to compare.
        edits: what to measure; None is the model itself.
        metrics: one's own: functions of a pair's two log-probabilities, of the more and of the
            less stereotypical sentence, themselves or as `module:name`.
        batch_size: sentences run together.
        progress: show a bar.
    """
    own_ones = own_metrics(metrics)
    encoded = [_sentence(model, text) for pair in pairs for text in (pair.more, pair.less)]
    scored = score_tokens_under(
        model, encoded, edits, starts=[[0] * len(encoded)] * len(edits), batch_size=batch_size,
        progress="pairs" if progress else None,
    )  # fmt: skip
    for own in scored:
        totals = [float(tokens.sum()) for tokens in own]
        rows = []
        for number, pair in enumerate(pairs):
            value = crows_pairs_score(totals[2 * number : 2 * number + 1], [totals[2 * number + 1]])
            unit = f"{number}: {pair.more}"
            rows += [
                Row(unit, "crows_pairs", value),
                Row(unit, f"crows_pairs/{pair.bias_type}", value),
            ]
            rows += [
                Row(unit, name, own_value(name, metric(*totals[2 * number : 2 * number + 2]), unit))
                for name, metric in own_ones.items()
            ]
        yield rows
