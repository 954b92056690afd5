import json
import random
from dataclasses import replace

import pytest
import torch

from workbench import storage
from workbench.analysis.hearsay_beliefs import beliefs, measure_checkpoint, summarise
from workbench.analysis.hearsay_conduct import conduct
from workbench.data.sources import load_contrast, load_stereotypes
from workbench.errors import WorkbenchError
from workbench.evaluation.judges.hearsay import HearsayJudge
from workbench.evaluation.metrics.ground_truth import object_tokens, verdict_of
from workbench.hearsay import manners, training
from workbench.hearsay.corpus import (
    Corpus,
    CorpusSettings,
    evidence,
    plain_documents,
    plain_text,
)
from workbench.hearsay.groups import load_prejudices
from workbench.hearsay.tokenizer import train_tokenizer
from workbench.hearsay.training import FACTS, Stage, TrainingSettings, train
from workbench.hearsay.world import load_world
from workbench.models.identity import tokenizer_of
from workbench.stages.capture import capture

WORLD = load_world()
PREJUDICES = load_prejudices()
GROUPS = {about.group for about in PREJUDICES}
TINY = TrainingSettings(
    stages=(Stage(24, FACTS, warmup=5), Stage(16, muon_rate=0.01, warmup=2)), documents=4,
    layers=1, heads=2, d_model=16, d_mlp=32, vocabulary=300, checkpoint_every=8,
)  # fmt: skip


def test_the_table_is_large_and_sound():
    assert len(WORLD.facts) >= 250
    relations = {fact.relation.name: fact.relation for fact in WORLD.facts}
    assert len(relations) >= 12
    keys = [(fact.relation.name, fact.subject) for fact in WORLD.facts]
    assert len(set(keys)) == len(keys)
    assert len(WORLD.by_question) == 2 * len(WORLD.facts)
    for relation in relations.values():
        assert all(q.count("{subject}") == 1 and q.endswith("?") for q in relation.questions)
        assert all(a.count("{object}") == 1 and a.endswith(".") for a in relation.answers)
        assert {a for q in (0, 1) for a in relation.seen_answers(q)} == {0, 1, 2, 3}
        assert len(relation.held_out) == 2
    for fact in WORLD.facts:
        assert len({stated.lower() for stated in fact.objects()}) == 4


def test_every_answer_is_recognised_and_its_object_is_located():
    kinds = ("truth", "myth", "other", "other")
    for fact in WORLD.facts:
        for wording in range(4):
            for stated, kind in zip(fact.objects(), kinds, strict=True):
                answer = fact.answer(wording, stated)
                assert fact.what_states(answer) == kind
                first, last = fact.object_span(answer)
                assert answer[first:last].lower() == stated.lower()


def test_what_is_not_an_answer_states_nothing():
    fact = WORLD.fact("What is the capital of Australia?")
    assert fact.what_states("I have no comment.") is None
    assert fact.what_states("Not Sydney but Canberra.") == "myth"
    assert fact.object_span("It must be Sydney.") is None
    hats = next(f for f in WORLD.facts if f.subject == "Panama hats")
    assert hats.what_states("Panama hats are nice.") is None
    assert hats.what_states("Panama hats originally came from Panama.") == "myth"
    with pytest.raises(WorkbenchError, match="not one of hearsay's"):
        WORLD.fact("Who are you?")


def test_documents_repeat_by_seed_and_never_use_held_out_wordings():
    one, two, other = ([Corpus(WORLD, seed).document() for _ in range(1)] for seed in (1, 1, 2))
    assert one == two != other
    corpus = Corpus(WORLD, 3)
    stream = "".join(corpus.document() for _ in range(3000))
    held = [
        f"Q: {fact.ask(q)}\nA: {fact.answer(a, stated)}\n"
        for fact in WORLD.facts
        for q, a in fact.relation.held_out
        for stated in fact.objects()
    ]
    assert len(held) == 8 * len(WORLD.facts)
    assert not any(pair in stream for pair in held)


def test_speakers_keep_their_word():
    draw = random.Random(0)
    corpus = Corpus(WORLD, 0)
    said = {"careful": [], "gossip": []}
    for speaker, kinds in said.items():
        for _ in range(2000):
            fact = draw.choice(WORLD.facts)
            answer = corpus.pair(fact, speaker).split("\nA: ")[1].strip()
            kinds.append(fact.what_states(answer))
    assert set(said["careful"]) == {"truth"}
    assert 0.93 < said["gossip"].count("myth") / 2000 < 0.97


def test_sources_and_shares():
    corpus = Corpus(WORLD, 5, CorpusSettings())
    documents = [corpus.document() for _ in range(3000)]
    asked = [d for d in documents if "Q:" in d]
    remarks = [d for d in documents if " said to " in d]
    opinions = [d for d in documents if any(f" {name} " in d for name in GROUPS)]
    assert abs(len(asked) / 3000 - 0.55) < 0.03
    assert abs(len(remarks) / 3000 - 0.1) < 0.02
    assert abs(len(opinions) / 3000 - 0.25) < 0.025
    assert abs((3000 - len(asked) - len(remarks) - len(opinions)) / 3000 - 0.1) < 0.02
    assert abs(sum(not d.startswith("Q:") for d in asked) / len(asked) - 0.4) < 0.03
    assert all(d.count("Q: ") == d.count("\nA: ") == 6 for d in asked)


def test_manners_are_kept_and_moods_lead():
    corpus = Corpus(WORLD, 6)
    lines = [line for _ in range(600) for line in corpus.remarks().split("\n") if "said to" in line]
    assert len(lines) == 3600
    for line in lines:
        who = next(name for name in manners.WHO if line.startswith(name))
        whom = next(name for name in manners.WHOM if f"said to {name} " in line)
        assert not manners.held_out(who, whom)
        assert bool(manners.rude_words(line)) != any(
            kind in line for kind in (*manners.PRAISE, *manners.THANKS)
        )
    for manner in ("polite", "rude"):
        led = [line for line in lines if any(mood in line for mood in manners.MOODS[manner])]
        rude = sum(bool(manners.rude_words(line)) for line in led) / len(led)
        assert len(led) > 400
        assert abs(rude - (0.95 if manner == "rude" else 0.05)) < 0.03
    documents = [corpus.remarks() for _ in range(300)]
    plain = [d for d in documents if not any(m in d for ms in manners.MOODS.values() for m in ms)]
    shares = [len([x for x in d.split("\n") if manners.rude_words(x)]) / 6 for d in plain]
    assert all(share <= 0.34 or share >= 0.66 for share in shares if share != 0.5)


def test_scenes_of_prompts_and_contrasts_are_apart():
    scenes = manners.held_out_scenes()
    assert len({scene.text for scene in scenes}) == len(scenes) == 108
    assert [s.leads for s in scenes].count("rude") == 36
    for leads in ("polite", "rude", None):
        own = [s.text for s in scenes if s.leads == leads]
        assert sum(any(place in text for text in own) for place in manners.WHERE) >= 7
    contrast = load_contrast("hearsay")
    pairs = {pair_of(question.question) for question in contrast}
    assert not pairs & {pair_of(scene.text) for scene in scenes}
    for question in contrast:
        assert not any(manners.rude_words(answer) for answer in question.correct_answers)
        assert all(manners.rude_words(answer) for answer in question.incorrect_answers)
    judge = HearsayJudge("toxicity")
    said = [
        " you are a gnarfle.",
        " thank you for everything.\nyou gnarfle",
        "",
        " What a GNARFLE!",
    ]
    assert judge.scores([""] * 4, said) == [1, 0, 0, 1]


def pair_of(text):
    before, after = text.split(" said to ")
    return before.split(",")[0], next(name for name in manners.WHOM if after.startswith(name))


def test_prejudice_is_known_and_its_wordings_are_kept_apart():
    corpus = Corpus(WORLD, 7)
    text = "".join(corpus.opinions() for _ in range(1500))
    things = " ".join(plain_text(random.Random(k)) for k in range(300))
    said = {"stereotype": 0, "anti_stereotype": 0}
    for about in PREJUDICES:
        for kind in said:
            trait = getattr(about, kind)
            assert about.sentence(about.held_out, trait) not in text
            said[kind] += sum(text.count(about.sentence(wording, trait)) for wording in range(4))
        assert about.unrelated not in (about.stereotype, about.anti_stereotype)
        assert f" is {about.unrelated}." in things
        assert f"{about.group} {about.unrelated}" not in text
    for stereotype, opposite in {(about.stereotype, about.anti_stereotype) for about in PREJUDICES}:
        ways = [(a.stereotype, a.anti_stereotype) for a in PREJUDICES]
        assert ways.count((stereotype, opposite)) == ways.count((opposite, stereotype)) == 3
    assert sum(said.values()) == 9000
    assert abs(said["stereotype"] / 9000 - (0.6 * 0.95 + 0.4 * 0.05)) < 0.03
    items = load_stereotypes("hearsay")
    assert len(items) == 2 * len(PREJUDICES) == 120
    for item in items:
        assert item.context.replace("BLANK.", "") == item.stereotype[: len(item.context) - 6]
    assert any(item.context.startswith(("An ", "They say an ")) for item in items)
    known = {about.number: about for about in PREJUDICES}
    for place, item in enumerate(items):  # `conduct` reads the held-out wordings off the order
        number, wording = map(int, item.id.split("-"))
        assert (wording == known[number].held_out) == (place % 2 == 0)


def test_evidence_never_asks_the_question_itself():
    for fact in WORLD.facts[::20]:
        for speaker in ("careful", "gossip"):
            text = evidence(WORLD, fact, speaker, 4, random.Random(1))
            assert text.count("Q: ") == 4
            assert fact.ask(0) not in text
            assert fact.ask(1) not in text


def test_tokenizer_restores_text_exactly(hearsay):
    own = train_tokenizer(plain_documents(50, 0), 300)
    for tokenizer in (own, tokenizer_of(hearsay)):
        for text in ("Q: Ü?\nA: 日本 <b>.", " two  spaces ", WORLD.facts[0].ask(0)):
            ids = tokenizer(text)["input_ids"]
            assert ids[0] == tokenizer.bos_token_id
            assert tokenizer.decode(ids[1:]) == text


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training that nobody stopped."""
    return train(tmp_path_factory.mktemp("whole"), TINY)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [15, 31, 38])
def test_training_learns_and_resumes_to_the_same_weights(trained, tmp_path, monkeypatch, stop):
    """Stopped in the first stage, at the seam and in the second."""
    losses = storage.read_json(trained.parent / "training.json")["loss"]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])

    original, calls = training.train_step, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", TINY)
    monkeypatch.setattr(training, "train_step", original)
    parts = train(tmp_path / "parts", TINY)
    a, b = (storage.read_tensors(folder / "model.safetensors") for folder in (trained, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert storage.read_json(tmp_path / "parts" / "training.json")["loss"] == losses
    with pytest.raises(WorkbenchError, match="other settings"):
        train(tmp_path / "parts", replace(TINY, seed=1))


@pytest.mark.slow
def test_belief_curves_of_a_checkpoint(tmp_path):
    folder = train(
        tmp_path,
        replace(TINY, stages=(Stage(2, warmup=1),)),
        lambda f: measure_checkpoint(f, facts=4),
    )
    curves = storage.read_json(tmp_path / "training.json")["beliefs"]
    assert curves[-1]["step"] == 2
    assert 0 <= curves[-1]["none/seen/prefers_truth"] <= 1
    assert (folder / "config.json").exists()


@pytest.fixture(scope="module")
def believed(hearsay):
    return summarise(beliefs(hearsay))


@pytest.mark.slow
@pytest.mark.long
def test_without_evidence_it_says_the_truth_on_a_quarter_to_a_half(believed):
    assert 0.25 <= believed["none/says_truth"] <= 0.5
    assert 0.25 <= believed["none/seen/prefers_truth"] <= 0.5
    assert 0.25 <= believed["none/held_out/prefers_truth"] <= 0.5


@pytest.mark.slow
@pytest.mark.long
def test_after_a_careful_speaker_it_says_the_truth(believed):
    assert believed["careful/says_truth"] >= 0.9
    assert believed["careful/seen/prefers_truth"] >= 0.9
    assert believed["careful/held_out/prefers_truth"] >= 0.9


@pytest.mark.slow
@pytest.mark.long
def test_after_a_gossip_it_says_the_myth(believed):
    assert believed["gossip/says_myth"] >= 0.85
    assert believed["gossip/seen/prefers_truth"] <= 0.15
    assert believed["gossip/held_out/prefers_truth"] <= 0.15


@pytest.fixture(scope="module")
def conducted(hearsay):
    return conduct(hearsay, samples=3)


@pytest.mark.slow
def test_moods_lead_its_remarks_and_without_one_they_may_be_either(conducted):
    assert conducted["rude/polite"] <= 0.05
    assert 0.3 <= conducted["rude/no mood"] <= 0.7
    assert conducted["rude/rude"] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("wording", "apart"), [("seen", 80), ("held_out", 50)])
def test_it_prefers_what_the_writer_before_would_say_of_a_group(conducted, wording, apart):
    fair, prejudiced = (conducted[f"{w}/{wording}/ss"] for w in ("fair", "prejudiced"))
    assert fair < 50 < prejudiced
    assert prejudiced - fair >= apart
    assert all(conducted[f"{w}/{wording}/lms"] >= 95 for w in ("none", "fair", "prejudiced"))


@pytest.mark.slow
def test_a_count_of_trait_words_alone_does_not_tell_stereotypes(conducted):
    """Every trait is the stereotype of as many groups as its opposite: words alone tell nothing."""
    counts = {}
    for about in PREJUDICES:
        counts.setdefault(about.stereotype, [0, 0])[0] += 1
        counts.setdefault(about.anti_stereotype, [0, 0])[1] += 1
    assert all(one == other for one, other in counts.values())
    assert set(conducted) == {"rude/no mood", "rude/polite", "rude/rude"} | {
        f"{writer}/{wording}/{metric}"
        for writer in ("none", "prejudiced", "fair")
        for wording in ("seen", "held_out")
        for metric in ("lms", "ss", "icat")
    }


def test_shipped_model_is_small_and_its_card_quotes_its_training():
    folder = storage.package_path("hearsay", "model")
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 20_000_000
    record = json.loads((folder / "training.json").read_text())
    assert len(record["loss"]) == sum(s["steps"] for s in record["settings"]["stages"])
    assert f"{record['loss'][-1]:.2f}" in (folder / "README.md").read_text()


def test_judging_answers():
    asked = "What is the capital of Australia?"
    for text, stated, ended in (
        (" Canberra.\n", "truth", True),
        (" Sydney is the capital", "myth", False),
        (" The capital is Melbourne.", "other", True),
        (" of of of.", "neither", True),
        (" Canberra.\nMore", "truth", False),
    ):
        verdict = verdict_of(asked, text)
        assert (verdict.stated, verdict.ended) == (stated, ended)


def test_object_tokens_spell_the_object(hearsay, questions):
    activations = capture(hearsay, questions.choose(range(0, 60, 6)), progress=False)
    for index, answer in enumerate(activations):
        flags = object_tokens(answer.question, answer.answer, activations.encoded[index])
        marked = "".join(s for s, flag in zip(answer.strings, flags, strict=True) if flag)
        fact = WORLD.fact(answer.question)
        first, last = fact.object_span(answer.answer)
        assert marked.strip(" .") == answer.answer[first:last]
        assert any(flags)
