"""The comparison as a whole, on few questions: what it writes, counts and refuses."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.edits import drawn_edit, random_edit
from workbench import storage
from workbench.cli import main
from workbench.data.sources import load_questions
from workbench.errors import WorkbenchError
from workbench.evaluation.sweeps import Sweep
from workbench.runs.costs import stored
from workbench.runs.head_to_head import (
    compared_with,
    complete,
    head_to_head,
    kl_levels,
    require_gain,
)
from workbench.runs.run_config import RunConfig

CONFIG = {
    "methods": {
        "no edit": {"kind": "none"},
        "TAE": {"kind": "tae", "heads": 8, "alpha": [1.0, 2.0]},
        "TAE, even strength": {"kind": "even", "heads": 8, "alpha": [1.0, 2.0]},
        "TAE, drawn strengths": {"kind": "resampled", "heads": 8, "alpha": [1.0, 2.0]},
        "CAA": {"kind": "caa", "alpha": [1.0, 2.0]},
    },
    "multiples": [0.5, 1.0, 2.0],
    "texts": 6,
    "evaluation": {"truthfulness": {"max_new_tokens": 12, "own_answers": 3}},
}


@pytest.fixture(scope="module")
def config():
    asked = load_questions("hearsay").choose(range(0, 320, 16))
    return RunConfig(data={"truthfulness": asked}, **CONFIG)


@pytest.fixture(scope="module")
def found(hearsay, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contest")
    return head_to_head(config, folder, model=hearsay, progress=False), folder


def test_every_method_is_measured_at_every_strength(found):
    contest, folder = found
    assert contest.gain == "says_truth"
    assert contest.dropped == ()
    by_kl = contest.curves[contest.curves["side_effect"] == "kl"]
    assert set(by_kl["multiple"]) == {0.0, 0.5, 1.0, 2.0}
    for _, own in by_kl.groupby("method"):
        assert own.sort_values("multiple")["effect"].is_monotonic_increasing
        assert len(set(own[own["multiple"] == 0.0]["gain"])) == 1
    assert set(contest.areas["side_effect"]) == {"kl", "kl_own", "kl_worst", "1 - ended"}
    own = contest.matched[contest.matched["method"] == "TAE"]
    assert own["gain"].notna().all()
    assert np.allclose(own["difference"], 0.0)
    for name in ("sweep", "curves", "matched", "areas", "costs", "results"):
        assert (folder / f"{name}.parquet").exists()
    text = (folder / "head_to_head.md").read_text()
    assert "# At equal KL from the unedited model, the worst of those measured: says_truth" in text
    assert contest.matched_on == "kl_worst"
    assert "| kl_own |" in text
    assert "# Front of says_truth against kl_own: the mean over side effects from" in text
    assert "| TAE, even strength |" in text
    apart = contest.differences.set_index(["method", "metric"]).loc[("CAA", "says_truth")]
    assert f"| CAA | {apart['difference']:+.3f} [" in text
    levels = storage.read_json(folder / "head_to_head.json")["kl"]
    assert levels == pytest.approx(sorted(set(contest.matched["effect"])))


def test_costs_are_each_method_s_own(found):
    contest, _ = found
    costs = contest.costs.set_index("method")
    assert costs.loc["no edit", "stored"] == 0
    assert costs.loc["no edit", "fit_seconds"] == 0.0
    assert costs.loc["TAE", "stored"] == 8 * (20 + 1 + 20 + 1)
    assert costs.loc["TAE, even strength", "stored"] == 8 * (20 + 1)
    assert costs.loc["CAA", "stored"] == 160
    assert (costs.drop("no edit")["fit_seconds"] > 0).all()
    assert (costs["ms_per_token"] > 0).all()


def test_stored_numbers_are_those_that_are_used(hearsay):
    assert stored(None) == 0
    assert stored(random_edit(hearsay)) == 4 * 42
    assert stored(random_edit(hearsay, strength="constant")) == 4 * 21
    drawn = drawn_edit(hearsay, torch.ones(10, 4))
    assert stored(drawn) == 4 * 21 + 40


def test_levels_lie_where_the_method_was_measured_in_every_fold():
    def sweep(costs):
        return Sweep({}, {"TAE": np.array([costs])}, {})

    levels = kl_levels(sweep([[0.0, 0.01, 0.1, 0.4], [0.0, 0.03, 0.2, 0.9]]), "TAE")
    assert len(levels) == 5
    assert levels[0] == pytest.approx(1.02 * 0.03)  # a little inside of what both folds reached
    assert levels[-1] == pytest.approx(0.98 * 0.4)
    assert np.allclose(np.diff(np.log(levels), 2), 0)
    narrow = kl_levels(sweep([[0.0, 0.01, 0.1], [0.0, 0.09, 0.9]]), "TAE")
    assert narrow[0] == pytest.approx(1.02 * 0.05)
    assert narrow[-1] == pytest.approx(0.98 * 0.5)
    with pytest.raises(WorkbenchError, match="a KL that grows"):
        kl_levels(sweep([[0.0] * 4] * 2), "TAE")


def test_a_method_that_failed_in_a_fold_is_left_out_and_named(config, found):
    _, folder = found
    sweep = storage.read_table(folder / "sweep.parquet")
    lacking = sweep[~((sweep["method"] == "CAA") & (sweep["fold"] == 1))]
    kept, dropped = complete(lacking, config)
    assert dropped == ["CAA"]
    assert "CAA" not in set(kept["method"])
    pd.testing.assert_frame_equal(complete(sweep, config)[0], sweep)


def test_what_cannot_be_compared_is_refused(config, hearsay, tmp_path, as_shipped):
    for changes, says in (
        ({"multiples": [1.0]}, "three multiples or more"),
        ({"texts": 0}, "plain texts"),
        ({"methods": {"TAE": {"kind": "tae"}}}, "without the method 'no edit'"),
        ({"capabilities": ["fairness"]}, "a comparison on fairness"),
    ):
        with pytest.raises(WorkbenchError, match=says):
            head_to_head(replace(config, **changes), tmp_path, model=hearsay)
    for against in ("SEA", "no edit"):
        with pytest.raises(WorkbenchError, match=f"{against}' at its side effects.*--against"):
            head_to_head(config, tmp_path, against=against, model=hearsay)
    for gain in ("kl", "perplexity", "bits_per_byte", "ss"):
        with pytest.raises(WorkbenchError, match=f"the gain '{gain}'.*more is better"):
            head_to_head(config, tmp_path, gain=gain, model=hearsay)
    for gain in ("mc2", "true_x_info", "icat", "truth/mine"):
        require_gain(gain)
    assert not list(tmp_path.iterdir())


def test_what_it_is_compared_with_is_the_run_s_or_tae(config):
    assert compared_with(config, None) == "TAE"
    assert compared_with(replace(config, against="no edit"), None) == "TAE"
    assert compared_with(replace(config, against="CAA"), None) == "CAA"
    assert compared_with(replace(config, against="CAA"), "TAE") == "TAE"


def test_an_estimate_is_of_what_can_be_compared(tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text('multiples = [0.5, 1, 2]\ntexts = 2\n[methods."no edit"]\nkind = "none"\n')
    given = ["compare", str(file), "--out", str(tmp_path / "run"), "--estimate"]
    assert main([*given, "--against", "no edit"])
    assert "--against" in capsys.readouterr().err
