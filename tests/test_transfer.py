"""Transfer: what is fitted on one kind of questions is measured on all, and never on its own."""

import numpy as np
import pytest

from workbench.data.shared import words_of
from workbench.data.sources import load_questions
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.evaluation.transfer import Domain, transfer, transfers
from workbench.methods.caa import ContrastiveAddition
from workbench.methods.iti import inference_time
from workbench.plots.transfer import transfer as drawn


@pytest.fixture(scope="module")
def domains():
    """Two wordings of the same facts, and one of them in another prompt format."""
    own = {}
    for name, source, style in (
        ("hearsay", "hearsay", "bare"), ("reworded", "hearsay_reworded", "bare"),
        ("inline", "hearsay", "inline"),
    ):  # fmt: skip
        whole = Domain.of(load_questions(source), style, seed=3)
        own[name] = Domain(whole.train.choose(range(40)), whole.test.choose(range(12)), style)
    return own


@pytest.fixture(scope="module")
def table(hearsay, domains):
    methods = {"ITI": inference_time(heads=8, alpha=4.0), "CAA": ContrastiveAddition(alpha=-1.0)}
    return transfer(hearsay, methods, domains, progress=False)


def test_the_other_wording_asks_the_same_of_the_same_folds():
    one, other = load_questions("hearsay"), load_questions("hearsay_reworded")
    assert len(one) == len(other)
    assert not {q.question for q in one} & {q.question for q in other}
    assert all(a.correct_answers == b.correct_answers for a, b in zip(one, other, strict=True))
    first, second = (Domain.of(source, seed=5) for source in (one, other))
    for a, b in zip(first.test, second.test, strict=True):
        assert a.best_answer == b.best_answer


def test_every_fit_is_measured_on_every_domain(hearsay, domains, table):
    pairs = {(f, t) for f, t in zip(table["fitted_on"], table["tested_on"], strict=True)}
    wanted = {(f, t) for f in ("", *domains) for t in domains}
    assert pairs == wanted
    gains = transfers(table, "mc2")
    assert len(gains) == 2 * 9
    assert set(gains["method"]) == {"ITI", "CAA"}
    one = gains.set_index(["method", "fitted_on", "tested_on"]).loc["ITI", "reworded", "inline"]
    edit = inference_time(heads=8, alpha=4.0, style="bare").fit(
        hearsay, domains["reworded"].train, progress=False
    )
    asked, change = domains["inline"].test, []
    with pytest.warns(UserWarning, match="style"):
        after = score(hearsay, asked, edit, style="inline")
    for scores in (score(hearsay, asked, style="inline"), after):
        mc2 = np.zeros((len(asked), 2))
        for own in scores:
            mc2[own.question, own.label] += np.exp(own.total)
        change.append(mc2[:, 1] / mc2.sum(axis=1))
    assert one["difference"] == pytest.approx(float(np.mean(change[1] - change[0])), abs=1e-3)
    assert (gains["p_holm"] >= gains["p"]).all()


def test_what_helps_transfers_between_wordings(table):
    """ITI's directions were fitted on other facts, in other words, and help here too."""
    gains = transfers(table, "mc2").set_index(["method", "fitted_on", "tested_on"])["difference"]
    assert gains["ITI", "hearsay", "reworded"] > 0.1
    assert gains["ITI", "reworded", "hearsay"] > 0.1


def test_the_figure_shows_every_cell(table):
    figure = drawn(transfers(table, "mc2"), title="of two methods")
    assert [own.z.shape for own in figure.data] == [(3, 3), (3, 3)]
    gains = transfers(table, "mc2").set_index(["method", "fitted_on", "tested_on"])
    cell = figure.data[0].text[1][0]
    assert cell.startswith(f"{gains.loc[('ITI', 'reworded', 'hearsay'), 'difference']:+.2f}")
    assert figure.data[0].zmin == -figure.data[0].zmax


def test_questions_that_are_shared_are_refused(hearsay, domains):
    leaking = {**domains, "leak": Domain(domains["hearsay"].test, domains["reworded"].test)}
    methods = {"ITI": inference_time(heads=2)}
    with pytest.raises(WorkbenchError, match="'leak' trains on and 'hearsay' tests"):
        transfer(hearsay, methods, leaking, progress=False)
    one, other = (load_questions(name) for name in ("hearsay", "hearsay_reworded"))
    crossed = {"a": Domain.of(one, number=0), "b": Domain.of(other, number=1)}
    with pytest.raises(WorkbenchError, match="'a' trains on and 'b' tests"):
        transfer(hearsay, methods, crossed, progress=False)
    for few in ({}, {"one": domains["hearsay"]}):
        with pytest.raises(WorkbenchError, match="two domains"):
            transfer(hearsay, methods, few, progress=False)
    with pytest.raises(WorkbenchError, match="a method"):
        transfer(hearsay, {}, domains, progress=False)


def test_tables_of_another_kind_are_refused(table):
    with pytest.raises(WorkbenchError, match="fitted_on"):
        transfers(table.drop(columns="fitted_on"))
    with pytest.raises(WorkbenchError, match="primary metric"):
        transfers(table, "mc9")
    with pytest.raises(WorkbenchError, match="of `transfers`"):
        drawn(table)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is C++?", "What is C#?", False), ("Is −5 prime?", "Is 5 prime?", False),
        ("Is -5 prime?", "is −5 PRIME", True), ("In 1914-1918?", "In 1914\u20131918", True),
        ("Is 5% much?", "is 5 % much", True), ("Is 5% much?", "Is $5 much?", False),
        ("यह की है?", "यह का है?", False), ("A cafe\u0301?", "a caf\u00e9", True),
        ("6/2?", "6*2?", False), ("6 - 2?", "6 / 2?", False), ("x=-5?", "x=5?", False),
        ("-$5?", "$5?", False), ('"-5"?', '"5"?', False), ("[-5]?", "[5]?", False),
        ("-.5?", ".5?", False), ("10 -20?", "10-20?", True), ("> What is it?", "What is it", True),
        ("a\u2192b", "a b", True), ("It is *so* good - or not", "it is so good or not", True),
        ("\n-5 is?", "-5 is", True), ("and/or", "and or", True), ("Covid-19", "covid 19", True),
        ("Don't we?", '"don’t we"', True),
    ],
)  # fmt: skip
def test_questions_of_the_same_words_are_the_same(one, other, same):
    assert (words_of(one) == words_of(other)) == same
