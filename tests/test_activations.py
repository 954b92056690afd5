import pytest
import torch

from workbench import activations as module
from workbench.activations import capture, capture_unlabelled
from workbench.aggregation import aggregate, aggregate_tokens
from workbench.errors import WorkbenchError
from workbench.models import vocabulary_logits
from workbench.prompts import encode
from workbench.token_graphs import GraphSettings
from workbench.uncertainty import normalised_entropy


@pytest.fixture(scope="module")
def captured(hearsay, few):
    return capture(hearsay, few, progress=False)


def test_every_answer_equals_its_own_single_run(hearsay, few, captured):
    for index in (0, 11, len(captured) - 1):
        answer = captured[index]
        encoded = encode(hearsay, answer.question, answer.answer)
        tokens = torch.tensor([encoded.tokens])
        _, cache = hearsay.run_with_cache(tokens)
        begin = encoded.start - 1
        for layer in range(5):
            assert torch.allclose(answer.z[:, layer], cache["z", layer][0, begin:], atol=1e-5)
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
    assert captured.of_questions([1]) == [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def test_batches_do_not_matter(hearsay, few, captured):
    part = few.choose(range(4))
    small = capture(hearsay, part, batch_size=3, progress=False)
    assert torch.allclose(small.z, captured.z[: len(small.z)], atol=1e-5)


def test_unlabelled_prompts_repeat_by_seed_and_stay_inside_the_set(hearsay, few):
    part = few.choose(range(5))
    one, same, other = (
        capture_unlabelled(hearsay, part, seed=seed, progress=False) for seed in (0, 0, 1)
    )
    assert one.shape[0] == sum(len(q.answers) for q in part)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_no_more_than_one_batch_is_held(hearsay, few, monkeypatch):
    """Counts the elements of all live z tensors that hooks were shown but capture did not keep."""
    import weakref

    alive, most = [], 0
    original = module.attached

    def spying(model, z_hooks, residual_hooks=None, site="hook_z"):
        def wrap(hook):
            def spy(z):
                nonlocal most
                alive.append(weakref.ref(z))
                most = max(most, sum(r() is not None for r in alive))
                return hook(z)

            return spy

        return original(model, {n: wrap(h) for n, h in z_hooks.items()}, residual_hooks, site)

    monkeypatch.setattr(module, "attached", spying)
    capture(hearsay, few.choose(range(12)), batch_size=8, progress=False)
    assert len(alive) >= 5 * 2 * 15
    assert most <= 5


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
