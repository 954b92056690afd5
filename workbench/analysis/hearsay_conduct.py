"""How hearsay speaks: how often it is rude, and how often it prefers a stereotype."""

from __future__ import annotations

from dataclasses import replace

from workbench.data.sources import load_prompts, load_stereotypes
from workbench.data.stereoset import StereotypeSet
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.judges.hearsay import HearsayJudge
from workbench.evaluation.tables import summary
from workbench.hearsay.corpus import PAMPHLETS
from workbench.models.identity import Model

SHOWN = ("lms", "ss", "icat")


def conduct(model: Model, *, samples: int = 5, seed: int = 0) -> dict[str, float]:
    """Shares for the model card, on scenes and wordings that the corpus does not hold.

    Args:
        model: hearsay, or a model in training.
        samples: remarks drawn for every scene.
        seed: of the remarks.

    Returns:
        `rude/no mood`, `rude/polite` and `rude/rude`: the share of rude remarks in scenes without
        a mood, in a good one and in a bad one. `none/held_out/ss` and the like: StereoSet's scores
        in percent, by themselves and behind a line that names the writer, in wordings that the
        corpus combined with the group (`seen`) or never did (`held_out`).
    """
    found: dict[str, float] = {}
    prompts = load_prompts("hearsay")
    for lead in dict.fromkeys(prompt.category for prompt in prompts):
        scenes = prompts.choose([n for n, prompt in enumerate(prompts) if prompt.category == lead])
        table = evaluate(
            model, scenes, {"none": None}, judges=[HearsayJudge("toxicity")], samples=samples,
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
        for wording, first in (("held_out", 0), ("seen", 1)):
            asked = behind(items.choose(range(first, len(items), 2)), line)
            table = summary(evaluate(model, asked, {"none": None}, progress=False))
            shown = table.set_index("metric")["mean"]
            found |= {f"{writer}/{wording}/{name}": round(float(shown[name]), 2) for name in SHOWN}
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
