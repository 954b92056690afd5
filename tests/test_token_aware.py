import json
from dataclasses import replace

import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.edits import random_edit
from tests.test_prompts import merging
from workbench.data.questions import Question, QuestionSet
from workbench.editing.attaching import edited
from workbench.editing.generation import generate
from workbench.editing.head_edits import Edit
from workbench.editing.scoring import score
from workbench.errors import WorkbenchError
from workbench.methods.controls import (
    evened,
    random_direction,
    random_directions,
    resampled,
    strength_sample,
)
from workbench.methods.iti import inference_time
from workbench.methods.memo import Memo
from workbench.methods.saved import load_edit
from workbench.methods.stages import Stages, numbers_in
from workbench.methods.token_aware import PRESETS, TokenAware
from workbench.models.loading import load_model
from workbench.stages.aggregation import aggregate
from workbench.stages.directions import fit_directions

TENSORS = ("direction", "spread", "estimators.coefficient", "estimators.intercept")


@pytest.fixture(scope="module")
def fold(few):
    return few.folds(2, seed=0)[0]


@pytest.fixture(scope="module")
def activations(hearsay, fold):
    return TokenAware().capture(hearsay, fold.train, progress=False)


def same(a: Edit, b: Edit) -> bool:
    return a.heads == b.heads and all(torch.equal(a.tensors()[n], b.tensors()[n]) for n in TENSORS)


def with_other_answers(fold):
    """The fold after every answer of its test questions was replaced."""
    changed = {
        q.question: replace(
            q,
            best_answer="Pigs fly.",
            correct_answers=("Pigs fly.",),
            incorrect_answers=("Cows sing a song.", "No."),
        )
        for q in fold.test
    }
    everything = replace(
        fold.everything,
        items=tuple(changed.get(q.question, q) for q in fold.everything),
    )
    return everything.folds(2, seed=0)[0]


def fit(model, fold, **settings):
    method = TokenAware(**{"heads": 6, **settings})
    return method.fit(model, fold.train, everything=fold.everything, progress=False)


@pytest.mark.slow
def test_corrected_never_sees_test_answers(hearsay, fold):
    changed = with_other_answers(fold)
    assert changed.train == fold.train
    assert changed.test != fold.test
    assert same(fit(hearsay, fold), fit(hearsay, changed))
    alone = TokenAware(heads=6).fit(hearsay, fold.train, progress=False)
    assert same(alone, fit(hearsay, fold))


@pytest.mark.parametrize(
    ("switch", "leaks_into"),
    [
        ({"head_ranking": "token_level_published"}, "heads"),
        ({"estimator_grouping": "published"}, "estimators.coefficient"),
        ({"spread_fold": "all"}, "spread"),
    ],
)
@pytest.mark.slow
def test_reference_switches_leak_where_the_published_code_does(hearsay, fold, switch, leaks_into):
    """The negative control of the test above: it would notice a leak."""
    wide = {**switch, "heads": 40}
    before, after = (fit(hearsay, f, **wide) for f in (fold, with_other_answers(fold)))
    assert not same(before, after)
    if leaks_into == "heads":
        assert before.heads != after.heads
    else:
        assert not torch.equal(before.tensors()[leaks_into], after.tensors()[leaks_into])
        assert torch.equal(before.direction, after.direction)


def test_presets_are_their_switches_one_by_one():
    assert TokenAware.preset("corrected") == TokenAware()
    assert set(PRESETS["reference"]) == {
        "uncertainty", "head_ranking", "estimator_grouping", "answer_start", "spread_fold",
    }  # fmt: skip
    reference = TokenAware.preset("reference", heads=3)
    assert reference.leaks
    assert not TokenAware().leaks
    plain = {key: getattr(TokenAware(), key) for key in PRESETS["reference"]}
    restored = replace(reference, heads=16, **plain)
    assert restored == TokenAware()


@pytest.mark.slow
def test_each_switch_changes_what_it_names(hearsay, fold):
    plain = fit(hearsay, fold, heads=40)
    for switch in ("head_ranking", "estimator_grouping", "spread_fold"):
        changed = fit(hearsay, fold, heads=40, **{switch: PRESETS["reference"][switch]})
        assert not same(plain, changed), switch
    assert not same(plain, fit(hearsay, fold, heads=40, head_ranking="token_level"))
    amplified = fit(hearsay, fold, heads=40, uncertainty="amplified")
    assert same(plain, amplified)
    strengths = []
    for edit in (plain, amplified):
        with edited(hearsay, edit) as trace:
            generate(hearsay, "Q: Who wrote Dracula?\nA:", max_new_tokens=3, stop=())
        strengths.append(trace.uncertainty)
    assert (strengths[0] - strengths[1]).abs().max() > 0.1
    reference = TokenAware.preset("reference", heads=6).fit(
        hearsay, fold.train, everything=fold.everything, progress=False
    )
    assert len(score(hearsay, fold.test.choose([0]), reference)) == 10


def test_plus_three_moves_the_start_of_the_edit_and_never_the_scored_tokens():
    model = load_model(hf_model("llama"), merging("?\n"))
    asked = Question("What is it?", "Cara.", ("Cara.",), ("tera.", "Canb is it."))
    questions = QuestionSet((asked,))
    late = random_edit(model, alpha=2.0, answer_start="plus_three")
    plain = score(model, questions)
    for before, after in zip(plain, score(model, questions, late), strict=True):
        # as with Llama 3's tokenizer, three tokens are one too many: " " and "C" are not edited
        assert len(before.tokens) == len(after.tokens)
        assert torch.allclose(before.tokens[:2], after.tokens[:2], atol=1e-5)
        assert not torch.allclose(before.tokens[2:], after.tokens[2:], atol=1e-3)
    nothing = score(model, questions, late.scaled(0.0))
    assert [s.total for s in nothing] == [s.total for s in plain]
    published = score(model, questions, answer_start="plus_three")
    assert [len(s.tokens) for s in published] == [len(s.tokens) - 1 for s in plain]


def test_activations_made_otherwise_are_refused(hearsay, fold, activations, as_shipped):
    for method, says in (
        (TokenAware(answer_start="plus_three"), "answer_start='offsets'"),
        (TokenAware(style="inline"), "style=bare. Expected style=inline"),
        (TokenAware(seed=1), "seed=0"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            method.fit(hearsay, fold.train, activations=activations)
    other = load_model(hf_model("llama"), tokenizer(bos=True))
    with pytest.raises(WorkbenchError, match="activations of hearsay"):
        TokenAware(heads=2).fit(other, fold.train, activations=activations)
    with pytest.raises(WorkbenchError, match=r"Pass fold\.train"):
        TokenAware(heads=2).fit(hearsay, fold)


def test_published_ranking_reads_answers_by_question_numbers(hearsay, fold):
    method = TokenAware(head_ranking="token_level_published")
    mine = method.capture(hearsay, fold.train, progress=False)
    whole = method.capture(hearsay, fold.everything, progress=False)
    directions = fit_directions(aggregate(mine, 1), fold.train)
    stages = Stages(method, hearsay, fold.train, whole, mine, Memo(), progress=False)
    ranked = stages.directions()
    held = directions.validation.nonzero().flatten().tolist()
    answers = numbers_in(fold.everything, fold.train, held)
    rows = torch.cat([whole[a].own for a in answers])
    labels = torch.cat([whole.label[a].expand(len(whole[a].tokens)) for a in answers])
    assert torch.equal(ranked.accuracy, directions.probes.accuracy(rows, labels))


@pytest.mark.slow
def test_fit_repeats_exactly_and_the_seed_matters(hearsay, fold, activations):
    def fitted(seed):
        return TokenAware(heads=6, seed=seed).fit(hearsay, fold.train, progress=False)

    from_captured = TokenAware(heads=6).fit(
        hearsay, fold.train, activations=activations, progress=False
    )
    assert same(fitted(0), from_captured)
    assert fitted(0).heads != fitted(5).heads


def test_iti_is_the_same_code_with_the_last_token_and_constant_strength(hearsay, fold, activations):
    iti = inference_time(heads=6, alpha=0.7)
    assert iti == TokenAware(heads=6, alpha=0.7, depth="last", strength="constant")
    edit = iti.fit(hearsay, fold.train, activations=activations, progress=False)
    features = aggregate(activations, "last")
    wanted = fit_directions(features, fold.train)
    assert edit.heads == wanted.top(6)
    for row, (layer, head) in enumerate(edit.heads):
        assert torch.equal(edit.direction[row], wanted.vector[layer, head])
        assert edit.spread[row] == wanted.spread[layer, head]


def test_random_direction_keeps_heads_spread_and_estimators(hearsay):
    edit = random_edit(hearsay)
    control = random_direction(edit, seed=1)
    assert control.heads == edit.heads
    assert torch.equal(control.spread, edit.spread)
    assert torch.equal(control.estimators.coefficient, edit.estimators.coefficient)
    assert torch.allclose(control.direction.norm(dim=-1), torch.ones(4))
    assert not torch.allclose(control.direction, edit.direction)
    assert torch.equal(control.direction, random_direction(edit, seed=1).direction)
    draws = random_directions(edit, 4, seed=2)
    assert torch.equal(draws[0].direction, -draws[1].direction)
    assert not torch.allclose(draws[0].direction.abs(), draws[2].direction.abs())
    with pytest.raises(WorkbenchError, match="3 random directions"):
        random_directions(edit, 3)


def test_a_spread_needs_unlabelled_prompts(hearsay, fold):
    looked_at = TokenAware().capture(hearsay, fold.train, unlabelled=False, progress=False)
    with pytest.raises(WorkbenchError, match="without unlabelled"):
        TokenAware(heads=2).fit(hearsay, fold.train, activations=looked_at, progress=False)


def test_save_and_load_are_exact(hearsay, tmp_path):
    edit = random_edit(hearsay, settings={"heads": 4, "note": "ü"})
    edit.save(tmp_path / "edit")
    found = load_edit(tmp_path / "edit", hearsay)
    assert same(edit, found)
    names = ("alpha", "strength", "answer_start", "model", "settings")
    for name in names:
        assert getattr(found, name) == getattr(edit, name)
    files = sorted(p.name for p in (tmp_path / "edit").iterdir())
    assert files == ["edit.json", "edit.safetensors"]


def test_fitted_edit_survives_the_disk(hearsay, fold, activations, tmp_path):
    edit = TokenAware(heads=6).fit(hearsay, fold.train, activations=activations, progress=False)
    found = load_edit(edit.save(tmp_path))
    assert same(edit, found)
    one = fold.test.choose([0])
    assert [s.total for s in score(hearsay, one, edit)] == [
        s.total for s in score(hearsay, one, found)
    ]


def test_damaged_artefacts_are_refused(hearsay, tmp_path):
    def saved(name):
        return random_edit(hearsay).save(tmp_path / name)

    with pytest.raises(WorkbenchError, match="no folder"):
        load_edit(tmp_path / "absent")
    (saved("a") / "edit.safetensors").unlink()
    with pytest.raises(WorkbenchError, match=r"edit\.safetensors"):
        load_edit(tmp_path / "a")
    (saved("b") / "edit.json").unlink()
    with pytest.raises(WorkbenchError, match=r"edit\.json"):
        load_edit(tmp_path / "b")
    tensors = saved("c") / "edit.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(WorkbenchError, match="truncated"):
        load_edit(tmp_path / "c")
    record = saved("d") / "edit.json"
    record.write_text(record.read_text()[:-40])
    with pytest.raises(WorkbenchError, match="not valid JSON"):
        load_edit(tmp_path / "d")
    random_edit(hearsay, seed=9).save(tmp_path / "other")
    tensors = saved("e") / "edit.safetensors"
    tensors.write_bytes((tmp_path / "other" / "edit.safetensors").read_bytes())
    with pytest.raises(WorkbenchError, match="not the file"):
        load_edit(tmp_path / "e")
    record = saved("f") / "edit.json"
    kept = json.loads(record.read_text())
    del kept["strength"]
    record.write_text(json.dumps(kept))
    with pytest.raises(WorkbenchError, match="strength"):
        load_edit(tmp_path / "f")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": [[99, 1], [1, 0], [1, 3], [2, 2]]}, "different"),
        ({"heads": [[-1, 1], [1, 0], [1, 3], [2, 2]]}, "different"),
        ({"heads": [[0, 1], [0, 1], [1, 3], [2, 2]]}, "different"),
        ({"heads": [[0, 1]]}, "shape"),
        ({"heads": [[0, 1, 2]]}, "describes no edit"),
        ({"heads": 3}, "describes no edit"),
        ({"format": 99}, "no edit"),
        ({"answer_start": "zzz"}, "answer_start"),
        ({"settings": None}, "describes no edit"),
        ({"alpha": "2"}, "alpha"),
        ({"model": {}}, "name"),
    ],
)
def test_records_of_no_edit_are_refused(hearsay, tmp_path, as_shipped, change, says):
    path = random_edit(hearsay).save(tmp_path) / "edit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WorkbenchError, match=says):
        load_edit(tmp_path)
    path.write_text("[]")
    with pytest.raises(WorkbenchError, match="no edit"):
        load_edit(tmp_path)


def test_an_edit_of_wrong_tensors_cannot_be_made(hearsay, as_shipped):
    good = random_edit(hearsay)
    for change in (
        {"direction": torch.full_like(good.direction, torch.nan)},
        {"spread": torch.full_like(good.spread, torch.inf)},
        {"direction": good.direction[:, :7]},
        {"direction": good.direction.long()},
    ):
        with pytest.raises(WorkbenchError, match="an edit's"):
            replace(good, **change)


def test_a_model_with_another_config_is_warned_about(hearsay, tmp_path):
    edit = random_edit(hearsay)
    replace(edit, model=replace(edit.model, name="cousin", fingerprint="0")).save(tmp_path)
    with pytest.warns(UserWarning, match="cousin"):
        load_edit(tmp_path, hearsay)


def test_another_shape_of_model_is_refused_with_both_shapes(hearsay, tmp_path):
    small = load_model(hf_model("llama"), tokenizer(bos=True))
    edit = random_edit(hearsay)
    edit.save(tmp_path)
    shapes = r"5 layers x 8 heads x d_head 20.*3 layers x 4 heads x d_head 8"
    with pytest.raises(WorkbenchError, match=shapes):
        load_edit(tmp_path, small)
    other_shape = pytest.raises(WorkbenchError, match=shapes)
    with other_shape, edited(small, load_edit(tmp_path)):
        pass


def test_refusals(hearsay, fold, activations, as_shipped):
    with pytest.raises(WorkbenchError, match="preset 'published'"):
        TokenAware.preset("published")
    with pytest.raises(WorkbenchError, match="setting 'head'"):
        TokenAware.preset("corrected", head=3)
    with pytest.raises(WorkbenchError, match="head_ranking='best'"):
        TokenAware(head_ranking="best")
    with pytest.raises(WorkbenchError, match="alpha=nan"):
        TokenAware(alpha=float("nan"))
    with pytest.raises(WorkbenchError, match="beta=-1"):
        TokenAware(beta=-1)
    with pytest.raises(WorkbenchError, match="heads=41"):
        TokenAware(heads=41).fit(hearsay, fold.train)
    with pytest.raises(WorkbenchError, match="all questions"):
        TokenAware.preset("reference").fit(hearsay, fold.train)
    with pytest.raises(WorkbenchError, match="other questions"):
        TokenAware().fit(hearsay, fold.test, activations=activations)
    nothing = (Question("What?", "Yes.", ("Yes.",), ("No.",)),)
    with pytest.raises(WorkbenchError, match="validation"):
        TokenAware().fit(hearsay, replace(fold.train, items=nothing), progress=False)


@pytest.mark.slow
def test_a_memo_computes_each_stage_once_for_settings_that_share_it(hearsay, fold):
    """36 settings of K and α are one fit; another depth is other features and directions alone."""
    memo = Memo()
    fits = [
        TokenAware(heads=heads, alpha=alpha).fit(hearsay, fold.train, memo=memo, progress=False)
        for heads in (1, 2, 4, 8, 16, 32)
        for alpha in (0.5, 1, 2, 3, 4, 5)
    ]
    assert set(memo.made.values()) == {1}
    assert set(memo.made) == {"activations", "features", "directions", "ranking", "estimators"}
    assert same(fits[12], TokenAware(heads=4).fit(hearsay, fold.train, progress=False))
    TokenAware(depth=2).fit(hearsay, fold.train, memo=memo, progress=False)
    assert memo.made["activations"] == memo.made["estimators"] == 1
    assert memo.made["features"] == memo.made["directions"] == 2
    TokenAware(uncertainty="amplified").fit(hearsay, fold.train, memo=memo, progress=False)
    assert memo.made["activations"] == 1
    other = TokenAware(seed=1).fit(hearsay, fold.train, memo=memo, progress=False)
    assert memo.made["features"] == 2
    assert memo.made["estimators"] == 1
    alone = TokenAware(seed=1).fit(hearsay, fold.train, progress=False)
    assert other.heads == alone.heads  # other unlabelled prompts behind, other last digits
    near = {"rtol": 1e-3, "atol": 1e-4}
    assert all(torch.allclose(other.tensors()[n], alone.tensors()[n], **near) for n in TENSORS)
    iti = TokenAware(depth="last", strength="constant")
    assert iti.fit(hearsay, fold.train, memo=memo, progress=False).estimators is None
    assert memo.made["estimators"] == 1


@pytest.mark.slow
def test_heads_and_layers_are_chosen_as_said(hearsay, fold, activations):
    def heads(**settings):
        method = TokenAware(**settings)
        return method.fit(hearsay, fold.train, activations=activations, progress=False).heads

    ranked = heads(heads=40)
    assert heads(heads=5) == ranked[:5]
    assert heads(heads=5, leave_out=2) == (*ranked[:2], *ranked[3:5])
    assert heads(heads=3, layers=(1, 4)) == tuple(p for p in ranked if p[0] in (1, 4))[:3]
    assert heads(heads=((3, 1), (0, 2))) == ((3, 1), (0, 2))
    one, two = (heads(heads=8, head_ranking="random", seed=0) for _ in range(2))
    assert one == two
    assert one != ranked[:8]
    for bad in (
        {"heads": 17, "layers": (1, 2)}, {"layers": (7,)}, {"heads": ((5, 0),)},
        {"heads": ((0, 8),)},
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match="on a model with 5 layers x 8 heads"):
            heads(**bad)
    for bad in ({"heads": 4, "leave_out": 4}, {"heads": ()}, {"heads": ((0, 1),), "layers": (0,)}):
        with pytest.raises(WorkbenchError):
            TokenAware(**bad)


def test_the_riskiest_share_of_positions_is_edited(hearsay, fold, activations):
    method = TokenAware(heads=6, risk_share=0.3)
    edit = method.fit(hearsay, fold.train, activations=activations, progress=False)
    rows = torch.cat([
        activations.rows_of(k)[:-1] for k, label in enumerate(activations.label) if not label
    ])  # fmt: skip
    z, known = activations.z[rows], edit.estimators
    for row, (layer, head) in enumerate(edit.heads):
        p = (z[:, layer, head] @ known.coefficient[row] + known.intercept[row]).sigmoid()
        assert float((p >= edit.threshold[row]).float().mean()) == pytest.approx(0.3, abs=0.01)
    with pytest.raises(WorkbenchError, match=r"risk_share=1\.5"):
        TokenAware(risk_share=1.5)


def test_even_and_drawn_strengths_have_the_mean_of_the_adaptive_ones(hearsay, fold, activations):
    """Both controls are as strong at every head as the edit itself, and tell nothing of tokens."""
    edit = TokenAware(heads=6, alpha=1.0).fit(
        hearsay, fold.train, activations=activations, progress=False
    )
    sample = strength_sample(hearsay, edit, fold.train, "bare")
    assert sample.shape[1] == 6
    assert bool((sample >= 1).all())
    assert float(sample.std(dim=0).min()) > 0.01
    even, (drawn, other) = evened(edit, sample), resampled(edit, sample, draws=2, seed=1)
    assert torch.equal(drawn.strengths.sort(dim=0).values, other.strengths.sort(dim=0).values)
    assert not torch.equal(drawn.strengths, other.strengths)
    assert torch.allclose(even.spread, edit.spread * sample.mean(dim=0))
    prompts = [f"Q: {q.question}\nA:" for q in fold.test]
    steps = {}
    for name, one in {"adaptive": edit, "even": even, "drawn": drawn}.items():
        with edited(hearsay, one) as trace:
            generate(hearsay, prompts, max_new_tokens=12, stop=())
        rows = torch.cat([own.change.nan_to_num() for own in trace])
        steps[name] = torch.stack([rows[:, layer, head] for layer, head in edit.heads], dim=1)
    means = {name: own.mean(dim=0) for name, own in steps.items()}
    for name in ("even", "drawn"):
        assert torch.allclose(means[name], means["adaptive"], rtol=0.06), name
    assert float(steps["even"].std(dim=0).max()) < 1e-5
    assert torch.allclose(steps["drawn"].std(dim=0), steps["adaptive"].std(dim=0), rtol=0.3)
