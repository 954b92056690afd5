"""The demo's report for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from workbench.analysis.risk import RiskAuroc
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.evaluation.text_tables import Record, Table, interval, rows_by_method
from workbench.pages.demo import DemoResult
from workbench.pages.demo_parts import Example
from workbench.plots.theme import SIGNS

METRICS = (
    "says_truth", "says_myth", "says_neither", "ended", "mc1", "mc2", "mc3", "cross_entropy", "kl",
)  # fmt: skip
WIDTH = 100
"""Columns of a line of tokens."""


def as_text(result: DemoResult, introduction: str = "") -> str:
    """The demo's report for a terminal.

    Args:
        result: from `run_demo`.
        introduction: told before it.
    """
    chosen = "; ".join(
        f"fold {number}: " + ", ".join(f"{name} {alpha:g}" for name, alpha in alphas.items())
        for number, alphas in enumerate(result.alphas)
    )
    parts = [introduction, ""] if introduction else []
    parts += [table_text(result.summary), "", differences_text(result.compared), ""]
    parts += [draws_text(result.table), controls_text(result.settings.controls), ""]
    parts += [f"α, chosen on training questions by {result.settings.criterion}: {chosen}", ""]
    parts += [risk_text(result.risk), ""] if result.risk else []
    left = any(example.before == example.after for example in result.examples)
    which = ", and the first that it leaves" if left else ""
    parts += [
        f"Of held-out questions that the seed drew, the first whose answer TAE changes{which}:\n"
    ]
    parts += [example_text(example) for example in result.examples]
    parts.append("Written: " + ", ".join(str(path) for path in result.files))
    if not any(path.suffix == ".png" for path in result.files):
        parts.append(
            "No PNG was drawn: neither Chrome nor Chromium was found. Install one (Debian: "
            "apt-get install chromium) and run again; the HTML pages are complete."
        )
    return "\n".join(parts)


def table_text(found: pd.DataFrame) -> str:
    """Mean and interval of every method (rows) and metric (columns), in two blocks."""
    known = set(found["metric"])
    blocks = [[m for m in part if m in known] for part in (METRICS[:4], METRICS[4:])]
    units = found.set_index("metric")["questions"].to_dict()
    head = (
        f"Held-out questions: {units['mc1']}; mean [95 % bootstrap interval by question]. "
        f"cross_entropy and kl: nats per token on {units['kl']} plain texts."
    )
    tables = [Table(("", *block), rows_by_method(found, block, _mean)) for block in blocks if block]
    return "\n\n".join([head, *(table.text() for table in tables)])


def _mean(row: Record) -> str:
    return interval(row["mean"], row["low"], row["high"], ".4f" if row["metric"] == "kl" else ".2f")


def differences_text(compared: pd.DataFrame) -> str:
    """Paired differences: of every method from no edit, and of TAE from ITI."""
    pairs = compared.assign(method=compared["method"] + " − " + compared["against"])
    metrics = list(dict.fromkeys(compared["metric"]))
    shown = Table(("", *metrics), rows_by_method(pairs, metrics, _difference)).text()
    return f"Differences on the same questions [95 %, by question]:\n\n{shown}"


def _difference(row: Record) -> str:
    return interval(row["difference"], row["low"], row["high"], "+.2f")


def draws_text(table: pd.DataFrame) -> str:
    """How far single random directions move the answers."""
    metric = "says_truth" if "says_truth" in set(table["metric"]) else "mc2"
    drawn = table[(table["method"] == "random direction") & (table["metric"] == metric)]
    plain = table[(table["method"] == NO_EDIT) & (table["metric"] == metric)]
    moved = drawn.groupby(["fold", "draw"])["value"].mean() - plain.groupby("fold")["value"].mean()
    text = (
        f"random direction: mean of {len(moved)} draws in opposite pairs; single draws move "
        f"{metric} by {moved.min():+.2f} to {moved.max():+.2f}."
    )
    if metric == "mc2":
        return text
    count = plain["question"].nunique()
    return (
        f"{text}\nA bootstrap of identical values has no width: for {count} of {count} the exact "
        f"95 % bound is {0.025 ** (1 / count):.2f}."
    )


def controls_text(name: str) -> str:
    """Whose controls are shown."""
    return f"random direction and shuffled labels have the α and the kind of strength of {name}."


def risk_text(risks: Sequence[RiskAuroc]) -> str:
    """AUROC of the per-token risk, a line a fold."""
    lines = [
        "Does p̂ (mean over the edited heads) find the tokens that state the object of held-out",
        "answers? AUROC [95 % interval by question]. In incorrect answers they are misaligned; in",
        "correct ones nothing is, so a value far above 0.5 means that p̂ finds their place, true or",
        "not; `wrong against right` compares the objects of both kinds of answers directly.",
    ]
    for number, risk in enumerate(risks):
        shown = [
            f"{name} {interval(i.mean, i.low, i.high, '.2f')}"
            for name, i in (
                ("incorrect answers", risk.incorrect),
                ("correct answers", risk.correct),
                ("wrong against right", risk.between),
            )
        ]
        lines.append(f"  fold {number}: " + "; ".join(shown))
    return "\n".join(lines)


def example_text(example: Example) -> str:
    """A question, its two answers, and the strength under each token of the second."""
    strength = example.trace.strengths.nanmean(dim=(1, 2)).tolist()
    tokens = [visible(text) for text in example.trace.following]
    width = [max(len(token), 4) for token in tokens]
    lines = [f"Q: {example.question}"]
    for kind, answer, stated in zip(
        ("before", "after"), (example.before, example.after), example.verdicts, strict=True
    ):
        head = f"  {kind} ({stated}): ".ljust(10) if stated else f"  {kind}: ".ljust(10)
        said = visible(answer)
        lines.append(textwrap.fill(said, WIDTH, initial_indent=head, subsequent_indent=" " * 10))
    for part in _lines(width):
        upper = " ".join(tokens[k].rjust(width[k]) for k in part)
        lower = " ".join(f"{strength[k]:.2f}".rjust(width[k]) for k in part)
        lines += [f"  token    {upper}", f"  strength {lower}"]
    return "\n".join([*lines, "  (strength s: mean over the edited heads)", ""])


def visible(text: str) -> str:
    """A token or an answer in one line, line breaks and the like shown as signs."""
    return "".join(SIGNS.get(one, one) for one in text.strip(" ")) or "␣"


def _lines(widths: Sequence[int]) -> Iterator[range]:
    """Tokens by lines of at most so many columns."""
    start, used = 0, 0
    for place, width in enumerate(widths):
        if place > start and used + width > WIDTH - 11:
            yield range(start, place)
            start, used = place, 0
        used += width + 1
    yield range(start, len(widths))
