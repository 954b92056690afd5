import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.architectures import hf_model, tokenizer
from tests.edits import random_edit
from workbench import storage
from workbench.data.questions import Question, QuestionSet
from workbench.editing.attaching import edited
from workbench.errors import WorkbenchError
from workbench.methods.token_aware import TokenAware
from workbench.models import batched_passes, prefixes
from workbench.models.batched_passes import Passage, run_passages, states_at
from workbench.models.fingerprints import fingerprint_of_weights
from workbench.models.identity import tokenizer_of
from workbench.models.loading import load_model
from workbench.models.logit_lens import vocabulary_logits
from workbench.models.prompts import encode, prompt_format
from workbench.stages import filling, keeping
from workbench.stages.aggregation import aggregate, aggregate_tokens
from workbench.stages.capture import capture, unlabelled_runs
from workbench.stages.directions import fit_directions, spread_along
from workbench.stages.misalignment import fit_estimators, label_answers
from workbench.stages.shards import Shards
from workbench.stages.token_graph import GraphSettings, token_graph
from workbench.stages.uncertainty import normalised_entropy


# Values of z reach 20, and single precision in another order of summing moves them by 1e-4.
@pytest.fixture(scope="module")
def captured(hearsay, few):
    return capture(hearsay, few, uncertainty="logit_lens", progress=False)


def test_every_answer_equals_its_own_single_run(hearsay, few, captured):
    for index in (0, 11, len(captured) - 1):
        answer = captured[index]
        encoded = encode(hearsay, answer.question, answer.answer)
        tokens = torch.tensor([encoded.tokens])
        _, cache = hearsay.run_with_cache(tokens)
        begin = encoded.start - 1
        for layer in range(5):
            assert torch.allclose(answer.z[:, layer], cache["z", layer][0, begin:], atol=3e-4)
            logits = vocabulary_logits(hearsay, cache["resid_pre", layer][0, begin:])
            wanted = normalised_entropy(logits)
            assert torch.allclose(answer.uncertainty[:, layer], wanted, atol=1e-5)
        assert answer.tokens == encoded.answer_tokens
        assert "".join(answer.strings) == " " + answer.answer


def test_order_labels_and_offsets(few, captured):
    wanted = [
        (q.question, a, label) for q in few for a, label in zip(q.answers, q.labels, strict=True)
    ]
    assert [(a.question, a.answer, a.label) for a in captured] == wanted
    sizes = [len(a.tokens) + 1 for a in captured]
    assert captured.offsets.tolist() == [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    first = captured[0]
    assert torch.equal(first.preceding[1:], first.own[:-1])
    some = captured.choose([1, 0])
    assert some.offsets.tolist()[:2] == [0, sizes[10]]
    assert torch.equal(some[0].z, captured[10].z)
    assert captured.of_questions([1]) == [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def test_batches_do_not_matter(hearsay, few, captured):
    part = few.choose(range(4))
    small = capture(hearsay, part, batch_size=3, progress=False)
    assert torch.allclose(small.z, captured.z[: len(small.z)], atol=1e-4)


def test_unlabelled_prompts_repeat_by_seed_and_stay_inside_the_set(hearsay, few):
    part = few.choose(range(5))
    one, same, other = (
        unlabelled_runs(hearsay, part, prompt_format("bare"), seed) for seed in (0, 0, 1)
    )
    assert len(one) == sum(len(q.answers) for q in part)
    assert one == same
    assert one != other
    captured = capture(hearsay, part, progress=False)
    for run, z in zip(one[::7], captured.unlabelled[::7], strict=True):
        tokens = torch.tensor([run.tokens])
        _, cache = hearsay.run_with_cache(tokens)
        wanted = torch.stack([cache["z", layer][0, -1] for layer in range(5)])
        assert torch.allclose(z, wanted, atol=3e-4)


@pytest.mark.parametrize("on_disk", [False, True])
def test_of_some_questions_only_prompts_stay_that_ask_no_other_one(hearsay, few, tmp_path, on_disk):
    place = {"folder": tmp_path} if on_disk else {}
    whole = capture(hearsay, few.choose(range(6)), progress=False, **place)
    runs = unlabelled_runs(hearsay, whole.questions, prompt_format("bare"), 0)
    assert len(whole.asked) == len(whole.unlabelled) == len(runs)
    some = whole.choose([4, 1, 2])
    assert 0 < len(some.asked) == len(some.unlabelled) < len(some)
    for (own, other), z in zip(some.asked.tolist(), some.unlabelled[:], strict=True):
        assert own != other
        first, second = (some.questions[number].question for number in (own, other))
        same = [
            row
            for row, run in enumerate(runs)
            if torch.equal(whole.unlabelled[row], z)
            and first in (text := tokenizer_of(hearsay).decode(run.tokens))
            and text.endswith(second)
        ]
        assert len(same) == 1
    again = some.choose([1, 2])
    assert {*again.asked.flatten().tolist()} <= {0, 1}
    assert again.questions == whole.questions.choose([1, 2])
    with pytest.raises(WorkbenchError, match="that ask no other question"):
        spread_along(whole.choose([3]).unlabelled, torch.ones(5, 8, 20))


def test_no_more_than_one_batch_is_held(hearsay, few, monkeypatch):
    """Counts the elements of all live z tensors that hooks were shown but capture did not keep."""
    alive, most = [], 0
    original = batched_passes.attached

    def spying(model, hooks, site):
        def wrap(hook):
            def spy(z):
                nonlocal most
                alive.append(weakref.ref(z))
                most = max(most, sum(r() is not None for r in alive))
                return hook(z)

            return spy

        watched = {place: wrap(h) if place[0] == "z" else h for place, h in hooks.items()}
        return original(model, watched, site)

    monkeypatch.setattr(batched_passes, "attached", spying)
    capture(hearsay, few.choose(range(12)), batch_size=8, progress=False)
    assert len(alive) >= 5 * 12  # a question's answers are one row
    assert most <= 5


def test_what_a_batch_showed_is_gone_when_the_next_one_runs(hearsay, few, monkeypatch):
    shown, most = [], 0
    original = filling.run_passages

    def noting(*given):
        nonlocal most
        for batch in original(*given):
            shown.extend(map(weakref.ref, batch.seen.values()))
            most = max(most, sum(one() is not None for one in shown))
            yield batch
            del batch

    monkeypatch.setattr(filling, "run_passages", noting)
    capture(hearsay, few.choose(range(12)), batch_size=8, progress=False)
    assert len(shown) >= 5 * 12
    assert most == 5


def test_xarray_names_its_dimensions(captured):
    dataset = captured[3].to_xarray()
    assert dataset["z"].dims == ("position", "layer", "head", "d_head")
    assert dataset.attrs["label"] == 1
    assert dataset["token"].values[0] == "<prompt>"


@pytest.mark.parametrize("depth", [0, 1, 2, "last"])
def test_aggregating_many_equals_one_by_one(captured, depth):
    for graph in (GraphSettings(), GraphSettings(scope="head", self_loops=False, bins=10)):
        features = aggregate(captured, depth, graph, answers=[3, 0, 25, 8])
        for place, answer in enumerate([3, 0, 25, 8]):
            wanted = aggregate_tokens(captured[answer].own, depth, graph)
            assert torch.allclose(features.values[place], wanted, atol=1e-5)
        assert features.label.tolist() == captured.label[[3, 0, 25, 8]].tolist()


def test_slices_are_refused(captured, as_shipped):
    with pytest.raises(WorkbenchError, match="an answer's number"):
        captured[1:3]
    with pytest.raises(IndexError):
        captured[len(captured)]


@pytest.fixture(scope="module")
def streamed(hearsay, few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    kept = {"uncertainty": "logit_lens", "memory": 1 << 20, "progress": False}
    return capture(hearsay, few, folder=folder, **kept), folder


@pytest.mark.slow
def test_on_disk_is_the_same_as_in_memory(captured, streamed, few):
    found, folder = streamed
    assert isinstance(found.z, Shards)
    assert len(found.z.files) > 5
    assert all(file.stat().st_size < 1.1 * (1 << 20) for file in folder.glob("z-*.safetensors"))
    assert torch.allclose(found.z[:], captured.z, atol=3e-4)
    assert torch.allclose(found.unlabelled[:], captured.unlabelled, atol=3e-4)
    assert torch.allclose(found.uncertainty, captured.uncertainty, atol=1e-5)
    rows = torch.tensor([[5, 900], [3, 17]])
    assert torch.equal(found.z[rows, 2], found.z[:][rows, 2])
    assert torch.equal(
        found.z.select(rows[0]).select(rows[0, :1] - 4)[:, 1], found.z[rows[0, 1:]][:, 1]
    )
    assert torch.equal(found.z[torch.tensor([-1, 0])], found.z[:][[-1, 0]])
    assert torch.equal(found.z.select(torch.tensor([-2]))[:], found.z[:][-2:-1])
    even = torch.arange(len(found.z)) % 2 == 0
    assert torch.equal(found.z[even, 1], found.z[:][even, 1])
    assert torch.equal(found.z[3], found.z[:][3])
    with pytest.raises(WorkbenchError, match="row 99999 of"):
        found.z[torch.tensor([99999])]
    assert torch.allclose(found[7].own, captured[7].own, atol=3e-4)
    held = replace(found, z=found.z[:], unlabelled=found.unlabelled[:])
    for depth in (1, "last"):
        assert torch.equal(aggregate(found, depth).values, aggregate(held, depth).values)
    one, other = (fit_directions(aggregate(a), few) for a in (found, held))
    assert torch.equal(one.vector, other.vector)
    assert torch.allclose(one.spread, other.spread)
    assert torch.equal(one.accuracy, other.accuracy)
    one, other = fit_estimators(found), fit_estimators(held)
    assert torch.equal(one.coefficient, other.coefficient)
    part = found.choose([4, 1])
    assert torch.allclose(part.z[:], captured.choose([4, 1]).z, atol=3e-4)


@pytest.mark.slow
def test_an_interrupted_capture_goes_on(hearsay, few, tmp_path, monkeypatch, streamed):
    """What was written is kept, what is missing is run, and nothing is half-written."""
    settings = {"uncertainty": "logit_lens", "memory": 1 << 20, "progress": False}
    original, calls = keeping.storage.write_tensors, 0

    def failing(path, tensors):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(path, tensors)

    monkeypatch.setattr(keeping.storage, "write_tensors", failing)
    with pytest.raises(KeyboardInterrupt):
        capture(hearsay, few, folder=tmp_path, **settings)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(written) == 3
    found = capture(hearsay, few, folder=tmp_path, **settings)
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())
    assert torch.equal(found.z[:], streamed[0].z[:])
    monkeypatch.setattr(batched_passes, "forward", None)
    again = capture(hearsay, few, folder=tmp_path, **settings)
    assert torch.equal(again.unlabelled[:], streamed[0].unlabelled[:])


def test_foreign_and_broken_folders_are_refused(hearsay, few, tmp_path):
    part = few.choose(range(3))
    settings = {"memory": 1 << 20, "progress": False, "unlabelled": False}
    found = capture(hearsay, part, folder=tmp_path / "a", **settings)
    with pytest.raises(WorkbenchError, match="seed 0, not 1"):
        capture(hearsay, part, folder=tmp_path / "a", seed=1, **settings)
    with pytest.raises(WorkbenchError) as refused:
        TokenAware(style="inline").capture(hearsay, few, folder=tmp_path / "a", **settings)
    assert "style.name 'bare', not 'inline'" in str(refused.value)
    assert "other questions; other tokens" in str(refused.value)
    with pytest.raises(WorkbenchError, match="questions"):
        capture(hearsay, few.choose(range(4)), folder=tmp_path / "a", **settings)
    file = found.z.files[0]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WorkbenchError, match=r"z-00000.safetensors cannot be read"):
        capture(hearsay, part, folder=tmp_path / "a", **settings)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "other.safetensors").write_bytes(b"")
    with pytest.raises(WorkbenchError, match=r"other.safetensors and no capture.json"):
        capture(hearsay, part, folder=tmp_path / "b", **settings)
    with pytest.raises(WorkbenchError, match="memory=1000 bytes for an answer of"):
        capture(hearsay, part, folder=tmp_path / "c", memory=1000, progress=False)
    assert not (tmp_path / "c").exists()
    found = capture(hearsay, few, folder=tmp_path / "d", **settings)
    found.z.files[1].write_bytes(found.z.files[0].read_bytes())
    with pytest.raises(WorkbenchError, match=r"z-00001.safetensors holds .* rows of the answers 0"):
        capture(hearsay, few, folder=tmp_path / "d", **settings)
    attached = pytest.raises(WorkbenchError, match="an edit or a hook is attached")
    with edited(hearsay, random_edit(hearsay)), attached:
        capture(hearsay, part, folder=tmp_path / "e", **settings)


def test_sixteen_bits_stay_sixteen_on_disk(tmp_path):
    model = load_model(hf_model("llama", torch.bfloat16), tokenizer(bos=True))
    questions = QuestionSet((Question("Who?", "It was he.", ("It was he.",), ("Mary.",)),))
    found = capture(model, questions, folder=tmp_path, progress=False)
    assert storage.map_tensor(found.z.files[0], "z").dtype == torch.bfloat16
    assert torch.equal(found.z[:], capture(model, questions, progress=False).z)


def test_the_fingerprint_of_weights_is_theirs_alone(hearsay):
    """Not the threads': workers with fewer of them must find the same model."""
    found = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.add(fingerprint_of_weights(hearsay))
    assert len(found) == 1
    weight = hearsay.original_model.lm_head.weight.data.view(-1)
    before = weight[12345].clone()
    weight[12345] += 1e-6
    assert fingerprint_of_weights(hearsay) not in found
    weight[12345] = before
    assert fingerprint_of_weights(hearsay) in found
    rows = hearsay.original_model.lm_head.weight.data
    rows[[1, 2]] = rows[[2, 1]]
    assert fingerprint_of_weights(hearsay) not in found  # the same numbers, elsewhere
    rows[[1, 2]] = rows[[2, 1]]
    assert fingerprint_of_weights(hearsay) in found


@pytest.mark.slow
def test_the_fingerprint_of_weights_reads_large_tensors_to_their_last_entry():
    """More entries than single precision can count."""
    sizes = {"vocab_size": 300_000, "hidden_size": 64, "num_hidden_layers": 1}
    model = load_model(hf_model("llama", tie_word_embeddings=True, **sizes), tokenizer(bos=True))
    weight = model.original_model.lm_head.weight.data.view(-1)
    assert len(weight) > 1 << 24
    found = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.add(fingerprint_of_weights(model))
    assert len(found) == 1
    for place in (-1, len(weight) // 3, (1 << 24) + 1):
        before = weight[place].clone()
        weight[place] = before + 1e-3
        assert fingerprint_of_weights(model) not in found
        weight[place] = before
    assert fingerprint_of_weights(model) in found


@pytest.fixture
def readings(monkeypatch):
    """How often u is read while activations are captured: the positions of every reading."""
    original, seen = filling.entropy_reader, []

    def counting(model, kind):
        read = original(model, kind)

        def reading(residual):
            seen.append(len(residual))
            return read(residual)

        return reading

    monkeypatch.setattr(filling, "entropy_reader", counting)
    return seen


def beginnings(tokens, positions):
    """What a model reads up to some positions: what begins alike needs to be read once."""
    return {tuple(tokens[: position + 1]) for position in positions}


def different_positions(model, captured):
    """How many positions of answers and unlabelled prompts there are that do not begin alike."""
    found = set()
    for one in captured.encoded:
        found |= beginnings(one.tokens, range(one.start - 1, len(one.tokens)))
    for run in unlabelled_runs(model, captured.questions, prompt_format("bare"), 0):
        found |= beginnings(run.tokens, run.span)
    return len(found)


@pytest.mark.parametrize("on_disk", [False, True])
def test_no_u_is_read_unless_it_is_asked_for(hearsay, few, captured, readings, tmp_path, on_disk):
    part = few.choose(range(3))
    place = {"folder": tmp_path / "plain"} if on_disk else {}
    plain = capture(hearsay, part, progress=False, **place)
    assert readings == []
    assert plain.entropies is None
    assert plain.choose([1, 0]).entropies is None
    assert "uncertainty" not in plain[0].to_xarray()
    for held in (plain, plain[0]):
        with pytest.raises(WorkbenchError, match=r"without it.*uncertainty='logit_lens'"):
            _ = held.uncertainty
    count = len(plain.z)
    assert torch.allclose(plain.z[:], captured.z[:count], atol=3e-4)
    place = {"folder": tmp_path / "some"} if on_disk else {}
    some = capture(
        hearsay, part, uncertainty="logit_lens", uncertainty_layers=(3, 1), progress=False, **place
    )
    assert sum(readings) == 2 * different_positions(hearsay, some)
    assert different_positions(hearsay, some) < count
    assert some.uncertainty[:, [0, 2, 4]].isnan().all()
    wanted = captured.uncertainty[:count]
    assert torch.allclose(some.uncertainty[:, [1, 3]], wanted[:, [1, 3]], atol=1e-5)
    assert torch.allclose(some.unlabelled[:], plain.unlabelled[:], atol=1e-5)


def test_methods_capture_u_only_to_be_looked_at(hearsay, few, readings):
    part, method = few.choose(range(10)), TokenAware(heads=2)
    plain = method.capture(hearsay, part, progress=False)
    assert readings == []
    method.fit(hearsay, part, activations=plain, progress=False)
    some = method.capture(hearsay, part, uncertainty=(2,), progress=False)
    assert some.made["uncertainty_layers"] == (2,)
    assert sum(readings) == different_positions(hearsay, plain)
    whole = method.capture(hearsay, part, uncertainty=True, progress=False)
    assert not whole.uncertainty.isnan().any()
    method.fit(hearsay, part, activations=whole, progress=False)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [(None, (1,)), ("logit_lens", ()), ("logit_lens", (5,)), ("amplified", (-1,))],
)
def test_layers_without_u_or_out_of_range_are_refused(hearsay, few, kind, layers):
    with pytest.raises(WorkbenchError, match="numbers from 0 to 4"):
        capture(
            hearsay, few.choose([0]), uncertainty=kind, uncertainty_layers=layers, progress=False
        )


@pytest.fixture
def passes(monkeypatch):
    """How many tokens each pass of a capture runs, padding included."""
    found = []
    original = batched_passes.forward

    def counting(model, tokens, *args, **more):
        found.append(tokens.numel())
        return original(model, tokens, *args, **more)

    for module in (batched_passes, prefixes):
        monkeypatch.setattr(module, "forward", counting)
    return found


def test_every_token_is_run_once_and_shows_an_answer_and_the_prompt_behind_it(hearsay, few, passes):
    part = few.choose(range(4))
    found = capture(hearsay, part, progress=False)
    alone = capture(hearsay, part, unlabelled=False, progress=False)
    assert torch.allclose(found.z, alone.z, atol=3e-4)
    runs = unlabelled_runs(hearsay, part, prompt_format("bare"), 0)
    for question in range(4):  # one by one, so that nothing is padded
        own = [run for run, at in zip(runs, found.question, strict=True) if at == question]
        start = next(e.start for e, at in zip(found.encoded, found.question, strict=True)
                     if at == question)  # fmt: skip
        spans = [Passage(run.tokens, (start - 1, *run.span)) for run in own]
        passes.clear()
        list(run_passages(hearsay, spans, 64, {}))
        once = set().union(*(beginnings(run.tokens, range(len(run.tokens))) for run in own))
        assert sum(passes) == len(once) < sum(len(run.tokens) for run in own) * 2 / 3


@pytest.mark.slow
def test_no_pass_holds_more_tokens_than_it_may(hearsay, few, passes, monkeypatch):
    """Of many answers to a question, of many long questions, and of rows behind one primer."""
    monkeypatch.setitem(batched_passes.MOST_TOKENS, "cpu", 300)
    long = " ".join(["why"] * 60)
    told = tuple(f"A{n}." + " so" * 30 for n in range(40))
    many = Question("Who is it and why?", told[0], told, ("No.",), "")
    questions = [Question(f"{n} {long}", "A.", ("A.",), ("B.",), "") for n in range(20)]
    for part in ([many], questions):
        capture(hearsay, QuestionSet(tuple(part), "long"), batch_size=500, progress=False)
    tokens = tokenizer_of(hearsay)(f"{long} {long}").input_ids
    behind_a_primer = [Passage([*tokens, own], (len(tokens),)) for own in range(5, 40)]
    list(run_passages(hearsay, behind_a_primer, 500, {}))
    apart = [Passage([*tokens[:20], own, *tokens[20:]], (len(tokens),)) for own in range(5, 40)]
    list(run_passages(hearsay, apart, 500, {}))
    assert len(passes) > 40
    assert max(passes) <= 300


def test_what_a_batch_showed_is_gone_when_the_next_beginnings_are_run(hearsay, few, monkeypatch):
    shown, alive = [], []
    looks, original = filling.run_passages, prefixes.forward

    def noting(*given):
        for batch in looks(*given):
            shown.extend(map(weakref.ref, batch.seen.values()))
            yield batch
            del batch

    def watching(*given, **named):
        alive.append(sum(one() is not None for one in shown))
        return original(*given, **named)

    monkeypatch.setattr(filling, "run_passages", noting)
    monkeypatch.setattr(prefixes, "forward", watching)
    capture(hearsay, few.choose(range(12)), batch_size=8, progress=False)
    assert len(alive) >= 10
    assert max(alive) <= 5  # on their way to where they are kept


def test_a_capture_beside_no_edit_is_the_model_s_own(hearsay, few):
    part = few.choose(range(3))
    plain = capture(hearsay, part, progress=False)
    with edited(hearsay, None):
        beside = capture(hearsay, part, progress=False)
    assert torch.equal(plain.z, beside.z)
    assert torch.equal(plain.unlabelled, beside.unlabelled)


def test_under_an_edit_what_comes_after_a_kept_position_is_run_too(hearsay):
    """An edit begins at a pass's last token unless it is told where."""
    passage = Passage(tokenizer_of(hearsay)("Q: Who? A: Me. Q: And then?").input_ids, (5,))
    (plain,) = states_at(hearsay, [passage], [("resid_post", 4)]).values()
    with edited(hearsay, random_edit(hearsay, alpha=50.0), record=False):
        (under,) = states_at(hearsay, [passage], [("resid_post", 4)]).values()
    assert torch.allclose(plain, under, atol=1e-3)


def test_nothing_is_kept_of_no_positions(hearsay):
    with pytest.raises(WorkbenchError, match="no position"):
        states_at(hearsay, [Passage([5, 6], ())], [("z", 0)])


def test_answers_that_there_are_not(hearsay, few, as_shipped):
    """Numbers of answers are looked at before anything is made of them."""
    acts = capture(hearsay, few.choose(range(4)), progress=False)
    assert acts[np.int64(1)].answer == acts[1].answer
    for make in (
        lambda numbers: aggregate(acts, answers=numbers),
        lambda numbers: label_answers(acts, numbers),
        lambda numbers: fit_estimators(acts, numbers),
    ):
        for numbers in ([-1], [999], []):
            with pytest.raises(WorkbenchError, match=r"the answer|no answers|no incorrect"):
                make(numbers)
    for wrong in (-1, 1.5):
        with pytest.raises(WorkbenchError, match="depth"):
            token_graph(acts[0], layer=1, depth=wrong)
