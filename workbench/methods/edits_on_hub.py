"""Saved edits on the Hugging Face hub: two files of a repository, tensors and text, never code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.hub import asking_the_hub

FILES = ("edit.json", "edit.safetensors")


def fetch_edit(repository: str, revision: str | None = None) -> tuple[Path, str]:
    """Download the two files of an edit into the hub's cache.

    Args:
        repository: `owner/name`.
        revision: a commit, branch or tag; the main branch as it is now by default.

    Returns:
        The folder of the files, and the commit that they are of.

    Raises:
        WorkbenchError: no such repository, revision or edit in it, or the hub cannot be reached and
            the cache does not have them.
    """
    from huggingface_hub import hf_hub_download

    try:
        with asking_the_hub():
            found = [Path(hf_hub_download(repository, name, revision=revision)) for name in FILES]
    except Exception as error:
        raise not_on_the_hub(f"the edit {repository!r}", revision, error) from None
    if found[0].parent != found[1].parent:
        raise WorkbenchError(
            f"{repository!r}, whose files are of two commits", "one commit, as revision=",
            "Somebody pushed meanwhile: load it again.",
        )  # fmt: skip
    return found[0].parent, found[0].parent.name


def not_on_the_hub(what: str, revision: str | None, error: Exception) -> WorkbenchError:
    """What to tell of something that could not be had from the hub."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    at = "" if revision is None else f" at {revision!r}"
    return WorkbenchError(
        f"{what}{at} could not be had from the hub ({type(error).__name__}: {reason:.160})",
        "a repository that is there, and a hub that can be reached or a cache that has it",
        "There is no folder of that name here. Private repositories need a token: `hf auth login`.",
    )


def pushed(repository: str, folder: Path, *, private: bool, message: str) -> Any:
    """Upload a folder as one commit; the repository is made if there is none.

    Args:
        repository: `owner/name`.
        folder: what to upload.
        private: of a repository that is made.
        message: of the commit.

    Returns:
        What the hub says of the commit, its `oid` and `commit_url` among it.

    Raises:
        WorkbenchError: no right to, or a hub that cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        with asking_the_hub():
            api.create_repo(repository, private=private, exist_ok=True)
            return api.upload_folder(
                repo_id=repository, folder_path=str(folder), commit_message=message
            )
    except Exception as error:
        raise not_on_the_hub(f"the repository {repository!r}", None, error) from None
