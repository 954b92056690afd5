"""What a run is: all that its results depend on, as fingerprints, and what it was made with."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.evaluation.capabilities.splits import Split
from workbench.evaluation.judges.base import Named
from workbench.models.fingerprints import fingerprint_of_weights
from workbench.models.identity import Model, identify, tokenizer_of
from workbench.runs.run_config import RunConfig

DISTRIBUTION = "editing-workbench"
PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "pandas")
SHOWN = ("metrics", "primary", "against", "device", "refits_now")  # nothing is measured otherwise
WAYS = ("timeout", "attempts", "workers", "first_wait", "longest_wait", "progress", "batch_size",
        "device", "folder")  # fmt: skip


def identity_of(
    config: RunConfig,
    model: Model,
    judges: Sequence[Named],
    data: Mapping[str, Sequence[Split]],
    texts: Mapping[int, Sequence[str]],
    scorer: Model | None = None,
) -> dict[str, Any]:
    """All that the parts of a run depend on.

    Args:
        config: the run's description; how judges are run and what is shown is left out.
        model: the bridge.
        judges: who judges, and measures of answers against references.
        data: every capability's splits.
        texts: plain texts by fold.
        scorer: whose perplexity of continuations counts, if not the model's.
    """
    described = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in SHOWN}
    if config.refits == 1:  # as runs were that knew none
        del described["refits"]
    described["data"] = _spelled(config.data)
    described["judges"] = {
        name: {key: value for key, value in one.items() if key not in WAYS}
        for name, one in config.judges.items()
    }
    tokenizer = tokenizer_of(model).backend_tokenizer.to_str()
    found = {
        **described,
        "model_identity": asdict(identify(model)),
        "weights": fingerprint_of_weights(model),
        "tokenizer": digest(tokenizer),
        "own_code": own_code([config.methods, config.judges, config.evaluation, config.data]),
        "scorer_weights": scorer and fingerprint_of_weights(scorer),
        "judged_by": {judge.name: judge.identity for judge in judges},
        "fingerprints": {
            f"{capability}, fold {split.number}": {
                "train": digest([asdict(one) for one in split.train]),
                "test": digest([asdict(one) for one in split.test]),
                "questions": len(split.test),
                **_chosen_on(split),
            }
            for capability, own in data.items()
            for split in own
        },
        **_asked_beside(config.evaluation),
        "text_fingerprints": {str(fold): digest(list(own)) for fold, own in texts.items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=_plain))
    return plain


def _asked_beside(evaluation: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Fingerprints of unrelated questions by capability, where a file holds them."""
    files = {name: own.get("unrelated") for name, own in evaluation.items()}
    found = {
        name: digest(storage.read_json(file))
        for name, file in files.items()
        if isinstance(file, str)
    }
    return {"unrelated_fingerprints": found} if found else {}


def _chosen_on(split: Split) -> dict[str, str]:
    """A fingerprint of what α is chosen on, where it is no part of the training questions."""
    if split.inner is None or split.capability == "truthfulness":
        return {}
    inner = (split.inner.train, split.inner.test)
    return {"chosen on": digest([[asdict(one) for one in own] for own in inner])}


def _plain(value: Any) -> Any:
    """What JSON does not know of a run's description."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise WorkbenchError(
        f"{value!r:.60} in the description of a run",
        "numbers, texts, lists and tables",
        "What is your own is named there as module:name.",
    )


def _spelled(source: Any) -> Any:
    """Sources as plain values; data that were given as they are by what they say of themselves."""
    if isinstance(source, Mapping):
        return {key: _spelled(one) for key, one in source.items()}
    if isinstance(source, list):
        return list(map(_spelled, source))
    return source if isinstance(source, str | int | float) else repr(source)


def own_code(described: Any) -> dict[str, str]:
    """Fingerprints of a user's code, by the `module:name` that a description calls it."""
    if isinstance(described, Mapping):
        described = list(described.values())
    if isinstance(described, list | tuple):
        return {name: code for one in described for name, code in own_code(one).items()}
    module, sign, name = described.partition(":") if isinstance(described, str) else ("", "", "")
    found = getattr(sys.modules.get(module), name, None) if sign else None
    if found is None:
        return {}
    try:
        source = inspect.getsource(found if module == "__main__" else sys.modules[module])
    except (OSError, TypeError):  # typed at a prompt that keeps no source
        source = ""
    return {described: digest(source)}


def digest(value: Any) -> str:
    """A fingerprint of plain values."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def require_same_run(
    folder: Path, identity: Mapping[str, Any], plan: list[list[str]]
) -> list[list[str]]:
    """Write a run's identity and plan, or read the plan of its first start.

    Raises:
        WorkbenchError: the folder is another run's.
    """
    file = folder / "run.json"
    if not file.exists() and storage.create_json(file, {**identity, "plan": plan}):
        return plan
    before = storage.read_json(file)
    if not isinstance(before, dict):
        raise WorkbenchError(f"{file} holds no run's identity", "what a run wrote there")
    differing = [key for key in identity if before.get(key) != identity[key]]
    if differing:
        raise WorkbenchError(
            f"{folder} holds another run ({', '.join(differing)} differ)",
            "the folder of the same run, or a new one",
            "A study may share the folder under a name of its own (`Study(name=...)`, or --name), "
            "and then uses what is finished.",
        )
    found = before.get("plan")
    if not isinstance(found, list) or not all(isinstance(group, list) for group in found):
        raise WorkbenchError(f"{file} without a plan", "lists of pieces, as a run wrote them")
    if not all(isinstance(key, str) for group in found for key in group):
        raise WorkbenchError(f"{file} with a plan of other things than pieces", "what a run wrote")
    return found


def environment() -> dict[str, str]:
    """Versions, and the commit of the workbench's own code where it runs from a repository."""
    found = {"python": platform.python_version(), "workbench": version(DISTRIBUTION)}
    found |= {name: version(name) for name in PACKAGES}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return found
    return {**found, "commit": done.stdout.strip()}
