import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from plotly.colors import find_intermediate_color, hex_to_rgb

from tests.browser import opened_browser
from tests.edits import random_edit
from workbench import plots, storage
from workbench.analysis.propagations import propagation
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.token_trace import TokenTrace
from workbench.errors import WorkbenchError
from workbench.plots.theme import DIVERGING, INK, SEQUENTIAL, ink_on, scale_of, shown, wrapped
from workbench.stages.token_graph import GraphSettings, propagate, token_graph

STRANGE = (
    "<b>bold</b>",
    "\n",
    " ",
    "שלום",
    "é🙂",
    "",
    "&amp;",
    "%{z}",
    "$x$",
    "\x00",
    "\u202eevil",
)
QUANTITIES = ("strengths", "misalignment", "uncertainty", "change", "moved")


@pytest.fixture(scope="module")
def edit(hearsay):
    return random_edit(hearsay)


@pytest.fixture(scope="module")
def trace(hearsay, edit):
    with edited(hearsay, edit) as found:
        generate(hearsay, "Q: Who wrote Dracula?\nA:", max_new_tokens=8, stop=())
    return found.only


def strange(tokens):
    return tuple(STRANGE[n % len(STRANGE)] for n in range(tokens))


def made(tokens, layers=2, heads=3, fill=1.2):
    values = torch.full((tokens, layers, heads), math.nan)
    values[:, 0, 1] = fill
    return TokenTrace(
        position=torch.arange(tokens),
        strings=strange(tokens),
        following=strange(tokens + 1)[1:],
        misalignment=values,
        uncertainty=values[..., 0],
        strengths=values,
        change=values,
        moved=values[..., 1],
        gate=values[..., 1],
    )


def graph_of(tokens, layer=1, **changes):
    z = torch.randn(tokens, 2, 3, 8, generator=torch.Generator().manual_seed(tokens))
    return token_graph(z, layer, strings=strange(tokens), **changes)


def heats(figure):
    return [own for own in figure.data if own.type == "heatmap"]


def drawn(figure):
    """The cells of all lines side by side."""
    return np.concatenate([np.asarray(own.z, dtype=float) for own in heats(figure)], axis=1)


def at_edited(trace, quantity, edit):
    """A quantity's column of every edited head, by layer and head."""
    values = getattr(trace, quantity)
    return {
        (layer, head): values[:, layer, head] if values.ndim == 3 else values[:, layer]
        for layer, head in sorted(edit.heads)
    }


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_token_risk_shows_the_trace_by_layers_heads_and_as_text(trace, edit, quantity):
    columns = at_edited(trace, quantity, edit)
    by_layer = [
        torch.stack([v for (layer, _), v in columns.items() if layer == own]).mean(dim=0)
        for own in (0, 1, 2)
    ]
    expected = {
        "layers": torch.stack(by_layer),
        "heads": torch.stack(list(columns.values())),
        "text": torch.stack(list(columns.values())).mean(dim=0, keepdim=True),
    }
    for rows, values in expected.items():
        figure = plots.token_risk(trace, quantity, rows=rows, title="Who wrote <Dracula>?")
        assert np.allclose(drawn(figure), values.numpy(), atol=1e-5)
        assert "&lt;Dracula&gt;" in figure.layout.title.text
    heads = plots.token_risk(trace, quantity, rows="heads")
    assert list(heads.data[0].y) == ["L0·H1", "L1·H0", "L1·H3", "L2·H2"]
    assert list(heads.layout.xaxis.ticktext)[:3] == [shown(text) for text in trace.following[:3]]


def test_hovering_tells_every_number_of_a_cell(trace):
    (heat,) = heats(plots.token_risk(trace, rows="heads"))
    for row, (layer, head) in enumerate([(0, 1), (1, 0), (1, 3), (2, 2)]):
        for token in range(8):
            label, before, after, *numbers, gate = heat.customdata[row][token]
            assert gate == "—"  # TAE has none
            assert label == f"L{layer}·H{head}"
            assert before == shown(trace.strings[token])
            assert after == (shown(trace.following[token]) if token < 7 else "(next)")
            one = token, layer
            assert [float(text) for text in numbers] == pytest.approx(
                [float(trace.strengths[*one, head]), float(trace.misalignment[*one, head]),
                 float(trace.uncertainty[one]), float(trace.change[*one, head]),
                 float(trace.moved[one])], abs=6e-4,
            )  # fmt: skip
    assert {f"customdata[{k}]" for k in range(9)} == set(
        re.findall(r"customdata\[\d\]", heat.hovertemplate)
    )


@pytest.mark.parametrize("tokens", [1, 3, 100, 200])
@pytest.mark.parametrize("rows", ["layers", "heads", "text"])
def test_long_sequences_are_broken_into_lines_on_one_scale(tokens, rows):
    trace = made(tokens)
    values = torch.rand(tokens, 1, generator=torch.Generator().manual_seed(0))
    trace.strengths[:, 0, 1] = values[:, 0]
    figure = plots.token_risk(trace, rows=rows)
    assert np.allclose(drawn(figure)[0], values[:, 0].numpy())
    assert {own.coloraxis for own in heats(figure)} == {"coloraxis"}
    assert figure.layout.width <= 1300
    lines = [np.asarray(own.z).shape[1] for own in heats(figure)]
    assert sum(lines) == tokens
    assert max(lines) <= (32 if rows != "text" else 60)
    if rows == "text":
        for own in heats(figure):  # as wide as they are, and on the page
            assert all(b - a >= 12 for a, b in zip(own.x, own.x[1:], strict=False))
            assert own.x[-1] <= figure.layout.xaxis.range[1]
        written = [text for own in figure.data if own.type == "scatter" for text in own.text]
    else:
        axes = [axis for axis in figure.to_dict()["layout"] if re.match(r"xaxis\d*$", axis)]
        written = [text for axis in axes for text in figure.layout[axis].ticktext]
    assert written == [shown(text, 18) if text else "(next)" for text in trace.following]


@pytest.mark.parametrize("rows", ["layers", "heads", "text"])
def test_text_is_never_markup(rows):
    page = plots.token_risk(made(30), rows=rows, title="<b>bold").to_html(include_plotlyjs=False)
    assert "<b>bold" not in page
    assert "\\u003cb\\u003ebold" not in page


def test_cells_without_a_value_are_blank_and_means_are_of_the_others():
    trace = made(4)
    trace.strengths[1, 0, 1] = math.nan
    trace.strengths[:, 0, 2] = torch.tensor([2.2, math.nan, math.nan, 3.2])
    cells = drawn(plots.token_risk(trace))[0]
    assert cells == pytest.approx([1.7, math.nan, 1.2, 2.2], nan_ok=True)
    text = plots.token_risk(trace, rows="text")
    assert np.isnan(drawn(text)[0, 1])
    assert text.data[0].customdata[0][1][3] == "—"


def test_a_constant_strength_has_no_misalignment_to_show():
    trace = replace(made(3, fill=1.0), misalignment=torch.full((3, 2, 3), math.nan))
    blank = plots.token_risk(trace, "misalignment")
    assert np.isnan(drawn(blank)).all()
    assert "no p̂" in blank.layout.title.text
    constant = plots.token_risk(trace).layout.coloraxis
    assert constant.cmin < 1 < constant.cmax


def test_edits_of_whole_states_show_how_far_they_moved(as_shipped):
    nothing = torch.full((3, 2, 3), math.nan)
    moved = torch.tensor([[math.nan, 1.0], [math.nan, 2.0], [math.nan, 4.0]])
    trace = replace(made(3), strengths=nothing, change=nothing, misalignment=nothing, moved=moved)
    figure = plots.token_risk(trace, "moved")
    assert drawn(figure).tolist() == [[1, 2, 4]]
    assert list(figure.data[0].y) == ["layer 1"]
    with pytest.raises(WorkbenchError, match="whole states"):
        plots.token_risk(trace, "moved", rows="heads")
    with pytest.raises(WorkbenchError, match="nothing was edited at heads"):
        plots.token_risk(trace)


def test_limits_are_shared_by_figures():
    axis = plots.token_risk(made(3), limits=(0.5, 2.5)).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0.5, 2.5)


def test_what_cannot_be_shown_is_refused(as_shipped):
    with pytest.raises(WorkbenchError, match="nothing was edited"):
        plots.token_risk(made(2, fill=math.nan))
    with pytest.raises(WorkbenchError, match="quantity 'p'"):
        plots.token_risk(made(2), "p")
    with pytest.raises(WorkbenchError, match="rows='words'"):
        plots.token_risk(made(2), rows="words")
    with pytest.raises(WorkbenchError, match="limits"):
        plots.token_risk(made(2), limits=(2, 1))
    with pytest.raises(WorkbenchError, match=r"a str\. Expected the trace"):
        plots.token_risk("a trace")


def test_invisible_text_is_shown_and_formulas_and_markup_are_text():
    assert shown("  a b ") == "␣␣a b␣"
    assert shown("\r\n\t\x00\x7f\u00a0") == "␍⏎⇥⟨00⟩⟨7F⟩⍽"
    assert shown("\u202eevil") == "⟨202E⟩evil"
    assert shown("<b>\"'&$x$") == "&lt;b&gt;&#34;&#39;&amp;&#36;x&#36;"
    assert shown("\u0301") == "◌\u0301"
    assert shown("") == "∅"
    assert shown("א") == "\u2068א\u2069"
    assert "$" not in wrapped("costs $5 or $6")
    assert wrapped("a b" + "c" * 9, 5) == "a<br>bcccc<br>ccccc"
    assert wrapped("a\x00 b\nc \u202e") == "a⟨00⟩ b ⏎ c ⟨202E⟩"


@pytest.mark.parametrize("tokens", [1, 6, 60, 200])
def test_token_graph_shows_bits_or_weights(tokens):
    graph = graph_of(tokens)
    bits = plots.token_graph(graph)
    assert torch.allclose(torch.tensor(bits.data[0].z).float(), graph.similarity)
    weights = plots.token_graph(graph, weights=True)
    assert torch.allclose(torch.tensor(weights.data[0].z).float(), graph.weights)
    assert "bits" in bits.layout.coloraxis.colorbar.title.text
    assert not bits.layout.sliders
    per_head = graph_of(tokens, head=2, settings=GraphSettings(scope="head"))
    assert "head 2" in plots.token_graph(per_head).layout.title.text
    assert "<b>bold" not in bits.to_html(include_plotlyjs=False)


def test_several_graphs_have_a_slider_and_one_scale(as_shipped):
    graphs = [graph_of(5, depth=n, layer=layer) for layer in (0, 1) for n in (0, 1)]
    figure = plots.token_graph(graphs)
    (slider,) = figure.layout.sliders
    names = [f"layer {layer}, round {n}" for layer in (0, 1) for n in (0, 1)]
    assert [step.label for step in slider.steps] == names
    for number, step in enumerate(slider.steps):
        visible, title = step.args
        assert [k for k, seen in enumerate(visible["visible"]) if seen] == [number]
        assert (
            f"layer {graphs[number].layer}, after {graphs[number].depth} round"
            in title["title.text"]
        )
        assert np.allclose(figure.data[number].z, graphs[number].similarity)
    assert [own.visible for own in figure.data] == [True, False, False, False]
    apart = ~np.eye(5, dtype=bool)
    values = np.stack([graph.similarity.numpy() for graph in graphs])[:, apart]
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == pytest.approx((values.min(), values.max()))
    with pytest.raises(WorkbenchError, match="different answers"):
        plots.token_graph([graph_of(5), graph_of(6)])
    with pytest.raises(WorkbenchError, match="no graphs"):
        plots.token_graph([])


def test_arcs_join_the_strongest_pairs_the_widest_last():
    graph = graph_of(4)
    bits = torch.tensor([[9.0, 1, 5, 2], [1, 9, 3, 4], [5, 3, 9, math.nan], [2, 4, math.nan, 9]])
    graph = replace(graph, similarity=bits)
    figure = plots.token_arcs(graph, strongest=3)
    ends = [(round(arc.x[0]), round(arc.x[-1])) for arc in figure.data]
    assert ends == [(1, 2), (1, 3), (0, 2)]
    widths = [arc.line.width for arc in figure.data]
    # From 0.6 for the weakest of all pairs (1 bit) to 5 for the strongest (5 bits).
    assert widths == pytest.approx([0.6 + 4.4 * (value - 1) / 4 for value in (3, 4, 5)])
    assert "3 strongest of 5 pairs" in figure.layout.title.text
    assert all(
        f"{value:.3f}" in arc.text[0] for value, arc in zip((3, 4, 5), figure.data, strict=True)
    )
    assert len(plots.token_arcs(graph).data) == 5


@pytest.mark.parametrize("tokens", [1, 2, 100, 200])
def test_arcs_of_extreme_answers(tokens, as_shipped):
    figure = plots.token_arcs(graph_of(tokens), weights=True)
    assert len(figure.data) == min(40, tokens * (tokens - 1) // 2)
    assert list(figure.layout.xaxis.ticktext) == [shown(text, 18) for text in strange(tokens)]
    assert "<b>bold" not in figure.to_html(include_plotlyjs=False)
    with pytest.raises(WorkbenchError, match="strongest=0"):
        plots.token_arcs(graph_of(2), strongest=0)


def test_propagation_keeps_the_geometry_of_two_planted_dimensions():
    draw = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(24, 2, generator=draw)).Q.T
    places = torch.randn(7, 2, generator=draw) * torch.tensor([5.0, 1.0])
    z = (places @ plane).reshape(7, 1, 3, 8)
    record = propagation(z, 0, depth=2, graph=GraphSettings(similarity="uniform"))
    # In a plane, two components keep all distances; a uniform graph leads to the mean at once.
    assert torch.allclose(
        torch.cdist(record.points[0], record.points[0]).float(), torch.cdist(places, places),
        atol=1e-4,
    )  # fmt: skip
    assert record.explained.sum() == pytest.approx(1)
    assert record.explained[0] > record.explained[1] > 0
    assert record.spread.tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    again = propagation(z, 0, depth=2, graph=GraphSettings(similarity="uniform"))
    assert torch.equal(record.points, again.points)


def test_propagation_follows_the_library_and_names_the_place():
    z = torch.randn(6, 2, 3, 8, generator=torch.Generator().manual_seed(1))
    record = propagation(z, 1, head=2, depth=2, strings=strange(6))
    settings = GraphSettings(scope="head")
    states = [z[:, 1, 2]]
    for _ in range(2):
        states.append(propagate(states[-1], settings))
    spreads = [(x - x.mean(0)).norm(dim=-1).mean() for x in states]
    assert record.spread.tolist() == pytest.approx([float(x / spreads[0]) for x in spreads], 1e-5)
    both = torch.cat([states[0], states[-1]]).double()
    variance = torch.linalg.eigvalsh((both - both.mean(0)).T @ (both - both.mean(0))).flip(0)
    assert record.explained.tolist() == pytest.approx((variance / variance.sum())[:2].tolist())
    figure = plots.propagation(record)
    assert "layer 1, head 2" in figure.layout.title.text
    paths, before = figure.data
    assert np.allclose(before.x, record.points[0, :, 0])
    ways = np.stack([paths.x, paths.y], 1).reshape(6, 4, 2)
    assert np.allclose(ways[:, :3].transpose(1, 0, 2), record.points)
    assert np.isnan(ways[:, 3]).all()


@pytest.mark.parametrize("tokens", [1, 2, 200])
@pytest.mark.parametrize("depth", [0, 1])
def test_propagation_of_extreme_answers(tokens, depth):
    z = torch.randn(tokens, 1, 2, 8, generator=torch.Generator().manual_seed(2))
    record = propagation(z, 0, depth=depth, strings=strange(tokens))
    assert record.points.shape == (depth + 1, tokens, 2)
    assert record.points.isfinite().all()
    if tokens == 1:
        assert not record.points.any()
        assert record.spread.isnan().all()
    figure = plots.propagation(record)
    texts = [text for text in figure.data[1].text if text]
    assert len(texts) <= 40
    assert texts or tokens > 2
    assert len(figure.data[1].hovertext) == tokens
    assert "<b>bold" not in figure.to_html(include_plotlyjs=False)


def test_labels_of_crowded_tokens_do_not_meet():
    z = torch.randn(120, 1, 2, 8, generator=torch.Generator().manual_seed(3))
    figure = plots.propagation(propagation(z, 0, strings=["token"] * 120))
    before, area = figure.data[1], figure.layout
    margin = area.margin
    inner = area.width - margin.l - margin.r, area.height - margin.t - margin.b
    x0, x1, y0, y1 = *area.xaxis.range, *area.yaxis.range
    across, down = {"left": -24, "center": 0, "right": 24}, {"top": -18, "middle": 0, "bottom": 18}
    centres = []
    for x, y, text, side in zip(before.x, before.y, before.text, before.textposition, strict=True):
        if text:
            vertical, horizontal = side.split()
            centres.append(((x - x0) / (x1 - x0) * inner[0] + across[horizontal],
                            (y1 - y) / (y1 - y0) * inner[1] + down[vertical]))  # fmt: skip
    assert 10 <= len(centres) <= 40
    for k, (x, y) in enumerate(centres):
        for other_x, other_y in centres[:k]:
            assert abs(x - other_x) > 30 or abs(y - other_y) > 10


def test_propagation_refuses_what_it_cannot_follow(as_shipped):
    z = torch.randn(3, 2, 3, 8)
    refused = {
        "layer 2": {"layer": 2},
        "head 3": {"layer": 0, "head": 3},
        "depth='last'": {"layer": 0, "depth": "last"},
        "depth=-1": {"layer": 0, "depth": -1},
        "scope": {"layer": 0, "head": 1, "graph": GraphSettings()},
    }
    for said, changes in refused.items():
        with pytest.raises(WorkbenchError, match=said):
            propagation(z, **changes)
    with pytest.raises(WorkbenchError, match="graph of a str"):
        propagation("answer", 0)
    with pytest.raises(WorkbenchError, match="without tokens"):
        propagation(z[:0], 0)


def parts_of(figure):
    return {own.name: own for own in figure.data}


def test_strength_is_the_sum_of_its_parts(trace, edit):
    figure = plots.strength_over_generation({"<b>TAE": trace}, beta=edit)
    found = parts_of(figure)
    columns = {
        name: torch.stack(list(at_edited(trace, name, edit).values())) for name in QUANTITIES
    }
    assert list(found["1"].y) == [1] * 8
    assert np.allclose(found["β·p̂"].y, 0.5 * columns["misalignment"].mean(dim=0))
    assert np.allclose(found["(1 − β)·u"].y, 0.5 * columns["uncertainty"].mean(dim=0), atol=1e-6)
    top = np.add(found["(1 − β)·u"].base, found["(1 − β)·u"].y)
    assert np.allclose(top, found["mean s"].y, atol=1e-5)
    band = found["range of heads"]
    assert np.allclose(band.base, columns["strengths"].amin(dim=0))
    assert np.allclose(np.add(band.base, band.y), columns["strengths"].amax(dim=0))
    assert "&lt;b&gt;TAE" in figure.layout.annotations[0].text
    assert figure.layout.xaxis.ticktext[0] == shown(trace.following[0])


def test_every_step_of_the_mean_is_as_wide_as_its_token(trace, edit):
    found = parts_of(plots.strength_over_generation(trace, beta=edit))
    mean, column = found["mean s"], found["range of heads"]
    assert mean.error_x.value == column.width / 2
    assert list(mean.x) == list(column.x) == list(range(8))
    labels = [shown(text) for text in trace.following]
    assert [text.split("<br>")[0] for text in mean.text[:7]] == labels[:7]


def test_the_buttons_of_a_written_figure_leave_its_title_free(trace, edit, tmp_path):
    title = "A title that is as wide as the figure, and goes on in a second line below the first"
    figure = plots.strength_over_generation(trace, beta=edit, title=title)
    (page,) = storage.write_figure(tmp_path / "<i>", figure, image=False)
    assert '"displayModeBar": "hover"' in page.read_text()
    with opened_browser() as tab:
        tab.look(1400)
        tab.open(page)
        edges = "(e => e.getBoundingClientRect())(document.querySelector('{}')).{}"
        buttons = tab.run(edges.format(".modebar", "bottom"))
        assert tab.run(edges.format(".modebar", "top")) >= 0
        assert buttons <= tab.run(edges.format(".gtitle", "top"))
        assert tab.run("document.querySelector('.modebar-btn--logo')") is None
        assert tab.run("document.title") == "<i>"
        tab.require_quiet(page)


def test_a_wrong_beta_is_refused_and_none_shows_no_parts(trace, edit, as_shipped):
    with pytest.raises(WorkbenchError, match=r"not 1 \+ 0.9·p̂"):
        plots.strength_over_generation(trace, beta=0.9)
    with pytest.raises(WorkbenchError, match="no traces"):
        plots.strength_over_generation({})
    assert set(parts_of(plots.strength_over_generation(trace))) == {"range of heads", "mean s"}
    by_name = plots.strength_over_generation({"a": trace, "b": trace}, beta={"b": edit})
    assert [own.name for own in by_name.data] == [
        "range of heads", "mean s", "1", "β·p̂", "(1 − β)·u", "range of heads", "mean s",
    ]  # fmt: skip
    assert [own.showlegend for own in by_name.data] == [True] * 5 + [False] * 2
    uncertainty = plots.strength_over_generation(trace, "uncertainty", beta=edit)
    assert set(parts_of(uncertainty)) == {"range of heads", "mean u"}


@pytest.mark.parametrize("tokens", [1, 100, 200])
def test_long_generations_have_several_lines_on_one_scale(tokens):
    trace = made(tokens, fill=1.0)
    trace = replace(
        trace, misalignment=trace.misalignment * math.nan, uncertainty=trace.uncertainty
    )
    trace.strengths[0] = math.nan if tokens > 1 else trace.strengths[0]
    figure = plots.strength_over_generation(trace, beta=0.5)
    means = [own for own in figure.data if own.type == "scatter"]
    assert len(means) == math.ceil(tokens / 50)
    values = np.concatenate([own.y for own in means])
    assert len(values) == tokens
    assert np.isnan(values[0]) == (tokens > 1)
    assert (values[1:] == 1).all()
    axes = [figure.layout[a] for a in figure.to_dict()["layout"] if re.match(r"yaxis\d*$", a)]
    assert len({tuple(axis.range) for axis in axes}) == 1
    assert axes[0].range[0] <= 0 < 1 < axes[0].range[1]
    assert "<b>bold" not in figure.to_html(include_plotlyjs=False)


@pytest.mark.slow
def test_figures_are_written_as_page_and_picture(tmp_path, trace, edit):
    if not storage.can_draw_images():
        pytest.skip("neither Chrome nor Chromium is installed")
    record = propagation(torch.randn(11, 2, 3, 8), 0, strings=strange(11))
    figures = {
        "layers": plots.token_risk(made(3)),
        "heads": plots.token_risk(made(200), rows="heads"),
        "text": plots.token_risk(made(100), rows="text"),
        "graph": plots.token_graph([graph_of(11), graph_of(11, depth=1)]),
        "arcs": plots.token_arcs(graph_of(11)),
        "propagation": plots.propagation(record),
        "generation": plots.strength_over_generation({"TAE": trace}, beta=edit),
    }
    with storage.drawing(), opened_browser() as tab:
        for name, figure in figures.items():
            page, picture = storage.write_figure(tmp_path / name, figure)
            tab.require_drawn(picture.read_bytes(), width=2 * figure.layout.width)
            assert "cdn.plot.ly" not in page.read_text().split("plotly.js v")[0]
    assert len(list(tmp_path.iterdir())) == 2 * len(figures)


def test_values_on_both_sides_of_0_are_coloured_from_there():
    """As far from 0, as far from its colour: of a range that goes twice as far to one side."""
    assert scale_of(0.0, 2.0) == scale_of(-2.0, -1.0) == SEQUENTIAL
    (_, left), (middle, none), (_, right) = scale_of(-2.0, 4.0)
    assert (middle, none) == (pytest.approx(1 / 3), DIVERGING[1][1])
    assert right == "rgb({}, {}, {})".format(*hex_to_rgb(DIVERGING[2][1]))
    full, nothing = hex_to_rgb(DIVERGING[0][1]), hex_to_rgb(none)
    half = [(one + two) / 2 for one, two in zip(full, nothing, strict=True)]
    found = [float(one) for one in left[4:-1].split(",")]
    assert found == pytest.approx(half, abs=1)
    for share in np.linspace(-1, 1, 41):
        end = hex_to_rgb(DIVERGING[1 + int(np.sign(share))][1])
        ground = find_intermediate_color(nothing, end, abs(share))
        inks = {ink: contrast(hex_to_rgb(ink), ground) for ink in ("#FFFFFF", INK)}
        assert inks[ink_on(share, -1.0, 1.0)] > 0.93 * max(inks.values()), share


def contrast(one, other):
    """Of two colours, as the WCAG defines it."""
    light = []
    for colour in (one, other):
        share = np.array(colour) / 255
        share = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        light.append(float(share @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(light) / min(light)
