"""Studies: grids, what they share, and that nothing is lost whatever dies."""

import errno
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import Future
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.edits import random_edit
from tests.processes import dies, dies_once, ended, forked, tells_its_number, wait_for
from tests.questions import write_questions
from workbench import storage
from workbench.cli import main
from workbench.data.sources import load_questions
from workbench.errors import WorkbenchError
from workbench.evaluation.evaluate import evaluate
from workbench.methods.saved import load_edit
from workbench.methods.token_aware import TokenAware
from workbench.runs.ablation import Study, ablate, read_study, run_study
from workbench.runs.execution import carry_out, carry_out_in_processes, processes
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.setting_names import label
from workbench.runs.study_summary import select, study_summary

SETTINGS = {"truthfulness": {"max_new_tokens": 12}}


@pytest.fixture(scope="module")
def asked():
    return load_questions("hearsay").choose(range(0, 320, 20))


@pytest.fixture(scope="module")
def study_file(tmp_path_factory, asked):
    """A study of four settings on sixteen questions, with a file of its own questions."""
    folder = tmp_path_factory.mktemp("study")
    write_questions(folder / "questions.jsonl", asked)
    (folder / "study.toml").write_text(
        f'data = {{ truthfulness = "{folder / "questions.jsonl"}" }}\n'
        'axes = { depth = [0, "last"], heads = [2, 4] }\n'
        "evaluation = { truthfulness = { max_new_tokens = 12 } }\n"
        "together = 2\n"
    )
    return folder / "study.toml"


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(study_file, hearsay, whole_folder):
    """The study, not interrupted."""
    return run_study(read_study(study_file), whole_folder, model=hearsay, progress=False)


def command(study_file, folder, *more):
    return ["ablate", str(study_file), "--out", str(folder), "--threads", "1", *more]


def parts_of(folder):
    files = folder.glob("parts/*.parquet")  # among them those that are just being written
    return sorted(file for file in files if not file.name.startswith("."))


def finished(study_file, folder):
    return run_study(read_study(study_file), folder, progress=False)


@pytest.mark.slow
def test_a_grid_s_table_is_what_each_setting_gives_by_itself(hearsay, asked, as_shipped):
    table = ablate(
        hearsay, asked, {"heads": [2, 8], "alpha": [0.5, 2.0]}, base={"depth": 0},
        evaluation=SETTINGS, progress=False,
    )  # fmt: skip
    assert list(table.columns[:2]) == ["heads", "alpha"]
    assert set(table["method"]) == {
        "no edit", "heads=2, alpha=0.5", "heads=2, alpha=2", "heads=8, alpha=0.5",
        "heads=8, alpha=2",
    }  # fmt: skip
    assert set(table["fold"]) == {0, 1}
    fold = asked.folds(2, 0)[1]
    edit = TokenAware(heads=8, alpha=2.0, depth=0).fit(hearsay, fold.train, progress=False)
    wanted = evaluate(hearsay, fold.test, {"x": edit}, max_new_tokens=12, progress=False)
    own = table[(table["heads"] == 8) & (table["alpha"] == 2.0) & (table["fold"] == 1)]
    keys = ["question", "metric"]
    one, other = (t.set_index(keys)["value"].sort_index() for t in (own, wanted))
    pd.testing.assert_series_equal(one, other, atol=1e-4)


def test_rows_are_found_by_what_was_typed(whole, whole_folder):
    for depth in (0, "last"):
        own = whole[whole["depth"] == depth]
        assert set(own["method"]) == {f"depth={depth}, heads={heads}" for heads in (2, 4)}
        pd.testing.assert_frame_equal(own, select(whole, depth=depth))
        pd.testing.assert_frame_equal(own, whole.query(f"depth == {depth!r}"))
    file = pd.read_parquet(whole_folder / "study.parquet")
    for typed in ({"depth": 0}, {"depth": "last", "heads": 4}, {"heads": 4.0}):
        assert list(select(file, **typed).index) == list(select(whole, **typed).index)
    assert set(select(study_summary(whole), heads=2, depth=0)["method"]) == {"depth=0, heads=2"}
    for wrong, message in (
        ({"dept": 0}, "Did you mean depth"), ({"depth": 1}, "depth=1.*one of 0, last"),
        ({"depth": 0, "heads": 3}, "heads=3.*one of 2, 4"),
    ):  # fmt: skip
        with pytest.raises(WorkbenchError, match=message):
            select(whole, **wrong)


@pytest.mark.slow
def test_near_numbers_none_and_joined_tables_are_told_apart(hearsay, asked):
    axes = {"seed": [1234567, 1234568], "risk_share": [None, 0.5]}
    table = ablate(
        hearsay, asked.choose(range(4)), axes, base={"heads": 2, "depth": 0},
        evaluation={"truthfulness": {"max_new_tokens": 2}}, progress=False,
    )  # fmt: skip
    for seed in axes["seed"]:
        own = select(table, seed=seed)
        assert {name.split(",")[0] for name in own["method"]} == {f"seed={seed}"}
        none = select(table, seed=seed, risk_share=None)
        assert set(none["method"]) == {f"seed={seed}, risk_share=None"}
    twice = pd.concat([table, table])
    assert len(select(twice, seed=1234567, risk_share=0.5)) == 2 * len(
        select(table, seed=1234567, risk_share=0.5)
    )


def test_lists_and_tables_are_found_by_what_was_typed(hearsay, asked):
    axes = {"layers": [[0], [1, 2]], "graph": [{"bins": 8}, {"bins": 16}]}
    table = ablate(
        hearsay, asked.choose(range(4)), axes, base={"heads": 2, "depth": 0},
        evaluation={"truthfulness": {"max_new_tokens": 2}}, progress=False,
    )  # fmt: skip
    for layers in axes["layers"]:
        for graph in axes["graph"]:
            own = select(table, layers=layers, graph=graph)
            assert len(set(own["method"])) == 1
            assert len(own) == len(select(table, layers=[0], graph={"bins": 8}))


@pytest.mark.slow
def test_what_settings_share_is_computed_once(hearsay, asked, monkeypatch, as_shipped):
    """All settings of K and α: a fit a fold; another depth: other features and directions alone."""
    import workbench.methods.stages as stages

    counts = {}
    for name in ("aggregate", "fit_directions", "fit_estimators"):
        original = getattr(stages, name)

        def counted(*args, name=name, original=original, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return original(*args, **kwargs)

        monkeypatch.setattr(stages, name, counted)
    captured = []
    capture = TokenAware.capture
    monkeypatch.setattr(
        TokenAware, "capture", lambda self, *a, **k: captured.append(1) or capture(self, *a, **k)
    )
    brief = {"evaluation": {"truthfulness": {"max_new_tokens": 2}}, "progress": False}
    grid = {"heads": [1, 4, 32], "alpha": [0.25, 1.0, 4.0]}
    table = ablate(hearsay, asked, grid, **brief)
    assert len(set(table["method"])) == 10
    assert counts == {"aggregate": 2, "fit_directions": 2, "fit_estimators": 2}
    assert len(captured) == 2
    ablate(hearsay, asked, {"depth": [0, 1, 2], "heads": [1, 2]}, **brief)
    assert counts == {"aggregate": 8, "fit_directions": 8, "fit_estimators": 4}
    assert len(captured) == 4


@pytest.mark.slow
def test_processes_and_this_one_give_the_same_table(study_file, whole, tmp_path):
    found = run_study(read_study(study_file), tmp_path, workers=2, threads=1, progress=False)
    pd.testing.assert_frame_equal(found, whole, check_exact=True)


@pytest.mark.slow
def test_dask_loses_a_worker_and_nothing_else(study_file, whole, tmp_path):
    """A real scheduler and two worker processes, of which one is killed while it works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dask
        from distributed import Client, LocalCluster

        with (
            dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=50,
            ) as cluster,
            Client(cluster) as client,
        ):
            client.run(_one_thread)
            pids = list(client.run(os.getpid).values())
            killed = []

            class Watching:
                """Kills a worker when the first job is handed in."""

                def __init__(self, inner):
                    self.inner = inner

                def submit(self, function, job):
                    future = self.inner.submit(function, job)
                    if not killed:
                        os.kill(pids[0], signal.SIGKILL)
                        killed.append(pids[0])
                    return future

            found = run_study(
                read_study(study_file), tmp_path, executor=Watching(client.get_executor()),
                progress=False,
            )  # fmt: skip
    assert killed
    pd.testing.assert_frame_equal(found, whole)


def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.long
def test_submitit_runs_it_too(study_file, whole, tmp_path, monkeypatch):
    import submitit

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    executor = submitit.AutoExecutor(tmp_path / "logs", cluster="local")
    executor.update_parameters(timeout_min=5)
    # a job is a process: few of them
    study = read_study(study_file, together=5, axes={"depth": [0], "heads": [2]})
    found = run_study(study, tmp_path / "run", executor=executor, progress=False)
    wanted = whole[whole["method"].isin(found["method"])]
    assert set(found["method"]) == {"no edit", "depth=0, heads=2"}
    by = ["method", "fold", "question", "metric"]
    pd.testing.assert_series_equal(
        *(table.set_index(by)["value"].sort_index() for table in (found, wanted))
    )


@pytest.mark.slow
def test_a_killed_coordinator_s_study_goes_on(study_file, whole, tmp_path):
    """Killed when the first part is there; its workers may still write whole files."""
    coordinator = forked(main, command(study_file, tmp_path, "--workers", "2"))
    wait_for(lambda: parts_of(tmp_path), "a part", coordinator)
    os.kill(coordinator, signal.SIGKILL)
    assert ended(coordinator) == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in parts_of(tmp_path)}
    assert kept
    pd.testing.assert_frame_equal(finished(study_file, tmp_path), whole)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert not list(tmp_path.rglob(".*.parquet"))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
@pytest.mark.slow
def test_workers_are_forked_from_one_process_and_have_the_environment_of_now(monkeypatch):
    parents = []
    for value in ("one", "two"):
        monkeypatch.setenv("WORKBENCH_TEST", value)
        with processes(2, threads=1) as pool:
            parents.append(pool.submit(os.getppid).result())
            assert pool.submit(os.getenv, "WORKBENCH_TEST").result() == value
    if not torch.cuda.is_available():
        assert parents[0] == parents[1] != os.getpid()


@pytest.mark.slow
def test_a_killed_worker_s_job_is_done_again(tmp_path):
    """Every job kills its worker the first time it is run; one of them every time."""
    jobs = [str(tmp_path / name) for name in ("a", "b", "c")]
    found = dict(carry_out_in_processes(dies_once, jobs[:2], workers=1, threads=1))
    assert found == dict.fromkeys(jobs[:2], 2)
    with pytest.raises(WorkbenchError, match="kills its worker process"):
        list(carry_out_in_processes(dies, ["x"], workers=1, threads=1))
    lost = [str(tmp_path / "never"), jobs[2]]
    found = dict(
        carry_out_in_processes(
            dies_once, lost, workers=1, threads=1, lost=lambda job, error: (job, str(error))
        )
    )
    assert found[lost[0]][0] == lost[0]
    assert "by itself too" in found[lost[0]][1]
    assert found[lost[1]] == 2


def test_what_an_executor_gives_up_is_told_and_what_cannot_be_written_is_raised():
    class Executor:
        def submit(self, function, job):
            future = Future()
            try:
                future.set_result(function(job))
            except Exception as error:
                future.set_exception(error)
            return future

    def work(job):
        if job:
            raise {
                1: RuntimeError("on purpose"),
                2: OSError(errno.ENOSPC, "on purpose"),
                3: ConnectionResetError(errno.ECONNRESET, "on purpose"),
                4: OSError("on purpose"),
            }[job]
        return "fine"

    told = dict(carry_out(work, [0, 1, 3, 4], Executor(), lambda job, error: job))
    assert told == {0: "fine", 1: 1, 3: 3, 4: 4}
    with pytest.raises(OSError, match="on purpose"):
        list(carry_out(work, [2], Executor(), lambda *_: None))


@pytest.mark.parametrize("workers", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_jobs_that_become_ready_are_done_behind_the_others(workers, tmp_path):
    """Each kills its worker the first time, so that they come to others by new pools too."""
    jobs = [str(tmp_path / "a"), str(tmp_path / "b")]
    more = [str(tmp_path / "c"), str(tmp_path / "d")]
    expected = {*jobs, *more}
    if workers:
        results = carry_out_in_processes(dies_once, jobs, workers=workers, threads=1)
    else:
        results = carry_out(str.upper, jobs)
    found = {}
    for job, result in results:
        found[job] = result
        if more:
            jobs.append(more.pop())
    assert found == {job: 2 if workers else job.upper() for job in expected}


def test_jobs_that_have_not_begun_are_cancelled_after_an_error():
    def fail(_job):
        raise ValueError("on purpose")

    class Late:
        cancelled = 0

        def done(self):
            return False

        def cancel(self):
            Late.cancelled += 1

    class Failed(Late):
        def done(self):
            return True

        def result(self):
            return fail(None)

    class Executor:
        def submit(self, _function, job):
            return Failed() if job == 0 else Late()

    with pytest.raises(ValueError, match="on purpose"):
        list(carry_out(fail, [0, 1, 2], Executor()))
    assert Late.cancelled == 2


@pytest.mark.slow
def test_a_full_disk_stops_the_study_and_leaves_nothing_half_written(
    study_file, whole, hearsay, tmp_path, monkeypatch
):
    original, written = storage.write_table, []

    def full(path, table):
        written.append(path)
        if len(written) > 2:
            with storage.replacing(path) as temporary:
                temporary.write_bytes(b"half a ta")
                raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, table)

    monkeypatch.setattr(storage, "write_table", full)
    study = read_study(study_file)
    with pytest.raises(OSError, match="No space left"):
        run_study(study, tmp_path, model=hearsay, progress=False)
    monkeypatch.setattr(storage, "write_table", original)
    kept = {file: file.stat().st_mtime_ns for file in parts_of(tmp_path)}
    assert len(kept) == 2
    assert not (tmp_path / "results.parquet").exists()
    found = run_study(study, tmp_path, model=hearsay, progress=False)
    pd.testing.assert_frame_equal(found, whole)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith(".")]


def test_a_setting_that_fails_is_recorded_and_stops_no_other(hearsay, asked, tmp_path, as_shipped):
    with pytest.warns(UserWarning, match=r"2 pieces failed .first: train_size=99, .*at most 8"):
        table = ablate(
            hearsay, asked, {"train_size": [6, 99]}, base={"heads": 2}, evaluation=SETTINGS,
            out=tmp_path, progress=False,
        )  # fmt: skip
    assert set(table["method"]) == {"no edit", "train_size=6"}
    failed = storage.read_json(tmp_path / "manifest.json")["failed"]
    assert [(f["method"], f["fold"]) for f in failed] == [
        ("train_size=99", 0),
        ("train_size=99", 1),
    ]
    assert "train_size=99 of 8 training questions" in failed[0]["error"]
    assert "Failed: train_size=99" in (tmp_path / "summary.md").read_text()
    study = Study(
        axes={"train_size": [99]}, controls=False,
        run={"data": {"truthfulness": asked}, "evaluation": SETTINGS},
    )  # fmt: skip
    with pytest.raises(WorkbenchError, match="all failed"):
        run_study(study, tmp_path / "b", model=hearsay, progress=False)


@pytest.mark.slow
def test_studies_share_a_folder_and_what_is_finished(hearsay, asked, tmp_path, monkeypatch):
    run = {"data": {"truthfulness": asked}, "evaluation": SETTINGS}
    small = Study(axes={"heads": [2, 4]}, name="small", run=run)
    first = run_study(small, tmp_path, model=hearsay, progress=False)
    kept = {file: file.stat().st_mtime_ns for file in parts_of(tmp_path)}
    large = Study(axes={"heads": [2, 4, 8]}, name="large", run=run)
    second = run_study(large, tmp_path, model=hearsay, progress=False)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(parts_of(tmp_path)) == len(kept) + 2
    both = second[second["heads"].isin([2.0, 4.0])].reset_index(drop=True)
    one = first[first["heads"].notna()].reset_index(drop=True)
    order = ["fold", "method", "question", "metric"]
    pd.testing.assert_series_equal(
        both.sort_values(order)["value"].reset_index(drop=True),
        one.sort_values(order)["value"].reset_index(drop=True),
    )
    with pytest.raises(WorkbenchError, match=r"another run \(methods differ\)"):
        run_study(Study(axes={"heads": [1]}, name="small", run=run), tmp_path, model=hearsay)


@pytest.mark.slow
def test_two_studies_at_once_in_one_folder(study_file, whole, tmp_path):
    both = [forked(main, command(study_file, tmp_path, "--name", name)) for name in ("one", "two")]
    assert [ended(process) for process in both] == [0, 0]
    for name in ("one", "two"):
        found = storage.read_table(tmp_path / name / "results.parquet")
        pd.testing.assert_frame_equal(found, whole[found.columns.tolist()], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"axes": {"dephts": [1]}}, r"the axis 'dephts' of tae.*Did you mean depth"),
        ({"axes": {"graph.bin": [1]}}, r"Did you mean graph\.bins"),
        ({"axes": {"depth": []}}, r"the axis depth=\[\]"),
        ({"axes": {"depth": 3}}, "the axis depth=3"),
        ({"axes": {}}, "without settings"),
        ({"axes": {"depth": [-1]}}, "depth=-1"),
        ({"axes": {"beta": [0.5, 1.5]}}, r"beta=1\.5"),
        ({"axes": {"alpha": [float("nan")]}}, "alpha=nan"),
        ({"axes": {"graph.bins": [0]}}, "bins=0"),
        ({"axes": {"positions.every": [0]}}, "every=0"),
        ({"axes": {"depth": [1, 1]}}, "the setting 'depth=1' twice"),
        ({"axes": {"depth": [0, 1, 2], "heads": list(range(1, 101))}}, "300 settings.*limit="),
        ({"axes": {"depth": [0]}, "kind": "magic"}, "the kind of method 'magic'"),
        ({"axes": {"layer": [0]}, "kind": "iti"}, "the axis 'layer' of iti"),
        ({"axes": {"depth": [0]}, "sample": 0}, "sample=0"),
        ({"axes": {"preset": ["best"]}}, "the preset 'best'"),
        ({"axes": {"train_size": [0]}}, "train_size=0"),
        ({"axes": {"train_size": ["many"]}}, "train_size='many'"),
        ({"axes": {"shuffle_labels": ["no"]}}, "shuffle_labels='no'"),
        ({"axes": {"beta": ["x"]}}, "beta"),
        ({"axes": {"depth": [0]}, "run": {"foldss": 3}}, "the key 'foldss'"),
    ],
)
def test_bad_studies_are_refused_before_anything_runs(changes, says, as_shipped):
    with pytest.raises(WorkbenchError, match=says):
        Study(**changes)


def test_a_run_s_file_is_no_study_s(tmp_path, capsys):
    (tmp_path / "run.toml").write_text('methods = { x = { kind = "tae" } }\n')
    assert main(["ablate", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "`workbench evaluate` and `compare`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_that_the_model_does_not_have_are_refused_before_anything_runs(
    hearsay, asked, tmp_path, monkeypatch
):
    monkeypatch.setattr("workbench.runs.work.evaluate", None)
    for axes in ({"heads": [4, 41]}, {"layers": [[0], [9]]}, {"heads": [[[0, 9]]]}):
        with pytest.raises(WorkbenchError, match="on a model with 5 layers x 8 heads"):
            ablate(hearsay, asked, axes, out=tmp_path, progress=False)
    assert not (tmp_path / "run.json").exists()


def test_a_sample_of_a_grid_is_the_seed_s():
    axes = {"depth": [0, 1, 2], "heads": [1, 2, 4, 8], "alpha": [1.0, 2.0]}
    grid = [label(one) for one in Study(axes=axes).all_settings()]
    one, two = (Study(axes=axes, sample=7, run={"seed": seed}) for seed in (0, 1))
    beside = Study(axes={"depth": [0]}, settings=[{"heads": 3}], run={"evaluation": SETTINGS})
    assert [label(one) for one in beside.all_settings()] == ["depth=0", "heads=3"]
    names = [[label(s) for s in study.all_settings()] for study in (one, one, two)]
    assert names[0] == names[1]
    assert names[0] != names[2]
    assert len(names[0]) == 7
    assert [name for name in grid if name in names[0]] == names[0]


@pytest.mark.parametrize(
    "axes",
    [
        {"layers": [[0, 1], [4]]},
        {"heads": [[[0, 1], [2, 3]], [[1, 1]]]},
        {"leave_out": [0, 1]},
        {"graph": [{"similarity": "cosine"}, {"scope": "head", "bins": 10}]},
        {"graph.temperature": [0.5, 2.0], "graph.self_loops": [False]},
        {"direction": ["random", "probe"], "shuffle_labels": [False, True]},
        {"strength": ["constant"], "beta": [0.0, 1.0]},
        {"positions.first": [0, 1], "positions.every": [1, 2]},
        {"risk_share": [0.25, 0.75]},
        {"head_ranking": ["random"], "seed": [0, 1]},
        {"train_size": [2, 4]},
        {"uncertainty": ["amplified"], "spread_fold": ["all"], "estimator_grouping": ["published"],
         "answer_start": ["plus_three"]},
        {"preset": ["corrected", "reference"]},
    ],
    ids=lambda axes: "-".join(axes),
)  # fmt: skip
@pytest.mark.slow
def test_every_axis_of_the_method_runs(hearsay, asked, axes, as_shipped):
    base = {} if "heads" in axes else {"heads": 4}
    table = ablate(
        hearsay, asked.choose(range(8)), axes, base=base, progress=False,
        evaluation={"truthfulness": {"max_new_tokens": 4}},
    )  # fmt: skip
    count = 1
    for values in axes.values():
        count *= len(values)
    assert table["method"].nunique() == count + 1
    assert set(axes) <= set(table.columns)
    assert table["value"].notna().all()


@pytest.mark.slow
def test_a_piece_that_cannot_be_measured_stops_no_other(hearsay, asked, tmp_path, monkeypatch):
    """Measured together with others, one fails: they are measured by themselves."""
    import workbench.methods.controls as controls

    original = controls.random_directions

    def fails(edit, draws, seed):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(controls, "random_directions", fails)
    config = RunConfig(
        data={"truthfulness": asked}, evaluation=SETTINGS, against="no edit",
        methods={
            "no edit": {"kind": "none"},
            "random": {"kind": "random", "heads": 2},
            "TAE": {"kind": "tae", "heads": 2},
        },
    )  # fmt: skip
    with pytest.warns(UserWarning, match="2 pieces failed .*on purpose"):
        table = run(config, tmp_path, model=hearsay, progress=False)
    assert set(table["method"]) == {"no edit", "TAE"}
    monkeypatch.setattr(controls, "random_directions", original)
    whole = run(config, tmp_path, model=hearsay, progress=False)
    assert set(whole["method"]) == {"no edit", "TAE", "random"}


def test_an_edit_is_in_its_folder_whole_or_not_at_all(hearsay, tmp_path):
    """Two that write the same folder at once: one of them is kept, and it loads."""
    one, other = random_edit(hearsay), random_edit(hearsay, seed=1)
    with storage.whole_folder(tmp_path / "edit") as first:
        one.save(first)
        with storage.whole_folder(tmp_path / "edit") as second:
            other.save(second)
            assert not (tmp_path / "edit").exists()
    assert torch.equal(load_edit(tmp_path / "edit").direction, other.direction)
    with pytest.raises(RuntimeError, match="on purpose"), storage.whole_folder(tmp_path / "b"):
        raise RuntimeError("on purpose")
    assert [path.name for path in tmp_path.iterdir()] == ["edit"]


@pytest.mark.slow
def test_a_worker_ends_with_its_coordinator(tmp_path):
    """Killed without a word, it leaves no process behind."""

    def coordinate():
        with processes(1, 1) as pool:
            pool.submit(tells_its_number, str(tmp_path / "number")).result()

    coordinator = forked(coordinate)
    wait_for((tmp_path / "number").exists, "a worker", coordinator)
    worker = int((tmp_path / "number").read_text())
    assert Path(f"/proc/{worker}").exists()
    os.kill(coordinator, signal.SIGKILL)
    assert ended(coordinator) == -signal.SIGKILL
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker's end")


COORDINATING = """
import sys
from workbench.runs.execution import processes
from tests.processes import tells_its_number

if __name__ == "__main__":
    with processes(1, 1) as pool:
        pool.submit(tells_its_number, sys.argv[1]).result()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_of_the_server_ends_with_its_coordinator(tmp_path, how):
    """A fresh interpreter forks its workers from a server, which lives as long as they do."""
    script = tmp_path / "coordinating.py"
    script.write_text(COORDINATING)
    place = Path(__file__).resolve().parents[1]
    started = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "number")], cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
    )  # fmt: skip
    wait_for((tmp_path / "number").exists, "a worker")
    worker = int((tmp_path / "number").read_text())
    server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    assert server != started.pid
    started.send_signal(how)
    started.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker's end")
    wait_for(lambda: not Path(f"/proc/{server}").exists(), "the server's end")
