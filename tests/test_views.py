import math
from dataclasses import replace

import pytest
import torch

from tests.edits import random_edit
from workbench.analysis.agreements import agreement, agreement_of_heads
from workbench.analysis.projection import projections
from workbench.analysis.trajectories import trajectory
from workbench.editing.state_edits import StateEdit
from workbench.editing.token_scores import score_tokens
from workbench.errors import WorkbenchError
from workbench.models.identity import identify
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.passes import NAMES
from workbench.models.prompts import encode
from workbench.stages.aggregation import aggregate
from workbench.stages.capture import capture
from workbench.stages.directions import fit_directions

ASKED = "What is the capital of Australia?"
ANSWERS = {"truth": "The capital is Canberra.", "myth": "The capital is Sydney."}


@pytest.fixture(scope="module")
def features(means_of_few):
    return means_of_few


@pytest.fixture(scope="module")
def directions(features, few):
    return fit_directions(features, few)


def planted(features, apart):
    """The features, their first coordinate of head (1, 2) told by the label alone."""
    values = features.values.clone()
    noise = torch.randn(len(values), generator=torch.Generator().manual_seed(0))
    values[:, 1, 2] = 0
    values[:, 1, 2, 0] = apart * features.label + noise
    return replace(features, values=values)


def along_first(directions):
    vector = torch.zeros_like(directions.vector)
    vector[..., 0] = 1
    return replace(directions, vector=vector, spread=torch.full_like(directions.spread, 2.0))


def test_projections_are_dot_products_in_units_of_z_and_of_the_spread(features, directions, few):
    found = projections(features, directions, 2, 3, fitted_on=few)
    values = features.values[:, 2, 3] @ directions.vector[2, 3]
    assert torch.allclose(found.value, values)
    assert torch.allclose(found.standardised * directions.spread[2, 3], values, rtol=1e-4)
    assert found.label.tolist() == features.label.tolist()
    assert found.question == tuple(few[n].question for n in features.question.tolist())
    assert found.auroc.low <= found.auroc.mean <= found.auroc.high


def test_auroc_finds_what_was_planted_and_nothing_where_nothing_was(features, directions, few):
    first = along_first(directions)

    def auroc(apart):
        return projections(planted(features, apart), first, 1, 2, fitted_on=few).auroc

    assert auroc(100.0).mean == auroc(100.0).low == 1
    assert auroc(-100.0).mean == 0
    nothing, some = auroc(0.0), auroc(1.5)
    assert nothing.low < 0.5 < nothing.high
    assert some.mean == pytest.approx(0.856, abs=0.05)  # Φ(1.5 / √2)
    correct = planted(features, 1.5).values[:, 1, 2, 0][features.label == 1]
    incorrect = planted(features, 1.5).values[:, 1, 2, 0][features.label == 0]
    pairs = (correct[:, None] > incorrect).float().mean()
    assert some.mean == pytest.approx(float(pairs))
    assert projections(
        replace(features, values=torch.ones_like(features.values)), first, 1, 2, fitted_on=few
    ).auroc.mean == 0.5  # fmt: skip


def test_projections_tell_which_questions_were_fitted_on(hearsay, questions, features, directions):
    few = features.questions
    others = questions.choose(
        [n for n, q in enumerate(questions) if q.question not in {f.question for f in few}][:5]
    )
    unseen = aggregate(capture(hearsay, others, progress=False, unlabelled=False), depth=0)
    assert projections(features, directions, 0, 0, fitted_on=few).fitted == len(few)
    assert not projections(features, directions, 0, 0, fitted_on=few).held_out
    found = projections(unseen, directions, 0, 0, fitted_on=few)
    assert found.held_out
    assert found.auroc.count == 5


def test_projections_refuse_what_does_not_fit(features, directions, few, as_shipped):
    with pytest.raises(WorkbenchError, match="layer 5"):
        projections(features, directions, 5, 0, fitted_on=few)
    with pytest.raises(WorkbenchError, match="given to fit_directions"):
        projections(features, directions, 0, 0, fitted_on=few.choose(range(3)))
    one = replace(features, label=torch.ones_like(features.label))
    with pytest.raises(WorkbenchError, match="0 incorrect"):
        projections(one, directions, 0, 0, fitted_on=few)
    broken = replace(features, values=features.values * math.nan)
    with pytest.raises(WorkbenchError, match="finite: False"):
        projections(broken, directions, 0, 0, fitted_on=few)
    with pytest.raises(WorkbenchError, match="same model"):
        projections(replace(features, values=features.values[:, :2]), directions, 0, 0,
                    fitted_on=few)  # fmt: skip


def test_agreement_of_methods_is_the_cosine_at_every_head():
    one = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1))
    other = one.clone()
    other[0, 0] *= -3
    other[2, 1] = 0
    turned = torch.zeros_like(one)
    turned[..., 0], turned[..., 1] = -one[..., 1], one[..., 0]
    found = agreement({"one": one, "other": other, "turned": turned})
    expected = torch.ones(3, 2, dtype=torch.float64)
    expected[0, 0] = -1
    expected[2, 1] = math.nan
    assert torch.allclose(found.between("one", "other"), expected, equal_nan=True)
    assert float(found.cosine[0, 1]) == pytest.approx(3 / 5)
    assert found.between("one", "turned").abs().max() < 1e-6
    assert torch.allclose(found.cosine, found.cosine.T)
    assert found.width == 5


def test_an_edit_agrees_with_its_own_directions_where_it_has_any(hearsay, directions):
    edit = random_edit(hearsay)
    own = torch.zeros_like(directions.vector)
    for (layer, head), vector in zip(edit.heads, edit.direction, strict=True):
        own[layer, head] = 2 * vector
    found = agreement({"edit": edit, "tensor": own, "directions": directions})
    assert float(found.cosine[0, 1]) == pytest.approx(1)
    both = found.between("edit", "directions").isfinite().nonzero().tolist()
    assert sorted(map(tuple, both)) == sorted(edit.heads)
    empty = agreement({"edit": edit, "nothing": torch.zeros_like(own)})
    assert empty.cosine[0, 1].isnan()


def test_heads_are_compared_by_what_they_write(hearsay, directions):
    heads = ((0, 1), (2, 3), (4, 7))
    found = agreement_of_heads(hearsay, directions, heads)
    images = torch.stack([
        directions.vector[layer, head] @ hearsay.blocks[layer].attn.W_O[head]
        for layer, head in heads
    ])  # fmt: skip
    expected = torch.nn.functional.cosine_similarity(images[:, None], images[None], dim=-1)
    assert torch.allclose(found.cosine.float(), expected, atol=1e-5)
    assert found.names == ("L0 H1", "L2 H3", "L4 H7")
    assert found.width == hearsay.cfg.d_model
    assert len(agreement_of_heads(hearsay, random_edit(hearsay)).names) == 4


def test_agreements_refuse_what_does_not_fit(hearsay, directions, as_shipped):
    with pytest.raises(WorkbenchError, match="1 methods"):
        agreement({"one": directions})
    with pytest.raises(WorkbenchError, match=r"\(1, 2, 3\) \(b\)"):
        agreement({"a": directions, "b": torch.ones(1, 2, 3)})
    with pytest.raises(WorkbenchError, match="b: a str"):
        agreement({"a": directions, "b": "text"})
    with pytest.raises(WorkbenchError, match="heads with a direction"):
        agreement_of_heads(hearsay, random_edit(hearsay), [(4, 4)])
    found = agreement({"a": directions, "b": directions})
    with pytest.raises(WorkbenchError, match="'a' and 'c'"):
        found.between("a", "c")
    with pytest.raises(WorkbenchError, match="between methods"):
        agreement_of_heads(hearsay, directions).between("L0 H0", "L0 H1")


def first_apart(model):
    """Which of the answers' tokens is the first to differ."""
    told = [encode(model, ASKED, text).answer_tokens for text in ANSWERS.values()]
    return next(n for n, (one, other) in enumerate(zip(*told, strict=False)) if one != other)


@pytest.mark.parametrize("every", [False, True])
def test_a_trajectory_ends_in_the_model_s_own_output(hearsay, every):
    edit = random_edit(hearsay, alpha=6.0)
    edits = {"no edit": None, "edited": edit, "later": edit.scaled(20.0)}
    table = trajectory(hearsay, ASKED, edits, **ANSWERS, every=every)
    last = table[table["layer"] == table["layer"].max()]
    for name, own in edits.items():
        for answer, text in ANSWERS.items():
            whole = encode(hearsay, ASKED, text)
            nats = score_tokens(hearsay, [whole], own)[0]
            found = last[(last["edit"] == name) & (last["answer"] == answer)]
            places = list(range(len(nats))) if every else [first_apart(hearsay)]
            assert found["place"].tolist() == places
            assert found["nats"].tolist() == pytest.approx(nats[places].tolist(), abs=1e-3)
            assert found["token"].tolist() == [whole.strings[whole.start + n] for n in places]
    assert last.groupby("edit")["nats"].sum().nunique() == 3


def test_a_trajectory_is_the_lens_of_every_layer(hearsay):
    table = trajectory(hearsay, ASKED, {"no edit": None}, **ANSWERS).set_index(["answer", "layer"])
    one, other = (encode(hearsay, ASKED, text) for text in ANSWERS.values())
    place = first_apart(hearsay)
    assert set(table["place"]) == {place}
    alike = one.start + place
    assert place > 0
    assert one.tokens[:alike] == other.tokens[:alike]
    assert one.tokens[alike] != other.tokens[alike]
    tokens = torch.tensor([one.tokens[:alike]])
    for layer in range(hearsay.cfg.n_layers):
        name = NAMES["resid_post"].format(layer)
        seen = hearsay.run_with_cache(tokens, names_filter=name)[1][name][0, -1]
        nats = vocabulary_logits(hearsay, seen).log_softmax(-1)
        for answer, whole in (("truth", one), ("myth", other)):
            token = whole.tokens[alike]
            found = table.loc[(answer, layer)]
            assert found["nats"] == pytest.approx(float(nats[token]), abs=1e-3)
            order = nats.argsort(descending=True).tolist()
            assert found["rank"] == 1 + order.index(token)


class _Norm(StateEdit):
    def change(self, number, state):
        return state + self.alpha


def test_edits_of_the_final_norm_and_their_layers_are_followed(hearsay):
    last = hearsay.cfg.n_layers - 1
    edit = _Norm(places=(("final_norm", last),), alpha=3.0, model=identify(hearsay))
    table = trajectory(hearsay, ASKED, {"no edit": None, "norm": edit}, **ANSWERS)
    wide = table.pivot_table(index=["answer", "layer"], columns="edit", values="nats")
    apart = (wide["norm"] - wide["no edit"]).abs().groupby("layer").max()
    assert (apart.iloc[:-1] == 0).all()
    assert apart.iloc[-1] > 1e-3
    acts = table[table["edited"]]
    assert set(zip(acts["edit"], acts["layer"], strict=True)) == {("norm", last)}


def test_answers_without_a_difference_of_their_own_are_refused(hearsay, as_shipped):
    for truth, myth in (("Sydney.", "Sydney."), ("The capital", "The capital is Sydney.")):
        with pytest.raises(WorkbenchError, match="differ in a token"):
            trajectory(hearsay, ASKED, {"no edit": None}, truth=truth, myth=myth)
    with pytest.raises(WorkbenchError, match="no edits"):
        trajectory(hearsay, ASKED, {}, **ANSWERS)
