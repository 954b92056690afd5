import pandas as pd
import pytest
import torch

from tests.edits import directions_of
from workbench import plots
from workbench.errors import WorkbenchError

STRANGE = ("<b>bold</b>", "\n", " ", "שלום", "é🙂", "", "&amp;")


def test_head_accuracy_marks_the_chosen_heads():
    record = directions_of(torch.rand(5, 8), [True, False, False])
    figure = plots.head_accuracy(record, chosen=((1, 2), (4, 7)))
    assert torch.allclose(torch.tensor(figure.data[0].z) / 100, record.accuracy.double(), atol=1e-6)
    boxes = {(round(s.y0 + 0.46), round(s.x0 + 0.46)) for s in figure.layout.shapes}
    assert boxes == {(1, 2), (4, 7)}


def compared(methods, metrics, capability="truthfulness"):
    rows = [
        ("hearsay", capability, metric, method, "<i>none</i>", 0.1 * k, 0.1 * k - 0.05,
         0.1 * k + 0.02, 0.001, 0.01 if k else 0.4, 120)
        for metric in metrics
        for k, method in enumerate(methods)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[
        "model", "capability", "metric", "method", "against", "difference", "low", "high", "p",
        "p_holm",
        "questions",
    ])  # fmt: skip


@pytest.mark.parametrize("count", [1, 30])
def test_differences_show_intervals_and_what_is_significant(count):
    methods = [f"{STRANGE[k % len(STRANGE)]} {k}" for k in range(count)]
    figure = plots.differences(compared(methods, ["mc1", "mc2"]), ["mc2"])
    (drawn,) = figure.data
    assert list(drawn.x) == pytest.approx([0.1 * k for k in range(count)])
    assert list(drawn.error_x.array) == pytest.approx([0.02] * count)
    assert list(drawn.error_x.arrayminus) == pytest.approx([0.05] * count)
    assert list(drawn.marker.symbol) == ["circle-open", *["circle"] * (count - 1)]
    assert "<i>none" not in figure.to_html(include_plotlyjs=False)
    assert len(plots.differences(compared(methods, ["mc1", "mc2"])).data) == 2


def test_differences_tell_how_many_comparisons_p_is_corrected_for():
    one = compared(["a", "b"], ["mc1", "mc2"])
    titles = [
        plots.differences(one, ["mc1"], comparisons=count).layout.title.text
        for count in (None, 1, 12)
    ]
    assert "Holm's correction</sup>" in titles[0]
    assert "Holm's correction over 1 comparison</sup>" in titles[1]
    assert "Holm's correction over 12 comparisons</sup>" in titles[2]


def test_differences_of_nothing_or_of_several_tasks_are_refused(as_shipped):
    one = compared(["a"], ["mc1"])
    with pytest.raises(WorkbenchError, match=r"no differences in .mc3"):
        plots.differences(one, ["mc3"])
    with pytest.raises(WorkbenchError, match="several models or capabilities"):
        plots.differences(pd.concat([one, compared(["a"], ["ss"], "fairness")]))
