"""Descriptions of runs: read from a file or a manifest, and changed from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from workbench import storage
from workbench.doors import door
from workbench.errors import WorkbenchError
from workbench.runs.method_plan import RENAMED, kinds
from workbench.runs.run_config import RunConfig

AS_TOML = (
    'In TOML `folds: 3` is `folds = 3`, `model: hearsay` is `model = "hearsay"`, and what is '
    "indented under `methods:` and `TAE:` stands below a line `[methods.TAE]`."
)
"""What to do with a description in YAML."""


@door
def read_config(path: storage.PathLike | None = None, **changes: Any) -> RunConfig:
    r"""A run's description from a TOML file, or from a run's manifest, some keys replaced.

    Args:
        path: the file; without one, the defaults.
        changes: instead of the file's; None leaves a key as it is.

    Raises:
        WorkbenchError: no such file, a key that is not known, or a value that does not fit.

    Example:
        >>> wb.runs.read_config(seed=3).seed
        3
        >>> from pathlib import Path
        >>> _ = Path("run.toml").write_text("seed = 4\n")
        >>> wb.runs.read_config("run.toml").seed
        4
    """
    name, found = "the run", {}
    if path is not None:
        name = str(path)
        found = _described(name)
    found |= {key: value for key, value in changes.items() if value is not None}
    if "axes" in found:
        raise WorkbenchError(
            f"{name} that has axes",
            "a run, which has methods",
            "A study is for `workbench ablate`.",
        )
    known = [f.name for f in fields(RunConfig)]
    unknown = [key for key in found if key not in known]
    if unknown:
        came = f"{name} has the key {unknown[0]!r}"
        if unknown[0] in RENAMED:
            raise WorkbenchError(came, f"{RENAMED[unknown[0]]!r}, as it is called now")
        raise WorkbenchError.unknown(came, unknown[0], known)
    try:
        return RunConfig(**found)
    except WorkbenchError as error:
        raise WorkbenchError(f"{name}: {error.came}", error.expected, error.mend) from error


def _described(name: str) -> dict[str, Any]:
    """What a file says of a run."""
    if not name.endswith(".json"):
        return read_description(name, "the run description", "a .toml file, or a manifest.json")
    manifest = storage.read_json(name)
    if not isinstance(manifest, dict) or not {"run", "made with"} <= set(manifest):
        raise WorkbenchError(f"{name} that is no run's manifest", "the manifest.json of a run")
    known = [f.name for f in fields(RunConfig) if f.name != "device"]  # of another machine
    whole = {**manifest["run"], **manifest.get("shown", {})}
    return {key: value for key, value in whole.items() if key in known}


def read_description(name: str, what: str, expected: str = "a .toml file") -> dict[str, Any]:
    """What a description in TOML says.

    Args:
        name: the file's path.
        what: what it describes, for errors.
        expected: the files that are taken.

    Raises:
        WorkbenchError: no such file, or no TOML; of YAML it is told how TOML says the same.
    """
    if name.endswith(".toml"):
        return storage.read_toml(name)
    yaml = name.endswith((".yaml", ".yml"))
    raise WorkbenchError(f"{what} {name}", expected, AS_TOML if yaml else "")


def with_data(config: RunConfig, sources: Sequence[str]) -> RunConfig:
    """The same run on other data.

    Args:
        config: a run.
        sources: texts such as `fairness=stereoset.json`.

    Raises:
        WorkbenchError: a text of another form, or no such capability.
    """
    pairs = [source.partition("=") for source in sources]
    for capability, sign, place in pairs:
        if not sign or not place:
            raise WorkbenchError(f"the data {capability!r}", "capability=path")
    return replace(config, data={**config.data, **{name: place for name, _, place in pairs}})


def with_methods(
    config: RunConfig, methods: Sequence[str] | None, presets: Sequence[str] | None
) -> RunConfig:
    """The same run with some of its methods, or kinds of methods, and with presets of TAE.

    Args:
        config: a run.
        methods: names of its methods, or kinds; all of its methods by default, unless there are
            presets.
        presets: each becomes a method, such as `TAE, reference`.

    Raises:
        WorkbenchError: no such method, kind or preset.
    """
    if methods is None and presets is None:
        return config
    chosen: dict[str, Mapping[str, Any]] = {}
    for name in methods or ():
        if name not in config.methods and name not in kinds() and ":" not in name:
            raise WorkbenchError.unknown(f"the method {name!r}", name, (*config.methods, *kinds()))
        chosen[name] = config.methods.get(name, {"kind": name})
    chosen |= {f"TAE, {preset}": {"kind": "tae", "preset": preset} for preset in presets or ()}
    against = config.against if config.against in chosen else None
    return replace(config, methods=chosen, against=against)
