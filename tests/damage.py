"""Damaged files for tests: bytes cut, doubled, replaced and mixed with what breaks parsers."""

import json

from hypothesis import strategies as st

PIECES = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b"\r", b"\n", b"\r\n", b"\t", b",", b"{",
    b"]",
    b"[" * 20_000, b'{"a":' * 20_000, b"[[" * 3_000 + b"]]" * 3_000, b"9" * 5_000, b"-", b"1e999",
    b"NaN", b"-Infinity", b"\\ud800", b"\xed\xa0\x80", b"," * 500, b"null", b"true", b"0", b"-1",
    b"x" * 200_000, b'"' + b"x" * 200_000 + b'"', "\u202e\u2028\x85".encode(), b"../../etc/passwd",
    b"2000-13-45", b"\\", b"=", b"#", b"'''", b'"""', b"{}", b"[]", b'""',
)  # fmt: skip
"""What is put into files."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**30, -1, "", "\x00", "\ud800", float("nan"), "../x", "x" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip
"""Any values of JSON, and what Python writes as JSON beyond it."""


@st.composite
def damaged(draw, content):
    """Bytes to which one to three things were done."""
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(content)))
        last = min(len(content), first + draw(st.sampled_from([0, 1, 2, 7, 64, 1 << 20])))
        part = content[first:last]
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        content = draw(
            st.sampled_from([
                content[:first],
                content[:first] + content[last:],
                content[:first] + part + part + content[last:],
                content[:first] + piece + content[last:],
                content[:first] + piece + content[first:],
                piece + content,
            ])
        )  # fmt: skip
        if draw(st.integers(0, 19)) == 0:
            text = content.decode("utf-8", "replace")
            content = text.encode(draw(st.sampled_from(["utf-16", "utf-32", "latin-1"])), "replace")
    return content


@st.composite
def other_values(draw, document):
    """A JSON document in which a value, key or entry was replaced, left out or doubled."""
    places = list(_places(document))
    if not places:
        return draw(VALUES)
    path = draw(st.sampled_from(places))
    copy = json.loads(json.dumps(document))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    last, act = path[-1], draw(st.sampled_from(["replace", "leave out", "add"]))
    if act == "replace":
        holder[last] = draw(VALUES)
    elif act == "leave out":
        del holder[last]
    elif isinstance(holder, list):
        holder.append(draw(VALUES))
    else:
        holder[draw(st.text(max_size=6))] = draw(VALUES)
    return copy


def _places(value, path=()):
    """Paths to everything within a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from _places(inner, (*path, key))
