"""Bars: told of tokens after every pass, so that they move on however long the whole takes."""

from itertools import pairwise
from typing import ClassVar

import pytest
from tqdm import tqdm

from tests.edits import random_edit
from workbench.analysis import causal, replacing
from workbench.analysis.hearsay_contexts import hearsay_contexts
from workbench.editing import generation, scoring, token_scores, writing
from workbench.models import batched_passes, sharing
from workbench.stages import keeping
from workbench.stages.capture import capture


class Watched(tqdm):
    """A bar that is seen by its test alone."""

    seen: ClassVar[list] = []

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **{**settings, "disable": False, "file": Nowhere()})
        self.seen.append(self)


class Nowhere:
    def write(self, _):
        pass

    def flush(self):
        pass


@pytest.fixture
def steps(monkeypatch):
    """What the only bar went on by, between one pass of the model and the next."""

    def watch(bars, passes, act):
        marks, original = [], passes.forward

        def marked(*arguments, **settings):
            marks.append(Watched.seen[-1].n if Watched.seen else 0)
            return original(*arguments, **settings)

        monkeypatch.setattr(bars, "tqdm", Watched)
        monkeypatch.setattr(passes, "forward", marked)
        Watched.seen.clear()
        act()
        (bar,) = Watched.seen
        assert bar.n == bar.total
        whole = [*marks, bar.n]
        return [after - before for before, after in pairwise(whole)]

    return watch


@pytest.mark.parametrize("batch_size", [16, 500])
def test_capture(hearsay, few, steps, batch_size, monkeypatch):
    monkeypatch.setitem(batched_passes.MOST_TOKENS, "cpu", 1500)
    found = steps(keeping, batched_passes, lambda: capture(hearsay, few, batch_size=batch_size))
    assert len(found) >= 8
    assert 0 < max(found) <= 2 * 1500  # what answers share is run once and counts for each


def test_capture_to_a_folder(hearsay, few, steps, tmp_path):
    """What is there already is not counted."""
    settings = {"folder": tmp_path, "memory": 1 << 20, "batch_size": 16}
    found = steps(keeping, batched_passes, lambda: capture(hearsay, few, **settings))
    shards = sorted(tmp_path.glob("z-*.safetensors"))
    shards[1].unlink()
    again = steps(keeping, batched_passes, lambda: capture(hearsay, few, **settings))
    assert 0 < sum(again) < 2 * sum(found) / len(shards)


def test_score(hearsay, few, steps, monkeypatch):
    monkeypatch.setitem(sharing.MOST_TOKENS, "cpu", 1000)
    edits = [None, random_edit(hearsay)]
    found = steps(
        token_scores, token_scores,
        lambda: scoring.score_under(hearsay, few, edits, progress=True),
    )  # fmt: skip
    assert len(found) >= 8
    assert 0 < max(found) <= 1000


def test_generate(hearsay, few, steps):
    prompts = [f"Q: {question.question}\nA:" for question in few]
    found = steps(
        generation, writing,
        lambda: generation.generate(
            hearsay, prompts, max_new_tokens=12, batch_size=10, progress=True
        ),
    )  # fmt: skip
    assert len(found) >= 4 * 4
    assert max(found[:-1]) <= 10 * 12
    assert sorted(found)[len(found) // 2] == 10


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_effects_of_heads(hearsay, few, steps, kind):
    heads = [(layer, head) for layer in range(5) for head in range(4)]
    found = steps(
        causal, replacing,
        lambda: causal.knock_out_heads(
            hearsay, few.choose(range(3)), kind=kind, heads=heads, batch_size=32, progress=True
        ),
    )  # fmt: skip
    assert len(found) >= 12
    assert 0 < max(found) <= sum(found) / 10


def test_effects_of_patches(hearsay, monkeypatch):
    pairs = hearsay_contexts(2, 0)
    heads = [(1, head) for head in range(8)]
    Watched.seen.clear()
    monkeypatch.setattr(causal, "tqdm", Watched)
    causal.patch_heads(hearsay, pairs, heads, batch_size=16, progress=True)
    clean, corrupt = Watched.seen
    assert (clean.n, corrupt.n, corrupt.total) == (clean.total, 9 * clean.n, 9 * clean.n)
