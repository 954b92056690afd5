"""What is of a wrong type is refused in the user's words at every public door, as shipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import workbench as wb
from tests.edits import random_edit
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError

CALLS = {
    "Estimators(1, 2)": lambda at: at.make(wb.editing.Estimators, 1, 2).probability(torch.ones(4)),
    "Edit(heads=)": lambda at: at.changed(heads=3),
    "Edit(direction=)": lambda at: at.changed(direction=[1]),
    "Edit(estimators=)": lambda at: at.changed(estimators="x"),
    "Edit(model=)": lambda at: at.changed(model="hearsay"),
    "TokenAware(layers=)": lambda at: at.make(wb.TokenAware, layers=3),
    "TokenAware(leave_out=)": lambda at: at.make(wb.TokenAware, leave_out="x"),
    "TokenAware(layer=)": lambda at: at.make(wb.TokenAware, layer=3),
    "GraphSettings(bins=)": lambda at: at.make(wb.GraphSettings, bins="x"),
    "GraphSettings(temperature=)": lambda at: at.make(wb.GraphSettings, temperature="x"),
    "fit(activations=)": lambda at: wb.TokenAware(heads=2).fit(at.model, at.few, activations="x"),
    "fit(model)": lambda at: wb.TokenAware(heads=2).fit("hearsay", at.few),
    "caa.fit(train)": lambda at: wb.methods.ContrastiveAddition().fit(at.model, "x"),
    "evaluate(model)": lambda at: wb.evaluate("hearsay", at.few, {"no edit": None}),
    "evaluate(texts=)": lambda at: wb.evaluate(at.model, at.few, {"no edit": None}, texts=5),
    "evaluate(judges=)": lambda at: wb.evaluate(at.model, at.few, {"no edit": None}, judges=5),
    "generate(seed=)": lambda at: wb.generate(at.model, "Q:", seed="x", temperature=1.0),
    "generate(model)": lambda at: wb.generate("hearsay", "Q:"),
    "generate(n=)": lambda at: wb.generate(at.model, "Q:", n=3),
    "generate()": lambda at: wb.generate(at.model),
    "score(questions)": lambda at: wb.score(at.model, "x"),
    "capture(model)": lambda at: wb.capture("hearsay", at.few),
    "capture(layers)": lambda at: wb.capture(
        at.model, at.few, uncertainty="logit_lens", uncertainty_layers=3, progress=False
    ),
    "capture(seed=)": lambda at: wb.capture(at.model, at.few, seed="x", progress=False),
    "aggregate(activations)": lambda at: wb.aggregate("x"),
    "aggregate(graph=)": lambda at: wb.aggregate(at.acts, graph="x"),
    "fit_directions(features)": lambda at: wb.fit_directions("x", at.few),
    "fit_directions(share)": lambda at: wb.fit_directions(
        wb.aggregate(at.acts), at.few, validation_share="x"
    ),
    "token_graph(layer=)": lambda at: wb.token_graph(at.acts[0], layer="x"),
    "token_graph(depth=)": lambda at: wb.token_graph(at.acts[0], layer=1, depth="x"),
    "summary(table)": lambda at: wb.summary(None),
    "summary(level=)": lambda at: wb.summary(at.table, level="x"),
    "compare(primary=)": lambda at: wb.compare(at.table, against="no edit", primary=5),
    "conflict(one)": lambda at: wb.editing.conflict(1, 2),
    "load_edit(folder)": lambda at: wb.load_edit(3),
    "save(folder)": lambda at: random_edit(at.model).save(3),
    "choose(numbers)": lambda at: at.few.choose("x"),
    "choose(99)": lambda at: at.few.choose([99]),
    "sample(count)": lambda at: at.few.sample("x"),
    "folds(count)": lambda at: at.few.folds("x"),
    "ablate(axes)": lambda at: wb.ablate(at.model, at.few, 3, progress=False),
    "ablate(base=)": lambda at: wb.ablate(at.model, at.few, {"depth": [0]}, base=3, progress=False),
    "random_directions(draws)": lambda at: wb.methods.random_directions(random_edit(at.model), "x"),
    "evened(edit)": lambda at: wb.methods.evened("x", torch.ones(1, 1)),
    "strength_sample(edit)": lambda at: wb.methods.strength_sample(at.model, "x", at.few, "bare"),
    "combine(edits)": lambda at: wb.combine({"a": 1, "b": 2}),
    "load_questions(3)": lambda at: wb.load_questions(3),
    "fit_shortlists(layers)": lambda at: wb.stages.fit_shortlists(at.model, at.few, 3),
}  # fmt: skip


class At:
    """What calls are made with."""

    def __init__(self, model, questions):
        self.model, self.few = model, questions.choose(range(6))
        self.acts = wb.capture(model, self.few, progress=False)
        self.table = wb.evaluate(model, self.few.choose([0]), {"no edit": None}, progress=False)

    def make(self, kind, *given, **named):
        return kind(*given, **named)

    def changed(self, **fields):
        return replace(random_edit(self.model), **fields)


@pytest.fixture(scope="module")
def at(hearsay, questions):
    return At(hearsay, questions)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_told_in_the_user_s_words(at, name, as_shipped):
    with pytest.raises(WorkbenchError) as refused:
        CALLS[name](at)
    assert refused.value.came
    assert refused.value.expected


def test_what_is_no_argument_s_fault_is_raised_as_it_is():
    @door
    def halved(values: list[float], by: int = 2) -> float:
        """Divides."""
        return values[0] / by

    assert halved([1], by=np.int64(2)) == 0.5
    assert halved.__doc__ == "Divides."
    with pytest.raises(ZeroDivisionError):
        halved([1.0], by=0)
    with pytest.raises(IndexError):
        halved([])
    with pytest.raises(WorkbenchError, match=r"halved\(values='ab'\), a str. Expected values of"):
        halved("ab")
    with pytest.raises(WorkbenchError, match=r"halved\(value=\.\.\.\).*Did you mean values"):
        halved(value=[1.0])


def test_a_class_is_told_by_its_name():
    @door_of_class
    class Pair:
        def __init__(self, one: int, other: int) -> None:
            self.sum = one + other

    assert Pair(1, 2).sum == 3
    with pytest.raises(WorkbenchError, match=r"Pair\(other='b'\), a str. Expected other of the ty"):
        Pair(1, "b")
