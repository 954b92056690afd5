"""The natural gradient: its rows, its solution, what it recovers and what it costs."""

from dataclasses import replace
from string import ascii_lowercase

import pytest
import torch

from tests.planted import planted_model, questions
from workbench.data.questions import Question, QuestionSet
from workbench.editing.added_vectors import AddedVector
from workbench.editing.affine_edits import AffineChange
from workbench.editing.attaching import edited
from workbench.editing.divergences import divergences
from workbench.editing.token_scores import score_tokens, score_tokens_under
from workbench.errors import WorkbenchError
from workbench.methods.answer_gradients import Reader, fit_reader, gradient_rows
from workbench.methods.collected_rows import looked_again
from workbench.methods.controls import evened, strength_sample
from workbench.methods.looks import Look
from workbench.methods.memo import Memo
from workbench.methods.natural import NaturalGradient
from workbench.methods.training_texts import had_right, said_of
from workbench.models.identity import identify, shape_of
from workbench.models.prompts import encode, prompt_format
from workbench.stages.gain_per_nat import Answers, Choice, Kernel, Texts, expected, folds_of


@pytest.fixture(scope="module")
def planted():
    return planted_model()


def encoded(model, asked, count=2):
    return [encode(model, q.question, a) for q in asked for a in q.answers[:count]]


def affine(reader, model, theta, alpha=1.0):
    """The edit that a reader's features and a change in units of its spread make."""
    theta = theta * reader.spread[:, None, None]
    return AffineChange(
        places=reader.places, vector=theta[:, 0], vectors=theta[:, 1:], mean=reader.mean,
        axes=reader.axes, bound=reader.bound, alpha=alpha, model=identify(model),
    )  # fmt: skip


@pytest.fixture(scope="module")
def read(hearsay, few):
    """A reader of hearsay's states, and a random change of them."""
    places = (("resid_post", 1), ("resid_post", 3))
    texts = encoded(hearsay, few.choose(range(6)))
    reader = fit_reader(hearsay, texts[:4], texts, places, 3, 2.0, 8)
    draw = torch.Generator().manual_seed(0)
    return reader, torch.randn(2, 4, shape_of(hearsay).d_model, generator=draw)


def test_features_are_of_unit_spread_and_zero_in_the_mean_of_own_answers(hearsay, few):
    texts = encoded(hearsay, few.choose(range(12)))
    reader = fit_reader(hearsay, texts[:9], texts, (("resid_post", 2),), 4, 100.0, 8)
    seen = {}
    for name, some in (("own", texts[:9]), ("all", texts)):
        at = []
        for one in some:
            tokens = torch.tensor([one.tokens])
            _, cache = hearsay.run_with_cache(tokens)
            at.append(cache["blocks.2.hook_resid_post"][0, one.start - 1 : -1])
        seen[name] = reader.read(0, torch.cat(at))[:, 1:]
    assert seen["own"].mean(dim=0).abs().max() < 1e-4
    assert (seen["all"].std(dim=0, unbiased=False) - 1).abs().max() < 1e-3


def test_rows_are_what_log_probabilities_move_by(hearsay, few, read):
    reader, theta = read
    texts = encoded(hearsay, few.choose(range(4)))
    (rows,), nats = gradient_rows(hearsay, texts, reader)
    told = (rows.float() * theta).flatten(1).sum(dim=1)
    step = 2e-4
    sides = [affine(reader, hearsay, theta, sign * step) for sign in (1, -1)]
    up, down = (
        torch.stack([own.sum() for own in nats])
        for nats in score_tokens_under(hearsay, texts, sides)
    )
    measured = (up - down) / (2 * step)
    assert torch.allclose(told, measured, rtol=0.03, atol=0.03 * float(measured.abs().max()))
    plain = torch.stack([own.sum() for own in score_tokens(hearsay, texts)])
    assert torch.allclose(nats, plain, atol=1e-4)


def test_rows_under_a_change_are_what_log_probabilities_move_by_from_there(hearsay, few, read):
    """Features are read of the states that the change meets, those that earlier layers moved."""
    reader, theta = read
    texts = encoded(hearsay, few.choose(range(4)))
    base, step = affine(reader, hearsay, theta, 0.02), 2e-4
    (rows,), nats = gradient_rows(hearsay, texts, reader, edit=base)
    there, plain, up, down = (
        torch.stack([own.sum() for own in nats])
        for nats in score_tokens_under(
            hearsay, texts, [base, None, base.scaled(0.02 + step), base.scaled(0.02 - step)]
        )
    )
    assert torch.allclose(nats, there, atol=1e-4)
    assert (there - plain).abs().max() > 0.05
    told = (rows.float() * theta).flatten(1).sum(dim=1)
    measured = (up - down) / (2 * step)
    assert torch.allclose(told, measured, rtol=0.03, atol=0.03 * float(measured.abs().max()))


@pytest.mark.parametrize("draws", [0, 2])
def test_rows_do_not_depend_on_the_batch(hearsay, few, read, draws):
    reader, _ = read
    texts = encoded(hearsay, few.choose(range(5)))
    each, _ = gradient_rows(hearsay, texts, reader, draws=draws, batch_size=1)
    together, _ = gradient_rows(hearsay, texts, reader, draws=draws, batch_size=7)
    assert torch.allclose(each.float(), together.float(), rtol=1e-2, atol=1e-4)


def test_draws_differ_and_repeat(hearsay, few, read):
    reader, _ = read
    texts = encoded(hearsay, few.choose(range(3)))
    first, second = gradient_rows(hearsay, texts, reader, draws=2)[0]
    assert not torch.allclose(first.float(), second.float(), atol=1e-3)
    assert gradient_rows(hearsay, texts, reader, draws=2)[0].equal(torch.stack([first, second]))
    other, _ = gradient_rows(hearsay, texts, reader, draws=1, seed=1)
    assert not torch.allclose(first.float(), other[0].float(), atol=1e-3)


def test_the_mean_square_over_drawn_tokens_is_twice_the_kl(hearsay, few, read):
    reader, theta = read
    texts = encoded(hearsay, few.choose(range(4)), count=1)
    rows, _ = gradient_rows(hearsay, texts, reader, draws=400)
    told = (rows.float() * theta).flatten(2).sum(dim=2).square().mean(dim=0) / 2
    step = 0.003 / float(told.mean().sqrt())
    edit = affine(reader, hearsay, theta, step)
    (found,) = divergences(hearsay, texts, [edit])
    measured = torch.tensor([one.kl for one in found]) / step**2
    assert told.tolist() == pytest.approx(measured.tolist(), rel=0.6)
    assert float(told.mean()) == pytest.approx(float(measured.mean()), rel=0.3)


def problem(seed=0, questions=12, columns=7, kinds=("own", "right", "correct")):
    """Random rows, two correct and two incorrect answers a question and three texts."""
    draw = torch.Generator().manual_seed(seed)
    count = 4 * questions
    rows = torch.randn(count + 3 * questions, columns, generator=draw)
    answers = Answers(
        torch.randn(count, generator=draw), torch.arange(count) // 4, torch.arange(count) % 4 < 2
    )
    texts = Texts(
        [kind for kind in kinds for _ in range(3 * questions // len(kinds))],
        torch.arange(3 * questions),
        torch.arange(3 * questions) % questions,
        torch.rand(3 * questions, generator=draw),
    )
    return rows, Kernel(rows @ rows.T, answers, texts)


def test_weights_are_the_gradient_of_mc2():
    _, kernel = problem()
    answers = kernel.answers
    moved = torch.randn(len(answers.nats), generator=torch.Generator().manual_seed(3))
    moved.requires_grad_()
    answers.shares(moved)[1].mean().backward()
    assert torch.allclose(answers.weights(moved.detach()), moved.grad, atol=1e-7)
    assert answers.gains(torch.zeros(len(answers.nats))).abs().max() == 0


def test_the_solution_in_rows_is_that_in_columns():
    rows, kernel = problem()
    keep = torch.arange(12) % 3 != 0
    weights = kernel.answers.weights()
    coefficients = kernel.solver(keep, 0.7).solve(weights)
    found = coefficients.float() @ rows
    seen = keep[kernel.answers.question]
    texts = rows[48:][keep[kernel.texts.question]]
    share = kernel.texts.weight[keep[kernel.texts.question]]
    share = share / share.sum()
    a = (texts * share[:, None]).T @ texts
    r = 0.7 * float(a.trace()) / len(texts)
    b = weights[seen] @ rows[:48][seen]
    exact = torch.linalg.solve(a + r * torch.eye(7), b)
    exact = exact / (exact @ a @ exact).sqrt()
    assert torch.allclose(found, exact, rtol=1e-3, atol=1e-4)
    unseen = torch.cat([~seen, ~keep[kernel.texts.question]])
    assert coefficients[unseen].abs().max() == 0


def test_what_is_expected_is_of_questions_that_were_left_out():
    """Random rows gain in sample and nothing out of it; rows that share a direction gain."""
    gains = []
    for seed in range(6):
        rows, kernel = problem(seed, questions=20, columns=200)
        fold = folds_of(20, 5, 0)
        how = {"budget": 0.1, "rounds": 2, "temperature": 1.0}
        gains.append(expected(kernel, 0.3, fold, **how).gain)
        rows[:80][kernel.answers.correct] += 0.5
        shared = replace(kernel, gram=rows @ rows.T)
        assert expected(shared, 0.3, fold, **how).gain > 0.05
    assert abs(sum(gains) / 6) < 0.03


def test_folds_are_even_and_follow_the_seed():
    fold = folds_of(23, 5, 1)
    assert sorted(fold.bincount().tolist()) == [4, 4, 5, 5, 5]
    assert not fold.equal(folds_of(23, 5, 2))


def share_right(model, asked, edit):
    texts = encoded(model, asked)
    (nats,) = score_tokens_under(model, texts, [edit])
    total = torch.stack([own.sum() for own in nats]).view(-1, 2)
    return float((total[:, 0] > total[:, 1]).float().mean())


SMALL = {
    "features": 8,
    "ridge": 0.3,
    "budget": 0.5,
    "max_new_tokens": 2,
    "layers": (2,),
    "folds": 3,
}


def test_a_change_that_the_question_decides_is_found(planted):
    """What makes one answer likelier helps with half of the questions and harms with the others."""
    train, held = questions(("my", "some"), ascii_lowercase)
    edit = NaturalGradient(**SMALL).fit(planted, train, progress=False)
    assert share_right(planted, held, None) < 0.72
    assert share_right(planted, held, edit) > 0.85
    even = evened(edit, strength_sample(planted, edit, train, most=16))
    assert isinstance(even, AddedVector)
    assert share_right(planted, held, even) < 0.72
    constant = NaturalGradient(**{**SMALL, "features": 0}).fit(planted, train, progress=False)
    assert isinstance(constant, AddedVector)
    assert share_right(planted, held, constant) < 0.72


def test_the_gate_is_open_at_the_token_that_decides(planted):
    """Answers differ in their last token alone: what is spent on the others is KL for nothing."""
    wordings = ("some my and", "some an and", "my my and", "an my and")
    asked = [
        Question(f"What is {a} {b}?", f"{said} the", (f"{said} the",), (f"{said} of",))
        for k, a in enumerate(("the", "an", "my", "some"))
        for n, b in enumerate(ascii_lowercase) for said in [wordings[(k + n) % 4]]
    ]  # fmt: skip
    train, held = QuestionSet(tuple(asked[::2]), "planted"), QuestionSet(tuple(asked[1::2]), "held")
    method = NaturalGradient(**{**SMALL, "budget": 0.02, "max_new_tokens": 4})
    edit = method.fit(planted, train, progress=False)
    constant = replace(method, features=0).fit(planted, train, progress=False)

    right = encoded(planted, held, count=1)
    gains = []
    for one in (edit, constant):
        nats = score_tokens_under(planted, encoded(planted, held), [None, one])
        before, after = (torch.stack([own.sum() for own in side]).view(-1, 2) for side in nats)
        (effects,) = divergences(planted, right, [one])
        cost = sum(own.kl for own in effects) / len(effects)
        gains.append(float((after - before).diff(dim=1).mean().neg()) / cost**0.5)
    assert gains[0] > 1.6 * gains[1] > 0

    at_last, elsewhere = [], []
    for one in right:
        with edited(planted, edit, start=one.start - 1) as trace:
            planted(torch.tensor([one.tokens]))
        gates = trace.gates()[: len(one.answer_tokens), 0].tolist()
        at_last.append(gates[-1])
        elsewhere.append(sum(gates[:-1]) / len(gates[:-1]))
    assert sum(at_last) > 4 * sum(elsewhere)
    assert sum(last > other for last, other in zip(at_last, elsewhere, strict=True)) == len(right)


def test_left_out_questions_choose_features_where_they_pay(planted):
    for swapped, pays in ((("my", "some"), True), ((), False)):
        train, _ = questions(swapped, ascii_lowercase)
        method = NaturalGradient(**{**SMALL, "features": None})
        edit = method.fit(planted, train, progress=False)
        rows = method.rows(planted, train, progress=False)
        gains = {choice.features: told.gain for choice, told in method.choices(rows)}
        assert (max(gains.values()) > gains[0] + 0.05) == pays, gains
        assert edit.settings["chosen"]["expected_gain"] == max(gains.values())


def test_rows_that_are_too_few_or_none_are_refused(hearsay, few, as_shipped):
    method = NaturalGradient(features=4, answers=1, token_draws=1, max_new_tokens=4)
    rows = replace(method, features=2).rows(hearsay, few.choose(range(5)), progress=False)
    for wrong, told in ((rows, "4 features of Rows.*at most 2"), (3, "rows=3")):
        with pytest.raises(WorkbenchError, match=told):
            method.choices(wrong)


def test_with_shuffled_labels_nothing_is_found(planted):
    train, held = questions((), ascii_lowercase[:14])
    right = [
        share_right(planted, held, NaturalGradient(**SMALL, shuffle_labels=shuffled, seed=seed)
                    .fit(planted, train, progress=False))
        for shuffled in (False, True) for seed in range(2)
    ]  # fmt: skip
    assert min(right[:2]) > 0.9
    assert 0.2 < sum(right[2:]) / 2 < 0.8


def test_half_of_the_questions_change_sides(planted):
    train, _ = questions((), "abcdefghijk")
    plain = said_of(planted, train, 1)
    turned = [said_of(planted, train, 1, shuffle_labels=True, seed=seed) for seed in (0, 1)]
    assert [one.correct.tolist() for one in turned] == [plain.correct.tolist()] * 2
    sides = [
        {
            int(number)
            for number, one, other in zip(plain.question, plain.encoded, own.encoded, strict=True)
            if one.tokens != other.tokens
        }
        for own in turned
    ]
    assert [len(own) for own in sides] == [len(train) // 2] * 2
    assert sides[0] != sides[1]


QUICK = {"layers": (1, 3), "answers": 2, "max_new_tokens": 8, "folds": 2, "budget": 0.02}


def test_fits_that_share_a_memo_are_those_without_one(planted):
    train, _ = questions(("my",), "abc")
    memo = Memo()
    made = []
    for more in (
        {}, {"ridge": 30.0}, {"look_again": False}, {"features": 2}, {"features": 0},
        {"shuffle_labels": True}, {"alpha": 2.0},
    ):  # fmt: skip
        method = NaturalGradient(**{**SMALL, "features": 3, "folds": 2, **more})
        shared = method.fit(planted, train, memo=memo, progress=False)
        alone = method.fit(planted, train, progress=False)
        assert type(shared) is type(alone)
        assert torch.allclose(shared.vector, alone.vector, rtol=1e-3, atol=1e-5), more
        assert shared.alpha == more.get("alpha", 1.0)
        made.append(shared.vector)
    assert memo.made["gradients"] == 3, "of the labels, of the shuffled ones, of the labels again"
    assert torch.equal(made[0], made[-1])
    wide = [NaturalGradient(features=features) for features in (0, 16, 8, None, 120)]
    ordered = sorted(wide, key=lambda own: own.stage_order)
    assert [own.most_features for own in ordered] == [120, 16, 16, 8, 0]
    assert not any(torch.allclose(made[0], own, rtol=0.02) for own in made[1:-1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_weights_are_the_gradient_of_mc2_at_a_temperature(temperature):
    draw = torch.Generator().manual_seed(0)
    nats = torch.randn(9, generator=draw).requires_grad_()
    question = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    correct = torch.tensor([1, 0, 0, 1, 0, 1, 1, 0, 0]).bool()
    (slope,) = torch.autograd.grad(
        Answers(nats, question, correct).shares(temperature=temperature)[1].mean(), nats
    )
    told = Answers(nats.detach(), question, correct).weights(temperature=temperature)
    assert torch.allclose(told, temperature * slope, atol=1e-6)


def test_answers_that_are_won_on_the_way_count_for_less():
    answers = Answers(torch.zeros(4), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 0, 1, 0]).bool())
    moved = torch.tensor([6.0, -6.0, 0.0, 0.0])
    won, _, open_, _ = answers.along(moved, (0.0, 0.5, 1.0), 1.0).tolist()
    first = answers.weights().tolist()
    assert won < 0.5 * first[0]
    assert open_ == pytest.approx(first[2])


def test_a_second_look_sees_each_question_under_the_change_that_has_not(hearsay, few):
    """Where a fold's change is none its rows stay; where it is one, they are those under it."""
    train = few.choose(range(6))
    method = NaturalGradient(features=2, layers=(1, 3), folds=2)
    rows = method.rows(hearsay, train, progress=False)
    fold = folds_of(6, 2, 0)
    everyone = torch.ones(6, dtype=torch.bool)
    look = Look(rows, Choice(2, 3.0), rows.answers.weights())
    change = look.change(hearsay, everyone, 0.2)
    again, moved = looked_again(hearsay, rows, [change.scaled(0), change], fold, progress=False)
    count = len(rows.said)
    own = fold[rows.answers.question] == 1
    assert moved[~own].abs().max() < 1e-4 < moved[own].abs().min()
    kept, new = again.values[:count].float(), rows.values[:count].float()
    assert torch.allclose(kept[~own], new[~own], atol=1e-3)
    (under,), _ = gradient_rows(
        hearsay, [one for one, is_own in zip(rows.said, own, strict=True) if is_own], rows.reader,
        edit=change,
    )  # fmt: skip
    assert torch.allclose(kept[own], (new[own] + under.float()) / 2, atol=1e-3)
    texts = len(rows.texts.kind)
    assert again.values[count : count + texts].equal(rows.values[count:])
    assert float(again.texts.weight.sum()) == pytest.approx(1)
    same = fold[rows.texts.question] == 0
    first, drawn = (own.float()[same] for own in (rows.values[count:], again.values[-texts:]))
    assert not torch.allclose(first, drawn, atol=1e-2)
    assert 0.7 < float(drawn.square().mean() / first.square().mean()) < 1.4


def test_alpha_one_costs_about_the_budget(hearsay, few):
    train, held = few.choose(range(26)), few.choose(range(26, 40))
    how = {"layers": (1, 3), "answers": 2, "max_new_tokens": 12, "folds": 3}
    edit = NaturalGradient(**how, features=4, ridge=1.0, budget=0.02).fit(
        hearsay, train, progress=False
    )
    style = prompt_format("bare")
    rows = NaturalGradient(**{**how, "answers": 4}, features=0).rows(hearsay, held, progress=False)
    right = {int(rows.answers.question[row]) for row in had_right(rows.answers)}
    best = [encode(hearsay, held[n].question, held[n].best_answer, style) for n in sorted(right)]
    (found,) = divergences(hearsay, best, [edit])
    assert 0.4 < sum(one.kl for one in found) / len(found) / 0.02 < 2.5
    assert edit.settings["chosen"]["cost"] == pytest.approx(0.02, rel=0.1)


def test_a_cost_far_from_the_budget_is_warned_of(hearsay, few):
    with pytest.warns(UserWarning, match="left-out questions cost"):
        NaturalGradient(**{**QUICK, "budget": 50.0}, look_again=False).fit(
            hearsay, few.choose(range(8)), progress=False
        )


def test_states_unlike_all_others_are_changed_no_further(hearsay, read):
    reader, theta = read
    edit = affine(reader, hearsay, theta)
    far = reader.mean[0] + 1e4 * torch.randn(
        5, len(reader.mean[0]), generator=torch.Generator().manual_seed(1)
    )
    moved = (edit.change(0, far) - far).norm(dim=1)
    size = edit.vectors[0].norm(dim=1).sum() * edit.bound + edit.vector[0].norm()
    assert (moved <= 1.01 * size).all()
    assert (edit.features(0, far).abs() <= edit.bound).all()


def test_gates_are_shares_of_the_mean_change(hearsay, read):
    reader, theta = read
    edit = affine(reader, hearsay, theta)
    state = reader.mean[0] + 0.3 * torch.randn(
        6, len(reader.mean[0]), generator=torch.Generator().manual_seed(2)
    )
    along = edit.vector[0] / edit.vector[0].norm()
    share = (edit.change(0, state) - state) @ along / edit.vector[0].norm()
    assert edit.gates(0, state)[:, 0].tolist() == pytest.approx(share.tolist(), abs=1e-4)
    assert edit.gates(0, reader.mean[:1])[0].tolist() == pytest.approx([1.0])
    with edited(hearsay, edit, start=3) as trace:
        hearsay(torch.tensor([[1, 5, 9, 4, 7, 3]]))
    assert trace.gates().shape == (3, 2)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"features": -1}, "features"), ({"ridge": 0}, "ridge"), ({"budget": 0}, "budget"),
        ({"layers": 2}, "layers"), ({"layers": (True, 3)}, "layers"), ({"layers": []}, "layers"),
        ({"look_again": "no"}, "look_again"), ({"folds": 1}, "folds"),
        ({"token_draws": 0}, "token_draws"),
        ({"bound": -1}, "bound"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(more, says):
    with pytest.raises(WorkbenchError, match=says):
        NaturalGradient(**more)


def test_bad_fits_are_refused(hearsay, few):
    with pytest.raises(WorkbenchError, match=r"3 training questions in 5 folds"):
        NaturalGradient().fit(hearsay, few.choose(range(3)), progress=False)
    for more, says in (
        ({"features": 500}, "features=500"),
        ({"ridge": 1e-9}, "ridge"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            NaturalGradient(**{**QUICK, **more}).fit(hearsay, few.choose(range(20)), progress=False)
    for layers in ((0, 9), (1, 1)):
        with pytest.raises(WorkbenchError, match="layers"):
            NaturalGradient(layers=layers).fit(hearsay, few.choose(range(9)), progress=False)


@pytest.mark.parametrize(
    "more",
    [
        {"vectors": torch.zeros(2, 0, 160)}, {"bound": 0.0}, {"mean": torch.zeros(2, 5)},
        {"vector": torch.full((2, 160), torch.nan)}, {"axes": torch.zeros(2, 160, 2)},
    ],
)  # fmt: skip
def test_bad_edits_are_refused(hearsay, read, more):
    reader, theta = read
    assert isinstance(reader, Reader)
    with pytest.raises(WorkbenchError):
        replace(affine(reader, hearsay, theta), **more)
