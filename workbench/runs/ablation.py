"""Ablation: a grid of settings of one method, every setting in every fold, in one tidy table.

A study is a run whose methods are the settings of its grid: stages that several settings share are
computed once, each setting is kept as it is finished, and it runs on any executor.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench import storage
from workbench.checks import require_whole
from workbench.data.sources import Source
from workbench.doors import door, door_of_class
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.rows import NO_EDIT
from workbench.methods.base import Method
from workbench.methods.making import make_method, named, require_settings
from workbench.methods.registry import METHODS
from workbench.models.identity import Model
from workbench.runs.description import read_description
from workbench.runs.resumable import run
from workbench.runs.run_config import RunConfig
from workbench.runs.setting_names import Setting, label, plain_value, spelled

LIMIT = 256
ENGINE = ("train_size", "preset")
"""Axes that are no settings of a method."""


@door_of_class
@dataclass(frozen=True)
class Study:
    """A declared grid; the keys of a study's TOML file.

    Attributes:
        axes: names of settings, each with its values; the grid is their product. Besides the
            settings of the kind (parts of one as `graph.bins`) there are `train_size`, how many
            training questions are taken, and tae's `preset`.
        settings: further settings, one by one, beside the grid.
        base: what all settings have in common.
        kind: of the method, as in a run.
        sample: take so many settings of the grid at random, drawn by the seed; all by default.
        limit: refuse more settings than this.
        controls: add the unedited model, under the name `no edit`.
        name: of the study's own folder within `--out`, for several studies in one.
        run: the other keys of a run: model, capabilities, data, folds, seed, texts, evaluation, ….

    Example:
        >>> study = wb.runs.Study(axes={"depth": [0, 1], "heads": [2, 4]}, base={"beta": 1.0})
        >>> study.kind, study.controls
        ('tae', True)
    """

    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Sequence[Setting] = ()
    base: Setting = field(default_factory=dict)
    kind: str = "tae"
    sample: int | None = None
    limit: int = LIMIT
    controls: bool = True
    name: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise WorkbenchError(f"name={self.name!r:.60}", "a text")
        storage.require_plain_name(self.name, "a study")
        for key in ("axes", "base", "run"):
            if not isinstance(getattr(self, key), Mapping):
                raise WorkbenchError(f"{key}={getattr(self, key)!r:.60}", "a table")
        for setting in (self.axes, self.base, *self.settings):
            require_settings(self.kind, setting, ENGINE, called="axis")
        for axis, values in self.axes.items():
            if not isinstance(values, list | tuple) or not values:
                raise WorkbenchError(f"the axis {axis}={values!r:.60}", "a list of values")
        if self.sample is not None:
            require_whole("sample", self.sample, 1)
        self._require_count()
        for setting in self.all_settings():
            own = {**self.base, **setting}
            method = {key: value for key, value in own.items() if key not in ENGINE}
            make_method(self.kind, method, own.get("preset"))
        known = [f.name for f in fields(RunConfig)]
        unknown = [key for key in self.run if key not in known]
        if unknown:
            raise WorkbenchError.unknown(f"the key {unknown[0]!r} of a run", unknown[0], known)
        self.config()

    def _require_count(self) -> None:
        """Refuse no settings, too many, and the same twice."""
        grid = math.prod(map(len, self.axes.values())) if self.axes else 0
        count = len(self.settings) + (grid if self.sample is None else min(self.sample, grid))
        if not count:
            raise WorkbenchError("a study without settings", "axes with values, or settings")
        if count > self.limit:
            raise WorkbenchError(
                f"{count} settings",
                f"at most {self.limit}",
                "Take a sample=, or say limit= if you mean it.",
            )
        names = [label(setting) for setting in self.all_settings()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise WorkbenchError(f"the setting {twice[0]!r} twice", "different settings")

    def all_settings(self) -> list[dict[str, Any]]:
        """Every setting, those of the grid in its order."""
        sizes = [len(values) for values in self.axes.values()]
        count = math.prod(sizes) if sizes else 0
        numbers = list(range(count)) if self.sample is None else _drawn(
            count, self.sample, int(self.run.get("seed", 0))
        )  # fmt: skip
        grid = []
        for number in numbers:
            places = np.unravel_index(number, sizes)
            grid.append(
                {
                    axis: values[int(place)]
                    for (axis, values), place in zip(self.axes.items(), places, strict=True)
                }
            )
        return [*grid, *(dict(setting) for setting in self.settings)]

    def config(self) -> RunConfig:
        """The study as a run."""
        methods: dict[str, dict[str, Any]] = {NO_EDIT: {"kind": "none"}} if self.controls else {}
        for setting in self.all_settings():
            methods[label(setting)] = {"kind": self.kind, **self.base, **setting}
        return RunConfig(**{**self.run, "methods": methods})


def _drawn(count: int, sample: int, seed: int) -> list[int]:
    """So many different numbers below a count, ascending."""
    if sample >= count:
        return list(range(count))
    return sorted(random.Random(f"sample {seed}").sample(range(count), sample))


@door
def read_study(path: storage.PathLike, **changes: Any) -> Study:
    r"""A study from a TOML file, some keys replaced.

    Args:
        path: the file; keys of a run stand beside the study's own.
        changes: instead of the file's; None leaves a key as it is.

    Raises:
        WorkbenchError: no such file, or a key or value that does not fit.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("study.toml").write_text("[axes]\ndepth = [0, 1]\n")
        >>> wb.runs.read_study("study.toml").axes
        {'depth': [0, 1]}
    """
    name = str(path)
    found = read_description(name, "the study")
    found |= {key: value for key, value in changes.items() if value is not None}
    own = [f.name for f in fields(Study) if f.name != "run"]
    of_run = [f.name for f in fields(RunConfig) if f.name not in ("methods", "multiples")]
    if "methods" in found:
        raise WorkbenchError(
            f"{name} that describes methods",
            "a study, which has axes",
            "A run of several methods is for `workbench evaluate` and `compare`.",
        )
    unknown = [key for key in found if key not in (*own, *of_run)]
    if unknown:
        raise WorkbenchError.unknown(
            f"{name} has the key {unknown[0]!r}", unknown[0], (*own, *of_run)
        )
    try:
        return Study(
            **{key: found[key] for key in own if key in found},
            run={key: found[key] for key in of_run if key in found},
        )
    except WorkbenchError as error:
        raise WorkbenchError(f"{name}: {error.came}", error.expected, error.mend) from error


@door
def run_study(study: Study, folder: storage.PathLike, **how: Any) -> pd.DataFrame:
    r"""Carry a study out, or what is missing of it.

    Args:
        study: what to run.
        folder: see `runs.run`; receives `study.parquet`, what is returned, as well. Studies with
            different names may share it, at the same time too, and settings that one has finished
            are not run again by another.
        how: model, executor, workers, threads and progress, see `runs.run`.

    Returns:
        `evaluate`'s table with a column for every axis, of which other settings' are empty. Values
        stand as they were typed, lists and tables as the text that the setting's name has;
        `select` takes rows by either. In the file, numbers stand as texts too in an axis that has
        both, such as a `depth` of 0 and `last`.

    Example:
        >>> import json
        >>> from dataclasses import asdict
        >>> from pathlib import Path
        >>> few = [json.dumps(asdict(question)) for question in questions.choose(range(4))]
        >>> _ = Path("few.jsonl").write_text("\n".join(few))
        >>> study = wb.runs.Study(
        ...     {"heads": [2]}, kind="iti", run={"data": {"truthfulness": "few.jsonl"}}
        ... )
        >>> table = wb.runs.run_study(study, "study", model=model, progress=False)
        >>> Path("study/study.parquet").exists()
        True
    """
    table = run(study.config(), folder, name=study.name, **how)
    own = {label(setting): {**study.base, **setting} for setting in study.all_settings()}
    axes = dict.fromkeys(key for setting in study.all_settings() for key in setting)
    kept = table.copy()
    for place, axis in enumerate(axes):
        given = {name: plain_value(setting.get(axis)) for name, setting in own.items()}
        column = [given.get(str(method)) for method in table["method"]]
        mixed = len({isinstance(value, str) for value in given.values() if value is not None}) > 1
        table.insert(place, axis, pd.Series(column, dtype=object) if mixed else column)
        texts = [None if value is None else spelled(value) for value in column]
        kept.insert(place, axis, texts if mixed else column)
    storage.write_table(Path(folder) / study.name / "study.parquet", kept)
    return table


@door
def ablate(
    model: Model | str,
    data: Source | Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    *,
    kind: str | type[Method] = "tae",
    base: Setting | None = None,
    settings: Sequence[Setting] = (),
    sample: int | None = None,
    limit: int = LIMIT,
    out: storage.PathLike | None = None,
    executor: Any = None,
    workers: int = 1,
    progress: bool = True,
    **of_run: Any,
) -> pd.DataFrame:
    """Run a method under every setting of a grid, in every fold.

    Args:
        model: the bridge, or its name or folder, which processes need.
        data: questions or a source of them, see `load_questions`, or a table of sources by
            capability.
        axes: names of settings, each with its values; see `Study`.
        kind: of the method, such as `tae` or `caa`, or a class of one's own.
        base: what all settings have in common.
        settings: further settings beside the grid.
        sample: take so many settings of the grid at random.
        limit: refuse more settings than this.
        out: where to keep what is finished, and to go on from; nothing is kept by default.
        executor: anything with `submit`; see `runs.run`.
        workers: otherwise how many processes.
        progress: show a bar over the whole study.
        of_run: other keys of a run, such as `folds`, `seed`, `texts` and `evaluation`.

    Returns:
        `evaluate`'s table with a column for every axis.

    Raises:
        WorkbenchError: an unknown axis (the nearest are named), a value out of range, an empty
            grid or one over the limit; nothing is run then.

    Example:
        >>> study = wb.ablate(
        ...     model, questions.sample(4), {"heads": [1, 2]}, kind="iti", progress=False
        ... )
        >>> list(dict.fromkeys(study["method"]))
        ['no edit', 'heads=1', 'heads=2']
        >>> wb.ablate(model, questions, {"dept": [0, 1]})
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the axis 'dept' of tae. Expected one of alpha, ..., preset.
        Did you mean depth?
    """
    sources = dict(data) if isinstance(data, Mapping) else {"truthfulness": data}
    keys: dict[str, Any] = {"capabilities": list(sources), "data": sources, **of_run}
    if isinstance(model, str):
        keys["model"] = model
    study = Study(
        axes=named(axes), settings=[named(one) for one in settings], base=named(base or {}),
        kind=METHODS.name_of(kind), sample=sample, limit=limit, run=keys,
    )  # fmt: skip
    how = {
        "model": None if isinstance(model, str) else model,
        "executor": executor, "workers": workers, "progress": progress,
    }  # fmt: skip
    if out is not None:
        return run_study(study, out, **how)
    with storage.scratch() as folder:
        return run_study(study, Path(folder), **how)
