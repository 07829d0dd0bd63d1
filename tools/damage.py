"""Damaged bytes and documents, drawn by hypothesis: for tests of what damaged input does."""

import json
from typing import Any

from hypothesis import strategies as st


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut, changed, doubled, put in or left out."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place, count = int(draw(st.floats(0, 1)) * max(len(data) - 1, 0)), draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["cut", "set", "bit", "double", "insert", "drop", "start"]))
        if kind == "cut":
            del data[place:]
        elif kind == "set":
            data[place : place + count] = draw(st.binary(min_size=1, max_size=count))
        elif kind == "bit" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "double":
            data[place:place] = data[place : place + count]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=count))
        elif kind == "drop":
            del data[place : place + count]
        elif kind == "start" and data:
            place = draw(st.integers(0, min(400, len(data) - 1)))
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12)
    | st.sampled_from(["", ".", "..", "/", "../x", "a" * 300, "\0", "7" * 5000, "1e999", "t1", "[b]x[/b]"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
"""Values of JSON, hostile ones among them."""


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:  # noqa: ANN401
    """A document of JSON in which some values, at any depth, are others, are missing, or are new."""
    copy = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        node = copy
        for _ in range(draw(st.integers(0, 3))):
            inner = [
                part for part in (node.values() if isinstance(node, dict) else node) if isinstance(part, dict | list)
            ]
            if not inner:
                break
            node = draw(st.sampled_from(inner))
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        how = draw(st.sampled_from(["other", "missing", "new"]))
        if keys and how != "new":
            key = draw(st.sampled_from(keys))
            if how == "missing":
                del node[key]
            else:
                node[key] = draw(VALUES)
        elif isinstance(node, dict):
            node[draw(st.text(max_size=8))] = draw(VALUES)
        else:
            node.append(draw(VALUES))
    return copy
