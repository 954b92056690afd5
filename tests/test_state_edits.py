"""Edits of whole states, positions, thresholds and drawn strengths."""

from dataclasses import asdict, dataclass, replace

import pytest
import torch

from tests.architectures import CONFIGS, hf_model, tokenizer
from tests.by_hand import logits_of
from tests.edits import drawn_edit, random_edit
from workbench import storage
from workbench.editing.attaching import edited
from workbench.editing.drawn_strengths import DrawnHeads, tickets_of
from workbench.editing.generation import generate
from workbench.editing.interventions import Positions, kinds_of_edits
from workbench.editing.row_edits import RowEdits
from workbench.editing.state_edits import StateEdit
from workbench.editing.token_scores import score_tokens_under
from workbench.errors import WorkbenchError
from workbench.methods.older_edits import BEFORE
from workbench.methods.registry import METHODS
from workbench.methods.saved import load_edit
from workbench.models.identity import identify, shape_of
from workbench.models.loading import load_model
from workbench.models.passes import NAMES, attached, forward
from workbench.models.positions import clock
from workbench.models.prompts import encode
from workbench.models.tokens import pad, tokenize

PROMPTS = (
    "Q: What is the capital of Australia?\nA:",
    "Q: Who wrote Frankenstein?\nA: It was",
    "A:",
)


@dataclass(frozen=True, repr=False, kw_only=True)
class Bend(StateEdit):
    """Not linear, and another one at every place."""

    by: torch.Tensor

    def change(self, number, state):
        return state + self.alpha * (state * self.by[number]).tanh()


def bend(model, places, alpha=0.5, **changes):
    draw = torch.Generator().manual_seed(len(places))
    by = torch.randn(len(places), 1, generator=draw)
    return Bend(places=places, by=by, alpha=alpha, model=identify(model), **changes)


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return load_model(hf_model(request.param), tokenizer(bos=request.param != "qwen2"))


@pytest.mark.parametrize("point", NAMES)
def test_a_place_is_the_same_tensor_at_both_sites(model, point):
    """Read and changed there: TransformerLens' hook point and the module's own hook agree."""
    tokens, mask = pad(model, [tokenize(model, p)[0] for p in PROMPTS])
    layer = 2 if point == "final_norm" else 1
    seen, found = {}, {}
    for site in ("hook_point", "module"):

        def change(state, site=site):
            seen[site] = state.detach().clone()
            return state * 1.3 + 0.1

        with attached(model, {(point, layer): change}, site):
            found[site] = logits_of(model, tokens, mask)
    real = mask.bool()
    assert torch.allclose(seen["hook_point"][real], seen["module"][real], atol=1e-4)
    assert torch.allclose(found["hook_point"][real], found["module"][real], atol=1e-3)
    plain = logits_of(model, tokens, mask)
    assert (found["module"] - plain)[real].abs().max() > 1e-3


@pytest.mark.parametrize("point", ["z", "mlp_out", "resid_post", "final_norm"])
def test_states_are_edited_alike_cached_uncached_alone_and_by_teacher_forcing(model, point):
    edit = bend(model, ((point, 2),))
    ways = {
        "cached": generate(model, PROMPTS, edit=edit, max_new_tokens=6, stop=()),
        "uncached": generate(model, PROMPTS, edit=edit, max_new_tokens=6, stop=(), use_cache=False),
        "alone": [generate(model, p, edit=edit, max_new_tokens=6, stop=())[0] for p in PROMPTS],
        "hook point": generate(
            model, PROMPTS, edit=edit, max_new_tokens=6, stop=(), site="hook_point"
        ),
    }
    wanted = ways.pop("cached")
    for found in ways.values():
        for a, b in zip(wanted, found, strict=True):
            assert a.tokens == b.tokens
            assert torch.allclose(a.log_probabilities, b.log_probabilities, atol=1e-4)
    for written in wanted:
        whole = torch.tensor([written.prompt_tokens + written.tokens])
        begin = len(written.prompt_tokens)
        with edited(model, edit, start=begin - 1):
            nats = logits_of(model, whole, torch.ones_like(whole)).log_softmax(-1)
        seen = nats[0, begin - 1 : -1].gather(1, whole[0, begin:, None])[:, 0]
        assert torch.allclose(seen, written.log_probabilities, atol=1e-4)
    plain = generate(model, PROMPTS, max_new_tokens=6, stop=())
    moved = [
        (a.log_probabilities[0] - b.log_probabilities[0]).abs()
        for a, b in zip(plain, wanted, strict=True)
    ]
    assert max(moved) > 1e-3


def test_rows_with_edits_of_several_kinds_equal_separate_edits(model):
    edits = [
        random_edit(model),
        None,
        bend(model, (("z", 1), ("resid_post", 0), ("mlp_out", 2))),
        bend(model, (("resid_post", 0),), positions=Positions(first=1, every=2)),
        random_edit(model, seed=4, positions=Positions(every=3)),
        random_edit(model, seed=5, threshold=torch.tensor([0.2, 0.5, 0.6, 0.4])),
        drawn_edit(model, torch.rand(7, 4), seed=6),
    ]
    row = tokenize(model, PROMPTS[0])[0]
    order = torch.tensor([6, 3, 1, 0, 2, 5, 4, 2, 6])
    starts = torch.tensor([4, 5, 6, 7, 0, 3, 1, 2, 0])
    tokens = torch.tensor([row] * len(order))
    for site in ("hook_point", "module"):
        rows = RowEdits(model, edits).attached(order, site)
        with rows, clock(model).starting_at(starts):
            together = logits_of(model, tokens, torch.ones_like(tokens))
        for number, start, logits in zip(order.tolist(), starts, together, strict=True):
            with edited(model, edits[number], start=int(start), site=site):
                alone = logits_of(model, tokens[:1], torch.ones_like(tokens[:1]))
            assert torch.allclose(logits, alone[0], atol=1e-4)


def test_a_trace_counts_sequences_in_which_nothing_is_edited(hearsay, few):
    """An answer that ends before the first edited position, alone in its batch or not."""
    encoded = [encode(hearsay, few[0].question, text) for text in (" a b c d e", " a", " a b c d")]
    lengths = [len(one.answer_tokens) for one in encoded]
    assert lengths[1] <= 3 < lengths[2] < lengths[0]
    edit = bend(hearsay, (("resid_post", 2),), positions=Positions(first=3))
    for batch_size in (1, 3):
        with edited(hearsay, edit) as trace:
            score_tokens_under(
                hearsay, encoded, [None], starts=[[e.start - 1 for e in encoded]],
                batch_size=batch_size,
            )  # fmt: skip
        assert len(trace) == 3
        by_length = sorted(lengths, reverse=True)  # as rows are run, without the last token
        assert [len(own.position) for own in trace] == [max(0, n - 3) for n in by_length]


@pytest.mark.slow
def test_scores_do_not_depend_on_batches(hearsay, few):
    encoded = [encode(hearsay, q.question, a) for q in few.choose(range(4)) for a in q.answers]
    edits = [
        bend(hearsay, (("resid_post", 2), ("mlp_out", 3))),
        drawn_edit(hearsay, torch.rand(31, 4) + 1),
        random_edit(hearsay, threshold=torch.full((4,), 0.5)),
        random_edit(hearsay, positions=Positions(first=1, every=2)),
    ]
    together = score_tokens_under(hearsay, encoded, edits, batch_size=64)
    for edit, found in zip(edits, together, strict=True):
        (alone,) = score_tokens_under(hearsay, encoded, [edit], batch_size=1)
        for a, b in zip(alone, found, strict=True):
            assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("positions", "wanted"),
    [
        (Positions(), [3, 4, 5, 6, 7, 8]),
        (Positions(first=1), [4, 5, 6, 7, 8]),
        (Positions(every=2), [3, 5, 7]),
        (Positions(first=2, every=3), [5, 8]),
        (Positions(first=9), []),
    ],
)
def test_positions_are_counted_from_the_last_prompt_token(hearsay, positions, wanted):
    tokens = torch.arange(20, 29)[None]
    seen = {}
    for edit in (
        random_edit(hearsay, heads=((1, 2),), positions=positions),
        bend(hearsay, (("z", 1),), positions=positions),
    ):
        states = []
        look = {("z", 1): lambda z, states=states: states.append(z[0].clone())}
        with attached(hearsay, look):
            forward(hearsay, tokens, torch.ones_like(tokens))
        with edited(hearsay, edit, start=3, record=False), attached(hearsay, look):
            forward(hearsay, tokens, torch.ones_like(tokens))
        moved = (states[1] - states[0]).flatten(1).norm(dim=1)
        seen[type(edit)] = moved.nonzero().flatten().tolist()
        assert seen[type(edit)] == wanted
    with pytest.raises(WorkbenchError, match="every=0"):
        Positions(every=0)


def test_a_threshold_edits_the_riskier_positions_alone(hearsay):
    edit = random_edit(hearsay, threshold=torch.tensor([0.0, 0.5, 0.7, 1.1]))
    with edited(hearsay, edit) as trace:
        generate(hearsay, PROMPTS[0], max_new_tokens=20, stop=())
    for row, (layer, head) in enumerate(edit.heads):
        risky = trace.misalignment[:, layer, head] >= edit.threshold[row]
        assert torch.equal(trace.change[:, layer, head] != 0, risky)
    shares = [(trace.change[:, layer, head] != 0).float().mean() for layer, head in edit.heads]
    assert shares[0] == 1
    assert shares[3] == 0


def test_drawn_strengths_are_rows_of_the_table_and_depend_on_the_text_alone(hearsay):
    table = torch.rand(50, 4) + 1
    edit = drawn_edit(hearsay, table)
    found = []
    for prompts in (PROMPTS[:1], PROMPTS):
        with edited(hearsay, edit) as trace:
            generate(hearsay, prompts, max_new_tokens=12, stop=())
        found.append(trace[0])
    assert found[0].strings == found[1].strings
    assert torch.equal(found[0].strengths.nan_to_num(), found[1].strengths.nan_to_num())
    layer, head = torch.tensor(edit.heads).unbind(1)
    rows = found[0].strengths[:, layer, head]
    which = torch.stack([(table - row).abs().amax(dim=1).argmin() for row in rows])
    assert torch.allclose(table[which], rows)
    assert len(which.unique()) > 6


def test_strengths_to_draw_from_have_a_column_a_head(hearsay, as_shipped):
    for table in (torch.ones(50, 3), torch.ones(0, 4)):
        with pytest.raises(WorkbenchError, match="an edit's strengths"):
            drawn_edit(hearsay, table)


def test_tickets_are_spread_evenly():
    tokens, positions = torch.meshgrid(torch.arange(200), torch.arange(50), indexing="ij")
    counts = torch.bincount((tickets_of(tokens, positions) % 64).flatten(), minlength=64)
    expected = 200 * 50 / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 120  # chi square of 63 degrees


def test_the_trace_tells_how_far_states_moved(hearsay):
    edit = bend(hearsay, (("z", 1), ("mlp_out", 1), ("resid_post", 3)))
    tokens = torch.tensor([tokenize(hearsay, PROMPTS[0])[0]])
    seen = {}

    def look(place):
        return lambda state: seen.setdefault(place, []).append(state[0].clone())

    def watched():
        return attached(hearsay, {place: look(place) for place in edit.places})

    with edited(hearsay, edit, start=4) as trace, watched():
        forward(hearsay, tokens, torch.ones_like(tokens))
    with watched(), edited(hearsay, edit, start=4, record=False):
        forward(hearsay, tokens, torch.ones_like(tokens))
    moved = {
        place: (after - before).flatten(1).norm(dim=1)[4:]
        for place, (after, before) in seen.items()
    }
    assert torch.allclose(trace.moved[:, 1], moved["z", 1].hypot(moved["mlp_out", 1]), atol=1e-4)
    assert torch.allclose(trace.moved[:, 3], moved["resid_post", 3], atol=1e-4)
    assert trace.moved[:, [0, 2, 4]].isnan().all()
    assert trace.strengths.isnan().all()
    with edited(hearsay, random_edit(hearsay)) as trace:
        generate(hearsay, PROMPTS, max_new_tokens=5, stop=(), use_cache=False)
    wanted = trace[0].change.nan_to_num().norm(dim=-1)[:, :3]
    assert torch.allclose(trace[0].moved[:, :3], wanted, atol=1e-5)


def test_saved_and_loaded_it_is_the_same_edit(hearsay, tmp_path):
    edit = bend(
        hearsay, (("z", 1), ("resid_post", 3)), positions=Positions(1, 2), settings={"a": [1, 2]}
    )
    found = load_edit(edit.save(tmp_path / "a"), hearsay)
    assert type(found) is Bend
    assert (found.places, found.positions, found.alpha) == (edit.places, edit.positions, edit.alpha)
    assert torch.equal(found.by, edit.by)
    record = (tmp_path / "a" / "edit.json").read_text()
    (tmp_path / "a" / "edit.json").write_text(record.replace("test_state_edits:Bend", "os:path"))
    with pytest.raises(WorkbenchError, match=r"of the kind '.*os:path'"):
        load_edit(tmp_path / "a")
    heads = drawn_edit(hearsay, torch.rand(9, 4) + 1, threshold=torch.rand(4))
    again = load_edit(heads.save(tmp_path / "b"), hearsay)
    assert torch.equal(again.strengths, heads.strengths)
    assert torch.equal(again.threshold, heads.threshold)
    assert load_edit(random_edit(hearsay).save(tmp_path / "c")).threshold is None


def saved_before(folder, edit, strength, strengths=None, kind="heads"):
    """An edit of heads as format 2 wrote it: no parts, and drawn strengths a kind of strength."""
    tensors = {
        "direction": edit.direction,
        "spread": edit.spread,
        "coefficient": edit.estimators.coefficient,
        "intercept": edit.estimators.intercept,
        "threshold": edit.threshold,
        "strengths": strengths,
    }
    held = {name: value for name, value in tensors.items() if value is not None}
    file = storage.write_tensors(folder / "edit.safetensors", held)
    record = {
        "format": 2,
        "kind": kind,
        "tensors": storage.fingerprint(file),
        "heads": edit.heads,
        "alpha": edit.alpha,
        "beta": 0.3,
        "strength": strength,
        "uncertainty": "amplified",
        "answer_start": "plus_three",
        "goals": [],
        **{name: None for name in ("threshold", "strengths") if name not in held},
        "model": asdict(edit.model),
        "positions": {"first": 1, "every": 2},
        "settings": {"method": "tae"},
    }
    storage.write_json(folder / "edit.json", record)
    return folder


@pytest.mark.parametrize("threshold", [None, torch.tensor([0.1, 0.4, 0.5, 0.6])])
@pytest.mark.parametrize("strength", ["adaptive", "misalignment", "uncertainty", "constant"])
def test_edits_of_format_2_load_to_the_same_results(hearsay, tmp_path, strength, threshold):
    placed = {"positions": Positions(1, 2), "answer_start": "plus_three"}
    edit = random_edit(
        hearsay, strength=strength, beta=0.3, uncertainty="amplified", threshold=threshold,
        settings={"method": "tae"}, **placed,
    )  # fmt: skip
    found = load_edit(saved_before(tmp_path, edit, strength, kind="workbench.edits.Edit"), hearsay)
    assert found.strength == edit.strength
    assert (found.positions, found.answer_start) == (edit.positions, edit.answer_start)
    assert found.tensors().keys() == edit.tensors().keys()
    assert all(torch.equal(found.tensors()[name], edit.tensors()[name]) for name in edit.tensors())
    one, other = (
        generate(hearsay, PROMPTS, edit=made, max_new_tokens=6, stop=()) for made in (edit, found)
    )
    assert all(torch.equal(a.log_probabilities, b.log_probabilities)
               for a, b in zip(one, other, strict=True))  # fmt: skip


def test_drawn_strengths_of_format_2_are_a_kind_of_their_own(hearsay, tmp_path):
    threshold, table = torch.tensor([0.1, 0.4, 0.5, 0.6]), torch.rand(9, 4) + 1
    edit = drawn_edit(hearsay, table, threshold=threshold, positions=Positions(1, 2))
    found = load_edit(saved_before(tmp_path, edit, "resampled", table), hearsay)
    assert type(found) is DrawnHeads
    assert all(torch.equal(found.tensors()[name], edit.tensors()[name]) for name in edit.tensors())
    one, other = (
        generate(hearsay, PROMPTS, edit=made, max_new_tokens=6, stop=()) for made in (edit, found)
    )
    assert [a.tokens for a in one] == [b.tokens for b in other]
    (tmp_path / "edit.json").write_text(
        (tmp_path / "edit.json").read_text().replace('"beta"', '"gamma"')
    )
    with pytest.raises(WorkbenchError, match="lack 'beta'"):
        load_edit(tmp_path)


NEWER = ("affine_change", "gated", "conditional", "doubted_heads", "foreword", "low_rank")
"""Kinds that were never saved under the name of a file."""


def test_kinds_saved_under_the_names_of_files_still_load():
    assert METHODS  # whose modules define the other kinds
    short = {kind for kind in kinds_of_edits() if ":" not in kind}
    assert {*BEFORE.values(), "drawn_heads", *NEWER} == short


def test_places_that_are_none_are_refused(hearsay):
    layers = shape_of(hearsay).layers
    for places in ((("z", layers),), (("nowhere", 0),), (), (("z", 1), ("z", 1))):
        with pytest.raises(WorkbenchError, match="an edit at"):
            bend(hearsay, places)
    with pytest.raises(WorkbenchError, match="the place 'mlp_out' of layer 9"):
        attached(hearsay, {("mlp_out", 9): print}).__enter__()
    edit = bend(hearsay, (("z", 1),))
    with pytest.raises(WorkbenchError, match="alpha=nan"):
        replace(edit, alpha=float("nan"))


def test_an_edit_of_the_final_norm_is_not_read_through_by_another_s_uncertainty(hearsay, few):
    """All kinds of edits in one batch of rows score as each by itself."""
    encoded = [encode(hearsay, q.question, a) for q in few.choose(range(3)) for a in q.answers]
    edits = [random_edit(hearsay), bend(hearsay, (("final_norm", 4),)), None]
    together = score_tokens_under(hearsay, encoded, edits)
    for edit, found in zip(edits, together, strict=True):
        (alone,) = score_tokens_under(hearsay, encoded, [edit])
        for a, b in zip(alone, found, strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_another_edit_is_not_overwritten_unless_it_is_said(hearsay, tmp_path):
    edit = random_edit(hearsay)
    edit.save(tmp_path)
    edit.save(tmp_path)  # the same
    with pytest.raises(WorkbenchError, match="holds another edit"):
        edit.scaled(9.0).save(tmp_path)
    assert load_edit(tmp_path, hearsay).alpha == edit.alpha
    edit.scaled(9.0).save(tmp_path, overwrite=True)
    assert load_edit(tmp_path, hearsay).alpha == 9.0
