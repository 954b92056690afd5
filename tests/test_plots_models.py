import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.browser import opened_browser
from tests.edits import directions_of, random_edit
from workbench import plots, storage
from workbench.analysis.agreements import Agreement, agreement, agreement_of_heads
from workbench.analysis.projection import Projections
from workbench.analysis.trajectories import COLUMNS, trajectory
from workbench.errors import WorkbenchError
from workbench.evaluation import tables as comparison
from workbench.evaluation.statistics import Interval
from workbench.runs.study_summary import study_summary

STRANGE = ("<b>bold</b>", "\n", " ", "שלום", "é🙂", "", "&amp;", "%{y} $x$")


def page(figure):
    """What a browser gets; user text in it must be escaped."""
    text = figure.to_html(include_plotlyjs=False)
    assert "<b>bold" not in text
    assert "\\u003cb\\u003ebold" not in text
    assert "$x$" not in text
    return text


def projected(count=8, fitted=0, spread=0.5, values=None):
    values = torch.linspace(-1, 1, count) if values is None else values
    return Projections(
        value=values,
        label=(torch.arange(count) % 2 == 0).long(),
        question=tuple(STRANGE[n % len(STRANGE)] for n in range(count)),
        spread=spread,
        auroc=Interval(0.75, 0.6, 0.9, 4),
        layer=3,
        head=7,
        fitted=fitted,
    )


@pytest.mark.parametrize("count", [2, 8, 2000])
@pytest.mark.parametrize("standardised", [False, True])
def test_projection_shows_every_answer_by_its_label(count, standardised):
    record = projected(count)
    figure = plots.projection(record, standardised=standardised)
    values = record.standardised if standardised else record.value
    bars = [trace for trace in figure.data if trace.type == "histogram"]
    strokes = [trace for trace in figure.data if trace.type == "scatter"]
    for number, label in enumerate((1, 0)):
        own = values[record.label == label].tolist()
        assert list(bars[number].x) == pytest.approx(own)
        assert list(strokes[number].x) == pytest.approx(own)
        assert bars[number].histnorm == "probability density"
    assert "(in σ)" in figure.layout.xaxis2.title.text or not standardised
    page(figure)


def test_projection_says_whether_the_answers_were_held_out():
    def title(**changes):
        return plots.projection(projected(**changes)).layout.title.text

    assert "4 held-out questions" in title()
    assert "fitted on these 4 questions: not held out" in title(fitted=4)
    assert "fitted on 1 of these 4 questions: not held out" in title(fitted=1)
    assert "AUROC 0.75 [0.60, 0.90]" in title()
    lone = replace(projected(), auroc=Interval(0.75, math.nan, math.nan, 4))
    assert "[" not in plots.projection(lone).layout.title.text
    flat = plots.projection(projected(spread=0.0), standardised=True)
    assert all(math.isnan(value) for value in flat.data[0].x)


def test_agreement_shows_the_matrix_with_names_as_typed():
    vectors = {name: torch.randn(2, 3, 4) for name in STRANGE}
    vectors["&amp;"][1] = 0
    record = agreement(vectors)
    figure = plots.agreement(record)
    assert np.allclose(figure.data[0].z, record.cosine)
    assert figure.layout.xaxis.ticktext[0] == "&lt;b&gt;bold&lt;/b&gt;"
    assert "3 heads" in figure.data[0].customdata[6][0]
    assert "6 heads" in figure.data[0].customdata[5][0]
    assert "0 ± 0.29 (over 3 heads)" in figure.layout.title.text
    page(figure)
    pair = plots.agreement(record, ("<b>bold</b>", "&amp;"))
    assert np.allclose(pair.data[0].z, record.between("<b>bold</b>", "&amp;"), equal_nan=True)
    page(pair)


def test_agreements_of_one_head_many_heads_and_none(hearsay, as_shipped):
    one = agreement_of_heads(hearsay, random_edit(hearsay, heads=((4, 7),)))
    assert plots.agreement(one).data[0].z.tolist() == [[pytest.approx(1)]]
    names = tuple(f"L{n} H0" for n in range(200))
    many = plots.agreement(Agreement(names, torch.eye(200), 64))
    assert many.layout.width <= 1400
    assert many.data[0].texttemplate is None
    with pytest.raises(WorkbenchError, match="between methods"):
        plots.agreement(one, ("L4 H7", "L4 H7"))


def followed(places=1, layers=5, edits=("no edit", "<b>bold</b>")):
    rows = [
        (STRANGE[0] + " who?", edit, answer, place, STRANGE[(place + shift) % len(STRANGE)], layer,
         -float(layers - layer + shift), layers - layer + shift, edit != "no edit" and layer > 1)
        for edit in edits
        for shift, answer in enumerate(("truth", "myth"))
        for place in range(places)
        for layer in range(layers)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.mark.parametrize("quantity", ["nats", "rank"])
def test_trajectory_draws_answers_by_colour_and_edits_by_dash(hearsay, quantity):
    table = trajectory(
        hearsay, "What is the capital of Australia?",
        {"no edit": None, "TAE": random_edit(hearsay)}, truth="Canberra.", myth="Sydney.",
    )  # fmt: skip
    figure = plots.trajectory(table, quantity=quantity)
    assert len(figure.data) == 4
    for line in figure.data:
        answer, edit = line.name.split(" ")[0], line.name.split(", ")[1]
        own = table[(table["answer"] == answer) & (table["edit"] == edit)]
        assert list(line.x) == list(range(5))
        assert list(line.y) == own[quantity].tolist()
        filled = [not symbol.endswith("-open") for symbol in line.marker.symbol]
        assert filled == own["edited"].tolist()
    looks = {(line.line.color, line.line.dash) for line in figure.data}
    assert len(looks) == 4
    assert len({colour for colour, _ in looks}) == len({dash for _, dash in looks}) == 2


@pytest.mark.parametrize(("places", "layers"), [(1, 1), (3, 80), (60, 2)])
def test_extreme_trajectories_are_drawn_with_text_as_typed(places, layers):
    figure = plots.trajectory(followed(places, layers), title="?" * 20 + " <b>bold</b> " * 20)
    assert len(figure.data) == 4 * places
    page(figure)
    some = plots.trajectory(followed(places, layers), places=[places - 1])
    assert len(some.data) == 4
    assert list(some.data[0].y) == [-float(layers - n) for n in range(layers)]


def test_trajectories_refuse_what_they_do_not_have(as_shipped):
    with pytest.raises(WorkbenchError, match="quantity 'bits'"):
        plots.trajectory(followed(), quantity="bits")
    with pytest.raises(WorkbenchError, match=r"\[4\]"):
        plots.trajectory(followed(), places=[4])
    with pytest.raises(WorkbenchError, match="7 edits"):
        plots.trajectory(followed(edits=tuple("abcdefg")))


def summarised(axes, grid, blank=True):
    """A summary with a row a setting, and the unedited model."""
    rows = [
        (*values, "hearsay", "truthfulness", str(values), "mc1", 0.1 * n, 0.1 * n - 0.05,
         0.1 * n + 0.02, 40)
        for n, values in enumerate(grid)
    ]  # fmt: skip
    if blank:
        none = (None,) * len(axes)
        rows.insert(0, (*none, "hearsay", "truthfulness", "no edit", "mc1", 0.4, 0.3, 0.5, 40))
    return pd.DataFrame(rows, columns=[
        *axes, "model", "capability", "method", "metric", "mean", "low", "high", "questions",
    ])  # fmt: skip


def test_ablation_curves_draw_numbers_in_order_with_bands():
    found = summarised(["alpha", "heads"], [(a, h) for a in (16.0, 0.5, 2.0) for h in (8, 4)])
    figure = plots.ablation_curves(found, "alpha", "mc1", by="heads")
    bands = [t for t in figure.data if t.fill == "toself"]
    lines = [t for t in figure.data if t.mode == "lines+markers"]
    assert [line.name for line in lines] == ["heads = 4", "heads = 8"]
    for line, means in zip(lines, ([0.3, 0.5, 0.1], [0.2, 0.4, 0.0]), strict=True):
        assert list(line.x) == [0.5, 2.0, 16.0]
        assert list(line.y) == pytest.approx(means)
    low = [0.3 - 0.05, 0.5 - 0.05, 0.1 - 0.05]
    high = [0.3 + 0.02, 0.5 + 0.02, 0.1 + 0.02]
    assert list(bands[0].y) == pytest.approx([*high, *low[::-1]])
    assert figure.layout.xaxis.type == "log"
    around, line = figure.layout.shapes
    assert (around.y0, around.y1, line.y0) == (0.3, 0.5, 0.4)
    linear = plots.ablation_curves(found[found["alpha"].isna() | (found["heads"] == 4)], "alpha",
                                   "mc1")  # fmt: skip
    assert len([t for t in linear.data if t.mode == "lines+markers"]) == 1


def test_ablation_curves_put_other_values_side_by_side():
    found = summarised(["depth", "graph"], [(d, g) for d in STRANGE for g in ("<b>bold</b>", True)])
    figure = plots.ablation_curves(found, "depth", "mc1", by="graph")
    marks = [t for t in figure.data if t.mode == "markers"]
    assert figure.layout.xaxis.ticktext[0] == "&lt;b&gt;bold&lt;/b&gt;"
    assert [round(x) for x in marks[0].x] == list(range(len(STRANGE)))
    assert list(marks[1].y) == pytest.approx([0.1 * (2 * n + 1) for n in range(len(STRANGE))])
    assert list(marks[0].error_y.arrayminus) == pytest.approx([0.05] * len(STRANGE))
    assert set(np.round(np.subtract(marks[1].x, marks[0].x), 3)) == {0.36}
    page(figure)


def test_settings_without_a_value_are_said_to_have_none():
    found = summarised(["alpha", "depth"], [(1.0, None), (None, "last")])
    figure = plots.ablation_curves(found, "alpha", "mc1")
    assert list(figure.layout.xaxis.ticktext) == ["1", "(not set)"]


def test_one_setting_and_an_interval_of_nan_are_drawn():
    found = summarised(["alpha"], [(1.0,)], blank=False)
    found[["mean", "low", "high"]] = math.nan
    figure = plots.ablation_curves(found, "alpha", "mc1")
    assert list(figure.data[-1].x) == [1.0]
    assert not figure.layout.shapes


def test_ablation_map_puts_every_setting_in_its_cell():
    grid = [(2.0, "last"), (0.5, 0), (2.0, 0)]
    figure = plots.ablation_map(summarised(["alpha", "<b>bold</b>"], grid), "alpha", "<b>bold</b>",
                                "mc1")  # fmt: skip
    heat = figure.data[0]
    expected = [[math.nan, 0.0], [0.1, 0.2]]
    assert np.allclose(heat.z, expected, equal_nan=True)
    assert np.allclose(heat.customdata[1][1], [0.15, 0.22])
    assert list(figure.layout.xaxis.ticktext) == ["0.5", "2"]
    assert list(figure.layout.yaxis.ticktext) == ["last", "0"]
    assert "no edit: 0.40 [0.30, 0.50]" in figure.layout.title.text
    page(figure)
    large = summarised(["a", "b"], [(a, b) for a in range(30) for b in range(30)])
    assert plots.ablation_map(large, "a", "b", "mc1").data[0].texttemplate is None


def test_studies_that_do_not_fit_are_refused(as_shipped):
    found = summarised(["alpha", "heads"], [(1.0, 4), (1.0, 8)])
    with pytest.raises(WorkbenchError, match="no axis 'depth'"):
        plots.ablation_map(found, "alpha", "depth", "mc1")
    with pytest.raises(WorkbenchError, match="no metric 'mc9'"):
        plots.ablation_curves(found, "alpha", "mc9")
    with pytest.raises(WorkbenchError, match=r"several settings[\s\S]*study_summary"):
        plots.ablation_curves(found, "alpha", "mc1")
    twice = pd.concat([found, found.assign(capability="fairness")])
    with pytest.raises(WorkbenchError, match="several models or capabilities"):
        plots.ablation_map(twice, "alpha", "heads", "mc1")
    with pytest.raises(WorkbenchError, match="no settings"):
        plots.ablation_curves(found[:1], "alpha", "mc1")


def curves(methods=12):
    """Every method's gain rises and falls again with its strength; the last one only harms."""
    rows = []
    for n in range(methods):
        name = f"{STRANGE[n % len(STRANGE)]} {n}"
        harm = methods > 1 and n == methods - 1
        for strength, gain, cost in ((0, 0.3, 0.0), (1, 0.5, 0.01), (2, 0.4, 0.02), (3, 0.6, 0.05),
                                     (4, 0.2, 0.09)):  # fmt: skip
            own = (0.3 - 0.01 * strength) if harm else gain
            rows.append((name, strength, own, own - 0.1, own + 0.1, cost, cost * 0.9, cost * 1.1))
    return pd.DataFrame(rows, columns=[
        "method", "multiple", "gain", "gain_low", "gain_high", "effect", "effect_low",
        "effect_high",
    ])  # fmt: skip


def test_an_envelope_steps_through_the_best_at_each_side_effect():
    figure = plots.front(curves(2), envelope=True)
    steps, faint, best, empty, rest, nothing, blank = figure.data
    assert list(steps.x) == [0.01, 0.05, 0.09]
    assert list(steps.y) == [0.5, 0.6, 0.6]
    assert steps.line.shape == "hv"
    assert list(best.y) == [0.5, 0.6]
    assert list(best.error_y.array) == pytest.approx([0.1, 0.1])
    assert list(faint.y) == [0.4, 0.2]
    assert faint.opacity < 0.5
    assert faint.error_y.array is None
    assert list(empty.x) == [None]
    assert len(rest.x) == 4
    assert len(nothing.x) == 0
    assert blank.name == "no edit"
    assert "no edit" not in plots.front(curves(1).query("multiple > 0"), envelope=True).to_json()


def test_twelve_methods_have_twelve_entries_and_looks():
    for figure in (plots.front(curves(12)), plots.front(curves(12), envelope=True)):
        named = [t for t in figure.data if t.showlegend is not False]
        assert len({t.name for t in named}) == len(named) == 13
        looks = {(t.line.color, t.line.dash) for t in named[:12]}
        assert len(looks) == 12
        assert figure.layout.height - figure.layout.margin.t - figure.layout.margin.b > 13 * 22
        page(figure)


def test_head_accuracy_says_of_which_questions_and_what_is_framed():
    record = directions_of(
        torch.tensor([[0.5, math.nan], [0.75, 1.0]]), [True, False, False, True, False]
    )
    figure = plots.head_accuracy(record, chosen=((1, 0), (1, 1)))
    assert "2 of 5 training questions" in figure.layout.title.text
    assert "commoner label: 60 %" in figure.layout.title.text
    assert [shape.name for shape in figure.layout.shapes] == ["edited heads (2)"] * 2
    assert [shape.showlegend for shape in figure.layout.shapes] == [True, False]
    assert not plots.head_accuracy(record).layout.shapes


@pytest.fixture(scope="module")
def drawing():
    if not storage.can_draw_images():
        pytest.skip("neither Chrome nor Chromium is installed")
    with storage.drawing():
        yield


@pytest.mark.slow
def test_every_figure_can_be_drawn(drawing, tmp_path):
    record = agreement({name: torch.randn(2, 3, 4) for name in STRANGE})
    grid = summarised(["alpha", "heads"], [(a, h) for a in (1.0, 2.0) for h in (4, 8)])
    figures = {
        "projection": plots.projection(projected()),
        "agreement": plots.agreement(record),
        "pair": plots.agreement(record, STRANGE[:2]),
        "trajectory": plots.trajectory(followed(4)),
        "curves": plots.ablation_curves(grid, "alpha", "mc1", by="heads"),
        "map": plots.ablation_map(grid, "alpha", "heads", "mc1"),
        "front": plots.front(curves(12), envelope=True),
        "accuracy": plots.head_accuracy(directions_of(torch.rand(5, 8), [True, False]), ((1, 2),)),
    }
    with opened_browser() as tab:
        for name, figure in figures.items():
            _, picture = storage.write_figure(tmp_path / name, figure)
            tab.require_drawn(picture.read_bytes(), width=2 * figure.layout.width)


def study(values):
    """A study's table: a row a setting (alpha, heads), question, fold and metric."""
    rows = [
        (alpha, heads, "hearsay", "truthfulness",
         "no edit" if alpha is None else f"alpha={alpha}, heads={heads}",
         "", 0, question % 2, f"q{question}", "mc1", float(value))
        for (alpha, heads), own in values.items()
        for question, value in enumerate(own)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[
        "alpha", "heads", "model", "capability", "method", "setting", "draw", "fold", "question",
        "metric", "value",
    ])  # fmt: skip


def test_a_study_s_summary_keeps_settings_or_averages_over_an_axis():
    draw = torch.Generator().manual_seed(3)
    values = {
        key: torch.rand(12, generator=draw).tolist()
        for key in ((None, None), (1.0, 4), (1.0, 16), (2.5, 4), (2.5, 16))
    }
    table = study(values)
    whole = study_summary(table)
    plain = comparison.summary(table)
    pd.testing.assert_frame_equal(
        whole[["mean", "low", "high", "questions"]], plain[["mean", "low", "high", "questions"]]
    )
    assert whole["alpha"].tolist()[1:] == [1.0, 1.0, 2.5, 2.5]
    assert whole["alpha"].isna().tolist() == [True, False, False, False, False]
    pooled = study_summary(table, ["alpha"]).set_index("method")
    assert list(pooled.index) == ["no edit", "alpha=1", "alpha=2.5"]
    both = torch.tensor([values[1.0, 4], values[1.0, 16]])
    assert pooled.loc["alpha=1", "mean"] == pytest.approx(float(both.mean()))
    assert pooled.loc["alpha=1", "questions"] == 12
    assert pooled.loc["no edit", "mean"] == pytest.approx(
        float(torch.tensor(values[None, None]).mean())
    )
    narrow = pooled.loc["alpha=1", "high"] - pooled.loc["alpha=1", "low"]
    assert 0 < narrow < 1


def test_a_summary_of_no_study_or_axis_is_refused(as_shipped):
    table = study({(1.0, 4): [0.1, 0.2]})
    with pytest.raises(WorkbenchError, match="no axis 'depth'"):
        study_summary(table, ["depth"])
    with pytest.raises(WorkbenchError, match="without axes"):
        study_summary(table.drop(columns=["alpha", "heads"]))
