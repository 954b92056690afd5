"""Which directions agree: cosines between methods or heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.analysis.agreements import Agreement
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.plots.theme import DIVERGING, shown, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go


@door
def agreement(record: Agreement, pair: tuple[str, str] | None = None) -> go.Figure:
    """A matrix of cosines; of two methods, a map of their cosine at every head.

    Args:
        record: from `analysis.agreement` or `analysis.agreement_of_heads`.
        pair: the two methods of a map of layers × heads.

    Raises:
        WorkbenchError: no such methods, or fewer than one name.

    Example:
        >>> figure = wb.plots.agreement(wb.analysis.agreement_of_heads(model, edit))
        >>> figure.data[0].z.shape
        (4, 4)
    """
    import plotly.graph_objects as go

    if not record.names:
        raise WorkbenchError("an agreement of nothing", "that of at least one direction")
    shared = 1
    if pair is None and record.by_head is not None:
        shared = max(1, int((~np.isnan(np.asarray(record.by_head))).sum(axis=(2, 3)).min()))
    chance = f"two random directions: 0 ± {(record.width * shared) ** -0.5:.2g}"
    if pair is not None:
        values = np.asarray(record.between(*pair), dtype=float)
        figure = go.Figure(_heat(values, "layer %{y}, head %{x}: cosine %{z:.3f}<extra></extra>"))
        figure.update_xaxes(title_text="head", dtick=1 if values.shape[1] <= 16 else 4)
        figure.update_yaxes(title_text="layer", dtick=1 if values.shape[0] <= 16 else 4)
        title = f"{shown(pair[0])} and {shown(pair[1])}, head by head"
        note = f"cosine of the two directions; {chance}"
        across, down = values.shape[::-1]
    else:
        values = np.asarray(record.cosine, dtype=float)
        figure = go.Figure(_heat(values, "%{customdata}: cosine %{z:.3f}<extra></extra>"))
        _label(figure, record, values)
        between = "heads" if record.by_head is None else "methods"
        title = f"Agreement between {between}"
        what = (
            "cosine of what they write along θ to the residual stream"
            if record.by_head is None
            else "cosine, mean over the heads that both have"
        )
        note = f"{what}; {chance}" + (f" (over {shared} heads)" if shared > 1 else "")
        across = down = len(record.names)
    size = 46 if max(across, down) <= 16 else 18
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed" if not pair else None)
    room = 0 if pair else 7 * max(len(name) for name in record.names[:200])
    figure = styled(
        figure, f"{title}<br><sup>{note}</sup>",
        width=min(1400, max(720, 250 + size * across + min(room, 280))),
        height=min(1400, max(380, 190 + size * down + min(room, 280))),
    )  # fmt: skip
    figure.update_layout(margin={"l": 90 + min(room, 280)} if room else {})
    return figure


def _heat(values: np.ndarray, hover: str) -> Any:
    import plotly.graph_objects as go

    few = max(values.shape) <= 16
    return go.Heatmap(
        z=values,
        zmin=-1,
        zmax=1,
        colorscale=DIVERGING,
        colorbar={"title": {"text": "cosine<br> "}},
        hovertemplate=hover,
        hoverongaps=False,
        texttemplate="%{z:.2f}" if few else None,
        textfont={"size": 11},
        xgap=1,
        ygap=1,
    )


def _label(figure: go.Figure, record: Agreement, values: np.ndarray) -> None:
    """Names on both axes and in what hovering shows."""
    names = [shown(name) for name in record.names]
    figure.data[0].customdata = [[f"{a} and {b}" for b in names] for a in names]
    if record.by_head is not None:
        both = np.isfinite(np.asarray(record.by_head, dtype=float)).sum(axis=(2, 3))
        figure.data[0].customdata = [
            [f"{a} and {b}, {both[i, j]} heads" for j, b in enumerate(names)]
            for i, a in enumerate(names)
        ]
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(len(values))),
        "ticktext": names,
        "tickfont": {"size": 12 if len(names) <= 40 else 7},
    }
    figure.update_xaxes(**ticks, tickangle=-45, automargin=True)
    figure.update_yaxes(**ticks, automargin=True)
