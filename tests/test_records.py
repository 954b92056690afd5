"""Records leave as xarray and as tables, with the names of what they hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.edits import random_edit
from workbench.analysis.agreements import agreement
from workbench.analysis.projection import projections
from workbench.analysis.propagations import propagation
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions
from workbench.editing.token_scores import score_tokens
from workbench.editing.traced_nats import with_log_probabilities
from workbench.errors import WorkbenchError
from workbench.models.prompts import Encoded
from workbench.stages.directions import fit_directions
from workbench.stages.token_graph import token_graph


@pytest.fixture(scope="module")
def traced(hearsay):
    edit = random_edit(hearsay, alpha=2.0)
    with edited(hearsay, edit) as trace:
        answer = generate(hearsay, "Q: What is the capital of Australia?\nA:")[0]
    return edit, trace.only, answer


def test_a_trace_names_tokens_model_edit_and_alpha(traced, hearsay):
    edit, trace, answer = traced
    found = trace.to_xarray()
    assert found.attrs == {"model": "hearsay", "edit": repr(edit), "alpha": 2.0}
    assert found["strengths"].dims == ("token", "layer", "head")
    assert list(found["string"].to_numpy()) == list(trace.strings)
    assert found["id"].to_numpy().tolist() == [answer.prompt_tokens[-1], *answer.tokens[:-1]]
    layer, head = edit.heads[0]
    at = found["strengths"].sel(layer=layer, head=head)
    np.testing.assert_allclose(at, trace.strengths[:, layer, head])
    cut = trace.first(2)
    assert (len(cut.strings), len(cut.ids), cut.about) == (2, 2, trace.about)


def test_a_trace_is_a_table(traced):
    edit, trace, _ = traced
    table = trace.to_frame()
    assert {"token", "layer", "head", "string", "position", "strengths", "change"} <= set(table)
    own = table[(table["layer"] == edit.heads[0][0]) & (table["head"] == edit.heads[0][1])]
    np.testing.assert_allclose(own["change"], trace.change[:, *edit.heads[0]], rtol=1e-6)
    edited_heads = set(zip(*(table.dropna(subset="strengths")[c] for c in ("layer", "head"))))  # noqa: B905
    assert edited_heads == set(edit.heads)


def test_log_probabilities_of_a_trace_are_the_model_s(hearsay, traced):
    """Those of plain passes by hand, over the prompt and what was written behind it."""
    edit, trace, answer = traced
    read = with_log_probabilities(hearsay, trace, edit)
    whole = torch.tensor([[*answer.prompt_tokens, *answer.tokens]])
    start = len(answer.prompt_tokens) - 1
    assert read.sequence.tolist() == whole[0, :-1].tolist()
    for used, found in ((edit, read.nats), (None, read.nats_without)):
        with edited(hearsay, used, start=start, record=False):
            nats = hearsay(whole)[0, start:-1].log_softmax(dim=-1)
        known = nats.gather(1, whole[0, start + 1 :, None])[:, 0]
        assert torch.allclose(found[:-1], known[:-1], atol=1e-4)
        assert found[-1].isnan()  # the last token was written, and not read
    assert (read.nats[:-1] - read.nats_without[:-1]).abs().max() > 0.01
    table = read.first(2).to_frame()
    assert {"nats", "nats_without", "id"} <= set(table)
    assert "nats" not in trace.to_frame()


@pytest.mark.parametrize("changes", [
    {"positions": Positions(every=2)}, {"positions": Positions(first=2)},
    {"answer_start": "plus_three"},
])  # fmt: skip
def test_log_probabilities_keep_to_where_the_edit_acts(hearsay, changes):
    edit = random_edit(hearsay, alpha=2.0, **changes)
    prompts = ["Q: What is the capital of Australia?\nA:", "The miller said"]
    with edited(hearsay, edit) as trace:
        answers = generate(hearsay, prompts, max_new_tokens=6, stop=())
    for row, answer in enumerate(answers):
        read = with_log_probabilities(hearsay, trace[row], edit)
        whole = Encoded.of_tokens(
            (*answer.prompt_tokens, *answer.tokens), len(answer.prompt_tokens)
        )
        under, without = (score_tokens(hearsay, [whole], one)[0] for one in (edit, None))
        place = read.position - len(answer.prompt_tokens) + 1
        known = ~read.nats.isnan()
        assert known.any()
        assert torch.allclose(read.nats[known], under[place[known]], atol=1e-4)
        assert torch.allclose(read.nats_without[known], without[place[known]], atol=1e-4)


def test_a_trace_of_half_a_sequence_is_refused(hearsay, traced):
    edit, trace, _ = traced
    with pytest.raises(WorkbenchError, match="did not hold the whole sequence"):
        with_log_probabilities(hearsay, replace(trace, sequence=None), edit)
    with pytest.raises(WorkbenchError, match="without a token behind"):
        with_log_probabilities(hearsay, trace.first(1), edit)


def test_every_record_has_dimensions_and_names(activations_of_few, means_of_few, few):
    answer = activations_of_few[0]
    directions = fit_directions(means_of_few, few)
    records = {
        "answer": (answer, ("position", "layer", "head", "d_head"), "z"),
        "features": (means_of_few, ("answer", "layer", "head", "d_head"), "values"),
        "directions": (directions, ("layer", "head", "d_head"), "vector"),
        "graph": (token_graph(answer, layer=1), ("token", "other_token"), "similarity"),
        "propagation": (propagation(answer, layer=1), ("depth", "token", "component"), "points"),
        "projections": (
            projections(means_of_few, directions, 1, 1, fitted_on=few), ("answer",), "value"
        ),
        "agreement": (
            agreement({"a": directions.vector, "b": -directions.vector}), ("name", "other"),
            "cosine",
        ),
    }  # fmt: skip
    for name, (record, dims, field) in records.items():
        found = record.to_xarray()
        assert found[field].dims[: len(dims)] == dims, name
        assert set(found[field].dims) <= set(found.coords), name
        assert found.attrs, name
        table = record.to_frame()
        assert {*dims, field} <= set(table), name
        assert len(table) >= found[field].size / found[field].shape[-1] / 2, name
    graph = token_graph(answer, layer=1).to_xarray()
    assert list(graph["other_string"].to_numpy()) == list(answer.strings)
    features = means_of_few.to_xarray()
    assert features["question"].to_numpy()[0] == few[0].question
    assert float(agreement({"a": directions.vector, "b": -directions.vector}).to_xarray()["cosine"]
                 .sel(name="a", other="b")) == pytest.approx(-1, abs=1e-5)  # fmt: skip


def test_half_precision_leaves_as_numbers():
    from dataclasses import dataclass

    from jaxtyping import Float
    from torch import Tensor

    from workbench.records import Record

    @dataclass
    class Own(Record):
        value: Float[Tensor, "token layer"]
        more: Float[Tensor, " token"] | None = None

    found = Own(torch.ones(2, 3, dtype=torch.bfloat16)).to_xarray()
    assert found["value"].dims == ("token", "layer")
    assert "more" not in found
