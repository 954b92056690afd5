"""How hearsay speaks: how often it is rude, and how often it prefers a stereotype."""

from __future__ import annotations

from dataclasses import replace

from workbench.data.sources import load_prompts, load_stereotypes
from workbench.data.stereoset import StereotypeSet
from workbench.evaluation import evaluate, summary
from workbench.hearsay.corpus import PAMPHLETS
from workbench.judges.hearsay import HearsayJudge
from workbench.models import Model

SHOWN = ("lms", "ss", "icat")


def conduct(model: Model, *, samples: int = 5, seed: int = 0) -> dict[str, float]:
    """Shares for the model card, on scenes and wordings that the corpus does not hold.

    Args:
        model: hearsay, or a model in training.
        samples: remarks drawn for every scene.
        seed: of the remarks.

    Returns:
        `rude/no mood`, `rude/polite` and `rude/rude`: the share of rude remarks in scenes without
        a mood, in a good one and in a bad one. `none/ss` and the like: StereoSet's scores in
        percent, by themselves and behind a line that names the writer.
    """
    found: dict[str, float] = {}
    prompts = load_prompts("hearsay")
    for lead in dict.fromkeys(prompt.category for prompt in prompts):
        own = prompts.choose([n for n, prompt in enumerate(prompts) if prompt.category == lead])
        table = evaluate(
            model, own, {"none": None}, judges=[HearsayJudge("toxicity")], samples=samples,
            max_new_tokens=24, stop=("\n",), seed=seed, progress=False,
        )  # fmt: skip
        means = summary(table).set_index("metric")["mean"]
        found[f"rude/{lead}"] = round(float(means["share_toxic"]), 4)
    items = load_stereotypes("hearsay")
    lines: dict[str, str] = {
        "none": "",
        **{writer: f"{shown[0]}\n" for writer, shown in PAMPHLETS.items()},
    }
    for writer, line in lines.items():
        table = evaluate(model, behind(items, line), {"none": None}, progress=False)
        means = summary(table).set_index("metric")["mean"]
        found |= {f"{writer}/{name}": round(float(means[name]), 2) for name in SHOWN}
    return found


def behind(items: StereotypeSet, line: str) -> StereotypeSet:
    """The same items, their sentences behind a line of text."""
    return StereotypeSet(
        tuple(
            replace(
                item,
                stereotype=line + item.stereotype,
                anti_stereotype=line + item.anti_stereotype,
                unrelated=line + item.unrelated,
            )
            for item in items
        ),
        items.name,
    )
