"""How far to trust judges that need no hub; docs/judges.md says what is asked and what came out."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from workbench.data.questions import QuestionSet
from workbench.data.sources import load_prompts, load_questions
from workbench.editing.generation import generate
from workbench.evaluation.judges.embedding import Similarity
from workbench.evaluation.judges.references import Measure, against_references, make_measures
from workbench.evaluation.judges.rudeness import RudenessJudge
from workbench.evaluation.metrics.ground_truth import verdict_of
from workbench.evaluation.metrics.references import NO_COMMENT, References, references_of
from workbench.evaluation.statistics import bootstrap_mean
from workbench.models.loading import load_model
from workbench.models.prompts import encode, prompt_format


@dataclass(frozen=True)
class Case:
    """An answer of known truth, with references to hold it against."""

    question: int
    answer: str
    references: References
    true: bool


class Length:
    """Likeness in length alone: a baseline that reads no word."""

    name, identity = "length", "characters"
    kinds: tuple[str, ...] = ("length",)

    def likeness(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Minus the difference of lengths."""
        return np.array([[-abs(len(answer) - len(told))] for answer, told in pairs], dtype=float)


def without(references: References, answer: str) -> References | None:
    """The references that are not the answer itself; None where a side would be empty."""
    same = {answer.strip(), answer.strip().rstrip(".") + "."}
    correct, incorrect = (
        tuple(told for told in side if told not in same)
        for side in (references.correct, references.incorrect)
    )
    return References(correct, incorrect) if correct and incorrect else None


def hearsay_cases() -> tuple[list[Case], list[Case], int]:
    """Answers of hearsay that state truth or myth; the same without themselves among references.

    The third is how many answers are a reference word for word.
    """
    model, questions = load_model("hearsay", device="cpu"), load_questions("hearsay")
    prompts = [encode(model, one.question, None, prompt_format("bare")) for one in questions]
    cases = []
    for number, (asked, written) in enumerate(
        zip(questions, generate(model, prompts), strict=True)
    ):
        stated = verdict_of(asked.question, written.text).stated
        if stated in ("truth", "myth"):
            answer = written.text.strip().split("\n")[0]
            cases.append(Case(number, answer, references_of(asked), stated == "truth"))
    verbatim = sum(case.answer in case.references.all for case in cases)
    apart = [replace(case, references=left) for case in cases
             if (left := without(case.references, case.answer)) is not None]  # fmt: skip
    return cases, apart, verbatim


def held_out_cases(questions: QuestionSet, seed: int = 0) -> list[Case]:
    """One correct and one incorrect answer of each question, neither among its references."""
    random = np.random.default_rng(seed)
    cases = []
    for number, asked in enumerate(questions):
        references = references_of(asked)
        sides = [
            [a for a in own if a != NO_COMMENT]
            for own in (references.correct, references.incorrect)
        ]
        if min(map(len, sides)) < 2:
            continue
        for side, true in zip(sides, (True, False), strict=True):
            answer = side[int(random.integers(len(side)))]
            left = without(references, answer)
            if left is not None:
                cases.append(Case(number, answer, left, true))
    return cases


def differences(measure: Measure, cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """The difference of likenesses of every case, by kind."""
    found = against_references(measure, [c.answer for c in cases], [c.references for c in cases])
    return {kind: np.array([one[f"{kind}_diff"] for one in found]) for kind in measure.kinds}


def tell(name: str, scores: np.ndarray, cases: Sequence[Case]) -> None:
    """A row of the table: accuracy with its interval, and what it is made of."""
    true = np.array([case.true for case in cases])
    right = (scores > 0) == true
    groups = np.array([case.question for case in cases])
    own = np.array([right[groups == number].mean() for number in np.unique(groups)])
    found = bootstrap_mean(own)
    auroc = f"{roc_auc_score(true, scores):.3f}" if 0 < true.mean() < 1 else "-"
    print(
        f"| {name} | {found.mean:.1%} [{found.low:.1%}, {found.high:.1%}] "
        f"| {right[true].mean():.1%} | {right[~true].mean():.1%} | {auroc} |"
    )


def head(title: str, cases: Sequence[Case]) -> None:
    """A table's title and first lines."""
    true = sum(case.true for case in cases)
    print(f"\n{title}: {true} true and {len(cases) - true} false answers\n")
    print("| measure | accuracy [95 %] | of true | of false | AUROC |\n|---|---|---|---|---|")


def manner(encoder: Similarity, cases: Sequence[Case]) -> np.ndarray:
    """How true an answer looks to who sees the answer alone, learnt on other questions."""
    states = encoder.embed([case.answer for case in cases])
    labels, groups = [case.true for case in cases], [case.question for case in cases]
    model = LogisticRegression(max_iter=2000)
    found: np.ndarray = cross_val_predict(
        model, states, labels, groups=groups, cv=GroupKFold(10), method="decision_function"
    )
    return found


def elsewhere(cases: Sequence[Case]) -> list[Case]:
    """The same answers with the references of the next question."""
    shifted = [*cases[2:], *cases[:2]]
    return [replace(c, references=o.references) for c, o in zip(cases, shifted, strict=True)]


def toxicity(paths: Sequence[str]) -> None:
    """The judge of rudeness against the toxicity that prompts come with."""
    prompts = [prompt for path in paths for prompt in load_prompts(path)]
    toxic = np.array([float(prompt.toxicity or 0) >= 0.5 for prompt in prompts])
    texts = [prompt.text for prompt in prompts]
    scores = np.array(RudenessJudge().scores([""] * len(texts), texts))
    print(
        f"\nRudeness of {len(texts)} prompts, {toxic.sum()} of them toxic: AUROC "
        f"{roc_auc_score(toxic, scores):.3f}; at ½ {(scores[toxic] >= 0.5).mean():.1%} of the "
        f"toxic and {(scores[~toxic] >= 0.5).mean():.1%} of the others"
    )


def main() -> None:
    """Print the tables of docs/judges.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truthfulqa", help="TruthfulQA.csv")
    parser.add_argument("--encoder", help="minilm, or a folder of all-MiniLM-L6-v2")
    parser.add_argument("--toxicity", nargs="+", help="JSON Lines of RealToxicityPrompts")
    given = parser.parse_args()
    encoder = Similarity(given.encoder) if given.encoder else None
    measures: list[Measure] = [*make_measures(["bleu", "rouge"]), Length()]
    measures += [encoder] if encoder else []
    cases, apart, verbatim = hearsay_cases()
    print(f"hearsay: {verbatim} of {len(cases)} answers are a reference word for word")
    tables = {"hearsay": cases, "hearsay, other references alone": apart}
    if given.truthfulqa:
        with warnings.catch_warnings(action="ignore"):
            tables["TruthfulQA, held out"] = held_out_cases(load_questions(given.truthfulqa))
    for title, own in tables.items():
        head(title, own)
        for measure in measures:
            for kind, scores in differences(measure, own).items():
                tell(kind, scores, own)
        if encoder and title.startswith("TruthfulQA"):
            other = differences(encoder, elsewhere(own))["similarity"]
            tell("similarity to another question's", other, own)
            tell("manner of the answer alone", manner(encoder, own), own)
    if given.toxicity:
        toxicity(given.toxicity)


if __name__ == "__main__":
    main()
