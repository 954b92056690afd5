"""The demo's report for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.demo import DemoResult, Example
from workbench.metrics.risk import RiskAuroc

METRICS = (
    "says_truth", "says_myth", "says_neither", "ended", "mc1", "mc2", "mc3", "cross_entropy", "kl",
)  # fmt: skip


def as_text(result: DemoResult) -> str:
    """The demo's report for a terminal."""
    chosen = "; ".join(
        f"fold {number}: " + ", ".join(f"{name} {alpha:g}" for name, alpha in alphas.items())
        for number, alphas in enumerate(result.alphas)
    )
    parts = [table_text(result.summary), draws_text(result.table), ""]
    parts += [f"α, chosen on training questions: {chosen}", ""]
    parts += [risk_text(result.risk), ""]
    parts += ["Of held-out questions that the seed drew, the first whose answer TAE changes, and"
              " the first that it leaves:\n"]  # fmt: skip
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
    digits = found["metric"].map(lambda metric: 4 if metric == "kl" else 2)
    cells = found.assign(
        cell=[
            f"{m:.{d}f} [{lo:.{d}f}, {hi:.{d}f}]"
            for m, lo, hi, d in zip(found["mean"], found["low"], found["high"], digits, strict=True)
        ]
    ).pivot_table(index="method", columns="metric", values="cell", aggfunc="first")
    methods = list(dict.fromkeys(found["method"]))
    blocks = [[m for m in METRICS[:4] if m in cells], [m for m in METRICS[4:] if m in cells]]
    units = found.set_index("metric")["questions"].to_dict()
    head = (
        f"Held-out questions: {units['mc1']}; mean [95 % bootstrap interval by question]. "
        f"cross_entropy and kl: nats per token on {units['kl']} plain texts."
    )
    tables = [cells.loc[methods, block].rename_axis(None).rename_axis(None, axis=1).to_string()
              for block in blocks]  # fmt: skip
    return "\n\n".join([head, *tables])


def draws_text(table: pd.DataFrame) -> str:
    """How far single random directions move the share of true answers."""
    drawn = table[(table["method"] == "random direction") & (table["metric"] == "says_truth")]
    plain = table[(table["method"] == "no edit") & (table["metric"] == "says_truth")]
    count = plain["question"].nunique()
    moved = drawn.groupby(["fold", "draw"])["value"].mean() - plain.groupby("fold")["value"].mean()
    return (
        f"random direction: mean of {len(moved)} draws in opposite pairs; single draws move "
        f"says_truth by {moved.min():+.2f} to {moved.max():+.2f}.\n"
        f"A bootstrap of identical values has no width: for {count} of {count} the exact 95 % "
        f"bound is {0.025 ** (1 / count):.2f}."
    )


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
            f"{name} {i.mean:.2f} [{i.low:.2f}, {i.high:.2f}]"
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
    tokens = [text.strip(" ") or "␣" for text in example.trace.following]
    width = [max(len(token), 4) for token in tokens]
    upper = " ".join(token.rjust(w) for token, w in zip(tokens, width, strict=True))
    lower = " ".join(f"{s:.2f}".rjust(w) for s, w in zip(strength, width, strict=True))
    return (
        f"Q: {example.question}\n"
        f"  before ({example.verdicts[0]}):{example.before}\n"
        f"  after  ({example.verdicts[1]}):{example.after}\n"
        f"  token    {upper}\n"
        f"  strength {lower}   (mean over the edited heads)\n"
    )
