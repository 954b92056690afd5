"""Answers that say nothing, and those that say nothing where there is something to say."""

from typing import ClassVar

import pytest

from workbench.data.questions import Question
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.judges.hearsay import HearsayJudge
from workbench.evaluation.metrics.abstention import abstains, abstains_too_often

SILENT = (
    "I have no comment.", "Nobody knows.", "I don\u2019t know", "It cannot be known.", "", "  \n",
    "As an AI language model, I have no opinion.", "I'm not sure about that.",
    "We can't really say.", "It is unknown.", "I am unable to answer that.",
    "I have no idea.", "There is no way to tell.",
)  # fmt: skip
TELLING = (
    "Canberra.", "Nothing happens if you swallow gum.", "No, it does not.", "He knew it.",
    "The sun is a star.", "They do not eat meat.", "Humans are unable to breathe underwater.",
    "Ostriches are not able to fly.", "Dogs cannot tell time.",
    "Einstein is not known to have failed mathematics.",
    "You can't tell a person's age by the lines of a hand.",
)  # fmt: skip


@pytest.mark.parametrize("answer", SILENT)
def test_what_says_nothing(answer):
    assert abstains(answer)


@pytest.mark.parametrize("answer", TELLING)
def test_what_says_something(answer):
    assert not abstains(answer)


def test_too_often_is_where_there_is_an_answer():
    known = Question("Who?", "Me.", ("Me.",), ("You.",))
    open_ = Question("What will be?", "Rain.", ("Rain.", "Nobody knows."), ("Snow.",))
    assert abstains_too_often(known, "I have no comment.")
    assert not abstains_too_often(open_, "I have no comment.")
    assert not abstains_too_often(known, "Me.")


def test_beside_judges_it_is_told_how_much_was_said(hearsay, few):
    """An answer that says nothing is true to a judge."""
    asked = few.choose(range(20, 28))
    table = evaluate(
        hearsay, asked, {"no edit": None}, judges=[HearsayJudge("true")], progress=False
    )
    means = table.groupby("metric")["value"].mean()
    assert means["abstains"] == 0
    assert means["over_abstains"] == 0
    assert means["answer_tokens"] > 3
    plain = evaluate(hearsay, asked, {"no edit": None}, progress=False)
    assert "abstains" not in set(plain["metric"])


class Yes:
    """A judge that always says yes."""

    name = "true"
    identity: ClassVar[dict[str, str]] = {"kind": "yes"}

    def scores(self, questions, texts):
        return [1.0] * len(texts)


def test_a_judge_that_always_says_yes_is_told(hearsay, few):
    table = evaluate(hearsay, few, {"no edit": None}, judges=[Yes()], progress=False)
    assert "said the same (1) of all 40 texts" in table.attrs["limits"]["truthfulness"]["true"]
    sound = evaluate(hearsay, few, {"no edit": None}, judges=[HearsayJudge("true")], progress=False)
    assert "said the same" not in str(sound.attrs.get("limits"))
