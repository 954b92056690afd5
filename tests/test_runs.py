import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.processes import die_writing, ended, forked
from tests.questions import write_questions
from workbench import storage
from workbench.cli import main
from workbench.data.sources import load_contrast, load_prompts, load_questions
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import splits
from workbench.methods.controls import strength_sample
from workbench.runs import loaded_run
from workbench.runs.ablation import Study, read_study
from workbench.runs.description import read_config, with_data, with_methods
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.work import Work

METHODS = {
    "no edit": {"kind": "none"},
    "TAE": {"kind": "tae", "heads": 4, "alpha": [0.5, 1.0]},
    "TAE, reference": {"kind": "tae", "preset": "reference", "answer_start": "offsets", "heads": 4},
    "random": {"kind": "random", "heads": 4, "draws": 2},
    "both": {"kind": "iti", "heads": 4, "fit": ["truthfulness", "harmlessness"]},
}


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    """A run on sixteen of hearsay's questions, and on few samples of its prompts."""
    folder = tmp_path_factory.mktemp("described")
    questions = load_questions("hearsay").choose(range(0, 320, 40))
    write_questions(folder / "questions.jsonl", questions)
    scenes = load_prompts("hearsay").choose(range(0, 100, 20))
    (folder / "prompts.jsonl").write_text("\n".join(
        json.dumps({"prompt": {"text": prompt.text, "toxicity": None}}) for prompt in scenes
    ))  # fmt: skip
    (folder / "contrast.jsonl").write_text("\n".join(
        json.dumps({"prompt": q.question, "positive": q.correct_answers[0],
                    "negative": q.incorrect_answers[0]})
        for q in load_contrast("hearsay").choose(range(8))
    ))  # fmt: skip
    (folder / "run.toml").write_text(
        f"""
        capabilities = ["truthfulness", "harmlessness"]
        against = "no edit"
        texts = 2
        [data]
        truthfulness = "{folder / "questions.jsonl"}"
        [data.harmlessness]
        contrast = "{folder / "contrast.jsonl"}"
        prompts = "{folder / "prompts.jsonl"}"
        [judges.toxicity]
        kind = "hearsay"
        [methods]
        "no edit" = {{ kind = "none" }}
        TAE = {{ kind = "tae", heads = 4, alpha = [0.5, 1.0] }}
        [methods."TAE, reference"]
        kind = "tae"
        preset = "reference"
        answer_start = "offsets"  # three tokens behind a prompt its continuation is over
        heads = 4
        [methods.random]
        kind = "random"
        heads = 4
        draws = 2
        [methods.both]
        kind = "iti"
        heads = 4
        fit = ["truthfulness", "harmlessness"]
        [evaluation.truthfulness]
        max_new_tokens = 16
        [evaluation.harmlessness]
        samples = 2
        max_new_tokens = 8
        """
    )
    return folder / "run.toml"


@pytest.fixture(scope="module")
def whole(hearsay, description, tmp_path_factory):
    """The run, not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return run(read_config(description), folder, model=hearsay, progress=False), folder


def test_a_run_writes_a_table_a_manifest_and_a_summary(whole):
    table, folder = whole
    pd.testing.assert_frame_equal(storage.read_table(folder / "results.parquet"), table)
    assert set(table["capability"]) == {"truthfulness", "harmlessness"}
    assert set(table["method"]) == set(METHODS)
    assert set(table["fold"]) == {0, 1}
    assert len(list((folder / "parts").glob("*.parquet"))) == (2 + 1) * 5
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["results"] == storage.fingerprint(folder / "results.parquet")
    (made_with,) = manifest["made with"]
    assert made_with["torch"]
    assert manifest["run"]["methods"] == METHODS
    assert manifest["run"]["judged_by"] == {"toxicity": "hearsay's ground truth"}
    assert manifest["run"]["fingerprints"]["truthfulness, fold 1"]["questions"] == 4
    text = (folder / "summary.md").read_text()
    assert "# truthfulness of hearsay" in text
    assert "| TAE, reference | " in text
    assert "mc1 (n = 8)" in text
    assert "perplexity (n = 4)" in text
    assert "Differences from no edit" in text
    assert len(storage.read_table(folder / "comparison.parquet")) > 10
    both = table[table["method"] == "both"]
    assert set(both["setting"]) == {"8 heads, alpha truthfulness 1, harmlessness 1"}


@pytest.mark.slow
def test_a_run_is_repeated_from_its_manifest_alone(whole, hearsay, tmp_path):
    table, folder = whole
    config = read_config(folder / "manifest.json")
    again = run(config, tmp_path, model=hearsay, progress=False)
    pd.testing.assert_frame_equal(again, table)
    manifests = [json.loads((place / "manifest.json").read_text()) for place in (folder, tmp_path)]
    assert manifests[0] == manifests[1]


def test_a_finished_run_is_read_and_nothing_is_measured_again(whole, description, monkeypatch):
    table, folder = whole
    monkeypatch.setattr("workbench.runs.work.evaluate", None)
    monkeypatch.setattr("workbench.runs.work.choose", None)
    again = run(read_config(description, metrics=["mc1"]), folder, progress=False)
    pd.testing.assert_frame_equal(again, table)
    assert "mc2" not in (folder / "summary.md").read_text()
    run(read_config(description), folder, progress=False)
    assert "mc2" in (folder / "summary.md").read_text()


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_table(
    whole, description, hearsay, tmp_path, capsys
):
    """In an edit's folder, before a table is written, half through, behind, and in the last one."""

    def dying(what, number, moment):
        die_writing(what, number, moment)
        run(read_config(description), tmp_path, model=hearsay, progress=False)

    fits = len(list(whole[1].glob("edits/*/edit.json")))
    for what, number, moment, edits, parts in (
        ("whole_folder", 2, "half", 1, 0), ("write_table", 1, "before", fits, 0),
        ("write_table", 3, "half", fits, 2), ("write_table", 4, "after", fits, 6),
        ("write_table", 10, "half", fits, 15),
    ):  # fmt: skip
        killed = forked(dying, what, number, moment)
        assert ended(killed) == -signal.SIGKILL
        assert len(list(tmp_path.glob("edits/[!.]*/edit.json"))) == edits
        assert len(list(tmp_path.glob("parts/[!.]*.parquet"))) == parts
        assert bool(list(tmp_path.glob(".captures-*/*"))) == (what == "whole_folder")
    assert list(tmp_path.rglob(".*.parquet"))  # what was half written, under a name of its own
    assert not (tmp_path / "results.parquet").exists()
    assert main(["evaluate", str(description), "--out", str(tmp_path)]) == 0
    assert not list(tmp_path.glob(".captures-*"))
    assert "# harmlessness of hearsay" in capsys.readouterr().out
    found = storage.read_table(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(found, whole[0])
    one, other = (json.loads((f / "manifest.json").read_text()) for f in (tmp_path, whole[1]))
    assert {**one, "made with": 0} == {**other, "made with": 0}


def test_a_run_s_name_stays_in_its_folder(description, tmp_path, hearsay):
    config = read_config(description)
    for name in ("../out", str(tmp_path / "abs")):
        with pytest.raises(WorkbenchError, match="not a path"):
            run(config, tmp_path / "in", name=name, model=hearsay, progress=False)
        with pytest.raises(WorkbenchError, match="not a path"):
            Study({"heads": [1]}, name=name)
    assert not list(tmp_path.iterdir())


def test_foreign_and_broken_parts_are_named(whole, description, tmp_path, hearsay):
    config = read_config(description)
    for file in whole[1].rglob("*"):
        if file.is_file():
            place = tmp_path / file.relative_to(whole[1])
            place.parent.mkdir(exist_ok=True, parents=True)
            place.write_bytes(file.read_bytes())
    parts = sorted((tmp_path / "parts").glob("truthfulness-?-TAE-????????.parquet"))
    kept = parts[0].read_bytes()
    parts[0].write_bytes(kept[:-50])
    with pytest.raises(WorkbenchError, match=f"{parts[0].name} cannot be read as parquet"):
        run(config, tmp_path, model=hearsay, progress=False)
    for stranger in (parts[1].read_bytes(), other_alpha(hearsay, config, tmp_path, parts[0])):
        parts[0].write_bytes(stranger)
        with pytest.raises(
            WorkbenchError, match=f"{parts[0].name} belongs to another run or piece"
        ):
            run(config, tmp_path, model=hearsay, progress=False)
    pd.DataFrame({"a": [1]}).to_parquet(parts[0])
    with pytest.raises(WorkbenchError, match="has no column 'model'"):
        run(config, tmp_path, model=hearsay, progress=False)
    with pytest.raises(WorkbenchError, match=r"another run \(seed, fingerprints"):
        run(read_config(description, seed=1), tmp_path, model=hearsay, progress=False)


def other_alpha(hearsay, config, folder, file):
    """The same piece of a run whose strength is another one."""
    described = {"no edit": {"kind": "none"}, "TAE": {**METHODS["TAE"], "alpha": 8.0}}
    other = replace(config, methods=described, against=None, capabilities=("truthfulness",))
    run(other, folder / "other", model=hearsay, progress=False)
    (part,) = (folder / "other" / "parts").glob(f"{file.name[:-16]}*.parquet")
    return part.read_bytes()


@pytest.mark.slow
def test_a_run_is_described_without_the_place_of_its_data(
    hearsay, description, tmp_path, monkeypatch
):
    """Nothing that it writes names the folder that a variable stands for."""
    monkeypatch.setenv("WORKBENCH_TEST_DATA", str(description.parent))
    (description.parent / "texts.json").write_text(
        json.dumps([f"The boat is {n}." for n in range(8)])
    )
    config = RunConfig(
        methods={
            "no edit": {"kind": "none"},
            "TAE": {"kind": "tae", "heads": 2},
            "random": {"kind": "random", "heads": 2, "draws": 2, "multiples": [1.0]},
        },
        data={"truthfulness": "${WORKBENCH_TEST_DATA}/questions.jsonl"},
        texts={"path": "${WORKBENCH_TEST_DATA}/texts.json", "count": 3}, multiples=[1.0, 2.0],
    )  # fmt: skip
    table = run(config, tmp_path, model=hearsay, progress=False)
    counted = table[table["metric"] == "kl"].groupby(["method", "fold"])["question"].nunique()
    assert set(counted) == {3}
    sweep = storage.read_table(tmp_path / "sweep.parquet")
    measured = sweep.groupby("method")["multiple"].agg(set).to_dict()
    assert measured == {"no edit": {1.0}, "TAE": {1.0, 2.0}, "random": {1.0}}
    for file in ("run.json", "manifest.json", "summary.md"):
        assert str(description.parent) not in (tmp_path / file).read_text()
    again = read_config(tmp_path / "manifest.json")
    assert again.texts == config.texts
    with pytest.raises(WorkbenchError, match=r"multiples=.* of 'random'"):
        RunConfig(methods={"random": {"kind": "random", "multiples": [2.0]}})
    with pytest.raises(WorkbenchError, match="above 0"):
        RunConfig(multiples=[-1.0, 1.0])
    assert storage.read_json(tmp_path / "manifest.json")["edits"].keys() == {
        "no edit", "TAE", "random"
    }  # fmt: skip


def test_a_run_s_folder_keeps_nothing_of_an_earlier_start(hearsay, description, tmp_path):
    """A comparison that is no longer asked for is not left to be read."""
    methods = {"no edit": {"kind": "none"}, "TAE": {"kind": "tae", "heads": 2}}
    config = replace(
        read_config(description), capabilities=("truthfulness",), methods=methods, judges={}
    )
    run(replace(config, against="no edit"), tmp_path, model=hearsay, progress=False)
    assert (tmp_path / "comparison.parquet").exists()
    run(replace(config, against=None), tmp_path, model=hearsay, progress=False)
    assert not (tmp_path / "comparison.parquet").exists()
    assert (tmp_path / "results.parquet").exists()
    with pytest.raises(WorkbenchError, match="count"):
        RunConfig(texts={"path": "${WORKBENCH_TEST_DATA}/texts.json", "count": 0})


def test_texts_and_keys(hearsay, tmp_path, as_shipped):
    """Texts belong to the identity; a key is refused before anything is written."""
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(["The baker waited near the market.", "The boat is rusty."]))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(
        json.dumps({"question": f"What is {k}?", "correct_answers": ["It is so."],
                    "incorrect_answers": ["It is not."]})
        for k in range(4)
    ))  # fmt: skip
    config = RunConfig(
        methods={"none": {"kind": "none"}}, texts=str(texts),
        data={"truthfulness": str(questions)},
    )  # fmt: skip
    table = run(config, tmp_path / "a", model=hearsay, progress=False)
    assert (table["metric"] == "kl").sum() == 2
    texts.write_text(json.dumps(["The baker waited.", "The boat is rusty."]))
    with pytest.raises(WorkbenchError, match=r"another run \(text_fingerprints differ\)"):
        run(config, tmp_path / "a", model=hearsay, progress=False)
    unrelated = tmp_path / "unrelated.json"
    unrelated.write_text(json.dumps(["Where is the river?"]))
    asked = replace(config, texts=0, evaluation={"truthfulness": {
        "unrelated": str(unrelated), "max_new_tokens": 3}})  # fmt: skip
    run(asked, tmp_path / "asked", model=hearsay, progress=False)
    unrelated.write_text(json.dumps(["Where is the market?"]))
    with pytest.raises(WorkbenchError, match=r"another run \(unrelated_fingerprints differ\)"):
        run(asked, tmp_path / "asked", model=hearsay, progress=False)
    texts.write_text(json.dumps(["The baker waited."] * 2))
    with pytest.raises(WorkbenchError, match="2 texts, 1 of them different"):
        run(config, tmp_path / "b", model=hearsay, progress=False)
    with pytest.raises(WorkbenchError, match="a key in the description of the judge 'true'"):
        RunConfig(judges={"true": {"kind": "endpoint", "key": "sk-secret"}})


def test_a_description_is_a_toml_file_and_of_yaml_it_is_told_how_to_write_it(tmp_path):
    (tmp_path / "a.toml").write_text('folds = 3\n[methods.x]\nkind = "tae"\nalpha = 2.0\n')
    config = read_config(tmp_path / "a.toml")
    assert (config.folds, config.methods["x"]) == (3, {"kind": "tae", "alpha": 2.0})
    assert read_config(tmp_path / "a.toml", folds=5).folds == 5
    for read in (read_config, read_study):
        for suffix in ("yaml", "yml"):
            with pytest.raises(WorkbenchError, match=r"a \.toml file.* In TOML `folds: 3` is"):
                read(tmp_path / f"a.{suffix}")
        with pytest.raises(WorkbenchError, match=r"a\.txt\. Expected a \.toml file") as refused:
            read(tmp_path / "a.txt")
        assert "In TOML" not in str(refused.value)


def test_the_gallery_s_runs_are_described_rightly():
    files = sorted((Path(__file__).parents[1] / "figures").glob("*/run.toml"))
    assert len(files) == 3
    for file in files:
        config = read_config(file)
        assert config.against in config.methods


def test_flags_replace_what_the_file_says(tmp_path, as_shipped):
    (tmp_path / "a.toml").write_text(
        'against = "x"\nmethods = { x = { kind = "tae" }, y = { kind = "iti" } }\n'
    )
    config = read_config(tmp_path / "a.toml")
    assert with_methods(config, None, None) is config
    found = with_methods(config, ["y", "none"], ["reference"])
    assert found.methods == {
        "y": {"kind": "iti"}, "none": {"kind": "none"},
        "TAE, reference": {"kind": "tae", "preset": "reference"},
    }  # fmt: skip
    assert found.against is None
    assert with_methods(config, ["x"], None).against == "x"
    assert with_data(read_config(), ["fairness=a=b.json"]).data == {"fairness": "a=b.json"}
    for call, says in (
        (lambda: with_methods(config, ["z"], None), "the method 'z'"),
        (lambda: with_methods(config, None, ["best"]), "the preset 'best'"),
        (lambda: with_data(config, ["fairness"]), "the data 'fairness'"),
        (lambda: with_data(config, ["kindness=a.csv"]), "the capability 'kindness'"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            call()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fold = 3", "the key 'fold'"),
        ("strengths = [1.0, 2.0]", "the key 'strengths'. Expected 'multiples'"),
        ("task = {truthfulness = {max_new_tokens = 3}}", "the key 'task'. Expected 'evaluation'"),
        ("evaluation = {truthfulness = {metrics = 3}}", "metrics=3. Expected a list of functions"),
        ('evaluation = {truthfulness = {metrics = "own:f"}}', "metrics='own:f'. Expected a list"),
        ('methods = {x = {kind = "magic"}}', "the kind 'magic' of the method 'x'"),
        ('methods = {x = {kind = "tae", heds = 3}}', "the method 'x': .*'heds'"),
        ('methods = {x = {kind = "tae", alpha = "big"}}', "the method 'x': alpha='big'"),
        ('methods = {x = {kind = "tae", preset = "best"}}', "the preset 'best'"),
        ("methods = {}", "without capabilities or methods"),
        ('methods = ["tae"]', "methods="),
        ("data = 3", "data=3"),
        ('texts = "nowhere.json"', "nowhere"),
        ("texts = -1", "texts=-1"),
        ('metrics = "mc1"', "metrics='mc1'"),
        ('metrics = ["mc9"]', "'mc9'"),
        ('primary = ["mc9"]', "'mc9'"),
        ('primary = ["kl"]', "texts beside it"),
        ('primary = ["cross_entropy_long"]', "evaluation.truthfulness.long_answers beside it"),
        ('primary = ["kl_own"]', "evaluation.truthfulness.own_answers beside it"),
        ('folds = "2"', "folds='2'"),
        ("folds = 1", "folds=1"),
        ("seed = -1", "seed=-1"),
        ('capabilities = ["fairness", "fairness"]', "different ones"),
        ("evaluation = {fairness = 3}", "evaluation.fairness=3"),
        ("evaluation = {harmlessness = {sampels = 3}}", "the setting 'sampels' of harmlessness"),
        ('evaluation = {harmlessness = {samples = "3"}}', "samples='3' of harmlessness"),
        ('evaluation = {truthfulness = {own_answers = "a"}}', "own_answers='a' of truthfulness"),
        ('evaluation = {truthfulness = {style = "chatt"}}', "chatt"),
        ('methods = {x = {kind = "random", draws = 3}}', "draws=3 of 'x'"),
        ('methods = {x = {kind = "tae", alpha = nan}}', "alpha=nan"),
        ('methods = {x = {kind = "tae", strengths = [1]}}', "'multiples', as it is called now"),
        ("axes = { depth = [0] }", "for `workbench ablate`"),
        ('methods = {x = {kind = "tae", alpha = true}}', "alpha=True"),
        ('methods = {x = {kind = "tae", fit = []}}', "fit=.. of 'x'"),
        (
            'methods = {x = {kind = "iti", preset = "reference"}}',
            "the method 'x': a preset of a method of kind iti",
        ),
        ("judges = {x = 3}", "the judge 'x' of kind None"),
        (
            'capabilities = ["fairness"]\nmethods = {x = {kind = "tae", preset = "reference"}}',
            "plus_three",
        ),
        ('capabilities = ["kindness"]', "the capability 'kindness'"),
        ("evaluation = {speed = {}}", "the capability 'speed'"),
        ('methods = {x = {kind = "tae", fit = ["fairness", "speed"]}}', "the capability 'speed'"),
        ('against = "ITI"', "against='ITI'"),
        ("a = [", "not valid TOML"),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, text, says, as_shipped):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(WorkbenchError, match=says):
        read_config(tmp_path / "a.toml")


def test_judges_are_made_from_descriptions(tmp_path, hearsay, as_shipped):
    config = RunConfig(judges={"true": {"kind": "info"}})
    for number, (judges, says) in enumerate(
        (
            ({"true": {"kind": "oracle"}}, "the judge 'true' of kind 'oracle'"),
            ({"true": {"kind": "hearsay", "speed": 3}}, "the judge 'true' described by"),
            ({"kind": {"kind": "hearsay"}}, "hearsay's ground truth for 'kind'"),
            ({"x": {"kind": "classifier", "model": str(tmp_path / "nothing")}}, "no model config"),
        )
    ):
        with pytest.raises(WorkbenchError, match=says):
            run(RunConfig(judges=judges), tmp_path / str(number), model=hearsay, progress=False)
    assert config.judges["true"]["kind"] == "info"


def test_another_model_may_tell_the_perplexity(hearsay, description, tmp_path, as_shipped):
    """Read from its text again, a continuation surprises the same model as much."""
    config = read_config(
        description, capabilities=["harmlessness"], methods={"no edit": {"kind": "none"}},
        against="no edit",
    )  # fmt: skip
    nats = {}
    for scorer in (None, "hearsay"):
        table = run(
            replace(config, scorer=scorer), tmp_path / str(scorer), model=hearsay, progress=False
        )
        nats[scorer] = table[table["metric"] == "continuation_nats"].set_index("question")["value"]
        manifest = storage.read_json(tmp_path / str(scorer) / "manifest.json")["run"]
        weights = {None: None, "hearsay": manifest["weights"]}
        assert manifest["scorer_weights"] == weights[scorer]
    assert nats["hearsay"].to_numpy() == pytest.approx(nats[None].to_numpy(), rel=0.02)
    with pytest.raises(WorkbenchError, match=r"another run \(scorer, scorer_weights differ\)"):
        run(config, tmp_path / "hearsay", model=hearsay, progress=False)


@pytest.mark.parametrize("name", ["ablation", "deviations", "methods", "three_capabilities"])
def test_committed_manifests_are_descriptions(name):
    config = read_config(Path(__file__).parents[1] / "figures" / name / "manifest.json")
    assert config.methods


def test_a_run_of_which_a_piece_failed_says_so_to_the_shell(tmp_path, as_shipped, capsys):
    write_questions(tmp_path / "four.jsonl", list(load_questions("hearsay"))[:4])
    (tmp_path / "run.toml").write_text(
        f'data = {{ truthfulness = "{tmp_path / "four.jsonl"}" }}\n'
        "evaluation = { truthfulness = { max_new_tokens = 2 } }\n"
        'methods = { "no edit" = { kind = "none" }, TAE = { kind = "tae", alpha = [1.0, 2.0] } }\n'
    )
    command = ["evaluate", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="2 pieces failed"):
        assert main(command) == 1
    assert "validation share" in capsys.readouterr().out
    assert main([*command, "--methods", "no edit", "--name", "plain"]) == 0


@pytest.mark.slow
def test_strengths_are_sampled_as_they_are_tested(hearsay, few, tmp_path, monkeypatch):
    """In the method's own style; where prompts are tested, on those that α is chosen on."""
    seen = []

    def noting(model, edit, asked, style):
        seen.append((style, asked))
        return strength_sample(model, edit, asked, style, most=2)

    monkeypatch.setattr(loaded_run, "strength_sample", noting)
    config = RunConfig(
        capabilities=["truthfulness", "harmlessness"],
        data={"truthfulness": str(write_questions(tmp_path / "few.jsonl", few.choose(range(8))))},
        methods={"even": {"kind": "even", "heads": 2, "style": "inline"}},
        evaluation={"truthfulness": {"max_new_tokens": 2},
                    "harmlessness": {"samples": 1, "max_new_tokens": 2}},
        judges={"toxicity": {"kind": "hearsay"}},
    )  # fmt: skip
    run(config, tmp_path / "run", model=hearsay, progress=False)
    assert {style for style, _ in seen} == {"inline"}
    (prompts,) = [asked for _, asked in seen if isinstance(asked, list)]
    inner = splits("harmlessness")[0].inner.test
    assert prompts == [prompt.text for prompt in inner]
    assert len(seen) == 3


class InTurn:
    """An executor that does one job when it is asked whether one is done, the first that it has."""

    def __init__(self, work):
        self.work, self.waiting, self.told, self.events = work, [], None, []

    def submit(self, _function, job):
        turn = Turn(self, job)
        self.events.append(("given", "pieces" if job.pieces else "fits"))
        self.waiting.append(turn)
        return turn


class Turn:
    """A job's future."""

    def __init__(self, executor, job):
        self.executor, self.job = executor, job

    def done(self):
        known = self.executor
        if known.told is None and known.waiting[0] is self:
            known.told = known.work.do(self.job)
            known.events.append(("done", "pieces" if self.job.pieces else "fits"))
        return known.told is not None and known.waiting[0] is self

    def result(self):
        found, self.executor.told = self.executor.told, None
        self.executor.waiting.pop(0)
        return found

    def cancel(self):
        raise AssertionError("nothing is cancelled")


@pytest.mark.slow
def test_pieces_are_given_out_as_soon_as_their_fits_are_made(whole, description, hearsay, tmp_path):
    """No worker waits for the fits of other folds, and the table is the same."""
    table, _ = whole
    config = read_config(description)
    executor = InTurn(Work(config, hearsay, progress=False))
    found = run(config, tmp_path, model=hearsay, executor=executor, progress=False)
    pd.testing.assert_frame_equal(found, table)
    events = executor.events
    last_fit = max(k for k, event in enumerate(events) if event == ("done", "fits"))
    first_piece = events.index(("given", "pieces"))
    assert events.index(("done", "fits")) < first_piece < last_fit
    assert events.index(("done", "pieces")) > last_fit
    assert not list(tmp_path.glob("*captures*"))


def test_threads_are_refused_as_workers(description, tmp_path):
    with ThreadPoolExecutor(2) as pool, pytest.raises(WorkbenchError, match="executor of threads"):
        run(read_config(description), tmp_path, executor=pool, progress=False)
