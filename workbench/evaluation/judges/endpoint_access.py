"""Access to an endpoint: its address and key, from arguments or the environment, never shown."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass

import httpx

from workbench.errors import WorkbenchError

URL_VARIABLES = ("WORKBENCH_JUDGE_URL", "OPENAI_BASE_URL")
KEY_VARIABLES = ("WORKBENCH_JUDGE_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True)
class Secret:
    """A text that is not shown."""

    value: str

    def __repr__(self) -> str:
        return "(key)"


class Bearer(httpx.Auth):
    """Puts the key on a request when it is sent, and holds it nowhere in the open."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """The request with its header."""
        request.headers["Authorization"] = f"Bearer {self._key.value}"
        yield request


def stripped(text: str | None) -> str:
    """A text without the spaces around it; "" for none."""
    return (text or "").strip()


def variable(option: str, names: tuple[str, ...]) -> str:
    """The first of these environment variables that is set."""
    for name in names:
        if found := stripped(os.environ.get(name)):
            return found
    raise WorkbenchError(
        f"no {option} and none of {', '.join(names)} in the environment",
        f"{option} or one of these variables",
        "An endpoint that wants no key takes any text for one." if option == "key=" else "",
    )


def address_of(text: str) -> str:
    """An endpoint's address without the slash at its end, refused where it holds credentials."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if "@" in text or url.query or url.fragment:
        raise WorkbenchError(
            "a base_url with credentials, a query or a fragment", "an address alone, and key="
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise WorkbenchError(f"base_url={text!r:.80}", "an address such as https://host/v1")
    return str(url).rstrip("/")


def bearer_of(key: str) -> str:
    """A key that a header can hold."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise WorkbenchError("a key with characters that no header takes", "printable ASCII")
    return key
