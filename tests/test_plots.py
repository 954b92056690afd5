import math

import pandas as pd
import pytest
import torch

from tests.edits import random_edit
from workbench import plots, storage
from workbench.editing import edited
from workbench.errors import WorkbenchError
from workbench.generation import generate
from workbench.token_graphs import GraphSettings, token_graph
from workbench.trace import TokenTrace

STRANGE = ("<b>bold</b>", "\n", " ", "שלום", "é🙂", "", "&amp;")


@pytest.fixture(scope="module")
def trace(hearsay):
    with edited(hearsay, random_edit(hearsay)) as found:
        generate(hearsay, "Q: Who wrote Dracula?\nA:", max_new_tokens=8, stop=())
    return found


def made(tokens, layers=2, heads=3, fill=1.2):
    values = torch.full((tokens, layers, heads), math.nan)
    values[:, 0, 1] = fill
    return TokenTrace(
        position=torch.arange(tokens),
        strings=tuple(STRANGE[n % len(STRANGE)] for n in range(tokens)),
        following=tuple(STRANGE[(n + 1) % len(STRANGE)] for n in range(tokens)),
        misalignment=values,
        uncertainty=values[..., 0],
        strengths=values,
        change=values,
        moved=values[..., 0],
    )


@pytest.mark.parametrize("quantity", ["strengths", "misalignment", "uncertainty", "change"])
def test_token_risk_shows_the_trace(trace, quantity):
    figure = plots.token_risk(trace, quantity, title="Who wrote <Dracula>?")
    shown = torch.tensor(figure.data[0].z)
    values = getattr(trace, quantity)
    for row, layer in enumerate((0, 1, 2)):
        kept = values[:, layer] if quantity == "uncertainty" else values[:, layer].nanmean(dim=-1)
        assert torch.allclose(shown[row].float(), kept, atol=1e-5)
    assert "&lt;Dracula&gt;" in figure.layout.title.text
    assert len(figure.layout.xaxis.ticktext) == 8


@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_extreme_traces_are_drawn_and_text_is_never_markup(tokens):
    figure = plots.token_risk(made(tokens))
    assert len(figure.data[0].z[0]) == tokens
    assert not any("<b>" in text for text in figure.layout.xaxis.ticktext)
    page = figure.to_html(include_plotlyjs=False)
    assert "<b>bold" not in page


def test_nothing_edited_and_unknown_quantities_are_refused(as_shipped):
    with pytest.raises(WorkbenchError, match="nothing was edited"):
        plots.token_risk(made(2, fill=math.nan))
    with pytest.raises(WorkbenchError, match="quantity 'p'"):
        plots.token_risk(made(2), "p")


def test_head_accuracy_marks_the_chosen_heads():
    class Record:
        accuracy = torch.rand(5, 8)
        chance = 0.6
        validation = torch.tensor([True, False, False])

    figure = plots.head_accuracy(Record, chosen=((1, 2), (4, 7)))
    assert torch.allclose(torch.tensor(figure.data[0].z) / 100, Record.accuracy.double(), atol=1e-6)
    boxes = {(round(s.y0 + 0.46), round(s.x0 + 0.46)) for s in figure.layout.shapes}
    assert boxes == {(1, 2), (4, 7)}


@pytest.mark.parametrize("tokens", [1, 6, 60])
def test_token_graph_shows_bits_or_weights(tokens):
    z = torch.randn(tokens, 2, 3, 8)
    graph = token_graph(z, 1, strings=[STRANGE[n % len(STRANGE)] for n in range(tokens)])
    bits = plots.token_graph(graph)
    assert torch.allclose(torch.tensor(bits.data[0].z).float(), graph.similarity)
    weights = plots.token_graph(graph, weights=True)
    assert torch.allclose(torch.tensor(weights.data[0].z).float(), graph.weights)
    assert "bits" in bits.data[0].colorbar.title.text
    per_head = token_graph(z, 0, head=2, settings=GraphSettings(scope="head"))
    assert "head 2" in plots.token_graph(per_head).layout.title.text


def compared(methods, metrics, task="truthfulness"):
    rows = [
        ("hearsay", task, metric, method, "<i>none</i>", 0.1 * k, 0.1 * k - 0.05, 0.1 * k + 0.02,
         0.001, 0.01 if k else 0.4, 120)
        for metric in metrics
        for k, method in enumerate(methods)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[
        "model", "task", "metric", "method", "against", "difference", "low", "high", "p", "p_holm",
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


def test_differences_of_nothing_or_of_several_tasks_are_refused(as_shipped):
    one = compared(["a"], ["mc1"])
    with pytest.raises(WorkbenchError, match=r"no differences in .mc3"):
        plots.differences(one, ["mc3"])
    with pytest.raises(WorkbenchError, match="several models or tasks"):
        plots.differences(pd.concat([one, compared(["a"], ["ss"], "fairness")]))


def test_figures_are_written_as_page_and_picture(tmp_path):
    if not storage.can_draw_images():
        pytest.skip("neither Chrome nor Chromium is installed")
    page, picture = storage.write_figure(tmp_path / "risk", plots.token_risk(made(3)))
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "cdn.plot.ly" not in page.read_text().split("plotly.js v")[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["risk.html", "risk.png"]
