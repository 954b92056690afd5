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
from workbench.models.loading import load_model
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
    read = with_log_probabilities(hearsay, trace)
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
        read = with_log_probabilities(hearsay, trace[row])
        whole = Encoded.of_tokens(
            (*answer.prompt_tokens, *answer.tokens), len(answer.prompt_tokens)
        )
        under, without = (score_tokens(hearsay, [whole], one)[0] for one in (edit, None))
        place = read.position - len(answer.prompt_tokens) + 1
        known = ~read.nats.isnan()
        assert known.any()
        assert torch.allclose(read.nats[known], under[place[known]], atol=1e-4)
        assert torch.allclose(read.nats_without[known], without[place[known]], atol=1e-4)


PROMPT = "Q: What is the capital of Australia?\nA:"


@pytest.mark.parametrize("start", [5, 0, torch.tensor([7]), "last"], ids=str)
def test_log_probabilities_begin_where_the_pass_was_told(hearsay, start):
    edit = random_edit(hearsay, alpha=6.0)
    tokens = hearsay.tokenizer(PROMPT, return_tensors="pt").input_ids
    with edited(hearsay, edit, start=start) as trace:
        nats = hearsay(tokens)[0].log_softmax(dim=-1)
    if start == "last":
        with pytest.raises(WorkbenchError, match="without a token behind"):
            with_log_probabilities(hearsay, trace.only)
        return
    read = with_log_probabilities(hearsay, trace.only)
    assert read.start == int(torch.as_tensor(start)) == int(read.position[0])
    wanted = nats[read.position[:-1]].gather(1, tokens[0, read.position[:-1] + 1, None])[:, 0]
    assert torch.allclose(read.nats[:-1], wanted, atol=1e-4)
    assert not torch.allclose(read.nats[:-1], read.nats_without[:-1], atol=1e-2)


def test_following_is_the_next_token_also_where_positions_are_left_out(hearsay):
    edit = random_edit(hearsay, positions=Positions(first=1, every=3))
    with edited(hearsay, edit) as trace:
        (answer,) = generate(hearsay, PROMPT, max_new_tokens=8, stop=())
    found = trace.only
    for position, text in zip(found.position.tolist(), found.following, strict=True):
        behind = position + 1 - len(answer.prompt_tokens)
        assert text == (answer.strings[behind] if behind < len(answer.strings) - 1 else "")


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "adaptive"])
def test_traces_of_beams_of_other_models_and_within_blocks_are_refused(hearsay, constant):
    changes = {"strength": "constant"} if constant else {}
    edit = random_edit(hearsay, alpha=3.0, **changes)
    tokens = hearsay.tokenizer(PROMPT, return_tensors="pt").input_ids
    for cached in (True, False):
        with edited(hearsay, edit) as trace:
            hearsay.original_model.generate(
                tokens, num_beams=4, do_sample=False, max_new_tokens=8, pad_token_id=0,
                use_cache=cached,
            )  # fmt: skip
        with pytest.raises(WorkbenchError, match="all tokens of one sequence"):
            with_log_probabilities(hearsay, trace[1])
    with edited(hearsay, edit) as trace:
        generate(hearsay, PROMPT, max_new_tokens=4)
        with pytest.raises(WorkbenchError, match="edited now"):
            with_log_probabilities(hearsay, trace.only)
    other = load_model("hearsay", device="cpu")
    with pytest.raises(WorkbenchError, match="another model"):
        with_log_probabilities(other, trace.only)


def test_a_trace_that_another_edit_had_a_part_in_is_refused(hearsay):
    edit, other = random_edit(hearsay), random_edit(hearsay, heads=((0, 0),), alpha=30.0, seed=2)
    with edited(hearsay, other), edited(hearsay, edit) as trace:
        generate(hearsay, PROMPT, max_new_tokens=4)
    with pytest.raises(WorkbenchError, match="its edit alone does not leave"):
        with_log_probabilities(hearsay, trace.only)


def test_a_trace_of_half_a_sequence_is_refused(hearsay, traced):
    _, trace, _ = traced
    with pytest.raises(WorkbenchError, match="all tokens of one sequence"):
        with_log_probabilities(hearsay, replace(trace, sequence=None))
    one = replace(trace, sequence=trace.sequence[: int(trace.position[0]) + 1])
    with pytest.raises(WorkbenchError, match="without a token behind"):
        with_log_probabilities(hearsay, one)


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
